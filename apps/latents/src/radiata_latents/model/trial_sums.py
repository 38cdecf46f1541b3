r"""Scores with intervals from sums of each trial, so that a bootstrap over trials costs nothing.

Every score here is a function of sums over trials k, and a draw of trials needs the sums again, not the bins:

$$\mathrm{bits} = \frac{\sum_i (m_i T_i - S_i\log m_i) - \sum_k c_k}{\log 2\,\sum_i S_i},\quad
  c_k = \sum_{t,i} r - n\log r,\quad S_i = \sum_{k,t} n,\quad T_i = \text{bins},\quad m_i = S_i / T_i$$

(log n! cancels between model and null), and for R² and squared correlation of neuron i

$$R^2_i = 1 - \frac{\sum (\lambda - r)^2}{\sum\lambda^2 - (\sum\lambda)^2/T}, \qquad
  \rho^2_i = \frac{\big(\sum\lambda r - \sum\lambda\sum r/T\big)^2}
                  {\big(\sum\lambda^2 - (\sum\lambda)^2/T\big)\big(\sum r^2 - (\sum r)^2/T\big)}.$$

The values are those of `bits` and `rate_scores` themselves; the sums give the intervals (`intervals`), and a test
compares both.
"""

from collections.abc import Sequence

import numpy as np

from radiata_latents.model.bits import LEAST, bits_per_spike
from radiata_latents.model.intervals import Interval, trial_interval
from radiata_latents.model.psth import psth_r2
from radiata_latents.model.rate_scores import log_rate_r2, rate_r2, squared_correlation

__all__ = ["bits_interval", "correlation_interval", "log_r2_interval", "psth_interval", "r2_interval"]

LEAST_LOGGED = 1e-4
"""What `rate_scores.log_rate_r2` takes smaller rates for, expected counts a bin."""


def bits_interval(
    rates: np.ndarray, counts: np.ndarray, rng: np.random.Generator, draws: int = 200
) -> Interval:
    """`bits.bits_per_spike` with its 95 % interval over trials.

    Args:
        rates: (trial, time, neuron), expected counts a bin.
        counts: Of the same shape; NaN where nothing is scored.
        rng: Chooses the trials.
        draws: Resamples.

    Raises:
        InputError: as `bits_per_spike` and `trial_interval`.
    """
    value = bits_per_spike(rates, counts)
    known = ~np.isnan(counts)
    r, n = np.where(known, rates, 1.0), np.where(known, counts, 0.0)
    r = np.where(r == 0, LEAST, r)
    cost = np.where(known, r - n * np.log(r), 0.0).sum((1, 2))
    found = trial_interval(_bits, cost, n.sum(1), known.sum(1).astype(float), rng=rng, draws=draws)
    return Interval(value, found.low, found.high)


def _bits(cost: np.ndarray, spikes: np.ndarray, bins: np.ndarray) -> float:
    total, time = spikes.sum(0), bins.sum(0)
    mean = np.divide(total, time, out=np.zeros_like(total), where=time > 0)
    mean = np.where(mean == 0, LEAST, mean)
    null = (mean * time - total * np.log(mean)).sum()
    return float((null - cost.sum()) / total.sum() / np.log(2)) if total.sum() > 0 else 0.0


def r2_interval(
    truth: np.ndarray, found: np.ndarray, known: np.ndarray, rng: np.random.Generator, draws: int = 200
) -> Interval:
    """`rate_scores.rate_r2` with its 95 % interval over trials; of rates, or of a behaviour and what was decoded.

    Args:
        truth: (trial, time, neuron or channel).
        found: Predictions, of the same shape.
        known: (trial, time), which bins count.
        rng: Chooses the trials.
        draws: Resamples.

    Raises:
        InputError: as `rate_r2` and `trial_interval`.
    """
    value = rate_r2(truth[known], found[known])
    a, b = _centred(truth, known), _centred(truth - found, known, about_zero=True)
    sums = trial_interval(
        _r2, a.sum(1), (a**2).sum(1), (b**2).sum(1), known.sum(1).astype(float), rng=rng, draws=draws
    )
    return Interval(value, sums.low, sums.high)


