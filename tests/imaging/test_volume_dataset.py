"""Volumes as a labelled data set: every value at its place in the world, what it is and where it came from."""

import resource

import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume, centred_affine
from radiata_imaging.volume_dataset import volume_dataset, write_netcdf


@pytest.fixture
def volume(rng) -> Volume:
    return Volume(
        rng.normal(size=(5, 6, 7)).astype(np.float32), centred_affine((5, 6, 7), (1.0, 2.0, 3.0), "LPS")
    )


def test_every_voxel_is_at_its_place_in_the_file(tmp_path, volume):
    """The value at a world coordinate is that of the voxel there, whatever axes the volume had."""
    dataset = volume_dataset(
        {"restored": volume, "sd": reorient(volume, "PIR")}, units="a.u.", title="x", sha256="ab"
    )
    write_netcdf(dataset, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        for index in ((0, 0, 0), (4, 5, 6), (1, 2, 3)):
            x, y, z = (volume.affine @ [*index, 1])[:3]
            for name in ("restored", "sd"):
                at = found[name].sel(x=x, y=y, z=z, method="nearest", tolerance=1e-6)
                assert float(at) == volume.array[index]
        assert found["restored"].attrs["units"] == "a.u." and found["x"].attrs["units"] == "mm"
        assert (found.attrs["sha256"], found.attrs["title"], found.attrs["axes"]) == ("ab", "x", "RAS")
        assert found.attrs["comment"] == "not for clinical use"
        affine = np.reshape(found.attrs["affine"], (4, 4))
    np.testing.assert_allclose(affine, reorient(volume, "RAS").affine)


def test_draws_are_one_variable_in_their_order(volume):
    draws = [Volume(volume.array + number, volume.affine) for number in range(3)]
    dataset = volume_dataset({}, draws)
    assert dataset["draws"].dims == ("draw", "x", "y", "z") and dataset["draw"].values.tolist() == [1, 2, 3]
    np.testing.assert_allclose(dataset["draws"].std("draw").values, np.std([0, 1, 2]), rtol=1e-5)


def test_a_turned_grid_has_distances_along_its_axes(volume):
    c, s = np.cos(0.2), np.sin(0.2)
    turn = np.eye(4)
    turn[:2, :2] = [[c, -s], [s, c]]
    dataset = volume_dataset({"restored": Volume(volume.array, turn @ volume.affine)})
    assert dataset["x"].attrs["long_name"].startswith("along grid axis 0")
    np.testing.assert_allclose(dataset["y"].values, 2.0 * np.arange(6))


def test_other_grids_nothing_and_other_names_are_refused(tmp_path, volume):
    other = Volume(volume.array, centred_affine((5, 6, 7), 1.0, "LPS"))
    with pytest.raises(InputError, match="expected volumes on one grid; got b on another than a"):
        volume_dataset({"a": volume, "b": other})
    with pytest.raises(InputError, match="expected one volume or more; got none"):
        volume_dataset({})
    with pytest.raises(InputError, match=r"expected a name ending in \.nc"):
        write_netcdf(volume_dataset({"a": volume}), tmp_path / "a.h5")


@pytest.mark.parametrize("limit", [500, 12_000, 30_000])
def test_a_disk_that_is_full_is_an_error_and_no_crash(tmp_path, limit):
    """libhdf5, told of it, ends the process."""
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    dataset = volume_dataset({"restored": Volume(noise, centred_affine((20, 20, 20), 1.0, "RAS"))})
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_netcdf(dataset, tmp_path / "a.nc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert not list(tmp_path.iterdir())
