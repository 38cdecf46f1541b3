r"""From responses to a time series of volumes: what a scanner would have measured, for tests of everything that undoes it.

A trial n that begins at $t_n$ and lasts d adds its response $b_{nv}$ times a boxcar smoothed by the haemodynamic response h,

$$ y_v(t) = \sum_n b_{nv} \big[ H(t - t_n) - H(t - t_n - d) \big] + \text{drift}_v(t) + \varepsilon_v(t),
   \qquad H(t) = \int_0^t h, $$

with h of area 1, so that b is the height which a long event would reach: the scale of nilearn's regressors. h is Glover's
or SPM's, as nilearn has them, stretched in time: people differ by some 15 % in how late their response peaks. Drift is a
sum of cosines slower than 128 s, and noise an AR(1) process.

References:
    G. Glover (1999). Deconvolution of impulse response in event-related BOLD fMRI. NeuroImage 9.
    D. Handwerker, J. Ollinger, M. D'Esposito (2004). Variation of BOLD hemodynamic responses across subjects and brain
    regions. NeuroImage 21.
"""

from functools import cache

import numpy as np

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of

__all__ = [
    "MODELS",
    "autoregressive_noise",
    "bold_regressors",
    "bold_series",
    "slow_drift",
    "subject_stretch",
]

MODELS = ("glover", "spm")
STEP_S, LENGTH_S = 0.02, 40.0
SLOWEST_S = 128.0
HAEMODYNAMICS = 4  # key of a person's random numbers


def subject_stretch(seed: int, subject: int) -> float:
    """How much slower than the model a person's response is, 0.85 to 1.15."""
    return float(rng_of(seed, subject, HAEMODYNAMICS).uniform(0.85, 1.15))


@cache
def _integral(model: str) -> np.ndarray:
    """H at multiples of `STEP_S`, from 0 on; it ends at 1."""
    from nilearn.glm.first_level import glover_hrf, spm_hrf

    response = {"glover": glover_hrf, "spm": spm_hrf}[model](STEP_S, oversampling=1, time_length=LENGTH_S)
    steps = (response[1:] + response[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()


def bold_regressors(
    onsets_s: np.ndarray,
    duration_s: float,
    volumes: int,
    repetition_time_s: float,
    *,
    model: str = "glover",
    stretch: float = 1.0,
) -> np.ndarray:
    """Smoothed boxcar of each trial at the beginning of each volume, (volume, trial) float64.

    Args:
        onsets_s: When trials begin, (trial,), seconds from the first volume.
        duration_s: Of a trial, > 0.
        volumes: Of the run.
        repetition_time_s: Between volumes.
        model: Of `MODELS`.
        stretch: Of the response in time, > 0.

    Raises:
        InputError: an unknown model, or times that are not positive.
    """
    if model not in MODELS:
        raise InputError(f"expected a haemodynamic response of {', '.join(MODELS)}; got {model}.")
    if not min(duration_s, repetition_time_s, stretch, volumes) > 0:
        raise InputError(
            f"expected durations, repetition times, stretches and volumes > 0; got {duration_s:g} s, "
            f"{repetition_time_s:g} s, {stretch:g} and {volumes}."
        )
    whole = _integral(model)
    grid = np.arange(len(whole)) * STEP_S * stretch
    since = np.arange(volumes)[:, None] * repetition_time_s - np.asarray(onsets_s, np.float64)[None]
    return np.interp(since, grid, whole) - np.interp(since - duration_s, grid, whole)


def slow_drift(volumes: int, voxels: int, repetition_time_s: float, rng: np.random.Generator) -> np.ndarray:
    """Sums of cosines with periods from twice the run down to 128 s, (volume, voxel), standard deviation about 1."""
    count = max(1, int(2 * volumes * repetition_time_s / SLOWEST_S))
    phase = np.pi * (np.arange(volumes) + 0.5) / volumes
    waves = np.cos(phase[:, None] * np.arange(1, count + 1))
    return waves @ rng.normal(size=(count, voxels)) * np.sqrt(2 / count)


def autoregressive_noise(
    volumes: int, voxels: int, correlation: float, rng: np.random.Generator
) -> np.ndarray:
    """Stationary AR(1) noise of variance 1, (volume, voxel): neighbouring volumes correlate by `correlation`.

    Raises:
        InputError: a correlation that is not between −1 and 1.
    """
    from scipy.signal import lfilter

    if not -1 < correlation < 1:
        raise InputError(f"expected a correlation between -1 and 1; got {correlation:g}.")
    shocks = rng.normal(size=(volumes, voxels))
    shocks[1:] *= np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], shocks, axis=0))


def bold_series(
    responses: np.ndarray,
    onsets_s: np.ndarray,
    volumes: int,
    rng: np.random.Generator,
    *,
    duration_s: float = 2.0,
    repetition_time_s: float = 2.0,
    model: str = "glover",
    stretch: float = 1.0,
    drift: float = 0.5,
    noise: float = 0.5,
    correlation: float = 0.3,
) -> np.ndarray:
    """A run of volumes, (volume, voxel) float32.

    Args:
        responses: Height of each trial in each voxel, (trial, voxel).
        onsets_s: When trials begin, (trial,), seconds from the first volume.
        volumes: Of the run.
        rng: Of drift and noise.
        duration_s: Of a trial.
        repetition_time_s: Between volumes.
        model: Of `MODELS`.
        stretch: Of the response in time; see `subject_stretch`.
        drift: Standard deviation of the drift.
        noise: Standard deviation of the noise.
        correlation: Of the noise of neighbouring volumes.

    Raises:
        InputError: a trial without an onset, or values out of range.
    """
    heights = np.asarray(responses, np.float64)
    if heights.ndim != 2 or len(heights) != len(onsets_s):
        raise InputError(
            f"expected responses (trial, voxel) and an onset for each trial; got {heights.shape} and {len(onsets_s)}."
        )
    regressors = bold_regressors(
        onsets_s, duration_s, volumes, repetition_time_s, model=model, stretch=stretch
    )
    series = regressors @ heights
    series += drift * slow_drift(volumes, heights.shape[1], repetition_time_s, rng)
    series += noise * autoregressive_noise(volumes, heights.shape[1], correlation, rng)
    return series.astype(np.float32)
