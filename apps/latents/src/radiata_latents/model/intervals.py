"""Intervals of a score by the bootstrap over trials.

Bins of a trial depend on each other, trials do not: trials are drawn with replacement, with all that belongs to them, and
the score is computed again. The interval is that of percentiles. It says how far the score depends on which trials were
evaluated, not on how the model was trained; for that, train with other seeds.

References:
    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = ["Interval", "trial_interval"]


@dataclass(frozen=True)
class Interval:
    """A score of all trials with its bootstrap interval."""

    value: float
    low: float
    high: float


def trial_interval(
    score: Callable[..., float],
    *arrays: np.ndarray,
    rng: np.random.Generator,
    draws: int = 200,
    level: float = 0.95,
) -> Interval:
    """The score of `arrays` and the interval that resampled trials give it.

    Args:
        score: Function of the arrays, as `bits.bits_per_spike`.
        arrays: Each (trial, ...); a draw takes the same trials of all.
        rng: Chooses the trials.
        draws: How many resamples, >= 20.
        level: Coverage, in (0, 1).

    Raises:
        InputError: arrays of different length, fewer than two trials, or a level outside (0, 1).

    References:
        Efron & Tibshirani, 1993, section 13.3.
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or min(lengths) < 2:
        raise InputError(
            f"expected arrays of the same two or more trials; got {sorted(lengths)}. Cut them alike."
        )
    if not 0 < level < 1 or draws < 20:
        raise InputError(f"expected a level in (0, 1) and at least 20 draws; got {level} and {draws}.")
    trials = lengths.pop()
    drawn = [rng.integers(0, trials, trials) for _ in range(draws)]
    found = [score(*(array[rows] for array in arrays)) for rows in drawn]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(score(*arrays)), float(low), float(high))
