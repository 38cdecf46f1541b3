"""Numbers mean different regions in different collections."""

from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.regions import read_ctab, region_columns


def test_one_is_v1v_in_one_collection_and_a_face_area_in_another() -> None:
    """The published ROI maps of V1–V4 were once cut from the face labels: the same numbers."""
    labels = np.array([-1, 0, 1, 2, 3, 7])
    retinotopy, faces = region_columns("prf-visualrois", labels), region_columns("floc-faces", labels)
    assert retinotopy["roi_V1v"].tolist() == [0, 0, 1, 0, 0, 0] and retinotopy["roi_V1"].tolist() == [
        0,
        0,
        1,
        1,
        0,
        0,
    ]
    assert retinotopy["roi_V2"].tolist() == [0, 0, 0, 0, 1, 0] and retinotopy["roi_V4"].tolist() == [
        0,
        0,
        0,
        0,
        0,
        1,
    ]
    assert "roi_V3" not in retinotopy and "roi_V3v" not in retinotopy
    assert faces["roi_OFA"].tolist() == [0, 0, 1, 0, 0, 0] and faces["roi_faces"].tolist() == [
        0,
        0,
        1,
        1,
        1,
        1,
    ]
    assert not set(retinotopy) & set(faces)


def test_collections_that_repeat_names_get_a_prefix_and_unknown_ones_are_one_region() -> None:
    assert set(region_columns("Kastner2015", np.array([1, 13]))) == {
        "roi_Kastner2015_V1v",
        "roi_Kastner2015_TO1",
    }
    assert region_columns("mine", np.array([-1.0, 3.0, np.nan]))["roi_mine"].tolist() == [0, 1, 0]
    assert region_columns("mine", np.array([0, -1])) == {}


def test_a_colour_table_is_believed(tmp_path: Path) -> None:
    (tmp_path / "x.ctab").write_text("# comment\n0 Unknown 0 0 0 0\n1  here 25 5 25 0\n2 there\n")
    names = read_ctab(tmp_path / "x.ctab")
    assert names == {1: "here", 2: "there"}
    assert set(region_columns("floc-faces", np.array([2, 2, 0]), names)) == {"roi_there", "roi_faces"}
    (tmp_path / "x.ctab").write_text("nonsense\n")
    with pytest.raises(InputError, match=r"a number and a name"):
        read_ctab(tmp_path / "x.ctab")
