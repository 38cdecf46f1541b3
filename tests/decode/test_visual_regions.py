"""Regions of an annotation that a person brings: the file in, the voxels out."""

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.visual_regions import VISUAL_REGIONS, annotated_regions, in_regions, region_name


@pytest.fixture
def annotations(tmp_path):
    """The same three labels as FreeSurfer writes them and as GIFTI."""
    import nibabel

    labels = np.array([0, 1, 1, 2, 2, 2], np.int32)
    names = ["???", "L_V1_ROI", "L_4_ROI"]
    colours = np.array([[10 * i, 20, 30, 0, 0] for i in range(3)], np.int32)
    nibabel.freesurfer.write_annot(tmp_path / "lh.annot", labels, colours, names, fill_ctab=True)
    table = nibabel.gifti.GiftiLabelTable()
    for key, name in enumerate(names):
        label = nibabel.gifti.GiftiLabel(key)
        label.label = name
        table.labels.append(label)
    array = nibabel.gifti.GiftiDataArray(labels, intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[array], labeltable=table), tmp_path / "lh.label.gii")
    return tmp_path


@pytest.mark.parametrize("name", ["lh.annot", "lh.label.gii"])
def test_both_kinds_of_annotation_name_the_same_vertices(annotations, name):
    found = annotated_regions(annotations / name)
    assert set(found) == {"???", "V1", "4"}
    assert found["V1"].tolist() == [False, True, True, False, False, False]


def test_voxels_of_visual_regions_are_chosen(annotations):
    regions = {"left": annotated_regions(annotations / "lh.annot")}
    table = pd.DataFrame({"hemisphere": ["left", "left", "right"], "vertex": [2, 4, 2]})
    assert in_regions(table, regions).tolist() == [True, False, False]
    with pytest.raises(InputError, match="below 6"):
        in_regions(pd.DataFrame({"hemisphere": ["left"], "vertex": [9]}), regions)
    with pytest.raises(InputError, match="parcellation"):
        in_regions(table, {"left": {"4": np.ones(6, bool)}})
    with pytest.raises(InputError, match="vertex"):
        in_regions(table[["vertex"]], regions)


def test_thirty_one_regions_see():
    assert len(VISUAL_REGIONS) == len(set(VISUAL_REGIONS)) == 31
    assert region_name("R_TE2p_ROI") == "TE2p" and region_name("LO1") == "LO1"


def test_what_is_no_annotation_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        annotated_regions(tmp_path / "none.annot")
    (tmp_path / "bad.label.gii").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        annotated_regions(tmp_path / "bad.label.gii")
