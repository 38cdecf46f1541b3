r"""Time series of the voxels of a mask, read from a NIfTI file one volume at a time.

A session of NSD is 750 volumes of 700 000 voxels, of which some 15 000 are wanted: in float64 the whole is 4 GB, what is
wanted is 45 MB in float32. A compressed file can only be read from its beginning, so it is read once, forwards, and each
volume is masked before the next one is read. Voxels come in the order of `numpy.nonzero` of the mask (the last axis
fastest); the same order holds in every reader, and in the table of their positions.

An HDF5 file that MATLAB wrote has its axes reversed: (x, y, z, trial) there is (trial, z, y, x) here. Its chunks run along
trials, so only runs of masked neighbours along x are read.

References:
    NIfTI-1, https://nifti.nimh.nih.gov/nifti-1: scl_slope and scl_inter; positions are RAS+ mm of the voxel's centre.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_decode.data.reading import existing_file
from radiata_imaging.declared_images import check_image
from radiata_imaging.hdf5 import open_hdf5

__all__ = [
    "check_affine",
    "check_grid",
    "hdf5_length",
    "hdf5_series",
    "masked_series",
    "open_volume",
    "read_mask",
    "series_length",
    "volume_values",
    "voxel_positions",
]


def open_volume(path: Path, what: str) -> Any:
    """A NIfTI image whose header was read.

    Raises:
        InputError: no such file, or not a NIfTI image.
    """
    import nibabel

    existing_file(path, what)
    with foreign(f"expected {what}, a NIfTI image; got {path}, which cannot be read"):
        check_image(path)
        image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(f"expected {what}, a NIfTI image; got {path}, another format. Convert it to NIfTI.")
    return image


def volume_values(path: Path, what: str) -> np.ndarray:
    """A single volume, (x, y, z), scaled, float32.

    Raises:
        InputError: more than one volume, or a broken file.
    """
    image = open_volume(path, what)
    shape = image.shape[:3] if len(image.shape) > 3 and set(image.shape[3:]) == {1} else image.shape
    if len(shape) != 3:
        raise InputError(f"expected {what} as one volume (x, y, z); got {image.shape} in {path}.")
    try:
        return np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except Exception as error:  # nibabel raises what the bytes happen to mean
        raise _cut_short(path, what, error) from None


def read_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels above 0 (NSD marks what lies outside the cortex by -1), (x, y, z) bool; and the affine, voxel to RAS mm.

    Raises:
        InputError: a broken file, or a mask without voxels.
    """
    inside = volume_values(path, "a mask") > 0
    if not inside.any():
        raise InputError(f"expected a mask with voxels above 0; got none in {path}. Choose another mask.")
    return inside, np.asarray(open_volume(path, "a mask").affine)


def check_grid(path: Path, found: tuple[int, ...], wanted: tuple[int, ...], what: str) -> None:
    """Nothing, if both grids have the same shape.

    Raises:
        InputError: they differ.
    """
    if tuple(found[:3]) != tuple(wanted[:3]):
        raise InputError(
            f"expected {what} on the grid of the mask, {'×'.join(map(str, wanted[:3]))}; got "
            f"{'×'.join(map(str, found[:3]))} in {path}. Resample it, or take the file of the same space."
        )


def check_affine(path: Path, found: np.ndarray, wanted: np.ndarray, what: str) -> None:
    """Nothing, if both grids lie in the same place, within a tenth of a millimetre.

    Raises:
        InputError: they do not.
    """
    if not np.allclose(found, wanted, atol=0.1):
        raise InputError(
            f"expected {what} in the place of the mask; got another affine in {path}. Resample it to the grid of the mask."
        )


def voxel_positions(inside: np.ndarray, affine: np.ndarray) -> pd.DataFrame:
    """Columns x, y, z (mm, RAS) and i, j, k (indices of the volume) of a mask's voxels, in their order."""
    indices = np.argwhere(inside)
    places = indices @ affine[:3, :3].T + affine[:3, 3]
    return pd.DataFrame(np.round(places, 4), columns=["x", "y", "z"]).join(
        pd.DataFrame(indices, columns=["i", "j", "k"])
    )


