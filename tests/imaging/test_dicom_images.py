"""A volume that leaves as DICOM is read back in place, belongs to its patient, and says what it is."""

from datetime import datetime

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_imaging.dicom import read_dicom_series
from radiata_imaging.dicom_images import write_dicom_series
from radiata_imaging.dicom_origin import Origin, derived_uid
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume, centred_affine

ORIGIN = Origin("radiata-medical", "head.nii.gz", "ab" * 32, "restored", synthetic=True)
NOON = datetime(2026, 5, 4, 12)


def slices(folder):
    return [dcmread(path) for path in sorted(folder.glob("*.dcm"))]


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PIR", "ASL"])
def test_voxels_come_back_in_their_places(tmp_path, rng, axcodes):
    """Of every handedness and order of axes; the error is at most half a step of the 16 bits."""
    volume = Volume(
        rng.normal(0, 300, (9, 8, 7)).astype(np.float32), centred_affine((9, 8, 7), (1.0, 1.2, 2.0), axcodes)
    )
    out = write_dicom_series(volume, tmp_path / "out", ORIGIN, when=NOON)
    back = reorient(read_dicom_series(out).volume, axcodes)
    card = read_json(out / "series.json")
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-6)
    np.testing.assert_allclose(back.array, volume.array, atol=0.51 * card["RescaleSlope"])
    assert card["RescaleSlope"] < 3000 / 65535


def test_whole_numbers_come_back_to_the_bit_on_the_axes_of_the_reference(tmp_path, mr_series):
    """A volume that was read from the series, turned to other axes by another program, goes back slice to slice."""
    reference = read_dicom_series(mr_series())
    turned = reorient(reference.volume, "PSR")
    out = write_dicom_series(turned, tmp_path / "out", ORIGIN, reference=reference, when=NOON)
    back = read_dicom_series(out)
    np.testing.assert_array_equal(back.volume.array, reference.volume.array)
    np.testing.assert_allclose(back.volume.affine, reference.volume.affine, atol=1e-6)
    for written, source in zip(back.slices, reference.slices, strict=True):
        assert written.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert (written.PatientName, written.PatientID, written.StudyInstanceUID) == (
            "Doe^Jo",
            "P7",
            "1.2.3.1",
        )
        assert written.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert written.SeriesInstanceUID != source.SeriesInstanceUID


def test_a_slice_says_what_it_is(tmp_path):
    volume = Volume(np.arange(512, dtype=np.float32).reshape(8, 8, 8), np.eye(4))
    for item in slices(write_dicom_series(volume, tmp_path / "out", ORIGIN, when=NOON)):
        assert item.SOPClassUID == MRImageStorage and list(item.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert (item.SyntheticData, item.ContentQualification, item.BurnedInAnnotation) == (
            "YES",
            "RESEARCH",
            "NO",
        )
        assert item.SeriesDescription == "SYNTHETIC restored, not for clinical use"
        assert (
            "SHA-256 abab" in item.DerivationDescription
            and "not for clinical use" in item.DerivationDescription
        )
        assert item.PatientName == "SYNTHETIC^RADIATA" and item.ContentDate == "20260504"


def test_the_same_file_gives_the_same_bytes_and_another_file_other_uids(tmp_path, mr_series):
    reference = read_dicom_series(mr_series())
    first, again = (
        write_dicom_series(reference.volume, tmp_path / name, ORIGIN, reference=reference, when=NOON)
        for name in ("one", "two")
    )
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes()
    uids = {derived_uid("series", word, "False", "1.2.3.2") for word in ("ab" * 32, "cd" * 32)}
    assert slices(first)[0].SeriesInstanceUID in uids and len(uids) == 2
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


def test_a_picture_has_the_statement_burned_in(tmp_path):
    """Light letters in the upper rows of every slice, nothing changed below; it says that it is burned in."""
    volume = Volume(np.full((160, 96, 4), 100, np.float32), np.eye(4))
    volume.array[80, 60] = 900
    written = slices(write_dicom_series(volume, tmp_path / "out", ORIGIN, picture=True, when=NOON))
    plain = slices(write_dicom_series(volume, tmp_path / "plain", ORIGIN, when=NOON))
    for picture, item in zip(written, plain, strict=True):
        assert (picture.SOPClassUID, picture.BurnedInAnnotation) == (SecondaryCaptureImageStorage, "YES")
        changed = picture.pixel_array != item.pixel_array
        assert 100 < changed.sum() < 0.1 * changed.size and not changed[20:].any()
        assert (picture.pixel_array[changed] == 900).all()
        assert picture.SeriesInstanceUID != item.SeriesInstanceUID


def test_another_modality_is_captured_and_keeps_its_name(tmp_path, mr_series):
    reference = read_dicom_series(mr_series(Modality="CT"))
    item = slices(
        write_dicom_series(reference.volume, tmp_path / "out", ORIGIN, reference=reference, when=NOON)
    )[0]
    assert (item.Modality, item.SOPClassUID) == ("CT", SecondaryCaptureImageStorage)


def test_sheared_axes_and_a_reference_without_identifiers_are_refused(tmp_path, mr_series):
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    with pytest.raises(InputError, match="expected axes at right angles"):
        write_dicom_series(Volume(np.zeros((4, 4, 4)), sheared), tmp_path / "out", ORIGIN)
    reference = read_dicom_series(mr_series(FrameOfReferenceUID=""))
    with pytest.raises(InputError, match=r"expected FrameOfReferenceUID in each slice .*; got none\. Give"):
        write_dicom_series(reference.volume, tmp_path / "out", ORIGIN, reference=reference)
    assert not (tmp_path / "out").exists()
