"""A DICOM folder made here from a known volume is read back in place."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from radiata_core.errors import InputError
from radiata_imaging.nifti import read_volume

SERIES = generate_uid(entropy_srcs=["series"])


def write_slice(
    path: Path, pixels: np.ndarray, position: np.ndarray, axes: np.ndarray, series: str = SERIES
) -> None:
    """One MR slice; `pixels` (rows, columns), `axes` (2, 3): directions of growing column and growing row (LPS)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name, series])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = Dataset()
    item.file_meta = meta
    item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    item.Modality, item.SeriesInstanceUID, item.SeriesDescription, item.SeriesNumber = "MR", series, "T1", 3
    item.Rows, item.Columns = pixels.shape
    item.ImagePositionPatient = [f"{v:.6g}" for v in position]
    item.ImageOrientationPatient = [f"{v:.8f}" for v in axes.ravel()]
    item.PixelSpacing = ["2", "1.5"]  # between rows, between columns
    item.RescaleSlope, item.RescaleIntercept = "2", "-5"
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
    item.PixelData = pixels.astype("<u2").tobytes()
    item.save_as(path, enforce_file_format=True)


AXES = np.array([[np.cos(0.3), np.sin(0.3), 0], [-np.sin(0.3), np.cos(0.3), 0]])
FIRST = np.array([10.0, -20.0, 30.0])


def write_series(
    folder: Path, count: int = 6, step: float = 3.0, series: str = SERIES, skip: int | None = None
) -> np.ndarray:
    """Slices named against their order; pixel value = 100 k + 10 row + column."""
    row, column = np.meshgrid(np.arange(5), np.arange(7), indexing="ij")
    for k in range(count):
        if k != skip:
            pixels = 100 * k + 10 * row + column
            name = f"{series[-4:]}-{(7 * k) % 11:03d}.dcm"
            write_slice(folder / name, pixels, FIRST + np.array([0, 0, step * k]), AXES, series)
    return np.stack([(100 * k + 10 * row + column).T for k in range(count)], -1)


def test_slices_are_sorted_by_place_scaled_and_put_in_the_world(tmp_path: Path) -> None:
    """P = S + X Δc c + Y Δr r in LPS, then to RAS; slope 2 and intercept -5."""
    pixels = write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("not a slice")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, 2.0 * pixels - 5)
    for column, row, k in ((0, 0, 0), (6, 4, 5), (3, 1, 2)):
        lps = FIRST + AXES[0] * 1.5 * column + AXES[1] * 2 * row + [0, 0, 3.0 * k]
        np.testing.assert_allclose((volume.affine @ [column, row, k, 1])[:3], lps * [-1, -1, 1], atol=1e-6)


def test_several_series_are_listed(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_series(tmp_path, series=generate_uid(entropy_srcs=["other"]))
    with pytest.raises(
        InputError, match=r"one DICOM series in .*; got 2: T1 \(no. 3, 6 files\), T1"
    ) as caught:
        read_volume(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_gap_an_empty_folder_and_a_multi_frame_object_are_refused(tmp_path: Path) -> None:
    for name in ("gap", "none", "frames"):
        (tmp_path / name).mkdir()
    write_series(tmp_path / "gap", skip=2)
    with pytest.raises(InputError, match=r"uniform slice distances .* got 3.000–6.000 mm"):
        read_volume(tmp_path / "gap")
    with pytest.raises(InputError, match="at least two DICOM slices; got 0"):
        read_volume(tmp_path / "none")
    import pydicom

    write_series(tmp_path / "frames", count=2)
    for path in (tmp_path / "frames").iterdir():
        item = pydicom.dcmread(path)
        item.NumberOfFrames = 4
        item.save_as(path)
    with pytest.raises(InputError, match="multi-frame"):
        read_volume(tmp_path / "frames")


def test_a_slice_without_geometry_is_refused(tmp_path: Path) -> None:
    import pydicom

    write_series(tmp_path, count=3)
    path = next(tmp_path.iterdir())
    item = pydicom.dcmread(path)
    del item.ImagePositionPatient
    item.save_as(path)
    with pytest.raises(InputError, match="position, orientation and pixel spacing"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SamplesPerPixel", None), ("RescaleSlope", "nan"), ("Rows", 65535), ("PixelSpacing", ["0", "0"])],
)
def test_elements_that_mean_nothing_are_refused(tmp_path: Path, name: str, value: object) -> None:
    """No number of samples was a TypeError; a slope of NaN gave a volume of NaN."""
    write_series(tmp_path)
    for path in tmp_path.iterdir():
        with warnings.catch_warnings(action="ignore"):  # pydicom says that NaN is no decimal string
            item = dcmread(path)
            setattr(item, name, value)
            item.save_as(path)
    with pytest.raises(InputError, match="expected"):
        read_volume(tmp_path)
