"""What the tests of DICOM share: a small oblique MR series as an archive exports it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

SHAPE = (7, 5, 6)
"""Columns, rows, slices."""
_ANGLE = 0.3
AFFINE_LPS = np.array(
    [
        [1.5 * np.cos(_ANGLE), -2 * np.sin(_ANGLE), 0, 10],
        [1.5 * np.sin(_ANGLE), 2 * np.cos(_ANGLE), 0, -20],
        [0, 0, 3, 30],
        [0, 0, 0, 1],
    ]
)
"""(column, row, slice) to the patient, mm."""


def write_mr_series(folder: Path, **changed: object) -> np.ndarray:
    """Slices of value 100 k + 10 row + column, (column, row, slice), placed by AFFINE_LPS."""
    folder.mkdir(parents=True, exist_ok=True)
    column, row, k = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    pixels = (100 * k + 10 * row + column).astype(np.uint16)
    for index in range(SHAPE[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{index + 1}"
        item = Dataset()
        item.file_meta = meta
        item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        item.Modality, item.SeriesNumber, item.InstanceNumber = "MR", 3, index + 1
        item.SeriesDescription, item.ProtocolName = "T1", "T1"
        item.StudyInstanceUID, item.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
        item.FrameOfReferenceUID = "1.2.3.3"
        item.PatientName, item.PatientID, item.PatientBirthDate = "Doe^Jo", "P7", "19700101"
        item.PatientSex, item.StudyDate, item.StudyTime, item.StudyID = "O", "20260504", "120000", "S"
        item.Manufacturer, item.ImageType = "Siemens", ["ORIGINAL", "PRIMARY", "M", "ND"]
        item.MRAcquisitionType, item.RepetitionTime, item.EchoTime, item.FlipAngle = "3D", "2300", "2.9", "9"
        item.MagneticFieldStrength, item.SliceThickness = "3", "3"
        item.Columns, item.Rows = SHAPE[:2]
        item.ImagePositionPatient = [f"{v:.8g}" for v in (AFFINE_LPS @ [0, 0, index, 1])[:3]]
        item.ImageOrientationPatient = [f"{v:.10f}" for v in (AFFINE_LPS[:3, :2] / [1.5, 2]).T.ravel()]
        item.PixelSpacing = ["2", "1.5"]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
        item.PixelData = pixels[:, :, index].T.astype("<u2").tobytes()
        for name, value in changed.items():
            setattr(item, name, value)
        item.save_as(folder / f"{(index * 7) % 11:03d}.dcm", enforce_file_format=True)
    return pixels


@pytest.fixture
def mr_series(tmp_path: Path) -> Callable[..., Path]:
    """A function: the folder of a new series; keywords change elements of its slices."""

    def write(name: str = "series", **changed: object) -> Path:
        write_mr_series(tmp_path / name, **changed)
        return tmp_path / name

    return write
