"""A label map that leaves as DICOM-SEG is read back by highdicom: voxels, places, names, codes."""

from datetime import datetime

import numpy as np
import pytest
from pydicom import dcmread

from radiata_core.errors import InputError
from radiata_imaging.dicom import read_dicom_series
from radiata_imaging.dicom_origin import Origin
from radiata_imaging.dicom_segmentation import write_dicom_segmentation
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume

highdicom = pytest.importorskip("highdicom", reason="needs highdicom: pip install 'radiata-imaging[dicom]'")

ORIGIN = Origin("radiata-medical", "head_dseg.nii.gz", "cd" * 32, "segmentation", synthetic=False)
NAMES = {3: ("left cerebral cortex", (205, 62, 78)), 16: ("brain stem", (119, 159, 176))}
NOON = datetime(2026, 5, 4, 12)


@pytest.fixture
def reference(mr_series):
    return read_dicom_series(mr_series())


@pytest.fixture
def labels(reference):
    """Codes 3, 16 and 77 in single voxels and blocks, on the grid of the series."""
    codes = np.zeros(reference.volume.shape, np.float32)
    codes[1:4, 2:4, 1:3], codes[5, 1, 4], codes[0, 0, 0] = 3, 16, 77
    return Volume(codes, reference.volume.affine)


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PIR"])
def test_voxels_and_places_come_back(tmp_path, reference, labels, axcodes):
    """Whatever axes the label map has; highdicom's volume is in LPS, with its axes slice, row, column."""
    path = write_dicom_segmentation(
        reorient(labels, axcodes), tmp_path / "seg.dcm", ORIGIN, reference, NAMES, when=NOON
    )
    item = highdicom.seg.segread(path)
    uids = [one.SOPInstanceUID for one in reference.slices]
    found = item.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=True)
    codes = np.array([0, 3, 16, 77])[found]
    np.testing.assert_array_equal(codes.transpose(2, 1, 0), labels.array)
    volume = item.get_volume(combine_segments=True)
    for index in np.argwhere(volume.array):
        place = np.diag([-1, -1, 1, 1]) @ volume.affine @ [*index, 1]
        voxel = np.rint(np.linalg.inv(labels.affine) @ place)[:3].astype(int)
        assert labels.array[tuple(voxel)] == [0, 3, 16, 77][volume.array[tuple(index)]]


def test_segments_have_names_codes_colours_and_sides(tmp_path, reference, labels):
    item = highdicom.seg.segread(
        write_dicom_segmentation(labels, tmp_path / "seg.dcm", ORIGIN, reference, NAMES, when=NOON)
    )
    assert list(item.segment_numbers) == [1, 2, 3]
    cortex, stem, unknown = (item.get_segment_description(n) for n in (1, 2, 3))
    assert [one.segment_label for one in (cortex, stem, unknown)] == [
        "left cerebral cortex",
        "brain stem",
        "label 77",
    ]
    assert cortex.segmented_property_type.value == "40146001"
    side = cortex.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning) == ("7771000", "SCT", "Left")
    assert stem.segmented_property_type.meaning == "Brain Stem"
    assert unknown.segmented_property_type.scheme_designator == "99RADIATA"
    assert cortex.algorithm_type.value == "AUTOMATIC"
    assert cortex.SegmentDescription == "label 3 of head_dseg.nii.gz; not for clinical use"
    colour = highdicom.color.CIELabColor.from_dicom_value(cortex.RecommendedDisplayCIELabValue).to_rgb()
    np.testing.assert_allclose(colour, NAMES[3][1], atol=2)


def test_it_belongs_to_the_study_and_says_what_it_is(tmp_path, reference, labels):
    item = dcmread(
        write_dicom_segmentation(labels, tmp_path / "seg.dcm", ORIGIN, reference, NAMES, when=NOON)
    )
    assert (item.Modality, item.PatientID, item.StudyInstanceUID) == ("SEG", "P7", "1.2.3.1")
    assert item.FrameOfReferenceUID == "1.2.3.3"
    assert (item.SyntheticData, item.ContentQualification) == ("NO", "RESEARCH")
    assert list(item.ImageType) == ["DERIVED", "PRIMARY"]
    for text in (item.SeriesDescription, item.ContentDescription, item.DerivationDescription):
        assert "not for clinical use" in text
    again = write_dicom_segmentation(labels, tmp_path / "again.dcm", ORIGIN, reference, NAMES, when=NOON)
    assert again.read_bytes() == (tmp_path / "seg.dcm").read_bytes()


def test_a_wrong_reference_an_empty_map_and_no_highdicom_are_one_line(
    tmp_path, reference, labels, monkeypatch
):
    moved = labels.affine.copy()
    moved[0, 3] += 1.0
    out = tmp_path / "seg.dcm"
    for wrong in (Volume(labels.array, moved), Volume(labels.array[:, :, :5], labels.affine)):
        with pytest.raises(
            InputError, match=r"expected a label map on the grid of the DICOM series, 7×5×6 .*; got 7×5×"
        ):
            write_dicom_segmentation(wrong, out, ORIGIN, reference, NAMES)
    with pytest.raises(InputError, match="expected labels; got a map of background alone"):
        write_dicom_segmentation(Volume(0 * labels.array, labels.affine), out, ORIGIN, reference, NAMES)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(InputError, match=r"expected highdicom.*pip install .radiata-imaging\[dicom\]"):
        write_dicom_segmentation(labels, out, ORIGIN, reference, NAMES)
    assert not out.exists()
