"""`radiata-t1 prepare`, called in-process: stores, splits, reports, bad files, stopping and going on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.nifti import read_volume, write_volume
from radiata_imaging.preprocess import PreprocessSpec, Record, prepare_volume, restore_to_input
from radiata_imaging.store import Store, StoreWriter
from radiata_imaging.volume import Volume, centred_affine
from radiata_t1.experiment.prepare import Prepare

SHAPE = (30, 34, 32)


def write_head(path: Path, rng: np.random.Generator, spacing: float = 6.0) -> Path:
    """An ellipsoid with a random inside, about a head in size."""
    grid = np.stack(np.meshgrid(*[spacing * (np.arange(n) - (n - 1) / 2) for n in SHAPE], indexing="ij"))
    inside = np.sqrt((grid[0] / 75) ** 2 + (grid[1] / 90) ** 2 + (grid[2] / 85) ** 2) < rng.uniform(0.9, 1.05)
    array = np.where(inside, rng.uniform(60, 140, SHAPE), rng.uniform(0, 4, SHAPE))
    return write_volume(path, Volume(array, centred_affine(SHAPE, spacing, "RAS")), dtype="float32")


@pytest.fixture
def bids(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Five people, two of them with two visits."""
    folder = tmp_path / "bids"
    for subject in range(5):
        for visit in ("a", "b")[: 2 if subject < 2 else 1]:
            stem = f"sub-{subject:02d}_ses-{visit}_T1w.nii.gz"
            write_head(folder / f"sub-{subject:02d}" / f"ses-{visit}" / "anat" / stem, rng)
    rows = "".join(f"sub-{s:02d}\t{20 + s}\t{'FM'[s % 2]}\n" for s in range(4)) + "sub-04\tn/a\tF\n"
    (folder / "participants.tsv").write_text("participant_id\tage\tsex\n" + rows)
    return folder


def task(source: Path, **keywords: Any) -> Prepare:
    out = keywords.pop("out", source.parent / "heads.h5")
    defaults = {"spacing": 12.0, "shape": (16, 18, 16), "fractions": (0.6, 0.2, 0.2)}
    return Prepare(source=source, out=out, **(defaults | keywords))


def test_a_bids_tree_becomes_a_store(bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Split by person, covariates with NaN, arrays as the library prepares them, a way back to each input."""
    task(bids).run()
    store = Store(bids.parent / "heads.h5", (16, 18, 16))
    assert len(store) == 7
    splits = {subject: set(store.split[store.subjects == subject]) for subject in store.subjects}
    assert all(len(names) == 1 for names in splits.values())
    assert sorted(next(iter(names)) for names in splits.values()) == [
        "test",
        "train",
        "train",
        "train",
        "validation",
    ]
    assert store.covariate_names == ("age", "sex")
    assert np.isnan(store.covariates[store.subjects == "04", 0]).all()
    for index in (0, 3):
        volume = read_volume(store.sources[index])
        expected = prepare_volume(volume, PreprocessSpec(spacing=12.0, shape=(16, 18, 16)))
        np.testing.assert_allclose(store.array(index), expected.array, atol=2e-5)
        np.testing.assert_allclose(store.affines[index], expected.affine)
        back = restore_to_input(store.array(index), Record.from_dict(store.record(index)))
        assert back.shape == volume.shape
    sidecar = json.loads((bids.parent / "heads.json").read_text())
    assert sidecar["splits"]["train"]["subjects"] == 3
    assert sidecar["covariate_codes"] == {"sex": {"F": 0, "M": 1}}
    assert sidecar["items"][0]["header"]["axcodes"] == "RAS"
    assert sidecar["items"][0]["header"]["warnings"] == ["voxels coarser than 1.2 mm"]
    printed = capsys.readouterr().out.splitlines()
    assert "30×34×32" in printed[1]
    assert printed[-1].endswith("heads.h5")


def test_the_same_task_makes_the_same_store(bids: Path) -> None:
    """Whatever the number of workers: same identity, same voxels."""
    task(bids, out=bids.parent / "a.h5").run()
    task(bids, out=bids.parent / "b.h5", workers=3).run()
    first, second = Store(bids.parent / "a.h5"), Store(bids.parent / "b.h5")
    assert first.store_id == second.store_id
    np.testing.assert_array_equal(first.images[()], second.images[()])


@pytest.mark.slow
def test_two_processes_make_the_same_store(bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same voxels and the same rows, with a file that is no scan among them."""
    (bids / "sub-03" / "ses-a" / "anat" / "sub-03_ses-a_T1w.nii.gz").write_bytes(b"")
    task(bids, out=bids.parent / "a.h5", skip_bad=True).run()
    task(bids, out=bids.parent / "b.h5", skip_bad=True, processes=2).run()
    first, second = Store(bids.parent / "a.h5"), Store(bids.parent / "b.h5")
    assert first.store_id == second.store_id and len(second) == 6
    np.testing.assert_array_equal(first.images[()], second.images[()])
    rows = [json.loads((bids.parent / f"{name}.json").read_text())["items"] for name in "ab"]
    assert rows[0] == rows[1]
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "sub-03" in line]) == 2


