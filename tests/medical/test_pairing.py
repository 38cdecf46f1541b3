"""Names of files: whose scan, what was made of it, and which reference it belongs to."""

from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_medical.data.pairing import Named, name_of, named_files, pair_files, sibling


@pytest.mark.parametrize(
    ("name", "key", "word", "contrast", "person"),
    [
        ("sub-01_ses-2_desc-restored_T1w.nii.gz", "sub-01_ses-2", "restored", "T1w", "01"),
        ("sub-01_ses-2_T1w.nii", "sub-01_ses-2", "", "T1w", "01"),
        ("sub-01_desc-FLAIR_dseg.nii.gz", "sub-01", "dseg", "FLAIR", "01"),
        ("sub-01_space-MNI_dseg.nii.gz", "sub-01", "dseg", "", "01"),
        ("sub-01_desc-entropy_T1w.nii.gz", "sub-01", "entropy", "T1w", "01"),
        ("head_restored.nii.gz", "head", "restored", "", "head"),
        ("head_sd.nii.gz", "head", "sd", "", "head"),
        ("my_head.mgz", "my_head", "", "", "my_head"),
        ("training_seg_01.nii.gz", "training_seg_01", "", "", "training_seg_01"),
    ],
)
def test_what_a_name_says(name: str, key: str, word: str, contrast: str, person: str) -> None:
    found = name_of(Path(name))
    assert (found.key, found.word, found.contrast, found.person) == (key, word, contrast, person)


def test_probabilities_of_structures_belong_to_their_scan() -> None:
    for name in (
        "sub-01_desc-T1w_label-LeftThalamus_probseg.nii.gz",
        "sub-01_label-LeftThalamus_probseg.nii.gz",
    ):
        found = name_of(Path(name))
        assert (found.key, found.word, found.label) == ("sub-01", "probseg", "LeftThalamus")


def files(folder: Path, *names: str) -> tuple[Named, ...]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return named_files(folder, "results")


def test_pairs_of_a_bids_tree(tmp_path: Path) -> None:
    """Contrast decides where one session has several; the reference without a result is told."""
    anat = "sub-01/anat/sub-01"
    results = files(
        tmp_path / "out", f"{anat}_desc-restored_T1w.nii.gz", f"{anat}_desc-restored_FLAIR.nii.gz"
    )
    truth = files(
        tmp_path / "in", f"{anat}_T1w.nii.gz", f"{anat}_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"
    )
    pairs, alone = pair_files(results, truth)
    assert {(p.result.contrast, p.reference.contrast) for p in pairs} == {("T1w", "T1w"), ("FLAIR", "FLAIR")}
    assert [one.path.name for one in alone] == ["sub-02_T1w.nii.gz"]


def test_plain_names_and_their_companions(tmp_path: Path) -> None:
    results = files(tmp_path / "out", "a_restored.nii.gz", "a_sd.nii.gz", "b_restored.nii.gz")
    truth = files(tmp_path / "in", "a.nii.gz", "b.mgz")
    main = [one for one in results if one.word == "restored"]
    pairs, alone = pair_files(main, truth)
    assert [(p.result.path.name, p.reference.path.name) for p in pairs] == [
        ("a_restored.nii.gz", "a.nii.gz"),
        ("b_restored.nii.gz", "b.mgz"),
    ]
    assert alone == ()
    assert sibling(main[0], results, "sd") == tmp_path / "out" / "a_sd.nii.gz"
    assert sibling(main[1], results, "sd") is None


def test_names_that_repeat_go_by_their_folder(tmp_path: Path) -> None:
    results = files(tmp_path / "out", "p1/t1_dseg.nii.gz", "p2/t1_dseg.nii.gz")
    truth = files(tmp_path / "in", "p2/t1_seg.nii.gz", "p1/t1_seg.nii.gz")
    pairs, _ = pair_files(results, truth)
    assert all(p.result.path.parent.name == p.reference.path.parent.name for p in pairs)


def test_no_partner_and_two_partners_are_one_line(tmp_path: Path) -> None:
    results = files(tmp_path / "out", "a_restored.nii.gz", "c_restored.nii.gz")
    truth = files(tmp_path / "in", "a.nii.gz", "b.nii.gz")
    with pytest.raises(InputError, match=r"one reference for c_restored.nii.gz; got none"):
        pair_files(results, truth)
    both = files(tmp_path / "both", "a_restored.nii.gz", "a_translated.nii.gz")
    with pytest.raises(InputError, match=r"expected one result for a\.nii\.gz"):
        pair_files(both, truth)
    with pytest.raises(InputError, match="got neither"):
        named_files(tmp_path / "absent", "results")
