"""Bootstrap over trials."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.model.intervals import trial_interval


def test_width_is_that_of_a_mean_of_trials(rng: np.random.Generator) -> None:
    """Bins of a trial are copies: the interval is 2 · 1.96 / sqrt(trials) wide, not / sqrt(bins). Within 15 %."""
    trials = np.repeat(rng.standard_normal((400, 1)), 25, axis=1)
    found = trial_interval(lambda x: float(x.mean()), trials, rng=rng, draws=1000)
    assert found.value == trials.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * trials[:, 0].std() / 20, rel=0.15)


def test_coverage_is_what_was_asked_for(rng: np.random.Generator) -> None:
    """Of 300 intervals of 90 %, 270 hold the truth; binomial sd 5.2, bootstrap of 50 trials a little short: 250 to 288."""
    held = 0
    for _ in range(300):
        found = trial_interval(
            lambda x: float(x.mean()), rng.standard_normal(50), rng=rng, draws=100, level=0.9
        )
        held += found.low <= 0 <= found.high
    assert 250 <= held <= 288


def test_arrays_move_together(rng: np.random.Generator) -> None:
    trials = np.arange(30.0)
    found = trial_interval(lambda a, b: float(np.abs(a - b).max()), trials, trials.copy(), rng=rng)
    assert found.low == found.high == 0


def test_bad_requests_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="same two or more"):
        trial_interval(lambda a, b: 0.0, np.ones(3), np.ones(4), rng=rng)
    with pytest.raises(InputError, match="level"):
        trial_interval(lambda a: 0.0, np.ones(3), rng=rng, level=95)
