"""Subject folders: what is read is what was written, and what cannot be used is refused in one line."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.stimuli import StimulusArrays, read_stimuli
from radiata_decode.data.subject import SubjectWriter, check_dataset, read_subject, write_subject


def trials_of(count: int, test: int = 3) -> pd.DataFrame:
    """Each stimulus twice, the last `test` trials (even or odd) of the test."""
    names = [f"{i // 2:04d}" for i in range(count)]
    held = set(names[count - test :])
    return pd.DataFrame({"stimulus": names, "split": ["test" if n in held else "train" for n in names]})


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(20, 7)).astype(np.float32)


def test_reads_back_what_was_written(tmp_path: Path, values: np.ndarray) -> None:
    voxels = pd.DataFrame({"x": np.arange(7) * 1.5, "roi_V1": [1, 0] * 3 + [1], "noise_ceiling": 0.25})
    trials = trials_of(20).assign(onset_s=np.arange(20) * 4.0, category="NA")
    written = write_subject(
        tmp_path / "s", values, trials, voxels, {"source": "test", "Sources": {"a": "00"}}
    )
    subject = read_subject(tmp_path / "s")
    np.testing.assert_array_equal(subject.responses(), values)
    assert subject.trials["stimulus"].tolist() == trials["stimulus"].tolist()
    assert subject.trials["repeat"].tolist() == [1, 2] * 10
    assert subject.trials["category"].tolist() == ["NA"] * 20
    np.testing.assert_array_equal(subject.trials["onset_s"], trials["onset_s"])
    np.testing.assert_array_equal(subject.rois["V1"], [True, False] * 3 + [True])
    assert subject.manifest["Sources"] == [{"Name": "a", "SHA256": "00"}]
    assert subject.manifest["GeneratedBy"][0]["Name"] == "radiata-decode"
    assert subject.sha256 == written.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


@pytest.mark.parametrize("block", [1, 3, 100])
def test_any_rows_and_voxels_in_any_order(tmp_path: Path, values: np.ndarray, block: int) -> None:
    subject = write_subject(tmp_path / "s", values, trials_of(20))
    rows, voxels = [19, 0, 5, 6, 7, 5, -1], [6, 2]
    np.testing.assert_array_equal(subject.responses(rows, voxels), values[rows][:, voxels])
    np.testing.assert_array_equal(
        np.concatenate(list(subject.blocks(rows, voxels, block))), values[rows][:, voxels]
    )
    np.testing.assert_array_equal(subject.responses(slice(3, 9, 2)), values[3:9:2])
    mask = values[:, 0] > 0
    np.testing.assert_array_equal(subject.responses(mask), values[mask])
    with pytest.raises(InputError, match="expected trials below 20; got 20"):
        subject.responses([20])


def test_a_part_of_the_file_is_read_only(
    tmp_path: Path, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial costs one trial, not the file."""
    subject = write_subject(tmp_path / "s", values, trials_of(20))
    read: list[int] = []
    original = h5py.Dataset.read_direct

    def counted(self: h5py.Dataset, target: np.ndarray, source: object, place: tuple) -> None:
        read.append(target[place].size)
        original(self, target, source, place)

    monkeypatch.setattr(h5py.Dataset, "read_direct", counted)
    subject.responses([4, 5, 17])
    assert sum(read) == 3 * 7


def test_voxels_that_are_not_finite_are_left_out_and_counted(tmp_path: Path, values: np.ndarray) -> None:
    values[3, 2], values[11, 5] = np.nan, np.inf
    writer = SubjectWriter(tmp_path / "s", {"a": 1})
    writer.append("one", values[:10], trials_of(20)[:10])
    writer.append("two", values[10:], trials_of(20)[10:])
    subject = writer.finish(pd.DataFrame({"x": np.arange(7)}))
    kept = [0, 1, 3, 4, 6]
    np.testing.assert_array_equal(subject.responses(), values[:, kept])
    assert subject.voxels["voxel"].tolist() == kept == subject.voxels["x"].tolist()
    assert subject.manifest["masked_voxels"] == {"not_finite": 2, "first": [2, 5]}
    values[4] = np.nan
    with pytest.raises(InputError, match=r"got none of 7 \(1 trials have no finite value"):
        write_subject(tmp_path / "t", values, trials_of(20))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


