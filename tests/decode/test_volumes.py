"""Masked series are what nibabel reads whole, from compressed files and from MATLAB's HDF5, in one order of voxels."""

import gzip
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.volumes import (
    hdf5_series,
    masked_series,
    read_mask,
    series_length,
    volume_values,
    voxel_positions,
)

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.5, 0.1, -20], [0, -0.1, 3, 5], [0, 0, 0, 1]])


@pytest.fixture
def volume(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-3000, 3000, (5, 6, 4, 9)).astype(np.int16)


@pytest.fixture
def inside(rng: np.random.Generator) -> np.ndarray:
    return rng.random((5, 6, 4)) < 0.4


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("slope", [(1, 0), (0.5, -3)])
def test_series_is_nibabels(
    tmp_path: Path, volume: np.ndarray, inside: np.ndarray, suffix: str, slope: tuple[float, float]
) -> None:
    image = nibabel.Nifti1Image(volume, AFFINE)
    image.header.set_slope_inter(*slope)
    image.header["pixdim"][4] = 1600
    image.header.set_xyzt_units("mm", "msec")
    nibabel.save(image, tmp_path / f"x{suffix}")
    whole = np.asarray(nibabel.load(tmp_path / f"x{suffix}").dataobj)
    np.testing.assert_allclose(masked_series(tmp_path / f"x{suffix}", inside), whole[inside].T, rtol=1e-6)
    assert series_length(tmp_path / f"x{suffix}") == ((5, 6, 4), 9, pytest.approx(1.6))


def test_matlabs_axes_are_reversed(tmp_path: Path, volume: np.ndarray, inside: np.ndarray) -> None:
    """(trial, z, y, x) there, and only masked voxels are touched: others may be anything."""
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("betas", data=volume.transpose(3, 2, 1, 0), chunks=(9, 1, 1, 1))
    np.testing.assert_array_equal(hdf5_series(tmp_path / "x.hdf5", "betas", inside), volume[inside].T)


def test_positions_are_the_affines(inside: np.ndarray) -> None:
    table = voxel_positions(inside, AFFINE)
    expected = nibabel.affines.apply_affine(AFFINE, table[["i", "j", "k"]].to_numpy())
    np.testing.assert_allclose(table[["x", "y", "z"]], expected, atol=1e-4)
    marked = np.zeros(inside.shape)
    marked[tuple(table[["i", "j", "k"]].to_numpy().T)] = 1
    np.testing.assert_array_equal(marked > 0, inside)


def test_a_mask_of_minus_one_is_outside(tmp_path: Path) -> None:
    labels = np.zeros((3, 3, 3), np.int16)
    labels[0], labels[1, 1, 1] = -1, 4
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), tmp_path / "mask.nii.gz")
    found, affine = read_mask(tmp_path / "mask.nii.gz")
    assert found.sum() == 1 and found[1, 1, 1]
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)


def test_what_cannot_be_read_is_said(tmp_path: Path, volume: np.ndarray, inside: np.ndarray) -> None:
    file = tmp_path / "x.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume, AFFINE), file)
    with pytest.raises(InputError, match=r"on the grid of the mask, 5×6×3; got 5×6×4"):
        masked_series(file, inside[:, :, :3])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut short or damaged"):
        masked_series(file, inside)
    plain = gzip.decompress(whole)
    (tmp_path / "short.nii").write_bytes(plain[:-100])
    with pytest.raises(InputError, match=r"cannot hold"):
        masked_series(tmp_path / "short.nii", inside)
    file.write_bytes(b"")
    for read in (read_mask, lambda path: volume_values(path, "a mask")):
        with pytest.raises(InputError, match=r"cannot be read"):
            read(file)
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.int16), AFFINE), tmp_path / "none.nii.gz")
    with pytest.raises(InputError, match=r"voxels above 0; got none"):
        read_mask(tmp_path / "none.nii.gz")
    with h5py.File(tmp_path / "x.hdf5", "w") as stored:
        stored["other"] = volume
    with pytest.raises(InputError, match=r"betas"):
        hdf5_series(tmp_path / "x.hdf5", "betas", inside, "betas")
