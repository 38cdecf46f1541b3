"""`radiata-medical train`, from the command's side, on four tiny heads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_core.runs import read_json, read_log
from radiata_medical.cli import run
from radiata_medical.experiment import calibrating
from radiata_medical.experiment.train import Train

from .tiny_labels import tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("labels") / "labels.h5", images=True)


def tiny(store: Path, out: Path, task: str = "prior", **changes: object) -> Train:
    given = {
        "dims": 2,
        "channels": (4, 4, 4) if task == "segmenter" else (8, 8),
        "window": 16,
        "steps": 2,
        "batch_size": 4,
        "together": 2,
        "warmup": 1,
        "checkpoint_every": 1,
        "validate_every": 2,
        "validation_scans": 2,
        "calibration_windows": 0,
        "log_every": 1,
        "tensorboard": False,
    }
    return Train(store, out, task, **(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["prior", "restorer", "segmenter", "joint"])
def test_each_task_trains_and_says_what_it_was(
    task: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(store, tmp_path / "run", task).run()
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run" / "model.safetensors")
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.metadata["task"] == task and model.metadata["dims"] == 2
    assert model.metadata["training"] == {"store": store.name, "people": 2}
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert any("validation_loss" in row for row in rows)
    record = read_json(tmp_path / "run" / "run.json")
    assert record["state"] == "done" and record["heads"] == 2 and record["data"][store.name]


def test_a_volume_and_its_own_scans(store: Path, tmp_path: Path) -> None:
    tiny(store, tmp_path / "run", dims=3, batch_size=2, images=True, steps=1, validate_every=5).run()
    assert load_model(tmp_path / "run" / "model.safetensors").metadata["dims"] == 3


def test_a_resumed_run_is_the_uninterrupted_one(store: Path, tmp_path: Path) -> None:
    """To the bit: weights, and the losses of the steps after."""
    tiny(store, tmp_path / "whole", steps=4).run()
    tiny(store, tmp_path / "parts", steps=4, max_minutes=0.0).run()
    assert max(row["step"] for row in read_log(tmp_path / "parts" / "log.jsonl")) in range(1, 4)
    tiny(store, tmp_path / "parts", steps=4, resume=True).run()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    losses = [
        {row["step"]: row["loss"] for row in read_log(tmp_path / name / "log.jsonl") if "loss" in row}
        for name in ("whole", "parts")
    ]
    assert losses[0][4] == losses[1][4]


def test_a_prior_is_measured_when_it_is_done(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: a run that stops is measured when it was resumed to its end."""
    asked = []
    monkeypatch.setattr(calibrating, "calibrate", lambda *words, **options: asked.append((words, options)))
    changes = {"validate_every": 5, "calibration_windows": 3, "images": True}
    tiny(store, tmp_path / "run", max_minutes=0.0, **changes).run()
    assert asked == []
    tiny(store, tmp_path / "run", resume=True, **changes).run()
    tiny(store, tmp_path / "other", "restorer", **changes).run()
    (((models, _, *numbers), options),) = asked
    assert models[0] == tmp_path / "run" / "model.safetensors" and numbers == [2, 16, 3]
    assert options == {"rendered": False, "device": "cpu"}


def test_another_seed_is_another_run(store: Path, tmp_path: Path) -> None:
    files = []
    for seed in (0, 1):
        tiny(store, tmp_path / str(seed), seed=seed, steps=1, validate_every=5).run()
        files.append(load_file(tmp_path / str(seed) / "model.safetensors"))
    assert any(not torch.equal(files[0][key], files[1][key]) for key in files[0])


def test_a_restorer_goes_on_from_a_prior_of_a_run(store: Path, tmp_path: Path) -> None:
    tiny(store, tmp_path / "prior", steps=1, validate_every=5).run()
    tiny(
        store, tmp_path / "restorer", "restorer", start=str(tmp_path / "prior"), channels=None, steps=1
    ).run()
    assert load_model(tmp_path / "restorer" / "model.safetensors").metadata["task"] == "restorer"
    with pytest.raises(InputError, match="expected a segmenter to start a segmenter from"):
        tiny(store, tmp_path / "wrong", "segmenter", start=str(tmp_path / "prior")).run()


def test_dry_run_prints_and_writes_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            [
                "train",
                str(store),
                "--out",
                str(tmp_path / "run"),
                "--task",
                "restorer",
                "--dims",
                "2",
                "--dry-run",
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "2 training and 1 validation cases" in text and "learning rate 0.0002" in text
    assert "window 128, 16 rows a step, 4 of one rendering" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--window", "40"], "a multiple of 16 voxels; got 40. Try 32"),
        (["--resume", "--overwrite"], "--resume or --overwrite; got both"),
        (["--calibration-windows", "-1"], "at least 0; got -1"),
        (["--start", "no-such-model"], "expected a model's name"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    more: list[str], message: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(store), "--out", str(tmp_path / "run"), "--dims", "2", *more]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "expected" in line]
    assert len(told) == 1 and message in told[0]
    assert list(tmp_path.iterdir()) == []


def test_stores_that_cannot_train_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="got no file"):
        tiny(tmp_path / "absent.h5", tmp_path / "run").run()
    tiny_store(tmp_path / "maps.h5")
    with pytest.raises(InputError, match="a scan with every label map"):
        tiny(tmp_path / "maps.h5", tmp_path / "run", images=True).run()
    assert not (tmp_path / "run").exists()
