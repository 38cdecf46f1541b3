"""The store of label maps: what goes in comes out, and what must not go in does not."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.volume import Volume
from radiata_medical.data.label_maps import LabelMap, LabelMaps, label_map, write_label_maps

from .small_head import small_head

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def case(name: str, person: str, split: str, shift: float = 0.0) -> LabelMap:
    return label_map(Volume(small_head(shift), LPS), name, person, split, sha256="0" * 64)


def test_round_trip(tmp_path: Path) -> None:
    cases = [case("a", "p", "train"), case("b", "q", "test", 1.0)]
    image = np.random.default_rng(0).random(cases[1].codes.shape).astype(np.float16)
    cases[1] = replace(cases[1], image=image)
    assert write_label_maps(tmp_path / "s.h5", cases) == 2
    with LabelMaps(tmp_path / "s.h5") as store:
        assert store.names == ("a", "b") and len(store) == 2
        assert store.of_split("train") == ("a",) and store.of_split(["train", "test"]) == ("a", "b")
        assert store.of_split("validation") == () and store.person("b") == "q"
        for written in cases:
            read = store.read(written.name)
            assert np.array_equal(read.codes, written.codes) and np.array_equal(read.affine, written.affine)
            assert (read.person, read.split, read.sha256) == (written.person, written.split, written.sha256)
        assert store.read("a").image is None
        assert np.array_equal(store.read("b").image, image)
        with pytest.raises(InputError, match=r"expected a case of s\.h5; got 'c'\. It has a, b"):
            store.read("c")


def test_many_codes_are_kept(tmp_path: Path) -> None:
    """A parcellation of more than 256 codes, which one byte cannot index."""
    codes = np.zeros((20, 20, 2), np.int16)
    codes.flat[:700] = np.r_[1000:1350, 2000:2350]
    write_label_maps(tmp_path / "s.h5", [LabelMap("a", "p", "train", codes, LPS)])
    with LabelMaps(tmp_path / "s.h5") as store:
        assert np.array_equal(store.read("a").codes, codes)


def test_a_map_is_cropped_and_turned_with_its_affine() -> None:
    """A map of any orientation and its turned, cropped self name the same place with the same code."""
    codes = np.zeros((20, 24, 28), np.int16)
    codes[9:13, 4:8, 20:26] = 10
    affine = np.array([[0, 0, 1.0, -7], [1.0, 0, 0, 3], [0, -1.0, 0, 30], [0, 0, 0, 1]])
    made = label_map(Volume(codes, affine), "a", "p", "train", margin=2)
    assert made.codes.shape == (
        6 + 4,
        4 + 4,
        4 + 4,
    )  # L from the third axis, P from the first, S from the second
    assert np.array_equal(np.sign(np.diag(made.affine)), [-1, -1, 1, 1])
    voxels = np.argwhere(made.codes == 10)
    world = voxels @ made.affine[:3, :3].T + made.affine[:3, 3]
    back = np.rint((world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    assert len(voxels) == (codes == 10).sum() and (codes[tuple(back.T)] == 10).all()


def test_maps_of_two_millimetres_come_to_one() -> None:
    codes = np.zeros((12, 12, 12), np.int16)
    codes[4:8, 4:8, 4:8] = 2
    made = label_map(Volume(codes, np.diag([-2.0, -2.0, 2.0, 1.0])), "a", "p", "train")
    assert (made.codes == 2).sum() == 8**3


def test_what_is_no_label_map_is_said() -> None:
    volume = Volume(small_head(), LPS)
    with pytest.raises(InputError, match="whole codes"):
        label_map(Volume(volume.array + 0.5, LPS), "a", "p", "train")
    with pytest.raises(InputError, match="zeros only in a"):
        label_map(Volume(np.zeros((4, 4, 4)), LPS), "a", "p", "train")
    with pytest.raises(InputError, match=r"on the grid of its labels, 56.*got 55"):
        label_map(volume, "a", "p", "train", image=Volume(volume.array[1:], LPS))
    with pytest.raises(InputError, match="another place"):
        label_map(volume, "a", "p", "train", image=Volume(volume.array, np.diag([1.0, -1, 1, 1])))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"person": "p", "split": "test"}, "each person in one split; got p in train and test"),
        ({"name": "a"}, "one case a name; got a twice"),
        ({"split": "exam"}, "a split out of train, validation, test; got 'exam' for b"),
        ({"codes": np.full((4, 4, 4), 999, np.int16)}, "codes in b; got 999"),
        (None, "at least one label map"),
    ],
)
def test_a_wrong_case_leaves_no_store(tmp_path: Path, second: dict | None, message: str) -> None:
    cases = [] if second is None else [case("a", "p", "train"), replace(case("b", "q", "train"), **second)]
    with pytest.raises(InputError, match=message):
        write_label_maps(tmp_path / "s.h5", cases)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_said(tmp_path: Path) -> None:
    write_label_maps(tmp_path / "s.h5", [case("a", "p", "train")])
    whole = (tmp_path / "s.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("hello")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    for name, message in (
        ("absent.h5", "got no file"),
        ("cut.h5", "truncated or of another format"),
        ("text.h5", "truncated or of another format"),
        ("other.h5", "another HDF5 file"),
    ):
        with pytest.raises(InputError, match=message):
            LabelMaps(tmp_path / name)
