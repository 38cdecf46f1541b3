"""A folder of DICOM slices as one volume.

The position of pixel (row r, column c) of a slice in the patient's LPS coordinates is

    P = S + X Δc c + Y Δr r,

with S = ImagePositionPatient, (X, Y) = ImageOrientationPatient and (Δr, Δc) = PixelSpacing. Slices are ordered by the
projection of S on X × Y, never by file name or instance number. One series, one uniform slice distance, one
orientation: anything else is said in one line, with what to do.

References:
    DICOM PS3.3, section C.7.6.2.1.1, equation C.7.6.2.1-1.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_imaging.volume import Volume, times

__all__ = ["DicomSeries", "read_dicom_folder", "read_dicom_series"]

_UNIFORM = 0.01  # a slice distance may differ from the median by 1 %


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One series: what it shows, and the objects it came in.

    Attributes:
        volume: Voxel (column, row, slice), rescaled.
        slices: The pydicom data set of each slice, in the order of the volume's last axis.
    """

    volume: Volume
    slices: tuple[Any, ...]


def read_dicom_folder(folder: Path) -> Volume:
    """The single DICOM series in `folder`, rescaled (slope and intercept) and sorted by position.

    Args:
        folder: Folder with one classic (single-frame) series; other files in it are ignored.

    Raises:
        InputError: no DICOM slices, several series, multi-frame or colour objects, missing geometry, gaps.
    """
    return read_dicom_series(folder).volume


def read_dicom_series(folder: Path) -> DicomSeries:
    """The same series with the data sets of its slices, for what refers to them.

    Args:
        folder: Likewise.

    Raises:
        InputError: likewise.
    """
    with foreign(
        f"expected one DICOM series in {folder}; got elements that mean nothing", "Export it again."
    ):
        return _series(folder)


def _series(folder: Path) -> DicomSeries:
    slices = _slices(folder)
    series: dict[str, list[Any]] = {}
    for item in slices:
        series.setdefault(str(item.get("SeriesInstanceUID", "unknown")), []).append(item)
    if len(series) > 1:
        listing = ", ".join(
            f"{group[0].get('SeriesDescription', 'unnamed')!s} (no. {group[0].get('SeriesNumber', '?')!s}, "
            f"{len(group)} files)"
            for group in series.values()
        )
        raise InputError(
            f"expected one DICOM series in {folder}; got {len(series)}: {listing}. Give each its own folder."
        )
    _check_kind(slices, folder)
    try:
        directions = np.array([[float(v) for v in item.ImageOrientationPatient] for item in slices])
        positions = np.array([[float(v) for v in item.ImagePositionPatient] for item in slices])
        row_step, column_step = (float(v) for v in slices[0].PixelSpacing)
        sizes = {(int(item.Rows), int(item.Columns)) for item in slices}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"expected position, orientation and pixel spacing in each slice of {folder}; got {error}. "
            "Export the original series again."
        ) from None
    if len(sizes) > 1 or np.abs(directions - directions[0]).max() > 1e-3:
        raise InputError(
            f"expected slices of one size and orientation in {folder}; got {len(sizes)} size(s) or turned "
            "slices "
            "(a localiser?). Keep one stack."
        )
    check_declared(8 * len(slices) * int(np.prod(next(iter(sizes)), dtype=object)), folder, "pixels")
    along_columns, along_rows = directions[0, :3], directions[0, 3:]
    normal = np.cross(along_columns, along_rows)
    height = positions @ normal
    order = np.argsort(height)
    gaps = np.diff(height[order])
    distance = float(np.median(gaps))
    if distance < 1e-3 or np.abs(gaps - distance).max() > max(_UNIFORM * distance, 1e-3):
        raise InputError(
            f"expected uniform slice distances in {folder}; got {gaps.min():.3f}–{gaps.max():.3f} mm "
            "(missing or repeated slices?). Complete the series or keep one of its repetitions."
        )
    array = np.stack([_intensities(slices[index], folder).T for index in order], axis=-1)
    if not np.isfinite(array).all():
        raise InputError(
            f"expected finite intensities in {folder}; got NaN or infinite ones. Check its rescale slope."
        )
    affine = np.eye(4)
    affine[:3, 0] = along_columns * column_step
    affine[:3, 1] = along_rows * row_step
    affine[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)
    affine[:3, 3] = positions[order[0]]
    volume = Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    return DicomSeries(volume, tuple(slices[index] for index in order))


def _slices(folder: Path) -> list[Any]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    found = []
    for path in sorted(item for item in folder.iterdir() if item.is_file()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # pydicom warns on values that vendors write; geometry is checked above
                item = pydicom.dcmread(io.BytesIO(path.read_bytes()))  # a length of 4 GB is not believed
        except (InvalidDicomError, EOFError):  # another file that lies in the folder
            continue
        if "PixelData" in item:
            found.append(item)
    if len(found) < 2:
        raise InputError(
            f"expected a folder with at least two DICOM slices; got {len(found)} in {folder}. "
            "Give the folder of one series, or a NIfTI file."
        )
    return found


def _check_kind(slices: list[Any], folder: Path) -> None:
    if any(int(item.get("NumberOfFrames", 1) or 1) > 1 for item in slices):
        raise InputError(
            f"expected single-frame DICOM slices; got a multi-frame object in {folder}. Let dcm2niix "
            "read it: RADIATA_DICOM_READER=dcm2niix in the environment."
        )
    if any(int(item.get("SamplesPerPixel", 1)) != 1 for item in slices):
        raise InputError(
            f"expected grey-level slices; got colour in {folder}. This is a screenshot, not a scan."
        )


def _intensities(item: Any, folder: Path) -> np.ndarray:
    try:
        pixels = item.pixel_array
    except Exception as error:  # pydicom raises many kinds, by plug-in and compression
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"expected readable pixel data; got {type(error).__name__} ({reason}) in {folder}. "
            "Let dcm2niix read it: RADIATA_DICOM_READER=dcm2niix in the environment."
        ) from None
    if pixels.ndim != 2:
        raise InputError(
            f"expected 2-D slices; got {times(pixels.shape)} in {folder}. Let dcm2niix read it: "
            "RADIATA_DICOM_READER=dcm2niix in the environment."
        )
    slope, intercept = float(item.get("RescaleSlope", 1) or 1), float(item.get("RescaleIntercept", 0) or 0)
    return (pixels.astype(np.float64) * slope + intercept).astype(np.float32)
