"""`score`: the numbers of the benchmark's leaderboard from the command line."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core import commands
from radiata_core.runs import sole_writer
from radiata_latents.experiment.benchmark_score import score_submission
from radiata_latents.experiment.score import Score

from .test_benchmark_score import files


def call(*words: object) -> int:
    return commands.main("radiata-latents", "Latents.", {"score": Score}, ["score", *map(str, words)])


def test_prints_and_writes_the_scores(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    submission, targets = files(tmp_path, rng, ("mc_rtt_20", "mc_maze_small_20"))
    assert call(submission, "--targets", targets, "--json", tmp_path / "s.json") == 0
    wanted = score_submission(submission, targets)
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["scores"] == wanted and set(written["sources"]) == {submission.name, targets.name}
    said = capfd.readouterr().out
    assert "mc_rtt_20_split" in said and "[100] co-bps" in said
    assert f"{wanted['mc_rtt_20_split']['co-bps']:8.4f}" in said


def test_wrong_input_is_one_line(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    """Hz, targets that miss the data set or are missing, files that are none; nothing is left."""
    submission, targets = files(tmp_path, rng, ("mc_rtt_20",))
    with h5py.File(submission, "r") as file, h5py.File(tmp_path / "hz.h5", "w") as hz:
        for key, rates in file["mc_rtt_20"].items():
            hz[f"mc_rtt_20/{key}"] = rates[()] / 0.02
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["mc_maze/eval_spikes_heldout"] = np.ones((2, 3, 4))
    (tmp_path / "text.h5").write_text("none")
    before = sorted(tmp_path.iterdir())
    says = [
        ("Multiply rates in Hz", tmp_path / "hz.h5", targets),
        ("targets of mc_rtt_20", submission, tmp_path / "other.h5"),
        ("no such file", submission, tmp_path / "absent.h5"),
        ("no such file", tmp_path / "absent.h5", targets),
        ("which cannot be read", submission, tmp_path / "text.h5"),
        ("which cannot be read", tmp_path / "text.h5", targets),
    ]
    for text, mine, theirs in says:
        assert call(mine, "--targets", theirs, "--json", tmp_path / "s.json") == 1
        lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1 and "error: expected" in lines[0] and text in lines[0]
    assert sorted(tmp_path.iterdir()) == before


def test_one_process_at_a_time_writes_them(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    submission, targets = files(tmp_path, rng, ("mc_rtt_20",))
    with sole_writer(tmp_path / "s.json"):
        assert call(submission, "--targets", targets, "--json", tmp_path / "s.json") == 1
    assert "in use by process" in capfd.readouterr().err
    assert not (tmp_path / "s.json").exists()
