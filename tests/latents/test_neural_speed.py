"""Neural speed against the produced interval."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.model.neural_speed import speed_interval_correlation


def made(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates that move a straight line at a speed of 2 - tp, inside bins 5 to 15; wild outside."""
    trials = np.stack(
        [rng.integers(0, 2, 60), np.zeros(60), rng.integers(0, 2, 60), np.ones(60), rng.uniform(0.5, 1, 60)],
        1,
    )
    direction = np.array([0.6, 0.8, 0.0])
    rates = (2 - trials[:, -1])[:, None, None] * np.arange(20)[None, :, None] * direction
    counts = np.full((60, 20, 2), np.nan)
    counts[:, 5:15] = 0
    rates[:, :5] = rng.uniform(0, 100, (60, 5, 3))
    return counts, rates, trials


def test_speed_that_falls_with_the_interval_has_minus_one(rng: np.random.Generator) -> None:
    counts, rates, trials = made(rng)
    assert speed_interval_correlation(counts, rates, trials) == pytest.approx(-1, abs=1e-12)
    trials[:, -1] *= -1
    assert speed_interval_correlation(counts, rates, trials) == pytest.approx(1, abs=1e-12)


def test_conditions_are_correlated_apart(rng: np.random.Generator) -> None:
    """A speed of its own a condition changes nothing; outliers, whose columns are NaN, do not either."""
    counts, rates, trials = made(rng)
    rates *= (1 + 5 * trials[:, 0])[:, None, None]
    trials[7] = np.nan
    rates[7] = rng.uniform(0, 50, rates[7].shape)
    assert speed_interval_correlation(counts, rates, trials) == pytest.approx(-1, abs=1e-12)


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    counts, rates, trials = made(rng)
    with pytest.raises(InputError, match="equal length"):
        speed_interval_correlation(counts[:5], rates, trials)
    trials[0, 1] = 9
    with pytest.raises(InputError, match="two trials or more"):
        speed_interval_correlation(counts, rates, trials)
