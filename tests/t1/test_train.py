"""Training from the command's side: all prediction types, killed and resumed, wrong stores, presets."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_core.predictions import Prediction
from radiata_core.runs import read_json, read_log
from radiata_imaging.store import Store
from radiata_t1.model.build import Architecture, build_denoiser, with_prediction
from radiata_t1.model.predictions import PredictionType, path_and_prediction, type_of

from .conftest import tiny_train


@pytest.mark.parametrize("kind", ["sample", "epsilon", "velocity", "flow", "rflow"])
def test_every_prediction_type_learns_the_tiny_set(kind: str, tiny_store: Path, tmp_path: Path) -> None:
    """A hundred steps bring the held-out loss of each type below its start; what is saved says what it predicts."""
    options = {"prediction": kind, "steps": 60, "validate_every": 30, "log_every": 30, "ema": (0.1,)}
    tiny_train(tiny_store, tmp_path / "run", rank=0, learning_rate=1e-2, checkpoint_every=60, **options).run()
    losses = [
        row["validation_loss"] for row in read_log(tmp_path / "run" / "log.jsonl") if "validation_loss" in row
    ]
    assert losses[-1] < 0.97 * losses[0]
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.metadata["prediction"] == kind
    assert type_of(model.denoiser.path, model.denoiser.prediction) == kind  # type: ignore[arg-type, union-attr]


def test_a_run_records_what_it_was(tiny_run: Path, tiny_store: Path) -> None:
    record = read_json(tiny_run / "run.json")
    assert record["state"] == "done" and record["people"] == 6 and record["heads"] == 24
    assert record["options"]["rank"] == 4 and record["data"][tiny_store.name]
    model = read_json(tiny_run / "model.json")["metadata"]
    assert model["covariates"]["names"] == ["size", "age"]
    assert model["covariates"]["mean"][0] == pytest.approx(2.5, abs=0.4)
    assert model["shape"] == [8, 8, 8] and model["voxel_size_mm"] == [24.0] * 3
    assert "not for clinical use" in model["intended_use"].lower()
    logged = [key for row in read_log(tiny_run / "log.jsonl") for key in row]
    assert any(key.startswith("validation_loss_log_snr") for key in logged)


def _command(store: Path, out: Path, *more: str) -> list[str]:
    text = f"train {store} --out {out} --channels 8 8 --down-blocks 0 1 --up-blocks 1 1 --rank 4 --steps 400"
    text += " --batch-size 4"
    text += " --warmup 2 --checkpoint-every 3 --validate-every 1000 --log-every 50"
    code = "import sys, torch; torch.set_num_threads(1); from radiata_t1.cli import run; sys.exit(run(sys.argv[1:]))"
    return [sys.executable, "-c", code, *text.split(), *more]


def _started(command: list[str], out: Path, steps: int) -> "subprocess.Popen[str]":
    """The training process once its newest checkpoint is at `steps` or later."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        done = [int(path.name.split("-")[1]) for path in (out / "checkpoints").glob("step-*")]
        if done and max(done) >= steps:
            return process
        time.sleep(0.02)
    pytest.fail(f"no checkpoint at step {steps}: {process.communicate()}")


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_gives_the_same_bits(tiny_store: Path, tmp_path: Path) -> None:
    """SIGKILL twice at random steps; the resumed weights (both averages) equal those of an undisturbed run, bit by bit."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(_command(tiny_store, whole), check=True, capture_output=True)
    chance = random.Random(os.getpid())
    for attempt in range(2):
        process = _started(
            _command(tiny_store, broken, *(["--resume"] if attempt else [])),
            broken,
            chance.randrange(10, 150) + 150 * attempt,
        )
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (broken / "model.safetensors").exists()
    subprocess.run(_command(tiny_store, broken, "--resume"), check=True, capture_output=True)
    for name in ("model.safetensors", "model-ema-0.1.safetensors"):
        one, other = load_file(whole / name), load_file(broken / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_ctrl_c_saves_and_exits_130(tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = _started(_command(tiny_store, out), out, 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "is saved in" in said.strip().splitlines()[-1] and "--resume" in said
    assert read_json(out / "run.json")["state"] == "interrupted"


def test_a_full_disk_keeps_the_checkpoints(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the disk fills after the first checkpoint, one line says so, exit 1, and that checkpoint still loads."""
    from radiata_core import training_state
    from radiata_t1 import cli

    written = []
    original = training_state.write_tensors

    def until_full(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        if written:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        original(path, tensors)

    monkeypatch.setattr(training_state, "write_tensors", until_full)
    out = tmp_path / "run"
    words = (
        f"train {tiny_store} --out {out} --channels 8 8 --down-blocks 0 1 --up-blocks 1 1 --rank 4 --steps 6"
    )
    words += " --batch-size 4"
    assert cli.run([*words.split(), "--checkpoint-every", "2", "--validate-every", "100"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no space left" in error
    monkeypatch.undo()
    tiny_train(tiny_store, out, resume=True, learning_rate=1.5e-3, warmup=100, checkpoint_every=2).run()
    assert (out / "model.safetensors").is_file()


def test_fine_tuning_starts_where_the_other_type_ended(
    tiny_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    """--init with another type keeps every weight; a model of other covariates is refused."""
    tiny_train(tiny_store, tmp_path / "v", prediction="velocity", init=str(tiny_run), steps=1).run()
    start = load_file(tmp_path / "v" / "start" / "model.safetensors")
    assert all(
        torch.equal(start[key], value) for key, value in load_file(tiny_run / "model.safetensors").items()
    )
    with pytest.raises(InputError, match="expected a model of"):
        tiny_train(tiny_store, tmp_path / "w", init=str(tiny_run), covariates=("size",)).run()


def test_medforj_is_trained_with_its_blocks_computed_again_where_that_is_asked(
    tiny_store: Path, tmp_path: Path
) -> None:
    asked = tiny_train(tiny_store, tmp_path / "x", network="medforj", rank=0, checkpointing=True)
    with Store(tiny_store) as store:
        denoiser = asked._denoiser(store, [], [], asked._scale(store)[0])
    assert denoiser.network.checkpointing and denoiser.network.training
    with pytest.raises(InputError, match="expected --network medforj with --checkpointing; got unet"):
        replace(asked, network="unet").run()


def test_another_reading_of_the_same_weights_is_close(generator: torch.Generator) -> None:
    """rflow read as v: with a silent network both are the anchor; the scale factor is stated as 0.71 to 1."""
    denoiser = build_denoiser(
        Architecture((8, 8), (0, 1), (1, 1), rank=2), PredictionType.RFLOW, (8, 8, 8), 0, seed=1
    )
    other = with_prediction(denoiser, PredictionType.VELOCITY, rank=2, covariates=0)
    assert other.prediction is Prediction.V
    x = torch.randn(2, 1, 8, 8, 8, generator=generator)
    lam = torch.tensor(0.3, dtype=torch.float64)
    times = [d.path.time_of_log_snr(lam) for d in (denoiser, other)]
    scaled = [
        d(x * float(d.path.coefficients(t).sigma), t) for d, t in zip((denoiser, other), times, strict=True)
    ]
    assert torch.allclose(scaled[0], scaled[1], atol=1e-4)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    sizes = Architecture((8, 8), (0, 1), (1, 1), rank=2)
    one, same, other = (
        build_denoiser(sizes, PredictionType.RFLOW, (8, 8, 8), 0, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_types_are_what_medforj_means() -> None:
    assert [path_and_prediction(kind)[1] for kind in PredictionType] == [
        Prediction.X0,
        Prediction.EPSILON,
        Prediction.V,
        Prediction.FLOW,
        Prediction.VELOCITY,
    ]


def test_a_preset_fills_what_the_command_leaves(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "p.toml"
    preset.write_text('prediction = "flow"\nsteps = 7\nema = [0.1]\n')
    command = replace(tiny_train(tiny_store, tmp_path / "r", steps=3, dry_run=True), preset=preset)
    command.run()
    said = capsys.readouterr().out
    assert "prediction: flow" in said and "steps: 3" in said
    assert not (tmp_path / "r").exists()
    preset.write_text("stepz = 7\n")
    with pytest.raises(InputError, match="'stepz'"):
        command.run()
    preset.write_text("steps = = 7\n")
    with pytest.raises(InputError, match="expected TOML"):
        command.run()


def test_wrong_stores_and_folders_are_one_line(tiny_store: Path, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a store"):
        tiny_train(tmp_path / "none.h5", tmp_path / "a").run()
    with pytest.raises(InputError, match="got 'weight'"):
        tiny_train(tiny_store, tmp_path / "b", covariates=("weight",)).run()
    before = json.loads((tiny_run / "run.json").read_text())
    with pytest.raises(InputError, match="--overwrite"):
        tiny_train(tiny_store, tiny_run).run()
    assert json.loads((tiny_run / "run.json").read_text()) == before
