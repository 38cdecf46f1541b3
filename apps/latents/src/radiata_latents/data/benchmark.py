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
little in their highest frequencies. It rounds spikes to 1 ms first; here they fall into bins as they are.

DMFC's trials end with the go cue, so a model could learn where they do. `jitter` lets training and validation windows end
up to 300 ms later, in whole bins, as far as the window still reaches back to the set cue: U(0, min(300, 1500 - tp)), with tp
the time from set to go; the shift of each trial is the coordinate `shift_s`. `set_to_go` scores what the benchmark scores:
bins of validation and test trials before the set cue are not observed, as if the trial were padded in front.

References:
    Pei et al., "Neural Latents Benchmark '21: evaluating latent variable models of neural population activity", 2021,
        https://arxiv.org/abs/2109.04463.
"""

import json
from dataclasses import dataclass

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_latents.data.joining import WITHHELD
from radiata_latents.data.population import check_population
from radiata_latents.data.recordings import Recording, windows

__all__ = ["BENCHMARK_BINS_MS", "PRESETS", "BenchmarkPreset", "benchmark_population"]

BENCHMARK_BINS_MS = (5, 20)
LATEST_SHIFT_S = 0.3
"""Largest shift of DMFC's windows."""
_JITTER = 13
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
        conditions: Columns that tell conditions apart.
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
    conditions: tuple[str, ...] = ()


_MAZE = ("move_onset_time", (-0.25, 0.45), "hand_vel")
_TRIALS = ("trial_type", "trial_version")
PRESETS = {
    "mc_maze": BenchmarkPreset("000128", *_MAZE, 0.10, 70, 137, 45, conditions=_TRIALS),
    "mc_maze_large": BenchmarkPreset("000138", *_MAZE, 0.12, 50, 122, 40, conditions=_TRIALS),
    "mc_maze_medium": BenchmarkPreset("000139", *_MAZE, 0.12, 50, 114, 38, conditions=_TRIALS),
    "mc_maze_small": BenchmarkPreset("000140", *_MAZE, 0.12, 50, 107, 35, conditions=_TRIALS),
    "mc_rtt": BenchmarkPreset(
        "000129", "start_time", (0.0, 0.6), "finger_vel", 0.14, 0, 98, 32, overlap=True
    ),
    "area2_bump": BenchmarkPreset(
        "000127",
        "move_onset_time",
        (-0.1, 0.5),
        "hand_vel",
        -0.02,
        40,
        49,
        16,
        overlap=True,
        conditions=("cond_dir", "ctr_hold_bump"),
    ),
    "dmfc_rsg": BenchmarkPreset(
        "000130",
        "go_time",
        (-1.5, 0.0),
        None,
        0.0,
        70,
        40,
        14,
        overlap=True,
        conditions=("is_eye", "theta", "is_short", "ts"),
    ),
}
"""Name → how it is cut."""


def benchmark_population(
    recording: Recording, name: str, bin_ms: int = 5, *, jitter: int | None = None, set_to_go: bool = False
) -> xr.Dataset:
    """The trials of a data set that have a split, with held-out units and the forward window.

    Args:
        recording: From its NWB file, or files (`joining.joined`).
        name: A key of `PRESETS`.
        bin_ms: 5 or 20.
        jitter: Seed of the shifts of DMFC's training and validation windows; None: none.
        set_to_go: Leave bins of DMFC's validation and test trials before the set cue unobserved.

    Raises:
        InputError: an unknown name or bin, or a file that is not of this data set.
    """
    preset = _checked(recording, name, bin_ms, jitter is not None or set_to_go)
    events = np.asarray(recording.events[preset.align], float)
    words = [_SPLITS.get(str(word), "") for word in recording.events.get("split", ["train"] * len(events))]
    used = np.array([bool(word) for word in words]) & np.isfinite(events)
    splits = np.array([word for word, u in zip(words, used, strict=True) if u])
    shift = np.zeros(len(splits))
    if jitter is not None:
        allowed = preset.window[1] - preset.window[0] - _set_to_go(recording)[used]
        shift = _shifts(np.where(splits == "test", 0.0, allowed), bin_ms / 1000, jitter)
        events = events.copy()
        events[used] += shift
    has = preset.behaviour is not None and any(
        path.split("/")[-1] == preset.behaviour for path in recording.traces
    )
    labels, codes = _conditions(recording, preset, len(events))
    made = windows(
        recording,
        np.where(used, events, np.nan),
        preset.window,
        bin_ms / 1000,
        forward_s=preset.forward_s,
        behaviour=preset.behaviour if has else None,
        lag_s=preset.lag_s,
        condition=codes,
        overlap=preset.overlap,
    ).assign_coords(split=("trial", splits))
    made = made.assign_attrs(preset=name, condition_labels=json.dumps(labels))
    if WITHHELD in recording.events:
        made = made.assign_coords({WITHHELD: ("trial", recording.events[WITHHELD][used].astype(bool))})
    if jitter is not None:
        made = made.assign_coords(shift_s=("trial", shift))
    return _from_set_on(made, _set_to_go(recording)[used] + shift) if set_to_go else made