def test_an_interrupted_writer_goes_on_where_it_stopped(tmp_path: Path, values: np.ndarray) -> None:
    table = trials_of(20)
    first = SubjectWriter(tmp_path / "s", {"beta": "b3"})
    first.append("session-01", values[:10], table[:10])
    again = SubjectWriter(tmp_path / "s", {"beta": "b3"})
    assert again.done == ["session-01"] and not (tmp_path / "s").exists()
    again.append("session-02", values[10:], table[10:])
    whole = write_subject(tmp_path / "w", values, table)
    resumed = again.finish()
    np.testing.assert_array_equal(resumed.responses(), values)
    assert resumed.sha256 == whole.sha256
    SubjectWriter(tmp_path / "u", {"beta": "b3"}).append("session-01", values[:10], table[:10])
    assert SubjectWriter(tmp_path / "u", {"beta": "b2"}).done == []


def test_a_part_again_replaces_it_in_its_place(tmp_path: Path, values: np.ndarray) -> None:
    table = trials_of(20)
    writer = SubjectWriter(tmp_path / "s")
    writer.append("a", values[:10] * 0, table[:10])
    writer.append("b", values[10:], table[10:])
    writer.append("a", values[:10], table[:10])
    np.testing.assert_array_equal(writer.finish().responses(), values)


def test_half_precision_is_the_rounded_response(tmp_path: Path, values: np.ndarray) -> None:
    subject = write_subject(tmp_path / "s", values, trials_of(20), dtype="float16")
    np.testing.assert_array_equal(subject.responses(), values.astype(np.float16).astype(np.float32))
    with pytest.raises(InputError, match="within ±65504 for float16"):
        write_subject(tmp_path / "t", values * 1e6, trials_of(20), dtype="float16")


