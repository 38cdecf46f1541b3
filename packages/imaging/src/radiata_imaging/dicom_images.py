r"""A volume as a derived DICOM series: restored, translated or drawn images, for archives and viewers.

One classic single-frame object a slice (MR images; Secondary Capture where the reference is of another modality), so that
any viewer shows and reformats it. The stored number p is a 16-bit integer,

    intensity = slope p + intercept,        |error| <= slope / 2,   slope = 1 where all intensities are whole and fit,

and the place of a voxel is that of `dicom`: P = S + X Δc c + Y Δr r. A *picture* is the same as Secondary Capture with
"SYNTHETIC – NOT FOR CLINICAL USE" burned into the first rows of every slice, for places where nobody reads a header.

References:
    DICOM PS3.3, A.4 (MR image), A.8.1 (secondary capture), C.7.6.1.1.2 (image type DERIVED\SECONDARY), C.11.1 (rescale).
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import atomic_folder, write_json
from radiata_imaging.dicom import DicomSeries
from radiata_imaging.dicom_origin import (
    STATEMENT,
    Origin,
    derived_uid,
    describe,
    describe_patient,
    require_reference,
)
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume

__all__ = ["CARD", "like_the_reference", "same_places", "write_dicom_series"]

CARD = "series.json"
"""The card of a series, in its folder."""

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LARGEST = 2**16 - 1
_SAME = 1e-2  # of a voxel: how far a grid that went through float32 headers may lie from its series
_RIGHT_ANGLE = 1e-4


def write_dicom_series(
    volume: Volume,
    out: Path,
    origin: Origin,
    *,
    reference: DicomSeries | None = None,
    picture: bool = False,
    when: datetime | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder with one file a slice and the card `series.json`; the folder, which is whole or absent.

    Args:
        volume: What to write.
        out: The folder; replaced if it exists.
        origin: Where the volume came from.
        reference: The series of the scan: its patient and study are taken, and its slices are named as sources where the
            grids are one. None: a study of its own.
        picture: Secondary Capture with the statement burned in.
        when: It is made; now unless given.
        card: More of its card.

    Raises:
        InputError: axes that are not at right angles, or a reference without identifiers.
    """
    when = when or datetime.now()
    if reference is not None:
        require_reference(reference.slices, "the reference")
        volume = like_the_reference(volume, reference)
    volume = _right_handed(volume)
    stored, slope, intercept = _stored(volume.array)
    if picture:
        stored = stored.copy()
        stored[_statement(stored.shape[:2], origin.synthetic)] = _LARGEST if slope != 1.0 else stored.max()
    one_grid = reference is not None and same_places(volume, reference.volume)
    series = derived_uid("series", origin.sha256, str(picture), _uid(reference))
    with atomic_folder(out) as part:
        for k in range(volume.shape[2]):
            item = _slice(volume, k, origin, series, reference)
            _pixels(item, stored[:, :, k], slope, intercept, picture)
            describe(item, origin, when)
            if reference is not None and one_grid:
                item.SourceImageSequence = [_named(reference.slices[k])]
            item.save_as(part / f"{k + 1:04d}.dcm", enforce_file_format=True)
        write_json(part / CARD, _card(origin, series, slope, intercept, picture) | dict(card or {}))
    return out


def like_the_reference(volume: Volume, reference: DicomSeries) -> Volume:
    """The volume with its axes in the order and direction of the series, voxels untouched."""
    return reorient(volume, reference.volume.axcodes)


def same_places(first: Volume, second: Volume) -> bool:
    """Whether two volumes have the same voxels in the same places, to a hundredth of a voxel."""
    if first.shape != second.shape:
        return False
    ends = [(0, n - 1) for n in first.shape]
    corners = np.array([(i, j, k, 1) for i in ends[0] for j in ends[1] for k in ends[2]], dtype=np.float64)
    apart = np.linalg.norm((corners @ (first.affine - second.affine).T)[:, :3], axis=1).max()
    return bool(apart <= _SAME * min(first.spacing))


def _uid(reference: DicomSeries | None) -> str:
    return "" if reference is None else str(reference.slices[0].SeriesInstanceUID)


def _right_handed(volume: Volume) -> Volume:
    """Slices in the order of their place along X × Y: readers sort them so."""
    directions = (_LPS @ volume.affine)[:3, :3] / np.asarray(volume.spacing)
    if np.abs(directions.T @ directions - np.eye(3)).max() > _RIGHT_ANGLE:
        raise InputError(
            "expected axes at right angles, as slices in DICOM have them; got sheared ones. Resample the volume first."
        )
    if np.linalg.det(directions) > 0:
        return volume
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = volume.shape[2] - 1
    return Volume(np.ascontiguousarray(volume.array[:, :, ::-1]), volume.affine @ flip)


