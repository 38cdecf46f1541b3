"""Training: resumed to the bit, whole checkpoints, the same rows however the batch is cut."""

import dataclasses
import importlib.util
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from radiata_core.checkpoint import load_model
from radiata_core.checkpoints import Checkpoints
from radiata_core.errors import InputError
from radiata_core.logs import read_log
from radiata_core.orders import BalancedOrder, ShuffledOrder
from radiata_core.runs import sha256
from radiata_core.train import train
from radiata_core.trainer import held_modules

SCRIPT = Path(__file__).with_name("tiny_training.py")
_spec = importlib.util.spec_from_file_location("tiny_training", SCRIPT)
tiny = importlib.util.module_from_spec(_spec)
sys.modules["tiny_training"] = tiny
_spec.loader.exec_module(tiny)


def started(folder: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "train", "--folder", str(folder), *more],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    tiny.train(
        tiny.tiny_denoiser(), tiny.objective, tiny.Points(), folder, tiny.options(), validation=tiny.Points()
    )
    return folder


def same_weights(a: Path, b: Path) -> bool:
    names = ("model.safetensors", "model-ema-0.1.safetensors")
    states = (Path("checkpoints") / "step-00000060" / "state.safetensors",)
    return all(sha256(a / name) == sha256(b / name) for name in (*names, *states))


def test_killed_and_resumed_ends_in_the_same_bits(undisturbed, tmp_path):
    """SIGKILL at an arbitrary moment; weights, both averages and the optimiser's moments agree to the bit."""
    process = started(tmp_path, "--pause", "0.004")
    until(lambda: (tmp_path / "checkpoints" / "step-00000010").exists())
    time.sleep(random.SystemRandom().uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "model.safetensors").exists()
    again = started(tmp_path, "--resume")
    assert again.wait(60) == 0, again.communicate()[1]
    again.communicate()
    assert same_weights(undisturbed, tmp_path)
    losses = {r["step"]: r["loss"] for r in read_log(tmp_path / "log.jsonl") if "loss" in r}
    whole = {r["step"]: r["loss"] for r in read_log(undisturbed / "log.jsonl") if "loss" in r}
    assert losses.keys() == whole.keys()
    assert losses[60] == whole[60]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_finishes_the_step_saves_and_exits_130(tmp_path, number):
    process = started(tmp_path, "--pause", "0.01", "--steps", "100000")
    until(lambda: (tmp_path / "checkpoints" / "step-00000005").exists())
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    step = Checkpoints(tmp_path / "checkpoints", 2).newest()["step"]
    assert f"step {step} is saved" in errors
    assert "Traceback" not in errors


def test_stopped_by_time_and_resumed_is_the_same(undisturbed, tmp_path):
    stopped = train(
        tiny.tiny_denoiser(), tiny.objective, tiny.Points(), tmp_path, tiny.options(max_minutes=0.0)
    )
    assert not stopped.finished
    assert stopped.step == 1
    assert (tmp_path / "model.safetensors").exists()
    finished = train(tiny.tiny_denoiser(), tiny.objective, tiny.Points(), tmp_path, tiny.options(resume=True))
    assert finished.finished
    assert same_weights(undisturbed, tmp_path)


def test_workers_read_the_same_rows(undisturbed, tmp_path):
    train(tiny.tiny_denoiser(), tiny.objective, tiny.Points(), tmp_path, tiny.options(workers=1))
    assert same_weights(undisturbed, tmp_path)


