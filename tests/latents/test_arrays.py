"""Arrays of others: numpy's, HDF5's and netCDF's, with whatever of the truth they bring."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.arrays import load_arrays
from radiata_latents.data.population import population, save_population


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, Any]:
    rates = rng.uniform(0.5, 2.0, (8, 10, 5))
    return {
        "counts": rng.poisson(rates),
        "rates": rates,
        "behaviour": rng.standard_normal((8, 10, 2)),
        "condition": np.repeat(["left", "right"], 4),
        "split": np.array(["train", "validation"] * 4),
        "heldout": np.arange(5) == 1,
        "bin_s": 0.01,
        "start_s": -0.2,
    }


def check(found: xr.Dataset, arrays: dict[str, Any]) -> None:
    np.testing.assert_array_equal(found["counts"].values, arrays["counts"])
    np.testing.assert_allclose(found["rates"].values, arrays["rates"], rtol=1e-6)
    np.testing.assert_allclose(found["behaviour"].values, arrays["behaviour"], rtol=1e-6)
    assert found["condition"].values.tolist() == [0] * 4 + [1] * 4
    assert found["split"].values.tolist() == ["train", "validation"] * 4
    np.testing.assert_array_equal(found["heldout"].values, arrays["heldout"])
    np.testing.assert_allclose(found["time"].values[:2], [-0.195, -0.185])
    assert found.attrs["bin_s"] == pytest.approx(0.01)


def test_numpy_and_hdf5_hold_the_same(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    check(load_arrays(tmp_path / "a.npz"), arrays)
    other = {"spikes": arrays["counts"], "behavior": arrays["behaviour"]} | arrays
    del other["counts"], other["behaviour"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in other.items():
            file[name] = np.asarray(value, dtype="S") if np.asarray(value).dtype.kind == "U" else value
    check(load_arrays(tmp_path / "a.h5"), arrays)
    np.save(tmp_path / "a.npy", arrays["counts"])
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.npy", 0.01)["counts"].values, arrays["counts"])


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_axes_of_netcdf_go_by_name(engine: str, arrays: dict[str, Any], tmp_path: Path) -> None:
    """Transposed by whoever wrote it; the clock says how wide a bin is. Both formats of netCDF."""
    axes = ("trial", "time", "neuron")
    dataset = xr.Dataset(
        {
            "spikes": (axes[::-1], arrays["counts"].T.astype(np.int32)),
            "rates": (axes[::-1], arrays["rates"].T),
            "behavior": (("channel", "trial", "time"), arrays["behaviour"].transpose(2, 0, 1)),
            "heldout": ("neuron", arrays["heldout"].astype(np.int8)),
            "condition": ("trial", np.repeat([0, 1], 4).astype(np.int32)),
        },
        {
            "time": ("time", -0.195 + 0.01 * np.arange(10), {"units": "seconds"}),
            "neuron": list("abcde"),
            "split": ("trial", arrays["split"]),
        },
    )
    dataset.to_netcdf(tmp_path / "a.nc", engine=engine)
    found = load_arrays(tmp_path / "a.nc")
    check(found, arrays)
    assert found["neuron"].values.tolist() == list("abcde")
    uneven = dataset.assign_coords(time=np.arange(10.0) ** 2)
    uneven.to_netcdf(tmp_path / "b.nc", engine=engine)
    with pytest.raises(InputError, match="unevenly or backwards"):
        load_arrays(tmp_path / "b.nc")
    dataset.rename(time="bin").to_netcdf(tmp_path / "c.nc", engine=engine)
    with pytest.raises(InputError, match="Rename its dimensions"):
        load_arrays(tmp_path / "c.nc")


def test_a_population_stays_what_it_is(tmp_path: Path, arrays: dict[str, Any]) -> None:
    first = population(arrays["counts"], 0.01, forward_bins=3, lag_s=0.1)
    save_population(first, tmp_path / "a.h5")
    assert load_arrays(tmp_path / "a.h5").identical(first)


def test_unobserved_bins_are_masked_and_counted(arrays: dict[str, Any], tmp_path: Path) -> None:
    counts = arrays["counts"].astype(float)
    counts[2, 4:7] = np.nan
    np.savez(tmp_path / "a.npz", counts=counts, bin_s=0.01)
    found = load_arrays(tmp_path / "a.npz")
    assert found.attrs["masked_bins"] == 3
    assert np.argwhere(~found["observed"].values).tolist() == [[2, 4], [2, 5], [2, 6]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"counts": None}, "expected an array `counts`"),
        ({"bin_s": None}, "no `bin_s`"),
        ({"counts": np.zeros((3, 4)), "rates": None}, "Add the axis"),
        ({"rates": np.ones((8, 10, 4))}, "shape of counts"),
        ({"rates": np.full((8, 10, 5), 100.0)}, "Multiply rates in Hz"),
        ({"behaviour": np.zeros((8, 9, 2))}, "behaviour as long as the spikes"),
        ({"split": np.array(["train", "dev"] * 4)}, "expected splits"),
        ({"heldout": np.ones(5, bool)}, "fewer neurons held out"),
        ({"split": np.array(["train"])}, "8 trials"),
    ],
)
def test_bad_input(change: dict[str, Any], words: str, arrays: dict[str, Any], tmp_path: Path) -> None:
    kept = {name: value for name, value in (arrays | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **kept)
    with pytest.raises(InputError, match=words):
        load_arrays(tmp_path / "a.npz")


def test_files_that_are_none(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "objects.npz", counts=np.array([{}, 3], dtype=object))
    (tmp_path / "text.nc").write_text("CDF spikes")
    (tmp_path / "text.h5").write_text("spikes")
    for name in ("half.npz", "objects.npz", "text.nc", "text.h5"):
        with pytest.raises(InputError, match="cannot be read"):
            load_arrays(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        load_arrays(tmp_path / "none.npz")
    with pytest.raises(InputError, match="expected one width of a bin"):
        load_arrays(tmp_path / "a.npz", 0.02)
