r"""Are counts Poisson around the predicted rates? Dispersion of residuals, and the probability integral transform.

$$D = \frac{\sum (n - r)^2}{\sum r}, \qquad
  z = \frac{D - 1}{\mathrm{sd}(D)},\quad \mathrm{sd}(D) = \frac{\sqrt{\sum r + 2 r^2}}{\sum r}$$

is the Fano factor of what the rates leave over: if n ~ Poisson(r) its mean is 1 and its standard deviation as written
(the fourth central moment of a Poisson count is r + 3 r²). It is the ratio of the sums and not the mean of
$(n - r)^2 / r$, which a single spike in a bin of tiny rate decides. D > 1: rates are too smooth, or counts burst;
D < 1: counts are more regular than Poisson, or the model was shown what it is scored on.

$$u = F(n - 1 \mid r) + v\,\big(F(n \mid r) - F(n - 1 \mid r)\big), \qquad v \sim U(0, 1)$$

is uniform if n ~ Poisson(r), whatever the rates. Its histogram (a cup: rates too smooth; a hump: too rough; a slope: biased)
is tested by chi squared, in which the p-value of true rates is itself uniform: it falls below 0.05 in one of twenty data
sets. With enough bins every model is rejected, so the largest distance from the diagonal stands beside it.

References:
    Czado, Gneiting & Held, "Predictive model assessment for count data", 2009,
        https://doi.org/10.1111/j.1541-0420.2009.01191.x, sections 2.1 and 3.
    Brown et al., "The time-rescaling theorem and its application to neural spike train data analysis", 2002,
        https://doi.org/10.1162/08997660252741149.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import pdtr
from scipy.stats import chi2

from radiata_core.errors import InputError
from radiata_latents.model.bits import LEAST
from radiata_latents.model.intervals import Interval, trial_interval

__all__ = ["Calibration", "calibration", "dispersion", "randomised_pit"]

CELLS = 20
"""Of the histogram of u."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Figures of this module.

    Attributes:
        dispersion: D with its 95 % interval over trials.
        z: How many of its own standard deviations D is from 1, if rates are true and bins independent.
        pit: Share of u in each of `CELLS` equal cells of [0, 1].
        p_value: That such a histogram, or a less even one, comes from true rates.
        distance: Largest difference of the distribution of u from the diagonal (Kolmogorov), 0 to 1.
        counts: How many counts were compared.
    """

    dispersion: Interval
    z: float
    pit: np.ndarray
    p_value: float
    distance: float
    counts: int


def dispersion(rates: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """D and z; NaN counts are left out.

    Args:
        rates: Expected counts a bin, > 0 (0 counts as `bits.LEAST`), any shape.
        counts: What was recorded, of the same shape.

    Raises:
        InputError: shapes differ, or nothing is to compare.
    """
    r, n = _known(rates, counts)
    ratio = float(((n - r) ** 2).sum() / r.sum())
    return ratio, float((ratio - 1) * r.sum() / np.sqrt((r + 2 * r**2).sum()))


def randomised_pit(rates: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """u of each count that is not NaN, flat.

    Args:
        rates: As `dispersion`.
        counts: As `dispersion`.
        rng: Draws v.

    Raises:
        InputError: as `dispersion`.

    References:
        Czado, Gneiting & Held, 2009, section 2.1.
    """
    r, n = _known(rates, counts)
    below = np.where(n > 0, pdtr(n - 1, r), 0.0)
    return below + rng.random(n.shape) * (pdtr(n, r) - below)


def calibration(
    rates: np.ndarray, counts: np.ndarray, rng: np.random.Generator, draws: int = 200
) -> Calibration:
    """All figures, of counts that the model was not shown.

    Args:
        rates: (trial, time, neuron), expected counts a bin.
        counts: Of the same shape; NaN where nothing is compared.
        rng: Draws v, and the trials of the interval.
        draws: Resamples.

    Raises:
        InputError: as `dispersion` and `intervals.trial_interval`.
    """
    value, z = dispersion(rates, counts)
    u = randomised_pit(rates, counts, rng)
    known = ~np.isnan(counts)
    r, n = np.where(known, np.maximum(rates, LEAST), 0.0), np.where(known, counts, 0.0)
    ends = trial_interval(
        lambda a, b: float(a.sum() / b.sum()),
        ((n - r) ** 2).sum((1, 2)),
        r.sum((1, 2)),
        rng=rng,
        draws=draws,
    )
    cells = np.histogram(u, CELLS, (0.0, 1.0))[0]
    even = len(u) / CELLS
    statistic = ((cells - even) ** 2 / even).sum()
    ordered = np.sort(u)
    steps = np.arange(len(u) + 1) / len(u)
    distance = max(np.abs(ordered - steps[1:]).max(), np.abs(ordered - steps[:-1]).max())
    return Calibration(
        Interval(value, ends.low, ends.high),
        z,
        cells / len(u),
        float(chi2.sf(statistic, CELLS - 1)),
        float(distance),
        len(u),
    )


def _known(rates: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rates, counts = np.asarray(rates, float), np.asarray(counts, float)
    if rates.shape != counts.shape:
        raise InputError(
            f"expected a rate a count; got rates {rates.shape} and counts {counts.shape}. Cut them alike."
        )
    known = ~np.isnan(counts)
    r, n = rates[known], counts[known]
    if not len(r) or not (np.isfinite(r).all() and (r >= 0).all()):
        raise InputError(
            f"expected counts to compare and finite rates >= 0 for them; got {len(r)} counts, or others. Check both."
        )
    return np.maximum(r, LEAST), n