def test_a_dry_run_writes_nothing(bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task(bids, dry_run=True).run()
    assert sorted(path.name for path in bids.parent.iterdir()) == ["bids"]
    assert "train 3 subjects" in capsys.readouterr().out


def test_nothing_is_overwritten_unless_asked(bids: Path) -> None:
    task(bids).run()
    before = (bids.parent / "heads.h5").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        task(bids).run()
    assert (bids.parent / "heads.h5").read_bytes() == before
    task(bids, seed=5, overwrite=True).run()
    assert (bids.parent / "heads.h5").read_bytes() != before


def test_bad_files_are_reported_together_and_can_be_left_out(
    bids: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The good ones are kept: the second run prepares none of them again."""
    cut = bids / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz"
    cut.write_bytes(cut.read_bytes()[:300])
    (bids / "sub-03" / "ses-a" / "anat" / "sub-03_ses-a_T1w.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 of 7 are not: sub-02_.*--skip-bad") as caught:
        task(bids).run()
    assert "\n" not in str(caught.value)
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (bids.parent / "heads.h5").exists()
    appended = []
    append = StoreWriter.append
    monkeypatch.setattr(
        StoreWriter, "append", lambda *a, **k: (appended.append(a[1].subject), append(*a, **k))
    )
    task(bids, skip_bad=True).run()
    assert appended == []
    assert len(Store(bids.parent / "heads.h5")) == 5
    assert json.loads((bids.parent / "heads.json").read_text())["skipped"] == 2


def test_one_bad_file_is_one_line(bids: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bids / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz").write_text("hello")
    with pytest.raises(InputError, match=r"expected gzip data.*--skip-bad"):
        task(bids).run()
    assert capsys.readouterr().err == ""


def test_an_interrupted_run_goes_on(bids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after three scans: they are kept, the store is absent, the same command finishes with the same store."""
    task(bids, out=bids.parent / "whole.h5").run()
    append, count = StoreWriter.append, []

    def interrupted(*args: Any, **keywords: Any) -> None:
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(1)
        append(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            task(bids).run()
    assert not (bids.parent / "heads.h5").exists()
    assert len(list((bids.parent / "heads.h5.parts").glob("*.part.h5"))) == 3
    task(bids).run()
    assert Store(bids.parent / "heads.h5").store_id == Store(bids.parent / "whole.h5").store_id


def test_another_split_reuses_nothing_wrong(bids: Path) -> None:
    """Parts of an unfinished run with another seed do not smuggle their split in."""
    (bids / "sub-04" / "ses-a" / "anat" / "sub-04_ses-a_T1w.nii.gz").write_bytes(b"")
    with pytest.raises(InputError):
        task(bids, seed=1).run()
    task(bids, seed=2, skip_bad=True).run()
    task(bids, seed=2, skip_bad=True, out=bids.parent / "fresh.h5").run()
    assert Store(bids.parent / "heads.h5").store_id == Store(bids.parent / "fresh.h5").store_id


def test_one_image_under_two_names_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "scans"
    first = write_head(folder / "anna.nii.gz", rng)
    (folder / "bert.nii.gz").write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"same file as .*anna.* Remove the duplicate"):
        task(folder, fractions=(1.0, 0.0, 0.0)).run()
    assert not (tmp_path / "heads.h5").exists()


def test_a_subject_in_two_splits_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("a", "b"):
        write_head(tmp_path / f"{name}.nii.gz", rng)
    (tmp_path / "scans.csv").write_text("path,subject,split\na.nii.gz,01,train\nb.nii.gz,01,test\n")
    with pytest.raises(InputError, match="each subject in one split"):
        task(tmp_path / "scans.csv").run()


def test_a_file_without_orientation_needs_its_name(tmp_path: Path, rng: np.random.Generator) -> None:
    import nibabel as nib

    folder = tmp_path / "scans"
    folder.mkdir()
    array = read_volume(write_head(tmp_path / "a.nii.gz", rng)).array
    image = nib.Nifti1Image(array, None)
    image.header["pixdim"][1:4] = 6
    nib.save(image, folder / "a.nii.gz")
    with pytest.raises(InputError, match="--assume-axcodes RAS"):
        task(folder).run()
    task(folder, assume_axcodes="RAS").run()
    known = prepare_volume(
        read_volume(tmp_path / "a.nii.gz"), PreprocessSpec(spacing=12.0, shape=(16, 18, 16))
    )
    np.testing.assert_allclose(Store(tmp_path / "heads.h5").array(0), known.array, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": Path("heads.hdf")}, r"ending in \.h5"),
        ({"workers": 0}, "at least one worker"),
        ({"compression": "zip"}, "lzf, gzip or none"),
        ({"spacing": -1.0}, "spacing"),
        ({"source": Path("absent")}, "got nothing at absent"),
        ({"fractions": (0.5, 0.1, 0.1)}, "sum to 1"),
    ],
)
def test_misuse_is_said_before_work_starts(bids: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(task(bids), **change).run()
