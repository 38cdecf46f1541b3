"""Scores of rates against a truth."""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from radiata_core.errors import InputError
from radiata_latents.model.rate_scores import log_rate_r2, rate_r2, squared_correlation


def test_perfect_rates_have_one_and_the_mean_has_zero(rng: np.random.Generator) -> None:
    truth = rng.uniform(0.1, 2, (8, 20, 3))
    mean = np.broadcast_to(truth.mean((0, 1)), truth.shape)
    for score in (rate_r2, log_rate_r2, squared_correlation):
        assert score(truth, truth) == pytest.approx(1, abs=1e-12)
    assert rate_r2(truth, mean) == pytest.approx(0, abs=1e-12)
    assert squared_correlation(truth, mean) == pytest.approx(0, abs=1e-12)


def test_the_truth_comes_first(rng: np.random.Generator) -> None:
    """A prediction of half the deviation has 1 - 1/4; swapped it would have 1 - (1/2)² / (1/2)² = 0."""
    truth = rng.uniform(0.5, 2, (8, 20, 3))
    half = truth.mean((0, 1)) + 0.5 * (truth - truth.mean((0, 1)))
    assert rate_r2(truth, half) == pytest.approx(0.75, abs=1e-12)
    assert squared_correlation(truth, half) == pytest.approx(1, abs=1e-12)


def test_neurons_weigh_alike(rng: np.random.Generator) -> None:
    """One neuron is perfect and loud, one is its mean: 1/2, where variance weighting would give nearly 1."""
    truth = rng.uniform(0.5, 2, (8, 20, 2)) * np.array([100.0, 1.0])
    found = truth.copy()
    found[..., 1] = truth[..., 1].mean()
    assert rate_r2(truth, found) == pytest.approx(0.5, abs=1e-12)
    assert squared_correlation(truth, found) == pytest.approx(0.5, abs=1e-12)
    assert squared_correlation(truth, found, pooled=True) > 0.999


def test_logarithms_are_scored_above_the_least(rng: np.random.Generator) -> None:
    truth, found = rng.uniform(1e-3, 2, (4, 9, 2)), rng.uniform(0, 2, (4, 9, 2))
    found[0, 0, 0] = 0
    expected = r2_score(np.log(truth).reshape(-1, 2), np.log(np.maximum(found, 1e-4)).reshape(-1, 2))
    assert log_rate_r2(truth, found) == pytest.approx(expected, rel=1e-12)


def test_rates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="a prediction a rate"):
        rate_r2(np.ones((2, 3, 1)), np.ones((2, 3, 2)))
    with pytest.raises(InputError, match="finite rates"):
        squared_correlation(np.ones((2, 3, 1)), np.full((2, 3, 1), np.nan))
    with pytest.raises(InputError, match="smallest rate"):
        log_rate_r2(np.ones((2, 3, 1)), np.ones((2, 3, 1)), least=0)
