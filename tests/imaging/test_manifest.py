"""Tables, paths and splits: people stay together, the order of files does not matter, mistakes are named."""

import math
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.manifest import Entry, check_entries, read_manifest, split_subjects


def manifest(folder: Path, text: str, name: str = "scans.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_table_becomes_entries(tmp_path: Path) -> None:
    """Numbers, two-word columns, missing values, ml_ columns, relative and absolute paths, tabs as well as commas."""
    text = "path,subject,session,split,age,sex,site,ml_brain\n" + (
        'a/1.nii.gz,01,pre,train,34.5,F,"Oslo, N",1200\n/data/2.nii,02,,val,n/a,M,Bonn,n/a\n3.nii,03,,,,F,Kyiv,\n'
    )
    result = read_manifest(manifest(tmp_path, text))
    assert [entry.path for entry in result.entries] == [
        tmp_path / "a/1.nii.gz",
        Path("/data/2.nii"),
        tmp_path / "3.nii",
    ]
    assert [entry.split for entry in result.entries] == ["train", "validation", None]
    assert result.covariates == ("age", "sex")
    assert result.codes == {"sex": {"F": 0, "M": 1}}
    assert result.ignored == ("site",)
    assert result.regions == ("brain",)
    assert result.entries[0].covariates == {"age": 34.5, "sex": 0.0}
    assert math.isnan(result.entries[1].covariates["age"])
    assert result.entries[0].volumes == {"brain": 1200.0}
    tabs = manifest(tmp_path, "path\tsubject\n1.nii\t01\n", "scans.tsv")
    assert read_manifest(tabs).entries[0].subject == "01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header line"),
        ("path,subject\n", "at least one row"),
        ("path,age\n1.nii,3\n", "Add subject"),
        ("path,subject\n1.nii\n", "expected 2 columns; line 2"),
        ("path,subject\n1.nii,01,9\n", "expected 2 columns; line 2"),
        ("path,subject\n1.nii,\n", "empty one in line 2"),
        ("path,subject\n../secret.nii,01\n", "path inside"),
        ("path,subject\na/../../secret.nii,01\n", "path inside"),
        ("path,subject,split\n1.nii,01,holdout\n", "split out of"),
        ("path,path\n1.nii,01\n", "each column once"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(manifest(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scans.csv").write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(tmp_path / "scans.csv")


def cohort(subjects: int, scans: int = 3) -> list[Entry]:
    return [Entry(Path(f"{s}-{k}.nii"), f"{s:03d}") for s in range(subjects) for k in range(scans)]


def test_people_are_split_and_not_scans(rng: np.random.Generator) -> None:
    entries = split_subjects(cohort(50), (0.7, 0.2, 0.1), seed=3)
    check_entries(entries)
    people = {
        split: {e.subject for e in entries if e.split == split} for split in ("train", "validation", "test")
    }
    assert [len(group) for group in people.values()] == [35, 10, 5]
    shuffled = [cohort(50)[i] for i in rng.permutation(150)]
    again = {entry.path: entry.split for entry in split_subjects(shuffled, (0.7, 0.2, 0.1), seed=3)}
    assert again == {entry.path: entry.split for entry in entries}
    other = split_subjects(cohort(50), (0.7, 0.2, 0.1), seed=4)
    assert [e.split for e in other] != [e.split for e in entries]


@pytest.mark.parametrize(
    ("subjects", "fractions", "counts"),
    [
        (16, (0.75, 0.125, 0.125), (12, 2, 2)),
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (1, (0.8, 0.1, 0.1), (1, 0, 0)),
        (7, (1.0, 0.0, 0.0), (7, 0, 0)),
    ],
)
def test_counts_follow_the_fractions(subjects: int, fractions: tuple, counts: tuple) -> None:
    entries = split_subjects(cohort(subjects, 1), fractions)
    assert tuple(sum(e.split == s for e in entries) for s in ("train", "validation", "test")) == counts


def test_given_splits_stand() -> None:
    entries = [Entry(Path("a"), "01", split="test"), Entry(Path("b"), "02"), Entry(Path("c"), "03")]
    result = split_subjects(entries, (1.0, 0.0, 0.0))
    assert [entry.split for entry in result] == ["test", "train", "train"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "at least one scan"),
        (
            [Entry(Path("a"), "01", split="train"), Entry(Path("b"), "01", split="test")],
            "got 01 in train and test",
        ),
        ([Entry(Path("a"), "01", split="train"), Entry(Path("b"), "01")], "got 01 in train and None"),
        ([Entry(Path("a/x"), "01"), Entry(Path("a/./b/../x"), "02")], "each file once"),
    ],
)
def test_leaks_are_refused(entries: list[Entry], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_subjects(entries)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_fractions_sum_to_one(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        split_subjects(cohort(3), fractions)
