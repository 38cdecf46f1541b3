"""The Neural Latents Benchmark's data sets: how each is cut into trials.

Windows, lags, forward length, and kernels are those of the benchmark's tools; spikes come from its NWB files
(`dandi download DANDI:000140`, say), which name the units that it holds out. A trial's `split` column ("train", "val",
"none") is kept. Bins are 5 ms or 20 ms, as the leaderboards had.

| preset | DANDI | aligned to | window, s | forward, s | behaviour, lag | held in + out |
|---|---|---|---|---|---|---|
| mc_maze | 000128 | move_onset_time | -0.25 to 0.45 | 0.2 | hand_vel, 0.10 s | 137 + 45 |
| mc_maze_large | 000138 | the same | the same | 0.2 | hand_vel, 0.12 s | 122 + 40 |
| mc_maze_medium | 000139 | the same | the same | 0.2 | hand_vel, 0.12 s | 114 + 38 |
| mc_maze_small | 000140 | the same | the same | 0.2 | hand_vel, 0.12 s | 107 + 35 |
| mc_rtt | 000129 | start_time | 0 to 0.6 | 0.2 | finger_vel, 0.14 s | 98 + 32 |
| area2_bump | 000127 | move_onset_time | -0.1 to 0.5 | 0.2 | hand_vel, -0.02 s | 49 + 16 |
| dmfc_rsg | 000130 | go_time | -1.5 to 0 | 0.2 | none | 40 + 14 |

The benchmark resamples behaviour with a 501-tap low-pass filter; here it is the mean of each bin, so velocities differ a
little in their highest frequencies. It rounds spikes to 1 ms first; here they fall into bins as they are. DMFC's evaluation
windows (from set to go, padded in front) and its jitter are not cut here yet.

References:
    Pei et al., "Neural Latents Benchmark '21: evaluating latent variable models of neural population activity", 2021,
        https://arxiv.org/abs/2109.04463.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.recordings import Recording, windows

__all__ = ["BENCHMARK_BINS_MS", "PRESETS", "BenchmarkPreset", "benchmark_population"]

BENCHMARK_BINS_MS = (5, 20)
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class BenchmarkPreset:
    """One data set.

    Attributes:
        dandi: Number of the archive's dandiset.
        align: Column of the trials.
        window: Around it, s.
        behaviour: Name of the trace, if there is one.
        lag_s: The behaviour of a bin is that of so much later.
        kernel_ms: Standard deviation of the kernel that smooths PSTHs; 0 where there are no conditions.
        heldin: Units that a model sees.
        heldout: Units that it predicts.
        overlap: Trials may share time (continuous reaching).
        forward_s: Length of the forward window.
    """

    dandi: str
    align: str
    window: tuple[float, float]
    behaviour: str | None
    lag_s: float
    kernel_ms: int
    heldin: int
    heldout: int
    overlap: bool = False
    forward_s: float = 0.2


_MAZE = ("move_onset_time", (-0.25, 0.45), "hand_vel")
PRESETS = {
    "mc_maze": BenchmarkPreset("000128", *_MAZE, 0.10, 70, 137, 45),
    "mc_maze_large": BenchmarkPreset("000138", *_MAZE, 0.12, 50, 122, 40),
    "mc_maze_medium": BenchmarkPreset("000139", *_MAZE, 0.12, 50, 114, 38),
    "mc_maze_small": BenchmarkPreset("000140", *_MAZE, 0.12, 50, 107, 35),
    "mc_rtt": BenchmarkPreset(
        "000129", "start_time", (0.0, 0.6), "finger_vel", 0.14, 0, 98, 32, overlap=True
    ),
    "area2_bump": BenchmarkPreset("000127", "move_onset_time", (-0.1, 0.5), "hand_vel", -0.02, 40, 49, 16),
    "dmfc_rsg": BenchmarkPreset("000130", "go_time", (-1.5, 0.0), None, 0.0, 70, 40, 14),
}
"""Name → how it is cut."""


def benchmark_population(recording: Recording, name: str, bin_ms: int = 5) -> xr.Dataset:
    """The trials of a data set that have a split, with held-out units and the forward window.

    Args:
        recording: From its NWB file.
        name: A key of `PRESETS`.
        bin_ms: 5 or 20.

    Raises:
        InputError: an unknown name or bin, or a file that is not of this data set.
    """
    if name not in PRESETS:
        raise InputError(f"expected one of {', '.join(PRESETS)}; got {name!r}.")
    if bin_ms not in BENCHMARK_BINS_MS:
        raise InputError(f"expected bins of 5 or 20 ms, as the benchmark has; got {bin_ms}.")
    preset = PRESETS[name]
    if preset.align not in recording.events:
        raise InputError(
            f"expected trials with {preset.align}; {recording.source} has {', '.join(sorted(recording.events)) or 'none'}. "
            f"Is it DANDI:{preset.dandi}?"
        )
    events = np.asarray(recording.events[preset.align], float)
    words = [_SPLITS.get(str(word), "") for word in recording.events.get("split", ["train"] * len(events))]
    used = np.array([bool(word) for word in words]) & np.isfinite(events)
    has = preset.behaviour is not None and any(
        path.split("/")[-1] == preset.behaviour for path in recording.traces
    )
    made = windows(
        recording,
        np.where(used, events, np.nan),
        preset.window,
        bin_ms / 1000,
        forward_s=preset.forward_s,
        behaviour=preset.behaviour if has else None,
        lag_s=preset.lag_s,
        condition=_conditions(recording, len(events)),
        overlap=preset.overlap,
    )
    return made.assign_coords(split=("trial", np.array([w for w, u in zip(words, used, strict=True) if u])))


def _conditions(recording: Recording, count: int) -> np.ndarray | None:
    """A number a trial from the columns that tell conditions apart, where the file has them."""
    columns = [
        recording.events[k]
        for k in ("trial_type", "trial_version", "cond_dir", "ctr_hold_bump")
        if k in recording.events
    ]
    if not columns:
        return None
    rows = np.array([" ".join(str(column[i]) for column in columns) for i in range(count)])
    return np.unique(rows, return_inverse=True)[1]