def log_r2_interval(
    truth: np.ndarray, found: np.ndarray, known: np.ndarray, rng: np.random.Generator, draws: int = 200
) -> Interval:
    """`rate_scores.log_rate_r2` with its 95 % interval over trials; arguments as `r2_interval`."""
    value = log_rate_r2(truth[known], found[known])
    log_truth, log_found = (
        np.log(np.maximum(np.where(known[..., None], x, 1.0), LEAST_LOGGED)) for x in (truth, found)
    )
    ends = r2_interval(log_truth, log_found, known, rng, draws)
    return Interval(value, ends.low, ends.high)


def correlation_interval(
    truth: np.ndarray, found: np.ndarray, known: np.ndarray, rng: np.random.Generator, draws: int = 200
) -> Interval:
    """`rate_scores.squared_correlation` with its 95 % interval over trials; arguments as `r2_interval`."""
    value = squared_correlation(truth[known], found[known])
    a, b = _centred(truth, known), _centred(found, known)
    parts = (a, b, a * b, a**2, b**2)
    sums = trial_interval(
        _correlation, *(p.sum(1) for p in parts), known.sum(1).astype(float), rng=rng, draws=draws
    )
    return Interval(value, sums.low, sums.high)


def psth_interval(
    histograms: np.ndarray,
    rates: np.ndarray,
    members: Sequence[np.ndarray],
    rng: np.random.Generator,
    draws: int = 200,
) -> Interval:
    """`psth.psth_r2` with its 95 % interval over *conditions*; NaN ends where there is one condition only.

    Averages of resampled trials would be noisier than the average that is scored, and their scores lower: the interval would
    lie beside the value. Conditions are drawn with all that belongs to them.

    Args:
        histograms: (condition, time, neuron), without NaN.
        rates: (trial, time, neuron).
        members: A condition's trials, as indices into `rates`, each; an empty one is left out.
        rng: Chooses the conditions.
        draws: Resamples.

    Raises:
        InputError: as `psth_r2`.
    """
    value = psth_r2(histograms, rates, members)
    own = [i for i, trials in enumerate(members) if len(trials)]
    if len(own) < 2:
        return Interval(value, float("nan"), float("nan"))
    truth, found = histograms[own], np.stack([rates[members[i]].mean(0) for i in own])
    return r2_interval(truth, found, np.ones(truth.shape[:2], bool), rng, draws)


def _centred(values: np.ndarray, known: np.ndarray, about_zero: bool = False) -> np.ndarray:
    """0 where nothing counts; less the mean, which keeps sums of squares from cancelling."""
    mean = 0.0 if about_zero else values[known].mean(0)
    return np.where(known[..., None], values - mean, 0.0)


def _r2(a: np.ndarray, squares: np.ndarray, errors: np.ndarray, bins: np.ndarray) -> float:
    spread = squares.sum(0) - a.sum(0) ** 2 / bins.sum()
    error = errors.sum(0)
    varies = spread > 1e-12 * np.maximum(squares.sum(0), 1e-300)
    share = np.divide(error, spread, out=np.zeros_like(error), where=varies)
    return float(np.where(varies, 1 - share, (error == 0).astype(float)).mean())


def _correlation(
    a: np.ndarray, b: np.ndarray, ab: np.ndarray, aa: np.ndarray, bb: np.ndarray, bins: np.ndarray
) -> float:
    count = bins.sum()
    cross = ab.sum(0) - a.sum(0) * b.sum(0) / count
    scale = (aa.sum(0) - a.sum(0) ** 2 / count) * (bb.sum(0) - b.sum(0) ** 2 / count)
    return float(np.divide(cross**2, scale, out=np.zeros_like(cross), where=scale > 1e-300).mean())