def _stored(array: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Numbers 0 to 65535, slope and intercept, both short enough for a decimal string of 16 characters."""
    low, high = float(array.min()), float(array.max())
    if low >= 0 and high <= _LARGEST and np.array_equal(array, np.rint(array)):
        return array.astype(np.uint16), 1.0, 0.0
    intercept = float(f"{low:.8e}")
    slope = float(f"{max(high - intercept, 1e-30) / _LARGEST * (1 + 1e-7):.8e}")
    numbers = np.rint((array.astype(np.float64) - intercept) / slope)
    return np.clip(numbers, 0, _LARGEST).astype(np.uint16), slope, intercept


def _slice(volume: Volume, k: int, origin: Origin, series: str, reference: DicomSeries | None) -> Any:
    """Everything of a slice but its pixels."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import DS

    item = Dataset()
    describe_patient(item, origin, None if reference is None else reference.slices[0])
    item.SeriesInstanceUID, item.SOPInstanceUID = series, derived_uid(series, str(k))
    item.SeriesNumber, item.InstanceNumber = 9000, k + 1
    item.Modality = "MR" if reference is None else str(reference.slices[0].Modality)
    frame = derived_uid("frame", series) if reference is None else reference.slices[0].FrameOfReferenceUID
    item.FrameOfReferenceUID, item.PositionReferenceIndicator = frame, ""
    affine = _LPS @ volume.affine
    column, row, distance = volume.spacing
    directions = affine[:3, :2] / [column, row]
    item.ImagePositionPatient = [DS(v, auto_format=True) for v in affine[:3] @ [0, 0, k, 1]]
    item.ImageOrientationPatient = [DS(v, auto_format=True) for v in directions.T.ravel()]
    item.PixelSpacing = [DS(v, auto_format=True) for v in (row, column)]
    item.SliceThickness = item.SpacingBetweenSlices = DS(distance, auto_format=True)
    return item


def _pixels(item: Any, stored: np.ndarray, slope: float, intercept: float, picture: bool) -> None:
    """The pixels (column, row) of a slice and what is needed to read them."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    captured = picture or item.Modality != "MR"
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage if captured else MRImageStorage
    meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    item.file_meta, item.SOPClassUID = meta, meta.MediaStorageSOPClassUID
    item.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    if captured:
        item.ConversionType = "WSD"
    else:  # required of an MR image, and unknown of a derived one
        item.ScanningSequence, item.SequenceVariant, item.ScanOptions = "RM", "NONE", ""
        item.MRAcquisitionType = "3D"
        item.RepetitionTime = item.EchoTime = item.EchoTrainLength = None
    item.BurnedInAnnotation = "YES" if picture else "NO"
    item.Columns, item.Rows = stored.shape
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
    item.RescaleIntercept, item.RescaleSlope, item.RescaleType = f"{intercept:.8e}", f"{slope:.8e}", "US"
    item.PixelData = np.ascontiguousarray(stored.T).astype("<u2").tobytes()


def _named(item: Any) -> Any:
    """An item that refers to an object."""
    from pydicom.dataset import Dataset

    named = Dataset()
    named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID = item.SOPClassUID, item.SOPInstanceUID
    return named


def _statement(shape: tuple[int, int], synthetic: bool) -> np.ndarray:
    """Where the statement is, bool (columns, rows): as large as the slice allows, at its top."""
    from PIL import Image, ImageDraw, ImageFont

    text = ("SYNTHETIC – " if synthetic else "") + STATEMENT.upper()
    columns, rows = shape
    for size in range(max(8, rows // 12), 5, -1):
        font = ImageFont.load_default(size)
        left, top, right, _ = font.getbbox(text)
        if right - left <= columns - 2:
            break
    canvas = Image.new("L", (columns, rows))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(canvas).T > 96


def _card(origin: Origin, series: str, slope: float, intercept: float, picture: bool) -> dict[str, Any]:
    return {
        "What": origin.what,
        "NotForClinicalUse": True,
        "SyntheticData": origin.synthetic,
        "GeneratedBy": [{"Name": origin.application, "Version": origin.version}],
        "Sources": [{"Name": origin.file, "SHA256": origin.sha256}],
        "SeriesInstanceUID": series,
        "BurnedInStatement": picture,
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
