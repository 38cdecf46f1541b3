"""Mutated files of every reader: none ends in anything but a value or one line."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def survivors(inputs: int, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), "--inputs", str(inputs), "--seed", str(seed)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"| **all** | {inputs} |" in done.stdout


def test_five_hundred_inputs() -> None:
    survivors(500, 0)


@pytest.mark.slow
def test_ten_thousand_inputs() -> None:
    survivors(10_000, 0)
