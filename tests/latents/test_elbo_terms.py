"""Terms of the bound against torch.distributions, and what is left of the released transition term."""

import math

import pytest
import torch
from torch.distributions import Normal, Poisson, kl_divergence

from radiata_core.errors import InputError
from radiata_latents.model.elbo_terms import (
    observed_mean,
    observed_sum,
    poisson_cost,
    standard_kl,
    transition_kl,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cost_is_the_likelihood_without_the_factorial() -> None:
    log_rates, counts = normal(4, 5, 3), torch.arange(60, dtype=torch.float64).reshape(4, 5, 3) % 7
    full = -Poisson(log_rates.exp()).log_prob(counts)
    torch.testing.assert_close(poisson_cost(log_rates, counts) + torch.lgamma(counts + 1), full)


def test_kl_of_the_start() -> None:
    mean, log_variance = normal(4, 2, 6), normal(4, 2, 6, seed=1)
    truth = kl_divergence(Normal(mean, torch.exp(0.5 * log_variance)), Normal(0.0, 1.0)).sum((1, 2))
    torch.testing.assert_close(standard_kl(mean, log_variance), truth)


@pytest.mark.parametrize("variance", [0.3, 1.1])
def test_corrected_transition_is_a_kl(variance: float) -> None:
    mean = normal(4, 5, 6)
    truth = kl_divergence(Normal(mean, torch.tensor(variance).sqrt()), Normal(0.0, math.sqrt(0.1)))
    torch.testing.assert_close(transition_kl(mean, variance, 0.1), truth.sum((1, 2)), rtol=1e-6, atol=1e-6)


def test_released_transition_is_a_constant_and_a_penalty() -> None:
    """const + v² / 0.2, and the constant is that of a log-variance of 2 gamma, larger than the KL's."""
    v, variance = normal(4, 5, 6), 1.1
    released = transition_kl(v, variance, 0.1, variance_as_log_variance=True)
    constant = released - v.square().sum((1, 2)) / 0.2
    mistaken = kl_divergence(Normal(0.0, math.exp(variance / 2)), Normal(0.0, math.sqrt(0.1)))
    torch.testing.assert_close(constant, (30 * mistaken).double().expand(4), rtol=1e-5, atol=1e-5)
    assert bool((released > transition_kl(v, variance, 0.1) + 1).all())


def test_what_is_not_observed_does_not_matter() -> None:
    values = normal(3, 4, 2)
    observed = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    spoiled = values.masked_fill(~observed[..., None], float("nan"))
    torch.testing.assert_close(observed_mean(spoiled, observed)[0], values[0].mean())
    torch.testing.assert_close(observed_mean(spoiled, observed)[1], values[1, ::2].mean())
    torch.testing.assert_close(observed_sum(spoiled, observed)[1], values[1, ::2].sum())
    assert observed_mean(spoiled, observed)[2] == 0 == observed_sum(spoiled, observed)[2]
    torch.testing.assert_close(observed_mean(values), values.mean((1, 2)))


@pytest.mark.parametrize(("variance", "prior"), [(0.0, 0.1), (1.0, 0.0), (-1.0, 0.1)])
def test_variances_that_are_none_are_refused(variance: float, prior: float) -> None:
    with pytest.raises(InputError, match="variances > 0"):
        transition_kl(torch.zeros(1, 2), variance, prior)
