r"""What a table of cases says about cases in general: means with intervals, and differences between two methods.

Cases of one person are no independent evidence: they are averaged into one unit first. Units are drawn with
replacement; the interval lies between two quantiles of the means of the draws. With few units the plain percentile
interval is too narrow, by the factor sqrt((n - 1)/n) and by taking the normal for Student's distribution; Hesterberg's
*expanded* percentiles repair both:

$$ \alpha'/2 = \Phi\big(-\sqrt{n/(n-1)}\; t_{\alpha/2,\, n-1}\big) $$

Two methods on the same cases are compared by the differences within units: their mean, its interval, and a p-value from
flipping their signs, which is exact if neither method is better.

Values that are not finite are no numbers to average: they are left out and counted.

References:
    T. Hesterberg (2015). What teachers should know about the bootstrap. The American Statistician 69(4), section 5.
    B. Phipson, G. Smyth (2010). Permutation p-values should never be zero. SAGMB 9(1), equation 2.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from radiata_core.errors import InputError

__all__ = ["MeanInterval", "PairedDifference", "mean_interval", "paired_difference"]


@dataclass(frozen=True)
class MeanInterval:
    """A mean over units.

    Attributes:
        mean: Of the units; NaN without any.
        low: Lower end of the interval; NaN for fewer than two units.
        high: Upper end.
        cases: Finite values.
        people: Units they make up.
        left_out: Values that were not finite.
    """

    mean: float
    low: float
    high: float
    cases: int
    people: int
    left_out: int


@dataclass(frozen=True)
class PairedDifference:
    """One method minus the other, on the same cases.

    Attributes:
        difference: Mean over units, with its interval.
        p: Two-sided, of "neither is better"; NaN for fewer than two units.
    """

    difference: MeanInterval
    p: float


def mean_interval(
    values: Sequence[float | int] | np.ndarray,
    people: Sequence[Hashable] | np.ndarray | None,
    rng: np.random.Generator,
    level: float | int = 0.95,
    draws: int = 2000,
) -> MeanInterval:
    """Mean of a score over people and its bootstrap interval.

    Args:
        values: One a case; those that are not finite are left out.
        people: Whose case it is; None: each its own.
        rng: Of the draws.
        level: Of the interval, in (0, 1).
        draws: Bootstrap samples.

    Raises:
        InputError: another number of people than values, or a level outside (0, 1).
    """
    units, cases, left_out = _units(values, people)
    if not 0 < level < 1:
        raise InputError(f"expected a level in (0, 1); got {level}. 0.95 is usual.")
    n = len(units)
    mean = float(units.mean()) if n else float("nan")
    if n < 2:
        return MeanInterval(mean, float("nan"), float("nan"), cases, n, left_out)
    weights = rng.multinomial(n, np.full(n, 1 / n), draws) / n
    share = float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))
    low, high = np.quantile(weights @ units, [share, 1 - share])
    return MeanInterval(mean, float(low), float(high), cases, n, left_out)


def paired_difference(
    ours: Sequence[float | int] | np.ndarray,
    theirs: Sequence[float | int] | np.ndarray,
    people: Sequence[Hashable] | np.ndarray | None,
    rng: np.random.Generator,
    level: float | int = 0.95,
    draws: int = 2000,
) -> PairedDifference:
    """Mean of `ours - theirs` over people, its interval, and the p-value of sign flips.

    Raises:
        InputError: another number of values in one of them.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape:
        raise InputError(f"expected scores of the same cases; got {len(a)} and {len(b)}. Pair them by name.")
    with np.errstate(invalid="ignore"):
        differences = a - b
    found = mean_interval(differences, people, rng, level, draws)
    units, _, _ = _units(differences, people)
    if len(units) < 2:
        return PairedDifference(found, float("nan"))
    flips = rng.integers(0, 2, (draws, len(units))) * 2.0 - 1.0
    larger = int((np.abs(flips @ units) >= abs(units.sum()) * (1 - 1e-9)).sum())
    return PairedDifference(found, (larger + 1) / (draws + 1))


def _units(
    values: Sequence[float | int] | np.ndarray, people: Sequence[Hashable] | np.ndarray | None
) -> tuple[np.ndarray, int, int]:
    """Means of the finite values of each person, how many values those are, and how many are left out."""
    numbers = np.asarray(values, dtype=np.float64)
    names = list(range(len(numbers))) if people is None else list(people)
    if len(names) != len(numbers):
        raise InputError(f"expected a person for each of {len(numbers)} values; got {len(names)}.")
    kept: dict[Hashable, list[float]] = {}
    for name, number in zip(names, numbers.tolist(), strict=True):
        if np.isfinite(number):
            kept.setdefault(name, []).append(number)
    cases = sum(map(len, kept.values()))
    return np.array([np.mean(group) for group in kept.values()]), cases, len(numbers) - cases
