"""Forward aggregation: the unrolled formula against the chain itself, the terminal term against torch, refusals."""

import math

import pytest
import torch

from radiata_core.aggregation import AggregationChain, require_pure_noise, terminal_kl
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generators_of

ALPHAS = (0.95, 0.9, 0.8, 0.6, 0.5)
LATE = AggregationChain(ALPHAS, (0.2, 0.0, 0.7, -0.3, 0.5))


def test_the_unrolled_law_is_the_chains():
    """Mean and variance of 4000 walks of 3 numbers within 4.5 standard errors: a false alarm in 2e-5 of 6 comparisons."""
    z0, aggregate = torch.tensor([[0.7, -1.0, 0.0]]), torch.tensor([[1.5, 0.4, -2.0]])
    n = 4000
    walked = LATE.simulate(z0.expand(n, -1), aggregate.expand(n, -1), generators_of(range(n))).double()
    mean, sd = LATE.marginal(z0, aggregate, len(ALPHAS))
    assert ((walked.mean(0) - mean[0]).abs() < 4.5 * sd / n**0.5).all()
    assert ((walked.var(0) - sd**2).abs() < 4.5 * sd**2 * (2 / n) ** 0.5).all()
    forgotten = AggregationChain.at_once(ALPHAS).marginal(z0, aggregate, len(ALPHAS))[0]
    assert ((walked.mean(0) - forgotten[0]).abs() > 4.5 * sd / n**0.5).any()  # other weights are told apart


def test_every_marginal_is_the_next_step_of_the_one_before():
    """z_t's mean and variance by the recursion of the definition, exactly, at every t."""
    z0, aggregate = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[-1.2]], dtype=torch.float64)
    mean, variance = z0, 0.0
    for step, (alpha, weight) in enumerate(zip(LATE.alphas, LATE.weights, strict=True), 1):
        mean, variance = alpha**0.5 * (mean + weight * aggregate), alpha * variance + 1 - alpha
        found, sd = LATE.marginal(z0, aggregate, step)
        torch.testing.assert_close(found, mean)
        assert sd**2 == pytest.approx(variance)


def test_aggregated_at_once_it_is_the_discrete_path():
    """w_1 = 1 and z_0 = 0: c_t and the noise are DDPM's nodes, so every process of the core applies."""
    path = DiscreteVPPath()
    nodes = path.coefficients((torch.arange(1000, dtype=torch.float64) + 1) / 1000)
    bars = nodes.alpha.square()
    alphas = torch.cat([bars[:1], bars[1:] / bars[:-1]])
    chain = AggregationChain.at_once(alphas.tolist())
    torch.testing.assert_close(chain.coefficients, nodes.alpha, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close((1 - chain.alpha_bar).sqrt(), nodes.sigma, rtol=1e-6, atol=1e-6)
    chain.require_pure_noise()
    assert chain.clearest == 1


def test_late_aggregation_is_clearest_late_and_leaves_data_at_the_end():
    chain = AggregationChain(tuple([0.99] * 100), tuple([0.0] * 40 + [1.0] + [0.0] * 59))
    assert chain.clearest == 41
    with pytest.raises(InputError, match=r"at most 0\.01 of the aggregate at the last step; got 0\.7"):
        chain.require_pure_noise()
    assert float(chain.coefficients[-1]) == pytest.approx(0.99**30)  # only 60 of 100 steps fade it


def test_the_terminal_term_is_torchs():
    mean, sd = torch.tensor([[0.4, -0.1], [0.0, 2.0]], dtype=torch.float64), 0.9
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, sd), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(terminal_kl(mean, sd), wanted)
    assert float(terminal_kl(torch.zeros(1, 5), 1.0)) == 0.0


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), DiscreteVPPath()])
def test_paths_that_end_in_noise(path):
    require_pure_noise(path)


def test_paths_that_end_elsewhere_are_refused():
    with pytest.raises(InputError, match=r"ends in N\(0, I\); got alpha 1"):
        require_pure_noise(VEPath())


@pytest.mark.parametrize(
    ("alphas", "weights", "words"),
    [((), (), "at least 1"), ((0.5,), (1.0, 0.0), "got 2 and 1"), ((1.5,), (1.0,), r"alphas in \(0, 1\)")],
)
def test_chains_that_are_none(alphas, weights, words):
    with pytest.raises(InputError, match=words):
        AggregationChain(alphas, weights)


def test_amounts_are_the_sum_of_the_docstring():
    bars = [math.prod(ALPHAS[:s]) for s in range(len(ALPHAS))]
    wanted = [sum(LATE.weights[s] / bars[s] ** 0.5 for s in range(t + 1)) for t in range(len(ALPHAS))]
    torch.testing.assert_close(LATE.amounts, torch.tensor(wanted, dtype=torch.float64))