def test_two_pieces_of_four_are_one_batch_of_eight(tmp_path):
    """Without dropout, whose masks are drawn piece by piece."""
    ends = []
    for pieces in (1, 2):
        denoiser = tiny.tiny_denoiser()
        denoiser.layers[2].p = 0.0
        train(
            denoiser,
            tiny.objective,
            tiny.Points(),
            tmp_path / str(pieces),
            tiny.options(accumulate=pieces, steps=20),
        )
        ends.append(torch.cat([p.detach().flatten() for p in denoiser.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_a_corrupt_newest_checkpoint_is_skipped(undisturbed, tmp_path, capsys):
    train(tiny.tiny_denoiser(), tiny.objective, tiny.Points(), tmp_path, tiny.options(steps=30))
    newest = tmp_path / "checkpoints" / "step-00000030" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    train(tiny.tiny_denoiser(), tiny.objective, tiny.Points(), tmp_path, tiny.options(resume=True))
    assert "skipped the checkpoint step-00000030" in capsys.readouterr().err
    assert same_weights(undisturbed, tmp_path)


def test_the_last_checkpoints_are_kept(undisturbed):
    names = [path.name for path in Checkpoints(undisturbed / "checkpoints", 2).folders()]
    assert names == ["step-00000055", "step-00000060"]


def test_one_checkpoint_too_many_of_a_process_that_was_killed_goes(undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    shutil.copytree(folder / "checkpoints" / "step-00000055", folder / "checkpoints" / "step-00000050")
    train(tiny.tiny_denoiser(), tiny.objective, tiny.Points(), folder, tiny.options(resume=True))
    names = [path.name for path in Checkpoints(folder / "checkpoints", 2).folders()]
    assert names == ["step-00000055", "step-00000060"]


def test_nothing_intact_goes_while_the_newest_checkpoint_is_broken(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "checkpoints", tmp_path / "checkpoints")
    shutil.copytree(tmp_path / "checkpoints" / "step-00000055", tmp_path / "checkpoints" / "step-00000050")
    kept = Checkpoints(tmp_path / "checkpoints", 1)
    kept.tidy(55)
    assert len(kept.folders()) == 3
    kept.tidy(60)
    assert [path.name for path in kept.folders()] == ["step-00000060"]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    import radiata_core.training_state as training_state

    write = training_state.write_tensors

    def full(path, tensors):
        if "00000010" in str(path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        write(path, tensors)

    monkeypatch.setattr(training_state, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        train(tiny.tiny_denoiser(), tiny.objective, tiny.Points(), tmp_path, tiny.options())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    assert Checkpoints(tmp_path / "checkpoints", 2).newest()["step"] == 5


def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path):
    points = tiny.Points()
    points.images[ShuffledOrder(37, 0)(8 * 12)] = math.nan  # first met in the thirteenth step

    # The second epoch meets it again; in the first 12 steps (96 rows) the order may too.
    first = next(
        row // 8 + 1 for row in range(999) if torch.isnan(points[ShuffledOrder(37, 0)(row)]["image"]).any()
    )
    with pytest.raises(InputError, match=f"at step {first}[.]"):
        train(
            tiny.tiny_denoiser(), tiny.objective, points, tmp_path, tiny.options(checkpoint_every=1, ema=())
        )
    newest = Checkpoints(tmp_path / "checkpoints", 2).newest() if first > 1 else None
    assert newest is None or newest["step"] == first - 1


def test_refuses_to_mix_two_runs(undisturbed):
    with pytest.raises(InputError, match="Pass --resume"):
        train(tiny.tiny_denoiser(), tiny.objective, tiny.Points(), undisturbed, tiny.options())
    with pytest.raises(InputError, match="same seed"):
        train(
            tiny.tiny_denoiser(),
            tiny.objective,
            tiny.Points(),
            undisturbed,
            tiny.options(seed=1, resume=True),
        )


def test_the_exported_model_is_the_first_average(undisturbed):
    state = Checkpoints(undisturbed / "checkpoints", 2).newest()
    loaded = load_model(undisturbed)
    assert loaded.metadata == {"step": 60, "ema": 0.05}
    for name, value in state["ema"]["averages"]["0.05"].items():
        assert torch.equal(loaded.denoiser.state_dict()[name], value)


def test_training_learns(undisturbed):
    losses = [r["validation_loss"] for r in read_log(undisturbed / "log.jsonl") if "validation_loss" in r]
    assert len(losses) == 3
    assert losses[-1] < 0.9 * losses[0]


def test_validation_is_binned_and_curves_are_drawn(tmp_path):
    from radiata_core.paths import LinearPath

    class WithPath:
        path = LinearPath()
        __call__ = staticmethod(tiny.objective)

    train(
        tiny.tiny_denoiser(),
        WithPath(),
        tiny.Points(),
        tmp_path,
        tiny.options(steps=20, tensorboard=True),
        validation=tiny.Points(),
    )
    record = next(r for r in read_log(tmp_path / "log.jsonl") if "validation_loss" in r)
    bins = [value for name, value in record.items() if "log_snr" in name]
    assert len(bins) >= 4
    assert min(bins) <= record["validation_loss"] <= max(bins)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_every_epoch_reads_every_item_once_in_another_order():
    order = ShuffledOrder(11, seed=4)
    epochs = [[order(11 * epoch + place) for place in range(11)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_balanced_epochs_read_every_person_once():
    groups = ["a"] * 8 + ["b"] + ["c"] * 2
    order = BalancedOrder(groups, seed=1)
    for epoch in range(20):
        assert sorted(groups[order(3 * epoch + place)] for place in range(3)) == ["a", "b", "c"]
    assert {order(row) for row in range(300)} == set(range(11))


def test_the_modules_an_objective_holds_are_found_and_moved() -> None:
    """A teacher beside the student must be on the student's device: the trainer moves what `held_modules` finds."""
    teacher, critic = torch.nn.Identity(), torch.nn.ReLU()

    @dataclasses.dataclass(frozen=True)
    class Term:
        critic: torch.nn.Module

    @dataclasses.dataclass(frozen=True)
    class Held:
        teacher: torch.nn.Module
        terms: tuple = ()
        name: str = "held"

    found = held_modules(Held(teacher, (Term(critic), abs)))
    assert [id(module) for module in found] == [id(teacher), id(critic)]
    assert held_modules(lambda denoiser, x0, generators: None) == []
