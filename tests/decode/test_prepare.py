"""`prepare` end to end: what is written is what was there, interruptions go on, bad input is one line."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.cli import run
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import read_subject
from radiata_decode.experiment.prepare import LAYOUTS, Prepare


@pytest.fixture
def source(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    """40 trials of 20 stimuli in two sessions, three voxels of which one has a gap; pictures of two kinds."""
    folder = tmp_path / "in"
    (folder / "pictures").mkdir(parents=True)
    values = rng.normal(size=(40, 3)).astype(np.float32)
    values[17, 1] = np.nan
    np.save(folder / "betas.npy", values)
    table = pd.DataFrame(
        {"stimulus": [f"p{k:02d}" for k in range(20)] * 2, "session": [1] * 20 + [2] * 20, "run": [1, 2] * 20}
    )
    table.to_csv(folder / "trials.tsv", sep="\t", index=False)
    pd.DataFrame({"x": [1.0, 2, 3], "ncsnr": [0.5, 1.0, 2.0]}).to_csv(
        folder / "voxels.tsv", sep="\t", index=False
    )
    for k in range(20):  # even ones dark, odd ones bright
        picture = (rng.integers(0, 20, (16, 16, 3)) + (200 if k % 2 else 0)).astype(np.uint8)
        cv2.imwrite(str(folder / "pictures" / f"p{k:02d}.png"), picture)
    return folder, values


def given(folder: Path, out: Path, **more) -> Prepare:
    return Prepare("from-arrays", out, folder / "betas.npy", trials=folder / "trials.tsv", **more)


def test_what_is_written_is_what_was_there(source, tmp_path: Path) -> None:
    """NaN voxels masked and counted, ceilings from ncsnr, checksums of the sources, pictures under their names."""
    folder, values = source
    given(
        folder, tmp_path / "out", voxels=folder / "voxels.tsv", images=folder / "pictures", image_size=16
    ).run()
    subject = read_subject(tmp_path / "out")
    np.testing.assert_array_equal(subject.responses(), values[:, [0, 2]])
    assert subject.voxels["voxel"].tolist() == [0, 2] and subject.manifest["masked_voxels"]["not_finite"] == 1
    np.testing.assert_allclose(subject.noise_ceiling, [0.2, 0.8])
    assert subject.trials["repeat"].tolist() == [1] * 20 + [2] * 20
    assert subject.trials.groupby("stimulus")["split"].nunique().max() == 1
    assert (subject.trials["split"] == "test").sum() == 4  # a tenth of the stimuli, both showings
    stored = read_stimuli(tmp_path / "out")
    expected = cv2.imread(str(folder / "pictures/p07.png"))[:, :, ::-1]
    np.testing.assert_array_equal(stored.images(["p07"])[0], expected)
    card = json.loads((tmp_path / "out/manifest.json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-decode"
    assert any(source["Name"].endswith("in/betas.npy") for source in card["Sources"])
    assert card["zscore"].startswith("none") and not card["SyntheticData"]


@pytest.mark.parametrize(
    ("options", "test"),
    [
        ({"test_share": 0.0}, set()),
        ({"clusters": 2, "test_share": 0.5}, None),
        ({"test_share": 0.25, "seed": 3}, 5),
    ],
)
def test_splits(source, tmp_path: Path, options: dict, test) -> None:
    folder, _ = source
    more = {"images": folder / "pictures"} if "clusters" in options else {}
    given(folder, tmp_path / "out", **options, **more).run()
    subject = read_subject(tmp_path / "out")
    found = set(subject.trials["stimulus"][subject.trials["split"] == "test"])
    if test is None:  # one of the two kinds of picture, whole
        assert found in ({f"p{k:02d}" for k in range(0, 20, 2)}, {f"p{k:02d}" for k in range(1, 20, 2)})
        groups = read_stimuli(tmp_path / "out").table.set_index("stimulus")["group"]
        assert groups.nunique() == 2 and len(set(groups[sorted(found)])) == 1
    else:
        assert found == test or len(found) == test


def test_named_stimuli_validation_and_first_showings(source, tmp_path: Path) -> None:
    folder, values = source
    (folder / "test.txt").write_text("p03\np04\n")
    given(folder, tmp_path / "out", test_stimuli=folder / "test.txt", validation_share=0.5, repeats="1").run()
    subject = read_subject(tmp_path / "out")
    assert subject.trials["split"].value_counts().to_dict() == {"train": 9, "validation": 9, "test": 2}
    np.testing.assert_array_equal(subject.responses(), values[:20][:, [0, 2]])
    assert subject.manifest["trials_left_out"] == 20


def test_an_interrupted_preparation_goes_on(source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C in the third part the first two are not read again, and the result is the same bytes."""
    from radiata_decode.data import arrays

    folder, _ = source
    monkeypatch.setattr(arrays, "BLOCK", 10 * 3 * 4)
    reads, real = [], arrays.read_rows

    def stopping(path: Path, key: str | None, start: int, stop: int) -> np.ndarray:
        if start == 20 and len(reads) == 2:
            raise KeyboardInterrupt
        reads.append(start)
        return real(path, key, start, stop)

    monkeypatch.setattr(arrays, "read_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        given(folder, tmp_path / "out").run()
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.parts").is_dir()
    reads.append(-1)
    given(folder, tmp_path / "out").run()
    assert reads == [0, 10, -1, 20, 30] and not (tmp_path / ".out.parts").exists()
    monkeypatch.setattr(arrays, "read_rows", real)
    given(folder, tmp_path / "whole").run()
    assert (tmp_path / "out/responses.h5").read_bytes() == (tmp_path / "whole/responses.h5").read_bytes()


def test_a_changed_source_is_read_again(source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of another file of the same name would be another experiment's."""
    from radiata_decode.data.subject import SubjectWriter

    folder, values = source
    monkeypatch.setattr(SubjectWriter, "finish", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        given(folder, tmp_path / "out").run()
    monkeypatch.undo()
    np.save(folder / "betas.npy", values[::-1].copy())
    given(folder, tmp_path / "out").run()
    np.testing.assert_array_equal(read_subject(tmp_path / "out").responses(voxels=[0])[:, 0], values[::-1, 0])


def test_dry_run_writes_nothing_and_says_the_sizes(
    source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = source
    given(folder, tmp_path / "out", dry_run=True).run()
    text = capsys.readouterr().out
    assert "40 trials, 3 voxels" in text and "in memory" in text and "test 4 trials of 2 stimuli" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lag": 3.0}, "expected options of from-arrays; got --lag"),
        (
            {"test_runs": ("1:1",), "test_share": 0.2},
            "one rule of the split; got --test-runs and --test-share",
        ),
        ({"test_runs": ("1",)}, "as session:run"),
        ({"test_runs": ("1:1",)}, "each stimulus in one split; got 10 in several"),
        ({"repeats": "average"}, "averages are taken in training; got average"),
        ({"clusters": 4}, "pictures of the stimuli for --clusters; got none"),
        ({"test_share": 1.5}, "--test-share from 0 to below 1; got 1.5"),
        ({"images": Path("nowhere")}, "a folder of pictures; got no such folder"),
    ],
)
def test_bad_options(source, tmp_path: Path, options: dict, words: str) -> None:
    folder, _ = source
    with pytest.raises(InputError, match=re.escape(words)):
        given(folder, tmp_path / "out", **options).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_nothing_is_overwritten_unasked(source, tmp_path: Path) -> None:
    folder, _ = source
    given(folder, tmp_path / "out").run()
    before = (tmp_path / "out/responses.h5").read_bytes()
    with pytest.raises(InputError, match=r"--overwrite"):
        given(folder, tmp_path / "out", repeats="1").run()
    assert (tmp_path / "out/responses.h5").read_bytes() == before
    given(folder, tmp_path / "out", repeats="1", overwrite=True).run()
    assert len(read_subject(tmp_path / "out").trials) == 20


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.startswith("from-")])
def test_every_layout_refuses_what_is_not_there_in_one_line(
    tmp_path: Path, layout: str, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.npy"
    broken.write_bytes(b"text")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (tmp_path / "absent", broken, empty):
        assert run(["prepare", layout, str(path), "--out", str(tmp_path / "out")]) == 1
        lines = capfd.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and "error: expected" in lines[0] and "got" in lines[0], lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.npy", "empty"]


def test_an_unknown_layout_names_the_known(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "from-nds", "--out", str(tmp_path / "out")]) == 1
    assert "from-nsd" in capfd.readouterr().err