def _checked(recording: Recording, name: str, bin_ms: int, dmfc: bool) -> BenchmarkPreset:
    if name not in PRESETS:
        raise InputError(f"expected one of {', '.join(PRESETS)}; got {name!r}.")
    if bin_ms not in BENCHMARK_BINS_MS:
        raise InputError(f"expected bins of 5 or 20 ms, as the benchmark has; got {bin_ms}.")
    if dmfc and name != "dmfc_rsg":
        raise InputError(
            f"expected the preset dmfc_rsg with jitter or set-to-go; got {name}. Leave them out."
        )
    preset = PRESETS[name]
    for column in (preset.align, "set_time") if dmfc else (preset.align,):
        if column not in recording.events:
            raise InputError(
                f"expected trials with {column}; {recording.source} has {', '.join(sorted(recording.events)) or 'none'}. "
                f"Is it DANDI:{preset.dandi}?"
            )
    return preset


def _set_to_go(recording: Recording) -> np.ndarray:
    """Time from the set cue to go, tp, s, one a trial."""
    return np.asarray(recording.events["go_time"], float) - np.asarray(recording.events["set_time"], float)


def _shifts(allowed: np.ndarray, bin_s: float, seed: int) -> np.ndarray:
    """Whole bins from 0 to what is allowed and `LATEST_SHIFT_S`, each as likely, s; trial k depends on (seed, k)."""
    most = np.floor(np.clip(np.nan_to_num(allowed), 0.0, LATEST_SHIFT_S) / bin_s + 1e-6).astype(int)
    return bin_s * np.array([rng_of(seed, _JITTER, k).integers(0, m + 1) for k, m in enumerate(most)])


def _from_set_on(made: xr.Dataset, length_s: np.ndarray) -> xr.Dataset:
    """Bins of evaluated trials that begin before the set cue, `length_s` before the window's end, are not observed."""
    begin = made["time"].values - made.attrs["bin_s"] / 2
    early = begin[None] < -length_s[:, None] - 1e-6
    observed = made["observed"].values & ~(early & (made["split"].values != "train")[:, None])
    made["observed"] = (("trial", "time"), observed)
    made["counts"] = made["counts"].where(made["observed"], 0).astype(np.uint16)
    return check_population(made.assign_attrs(masked_bins=int((~observed).sum())))


def _conditions(
    recording: Recording, preset: BenchmarkPreset, count: int
) -> tuple[list[str], np.ndarray | None]:
    """Labels, and the number of each trial's, from the columns that tell conditions apart, where the file has them."""
    columns = [recording.events[k] for k in preset.conditions if k in recording.events]
    if not columns:
        return [], None
    cells = [[str(column[i]) for column in columns] for i in range(count)]
    known = np.array([not {"", "nan"} & set(row) for row in cells])
    labels, codes = np.unique([" ".join(row) for row in cells], return_inverse=True)
    kept = np.unique(codes[known])
    return labels[kept].tolist(), np.where(known, np.searchsorted(kept, codes), -1)