def series_length(path: Path, what: str = "responses") -> tuple[tuple[int, ...], int, float]:
    """Grid (x, y, z), volumes, and seconds between them (0 if the header does not say) of a NIfTI file."""
    image = open_volume(path, what)
    if len(image.shape) != 4:
        raise InputError(f"expected {what} as (x, y, z, time); got {image.shape} in {path}.")
    unit = {"msec": 1e-3, "usec": 1e-6}.get(image.header.get_xyzt_units()[1], 1.0)
    return tuple(image.shape[:3]), int(image.shape[3]), float(image.header.get_zooms()[3]) * unit


def masked_series(path: Path, inside: np.ndarray, what: str = "responses") -> np.ndarray:
    """(time, voxel) float32 of the voxels of a mask, scaled as the header says.

    Raises:
        InputError: another grid, or a file that ends too early.
    """
    grid, count, _ = series_length(path, what)
    check_grid(path, grid, inside.shape, what)
    check_declared(4 * count * int(inside.sum()), path, "masked series")
    result = np.empty((count, int(inside.sum())), np.float32)
    try:
        for row, volume in enumerate(_volumes(path)):
            result[row] = volume[inside]
    except Exception as error:  # nibabel raises what the bytes happen to mean
        raise _cut_short(path, what, error) from None
    return result


def _volumes(path: Path) -> Iterator[np.ndarray]:
    """Volume after volume, in one pass through the file."""
    import nibabel
    from nibabel.openers import ImageOpener

    image = nibabel.load(path)
    proxy = image.dataobj
    shape, dtype = image.shape[:3], proxy.dtype
    size = int(np.prod(shape)) * dtype.itemsize
    slope, inter = np.float32(proxy.slope), np.float32(proxy.inter)
    with ImageOpener(proxy.file_like, "rb") as stream:
        stream.seek(proxy.offset)
        for number in range(image.shape[3]):
            content = stream.read(size)
            if len(content) < size:
                raise EOFError(f"it ends in volume {number + 1} of {image.shape[3]}")
            volume = np.frombuffer(content, dtype).reshape(shape, order="F")
            plain = slope == 1 and inter == 0
            yield volume if plain else volume.astype(np.float32) * slope + inter


def _cut_short(path: Path, what: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(
        f"expected {what} in {path}; got a file that is cut short or damaged ({reason}). Copy it again."
    )


def hdf5_series(path: Path, dataset: str, inside: np.ndarray, what: str = "responses") -> np.ndarray:
    """The same from a dataset (trial, z, y, x) of an HDF5 file, unscaled, float32; only masked voxels are read.

    Raises:
        InputError: no such dataset, another grid, a broken file.
    """
    try:
        with open_hdf5(path) as opened:
            stored = opened[dataset]
            if stored.ndim != 4 or stored.dtype.kind not in "fiu":
                raise ValueError(f"{stored.dtype} of {stored.ndim} axes")
            check_grid(path, stored.shape[:0:-1], inside.shape, what)
            check_declared(4 * stored.shape[0] * int(inside.sum()), path, "masked series")
            order = np.full(inside.shape, -1, np.int64)
            order[inside] = np.arange(inside.sum())
            result = np.empty((stored.shape[0], int(inside.sum())), np.float32)
            for z, y in np.argwhere(inside.any(0).T):
                xs = np.flatnonzero(inside[:, y, z])
                for run in np.split(xs, np.flatnonzero(np.diff(xs) != 1) + 1):
                    result[:, order[run, y, z]] = stored[:, z, y, int(run[0]) : int(run[-1]) + 1]
    except InputError:
        raise
    except Exception as error:  # HDF5 raises what the bytes happen to mean
        raise _cut_short(path, what, error) from None
    return result


def hdf5_length(path: Path, dataset: str, what: str = "responses") -> tuple[tuple[int, ...], int]:
    """Grid (x, y, z) and trials of such a dataset.

    Raises:
        InputError: no such dataset, or a broken file.
    """
    existing_file(path, what)
    try:
        with open_hdf5(path) as opened:
            shape = tuple(opened[dataset].shape)
    except (OSError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise _cut_short(path, what, error) from None
    if len(shape) < 2:
        raise InputError(f"expected {what} as (trial, z, y, x) in {path}; got {shape}.")
    return tuple(int(n) for n in shape[:0:-1]), int(shape[0])