def test_the_slice_that_ships_is_prepared_and_split_by_run(tmp_path: Path) -> None:
    Prepare("from-haxby", tmp_path / "out", test_runs=("1:3", "1:9")).run()
    subject = read_subject(tmp_path / "out")
    assert len(subject.trials) == 96 and len(subject.voxels) == 530
    assert set(subject.trials["run"][subject.trials["split"] == "test"]) == {3, 9}


@pytest.mark.parametrize("kind", ["images", pytest.param("motion", marks=pytest.mark.slow)])
def test_a_simulation_is_called_one(tmp_path: Path, kind: str) -> None:
    Prepare(
        f"simulate-{kind}", tmp_path / "out", train_stimuli=6, test_count=3, showings=2, voxel_count=40
    ).run()
    subject = read_subject(tmp_path / "out")
    assert (
        subject.manifest["SyntheticData"] is True and len(subject.trials) == 18 and len(subject.voxels) == 40
    )
    with pytest.raises(InputError, match=r"no source"):
        Prepare(f"simulate-{kind}", tmp_path / "other", tmp_path).run()


def test_another_simulated_person_sees_the_same_with_other_voxels(tmp_path: Path) -> None:
    sizes = {"train_stimuli": 20, "test_count": 5, "showings": 1, "voxel_count": 60}
    people = []
    for number in ("1", "2"):
        Prepare("simulate-images", tmp_path / number, subject=number, **sizes).run()
        people.append(read_subject(tmp_path / number))
    shown = [read_stimuli(one.folder) for one in people]
    names = shown[0].table["stimulus"].tolist()
    assert np.array_equal(*(one.images(names) for one in shown))
    assert not people[0].voxels.equals(people[1].voxels)


def test_simulations_refuse_what_is_no_person_or_no_film(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="number of a person"):
        Prepare("simulate-images", tmp_path / "out", subject="anna").run()
    with pytest.raises(InputError, match="folder with films"):
        Prepare("simulate-motion", tmp_path / "out", films=tmp_path).run()
    assert list(tmp_path.iterdir()) == []
