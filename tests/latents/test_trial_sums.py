"""Scores from sums of trials: the metrics' own values and the intervals that resampled arrays have."""

import numpy as np
import pytest

from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.intervals import trial_interval
from radiata_latents.model.psth import psth_r2
from radiata_latents.model.rate_scores import log_rate_r2, rate_r2, squared_correlation
from radiata_latents.model.trial_sums import (
    bits_interval,
    correlation_interval,
    log_r2_interval,
    psth_interval,
    r2_interval,
)


@pytest.fixture
def arrays(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True rates, found rates, counts, which bins count: neuron 3 never fires, trial 2 misses bins."""
    truth = rng.gamma(2.0, 0.3, (15, 8, 4))
    found = truth * np.exp(rng.normal(0, 0.3, truth.shape))
    counts = rng.poisson(truth).astype(float)
    counts[..., 3] = 0
    known = np.ones((15, 8), bool)
    known[2, :5] = False
    return truth, found, counts, known


def test_bits_are_those_of_resampled_counts(arrays: tuple[np.ndarray, ...]) -> None:
    """The same draws of trials give the same scores whether arrays or sums are resampled, to rounding."""
    _, found, counts, known = arrays
    counts = np.where(known[..., None], counts, np.nan)
    slow = trial_interval(bits_per_spike, found, counts, rng=np.random.default_rng(1))
    quick = bits_interval(found, counts, np.random.default_rng(1))
    assert quick.value == bits_per_spike(found, counts)
    assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high), rel=1e-10)


@pytest.mark.parametrize(
    ("quick", "slow"),
    [(r2_interval, rate_r2), (log_r2_interval, log_rate_r2), (correlation_interval, squared_correlation)],
)
def test_rate_scores_are_those_of_resampled_rates(quick, slow, arrays: tuple[np.ndarray, ...]) -> None:
    truth, found, _, known = arrays

    def masked(a: np.ndarray, b: np.ndarray, k: np.ndarray) -> float:
        return slow(a[k], b[k])

    wanted = trial_interval(masked, truth, found, known, rng=np.random.default_rng(2))
    got = quick(truth, found, known, np.random.default_rng(2))
    assert got.value == masked(truth, found, known)
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)


def test_unscored_bins_may_hold_anything(arrays: tuple[np.ndarray, ...]) -> None:
    truth, found, _, known = arrays
    spoiled = np.where(known[..., None], found, np.nan)
    with np.errstate(invalid="ignore"):
        assert r2_interval(truth, spoiled, known, np.random.default_rng(0)) == r2_interval(
            truth, found, known, np.random.default_rng(0)
        )


def test_a_constant_truth_scores_as_in_the_metric(rng: np.random.Generator) -> None:
    truth, known = np.ones((6, 5, 2)), np.ones((6, 5), bool)
    right = r2_interval(truth, truth, known, rng)
    wrong = r2_interval(truth, truth + 0.1, known, rng)
    assert (right.value, right.low, right.high) == (1, 1, 1)
    assert (wrong.value, wrong.low, wrong.high) == (0, 0, 0)


def test_histograms_are_those_of_resampled_conditions(rng: np.random.Generator) -> None:
    """Six conditions, one without trials, one neuron with a constant histogram; a single condition has no interval."""
    condition = np.repeat([0, 1, 2, 3, 4], [6, 5, 1, 4, 4])
    histograms = rng.gamma(2.0, 0.3, (6, 7, 4))
    rates = histograms[condition] * np.exp(rng.normal(0, 0.4, (20, 7, 4)))
    members = [np.flatnonzero(condition == c) for c in range(6)]
    averages = np.stack([rates[own].mean(0) for own in members[:5]])

    def score(truth: np.ndarray, found: np.ndarray) -> float:
        return psth_r2(truth, found, [np.array([i]) for i in range(len(truth))])

    wanted = trial_interval(score, histograms[:5], averages, rng=np.random.default_rng(4))
    got = psth_interval(histograms, rates, members, np.random.default_rng(4))
    assert got.value == pytest.approx(wanted.value, rel=1e-12)
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    alone = psth_interval(histograms[:1], rates, members[:1], rng)
    assert np.isfinite(alone.value) and np.isnan([alone.low, alone.high]).all()
