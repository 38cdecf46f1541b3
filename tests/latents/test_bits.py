"""Bits a spike: what theory gives for Poisson spikes, the null model, and what is refused."""

import numpy as np
import pytest
from scipy.stats import poisson

from radiata_core.errors import InputError
from radiata_latents.model.bits import (
    bits_per_spike,
    forward_bits_per_spike,
    null_rates,
    total_poisson_nll,
)


def test_nll_is_the_log_probability_of_scipy(rng: np.random.Generator) -> None:
    rates = rng.uniform(0.01, 4, (5, 6, 3))
    counts = rng.poisson(rates)
    assert total_poisson_nll(rates, counts) == pytest.approx(-poisson.logpmf(counts, rates).sum(), rel=1e-12)


def test_bits_of_the_truth_are_what_theory_gives(rng: np.random.Generator) -> None:
    """E = sum(r log(r / mean)) / (sum r log 2), less half a nat a neuron for the fitted null; within 4 standard errors."""
    rates = np.exp(rng.normal(-1, 0.8, (200, 40, 6)))
    counts = rng.poisson(rates)
    gain = np.log(rates / rates.mean((0, 1)))
    total = rates.sum() * np.log(2)
    expected = ((rates * gain).sum() - 6 / 2) / total
    error = np.sqrt((rates * (gain - expected * np.log(2)) ** 2).sum()) / total
    assert error < 0.02 * expected  # else the comparison would say nothing
    assert abs(bits_per_spike(rates, counts) - expected) < 4 * error


def test_the_null_model_has_none_and_less_than_the_truth_is_worse(rng: np.random.Generator) -> None:
    rates = np.exp(rng.normal(-1, 0.5, (50, 20, 4)))
    counts = rng.poisson(rates).astype(float)
    assert bits_per_spike(null_rates(counts), counts) == 0
    assert bits_per_spike(rates, counts) > bits_per_spike(1.5 * rates, counts)
    assert bits_per_spike(np.roll(rates, 1, 1), counts) < 0


def test_counts_that_are_missing_do_not_score(rng: np.random.Generator) -> None:
    """The same as leaving their bins out, whatever was predicted there."""
    rates = rng.uniform(0.1, 2, (30, 10, 3))
    counts = rng.poisson(rates).astype(float)
    masked, wild = counts.copy(), rates.copy()
    masked[:, 7:], wild[:, 7:] = np.nan, 1e6
    assert bits_per_spike(wild, masked) == pytest.approx(
        bits_per_spike(rates[:, :7], counts[:, :7]), rel=1e-12
    )


def test_a_rate_of_zero_costs_thirty_bits_a_spike_not_infinity() -> None:
    counts = np.array([[[1.0], [0.0]]])
    assert total_poisson_nll(np.zeros((1, 2, 1)), counts) == pytest.approx(-np.log(1e-9), rel=1e-8)


def test_forward_bits_pool_neurons(rng: np.random.Generator) -> None:
    rates = rng.uniform(0.1, 2, (30, 10, 5))
    counts = rng.poisson(rates)
    found = forward_bits_per_spike(rates[..., :3], rates[..., 3:], counts[..., :3], counts[..., 3:])
    assert found == bits_per_spike(rates, counts)
    with pytest.raises(InputError, match="same trials and bins"):
        forward_bits_per_spike(rates[:5, :, :3], rates[..., 3:], counts[..., :3], counts[..., 3:])


@pytest.mark.parametrize(
    ("rates", "counts", "message"),
    [
        (np.ones((2, 3, 1)), np.ones((2, 4, 1)), "a rate a count"),
        (-np.ones((2, 3, 1)), np.ones((2, 3, 1)), "got -1"),
        (np.full((2, 3, 1), np.nan), np.ones((2, 3, 1)), "got nan"),
        (np.ones((2, 3, 1)), np.zeros((2, 3, 1)), "spikes to predict"),
    ],
)
def test_what_cannot_be_scored_is_refused(rates: np.ndarray, counts: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bits_per_spike(rates, counts)