def test_dataset_keeps_the_contract(tmp_path: Path, values: np.ndarray) -> None:
    subject = write_subject(tmp_path / "s", values, trials_of(20), pd.DataFrame({"x": np.arange(7.0)}))
    dataset = subject.dataset(rows=[3, 1], voxels=[2, 0, 1])
    np.testing.assert_array_equal(dataset["responses"], values[[3, 1]][:, [2, 0, 1]])
    assert dataset["stimulus"].values.tolist() == ["0001", "0000"] and dataset["x"].values.tolist() == [
        2,
        0,
        1,
    ]
    with pytest.raises(InputError, match="without split"):
        check_dataset(dataset.drop_vars("split"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:-1], "one row of the trials table for each of 20 responses; got 19"),
        (lambda t: t.assign(split="train").replace({"split": {"train": "training"}}), "got 'training'"),
        (
            lambda t: t.assign(split=["train", "test"] * 10),
            r"each stimulus in one split; got 10 in several of test, train",
        ),
        (lambda t: t.assign(stimulus=[""] * 20), "a stimulus name in each trial; got none in trial 0"),
        (lambda t: pd.concat([t, t["split"]], axis=1), "each column of the trials table once; got split"),
        (lambda t: t.drop(columns="split"), "columns stimulus split in the trials table; split missing"),
        (lambda t: t.assign(run=1.5), "whole numbers in column run"),
    ],
)
def test_trials_that_do_not_fit_are_refused(tmp_path: Path, values: np.ndarray, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_subject(tmp_path / "s", values, change(trials_of(20)))
    assert list(tmp_path.iterdir()) == []


def test_voxels_that_do_not_fit_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    for table, message in (
        (pd.DataFrame({"x": np.arange(6)}), "each of 7 voxels of the responses; got 6"),
        (pd.DataFrame({"voxel": [0] * 7}), "got voxel 0 twice"),
        (pd.DataFrame({"roi_V1": [-1] * 7}), "0 or 1 in column roi_V1"),
    ):
        with pytest.raises(InputError, match=message):
            write_subject(tmp_path / "s", values, trials_of(20), table)
    writer = SubjectWriter(tmp_path / "s")
    writer.append("a", values, trials_of(20))
    with pytest.raises(InputError, match="7 voxels in part b, as in a; got 6"):
        writer.append("b", values[:, :6], trials_of(20))


def test_broken_folders_are_refused_in_one_line(tmp_path: Path, values: np.ndarray) -> None:
    def fresh(name: str) -> Path:
        write_subject(tmp_path / name, values, trials_of(20))
        return tmp_path / name

    with pytest.raises(InputError, match="expected a subject folder"):
        read_subject(tmp_path / "none")
    folder = fresh("cut")
    (folder / "responses.h5").write_bytes((folder / "responses.h5").read_bytes()[:1500])
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_subject(folder)
    assert "\n" not in str(caught.value)
    folder = fresh("format")
    with h5py.File(folder / "responses.h5", "a") as opened:
        opened.attrs["format"] = "other/1"
    with pytest.raises(InputError, match="got format other/1"):
        read_subject(folder)
    folder = fresh("manifest")
    (folder / "manifest.json").write_text(json.dumps({"format": "radiata-subject/9"}))
    with pytest.raises(InputError, match="manifest of format radiata-subject/1"):
        read_subject(folder)
    folder = fresh("columns")
    text = (folder / "trials.tsv").read_text()
    (folder / "trials.tsv").write_text(text.replace("run", "session", 1))
    with pytest.raises(InputError, match=r"each column of .* once; got session"):
        read_subject(folder)
    folder = fresh("short")
    (folder / "trials.tsv").write_text("\n".join(text.splitlines()[:-1]))
    with pytest.raises(InputError, match="each of 20 responses; got 19"):
        read_subject(folder)


def test_nothing_is_overwritten_unasked(tmp_path: Path, values: np.ndarray) -> None:
    write_subject(tmp_path / "s", values, trials_of(20))
    with pytest.raises(InputError, match="expected a new folder"):
        write_subject(tmp_path / "s", values, trials_of(20))
    other = write_subject(tmp_path / "s", values[:, :3], trials_of(20), overwrite=True)
    assert other.responses().shape == (20, 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="which holds other files"):
        write_subject(tmp_path / "mine", values, trials_of(20), overwrite=True)


def test_stimuli_stand_in_the_same_folder(
    tmp_path: Path, values: np.ndarray, rng: np.random.Generator
) -> None:
    pictures = rng.integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)
    table = pd.DataFrame({"stimulus": [f"{i:04d}" for i in range(10)]})
    subject = write_subject(
        tmp_path / "s", values, trials_of(20), stimuli=StimulusArrays(table, images=pictures)
    )
    found = read_stimuli(subject.folder).images(subject.trials["stimulus"].tolist())
    np.testing.assert_array_equal(found, np.repeat(pictures, 2, 0))
    assert "stimuli.h5" in subject.manifest["files"]


def test_the_checksum_follows_the_tables(tmp_path: Path, values: np.ndarray) -> None:
    """A split that was edited by hand is another subject for every model trained on it."""
    subject = write_subject(tmp_path / "s", values, trials_of(20))
    before = subject.sha256
    text = (tmp_path / "s" / "trials.tsv").read_text()
    (tmp_path / "s" / "trials.tsv").write_text(text.replace("test", "validation"))
    assert read_subject(tmp_path / "s").sha256 != before


def test_rows_of_a_split(tmp_path: Path, values: np.ndarray) -> None:
    subject = write_subject(tmp_path / "s", values, trials_of(20, test=4))
    assert subject.rows("test").tolist() == [16, 17, 18, 19]
    with pytest.raises(InputError, match="expected validation trials"):
        subject.rows("validation")
