"""Scans are found, and their people with them."""

import math
from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_imaging.bids import find_scans, is_bids


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_bids_tree_gives_subjects_sessions_and_covariates(tmp_path: Path) -> None:
    """Only T1w under anat; a value at the visit stands before the one of the person."""
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_run-1_T1w.nii",
        "derivatives/sub-01/anat/sub-01_T1w.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t20\tM\nsub-02\t30\tF\n")
    (tmp_path / "sub-02" / "sub-02_sessions.tsv").write_text("session_id\tage\nses-a\tn/a\nses-b\t31.5\n")
    assert is_bids(tmp_path)
    result = find_scans(tmp_path)
    assert [(e.subject, e.session, e.covariates["age"]) for e in result.entries] == [
        ("01", "", 20.0),
        ("02", "a", 30.0),
        ("02", "b", 31.5),
    ]
    assert result.covariates == ("age", "sex")


def test_people_without_a_row_have_no_covariates(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-02\t30\n")
    assert math.isnan(find_scans(tmp_path).entries[0].covariates["age"])
    (tmp_path / "participants.tsv").write_text("id\tage\nsub-02\t30\n")
    with pytest.raises(InputError, match="column participant_id"):
        find_scans(tmp_path)


def test_a_plain_folder_names_people_by_file_then_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "anna.nii.gz", "visits/bert.mgz", ".hidden/x.nii", "notes.txt")
    assert [e.subject for e in find_scans(tmp_path).entries] == ["anna", "bert"]
    touch(tmp_path, "p1/t1.nii.gz", "p2/t1.nii.gz", "raw/sub-07_ses-2_T1w.nii")
    subjects = {e.subject: e.session for e in find_scans(tmp_path).entries}
    assert subjects == {"anna": "", "bert": "", "p1_t1": "", "p2_t1": "", "07": "2"}


def test_dicom_folders_are_scans(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        touch(tmp_path, f"{name}/IM0", "reports/a.pdf")
        (tmp_path / name / "IM0").write_bytes(b"\0" * 128 + b"DICM")
    assert [(e.subject, e.path.name) for e in find_scans(tmp_path).entries] == [("p1", "p1"), ("p2", "p2")]


def test_a_single_file_and_a_manifest_are_sources(tmp_path: Path) -> None:
    touch(tmp_path, "anna.nii.gz")
    (tmp_path / "scans.csv").write_text("path,subject\nanna.nii.gz,01\n")
    assert find_scans(tmp_path / "anna.nii.gz").entries[0].subject == "anna"
    assert find_scans(tmp_path / "scans.csv").entries[0].subject == "01"


def test_nothing_found_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got none"):
        find_scans(tmp_path)
    with pytest.raises(InputError, match="got nothing at"):
        find_scans(tmp_path / "absent")
    touch(tmp_path, "a.pdf")
    with pytest.raises(InputError, match="CSV or TSV manifest"):
        find_scans(tmp_path / "a.pdf")


def test_other_contrasts_are_found_where_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-01/anat/sub-01_dseg.nii.gz")
    assert not is_bids(tmp_path)
    assert is_bids(tmp_path, ("T1w", "FLAIR"))
    found = find_scans(tmp_path, ("T1w", "FLAIR")).entries
    assert [entry.path.name for entry in found] == ["sub-01_FLAIR.nii.gz"]
