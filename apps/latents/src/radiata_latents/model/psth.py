r"""Rates against the trial average: psth R².

A condition's rates are averaged over its evaluated trials and compared with its peri-stimulus time histogram, the average
of smoothed spikes of *all* its trials. Conditions are stacked in time; R² is averaged over neurons with equal weight. Trials
that were shifted on purpose (jitter, in bins; dmfc_rsg) are shifted back first. Bins of a NaN histogram do not count.

The benchmark smooths the whole recording and cuts then; `smoothed_psth` smooths what was cut, with a kernel that is
normalised at the trial's edges. `psth_r2` itself is the benchmark's.

References:
    Pei et al., "Neural Latents Benchmark '21", 2021, https://arxiv.org/abs/2109.04463, section 3.3 (psth R²).
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import r2_score

from radiata_core.errors import InputError
from radiata_latents.model.smoothing import smooth

__all__ = ["psth_r2", "smoothed_psth"]


def smoothed_psth(
    counts: np.ndarray, members: Sequence[np.ndarray], *, bin_s: float, kernel_ms: float
) -> np.ndarray:
    """(condition, time, neuron) average of smoothed counts, expected counts a bin; NaN for a condition without trials.

    Args:
        counts: (trial, time, neuron), all trials.
        members: A condition's trials, as indices, each.
        bin_s: Width of a bin, s, > 0.
        kernel_ms: Standard deviation, ms; `data.benchmark.PRESETS` has the benchmark's.

    Raises:
        InputError: a bin or a kernel that cannot be.
    """
    if not bin_s > 0:
        raise InputError(f"expected a bin > 0 s; got {bin_s}.")
    smoothed = smooth(counts, kernel_ms / 1000 / bin_s)
    found = np.full((len(members), *smoothed.shape[1:]), np.nan)
    for i, trials in enumerate(members):
        if len(trials):
            found[i] = smoothed[np.asarray(trials, int)].mean(0)
    return found


def psth_r2(
    psth: np.ndarray, rates: np.ndarray, members: Sequence[np.ndarray], jitter: np.ndarray | None = None
) -> float:
    """R² of the conditions' average rates against their histograms.

    Args:
        psth: (condition, time, neuron), expected counts a bin.
        rates: (trial, time, neuron) predictions in the same unit.
        members: A condition's trials, as indices into `rates`, each; an empty one is left out.
        jitter: (trial,) bins by which a trial's rates are moved later; negative, earlier.

    Raises:
        InputError: arrays that do not fit, no condition with trials, or no rate where the histogram has one.

    References:
        Pei et al., 2021, section 3.3.
    """
    psth, rates = np.asarray(psth, float), np.asarray(rates, float)
    if psth.ndim != 3 or psth.shape[1:] != rates.shape[1:] or len(members) != len(psth):
        raise InputError(
            f"expected histograms of {len(members)} conditions in the bins and neurons of the rates; got {psth.shape} and "
            f"{rates.shape}. Score the population they were made from."
        )
    moved = (
        rates if jitter is None else np.stack([_moved(r, int(j)) for r, j in zip(rates, jitter, strict=True)])
    )
    truths, found = [], []
    for histogram, trials in zip(psth, members, strict=True):
        if len(trials):
            known = ~np.isnan(histogram[:, 0])
            truths.append(histogram[known])
            found.append(np.mean(moved[np.asarray(trials, int)], axis=0)[known])
    if not truths or np.isnan(np.concatenate(found)).any():
        raise InputError(
            "expected rates for every bin of the conditions' histograms; got NaN, or no condition with trials."
        )
    return float(r2_score(np.concatenate(truths), np.concatenate(found)))


def _moved(rates: np.ndarray, bins: int) -> np.ndarray:
    """(time, neuron) so many bins later, NaN where nothing comes from."""
    found = np.full_like(rates, np.nan)
    if bins >= 0:
        found[bins:] = rates[: len(rates) - bins]
    else:
        found[:bins] = rates[-bins:]
    return found
