"""Training in two gloo processes: the steps of one process with two pieces, and other noise for each.

`torchrun` and `accelerate launch` start processes like this: with a rank and a place to meet in the environment.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radiata_core.checkpoints import Checkpoints

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("tiny_training.py")


def trained(folder: Path, processes: int, steps: int, *more: str, stop_at: Path | None = None) -> Path:
    """The folder of a training by so many processes; batches of 8 are always cut into two pieces of 4.

    With `stop_at`, the first process gets SIGTERM when that file, what it drew, has five lines, and all end with 130.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, str(SCRIPT), "train", "--folder", str(folder), "--steps", str(steps)]
    words += ["--accumulate", str(2 // processes), *more]
    base = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    base |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    running = []
    for rank in range(processes):
        meeting = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        meeting |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = base | (meeting if processes > 1 else {})
        running.append(subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True))
    if stop_at is not None:
        limit = time.monotonic() + 300
        while not stop_at.is_file() or len(stop_at.read_text().split()) < 5:
            assert time.monotonic() < limit and running[0].poll() is None
            time.sleep(0.02)
        running[0].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=600)[1] for process in running]
    expected = 0 if stop_at is None else 130
    assert [process.returncode for process in running] == [expected] * processes, said
    return folder


def assert_same(one: Path, two: Path, step: int) -> None:
    """Weights, averages and the optimiser's moments agree to rounding in float32, which adds up over the steps."""
    a, b = (Checkpoints(folder / "checkpoints", 2).newest() for folder in (one, two))
    assert a is not None and b is not None and a["step"] == b["step"] == step
    for name, value in a["model"].items():
        torch.testing.assert_close(b["model"][name], value, rtol=1e-5, atol=1e-6)
    for group, moments in a["optimizer"]["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(b["optimizer"]["state"][group][name], value, rtol=1e-4, atol=1e-6)
    exported = [load_file(folder / "model.safetensors") for folder in (one, two)]
    for name, value in exported[0].items():
        torch.testing.assert_close(exported[1][name], value, rtol=1e-5, atol=1e-6)


def test_two_processes_take_the_steps_of_one_and_draw_other_noise(tmp_path: Path) -> None:
    """20 steps. The ranks never draw the same noise, and together what the one process draws, piece by piece."""
    noise = {name: tmp_path / f"noise-{name}" for name in ("one", "two")}
    for folder in noise.values():
        folder.mkdir()
    one = trained(tmp_path / "one", 1, 20, "--noise", str(noise["one"]))
    two = trained(tmp_path / "two", 2, 20, "--noise", str(noise["two"]))
    assert_same(one, two, 20)
    drawn = [(noise["two"] / f"{rank}.txt").read_text().split() for rank in (0, 1)]
    assert len(drawn[0]) == len(drawn[1]) == 20 and not set(drawn[0]) & set(drawn[1])
    pieces = [number for pair in zip(*drawn, strict=True) for number in pair]
    assert (noise["one"] / "0.txt").read_text().split() == pieces


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, first: int, then: int) -> None:
    """Stopped by SIGTERM in the middle, which one rank got, and resumed: the weights of a run that was left alone."""
    alone = trained(tmp_path / "alone", 1, 40)
    noise = tmp_path / "noise"
    noise.mkdir()
    cut = tmp_path / "cut"
    trained(cut, first, 40, "--pause", "0.01", "--noise", str(noise), stop_at=noise / "0.txt")
    state = Checkpoints(cut / "checkpoints", 2).newest()
    assert state is not None and 1 <= state["step"] < 40
    assert_same(alone, trained(cut, then, 40, "--resume"), 40)
