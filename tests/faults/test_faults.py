"""Commands that are killed, stopped, crowded and starved end as if nothing had been, or say in one line why not."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def survived(*words: str) -> str:
    """The tables of a run in which everything survived."""
    done = subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_some_commands_survive_three_kills_and_one_of_them_everything_else() -> None:
    tables = survived("--quick", "--kills", "3", "--injuries")
    assert "| t1 train | 3 |" in tables and "| two processes | 1 | 1 |" in tables


@pytest.mark.slow
def test_every_command_survives_fifty_kills() -> None:
    survived("--kills", "50")


@pytest.mark.slow
def test_every_command_survives_everything_else() -> None:
    survived("--injuries")
