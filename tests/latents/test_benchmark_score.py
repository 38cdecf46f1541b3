"""Scores of a submission: the benchmark's own numbers, and a score of each kind known beforehand."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.submission import REQUIRED_KEYS, save_submission
from radiata_latents.experiment.benchmark_score import score_submission

GROUPS = ("mc_maze", "mc_maze_20", "mc_rtt_20", "area2_bump", "dmfc_rsg", "mc_maze_large", "mc_maze_small_20")
Groups = dict[str, dict[str, np.ndarray]]


def smooth_rates(rng: np.random.Generator, trials: int, bins: int, neurons: int) -> np.ndarray:
    phase = rng.uniform(0, 6, (trials, 1, neurons))
    return 0.3 + 0.25 * np.sin(np.linspace(0, 5, bins)[:, None] + phase)


def targets_of(group: str, rates: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Targets with every key of the benchmark's file: masks, histograms, jitter, missing bins, ragged conditions."""
    made = {
        f"eval_spikes_{part}": rng.poisson(rates[f"eval_rates_{part}"]).astype(float)
        for part in ("heldin", "heldout", "heldin_forward", "heldout_forward")
    }
    trials, bins = rates["eval_rates_heldin"].shape[:2]
    if group.startswith("dmfc_rsg"):
        for i, start in enumerate(rng.integers(0, bins // 2, trials)):
            made["eval_spikes_heldout"][i, :start] = np.nan
        columns = [rng.integers(0, 2, trials), np.zeros(trials), rng.integers(0, 2, trials), np.ones(trials)]
        made["eval_behavior"] = np.stack([*columns, rng.uniform(0.5, 1, trials)], 1)
        made["eval_behavior"][3] = np.nan
        made["train_behavior"] = made["eval_behavior"]
        made["eval_jitter"] = rng.integers(-2, 3, trials)
    else:
        for part in ("train", "eval"):
            whole = np.concatenate([rates[f"{part}_rates_heldin"], rates[f"{part}_rates_heldout"]], -1)
            velocity = whole @ np.random.default_rng(1).standard_normal((whole.shape[2], 2))
            velocity += rng.normal(0, 0.3, velocity.shape)
            velocity[1, :4] = np.nan
            made[f"{part}_behavior"] = velocity
            if group.startswith("area2_bump"):
                bump = np.arange(len(whole)) % 2 == 1
                made[f"{part}_decode_mask"] = np.stack([~bump, bump], 1)
    if not group.startswith("mc_rtt"):
        everything = np.concatenate([rates["eval_rates_heldin"], rates["eval_rates_heldout"]], -1)
        made["psth"] = everything[:3] + rng.normal(0, 0.05, (3, *everything.shape[1:]))
        made["psth"][:, :2], made["psth"][:, -2:] = np.nan, np.nan
        made["eval_cond_idx"] = np.array(
            [np.arange(0, 7), np.arange(7, trials), np.array([], int)], dtype=object
        )
    return made


def files(folder: Path, rng: np.random.Generator, groups: tuple[str, ...] = GROUPS) -> tuple[Path, Path]:
    """A submission, off the truth, and targets, as the files that the benchmark has."""
    submission: Groups = {}
    with h5py.File(folder / "targets.h5", "w") as file:
        for group in groups:
            shapes = dict(
                zip(REQUIRED_KEYS, ((20, 24, 5), (20, 24, 3), (16, 24, 5), (16, 24, 3)), strict=True)
            )
            shapes |= {"eval_rates_heldin_forward": (16, 8, 5), "eval_rates_heldout_forward": (16, 8, 3)}
            rates = {key: smooth_rates(rng, *shape) for key, shape in shapes.items()}
            submission[group] = {
                key: np.maximum(r + rng.normal(0, 0.05, r.shape), 0) for key, r in rates.items()
            }
            if group.endswith("_20"):  # forward bins are optional
                submission[group] = {key: submission[group][key] for key in REQUIRED_KEYS}
            for key, value in targets_of(group, rates, rng).items():
                if key == "eval_cond_idx":
                    ragged = file.create_dataset(f"{group}/{key}", (3,), dtype=h5py.vlen_dtype(np.int64))
                    for i, trials in enumerate(value):
                        ragged[i] = trials
                else:
                    file[f"{group}/{key}"] = value
    save_submission(folder / "submission.h5", submission)
    return folder / "submission.h5", folder / "targets.h5"


def test_equals_the_benchmarks_own_evaluation_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    evaluation = pytest.importorskip("nlb_tools.evaluation", reason="compared where nlb_tools is installed")
    submission, targets = files(tmp_path, rng)
    expected: dict[str, dict[str, float]] = {}
    for split in evaluation.evaluate(str(targets), str(submission)):
        expected |= split
    found = score_submission(submission, targets)
    assert found == expected  # equal floats, not close ones
    assert sum(len(scores) for scores in found.values()) == 4 + 3 + 2 + 4 + 4 + 4 + 3


def test_every_set_has_the_metrics_it_should(tmp_path: Path, rng: np.random.Generator) -> None:
    found = score_submission(*files(tmp_path, rng))
    assert set(found) == {
        "mc_maze_split",
        "mc_maze_20_split",
        "mc_rtt_20_split",
        "area2_bump_split",
        "dmfc_rsg_split",
        "mc_maze_scaling_split",
        "mc_maze_scaling_20_split",
    }
    assert set(found["mc_maze_split"]) == {"co-bps", "vel R2", "psth R2", "fp-bps"}
    assert set(found["mc_rtt_20_split"]) == {"co-bps", "vel R2"}
    assert set(found["dmfc_rsg_split"]) == {"co-bps", "tp corr", "psth R2", "fp-bps"}
    assert set(found["mc_maze_scaling_20_split"]) == {"[100] co-bps", "[100] vel R2", "[100] psth R2"}
    assert "[500] fp-bps" in found["mc_maze_scaling_split"]


def test_missing_targets_and_rates_in_hz_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    submission, targets = files(tmp_path, rng, ("mc_rtt_20",))
    with pytest.raises(InputError, match="no such file"):
        score_submission(submission, tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("targets")
    with pytest.raises(InputError, match="Download it again"):
        score_submission(submission, tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["mc_maze/eval_spikes_heldout"] = np.ones((2, 3, 4))
    with pytest.raises(InputError, match=r"targets of mc_rtt_20.*those of mc_maze\. Give"):
        score_submission(submission, tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"those of no data set\. Give"):
        score_submission(submission, submission)
    with h5py.File(submission, "r+") as file:
        file["mc_rtt_20/eval_rates_heldout"][...] *= 50
    with pytest.raises(InputError, match="Multiply rates in Hz"):
        score_submission(submission, targets)
