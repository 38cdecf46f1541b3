"""The exact bridge against quadrature, derivatives and simulation."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.interpolant_oracles import GaussianMixture, MixtureBridge, biased_bridge_kl
from radiata_core.interpolants import (
    EncoderDecoder,
    Interpolant,
    LinearSchedule,
    SineSquaredGamma,
    SquareRootGamma,
    TrigonometricSchedule,
)

from .test_interpolants import mixtures

INTERPOLANTS = [
    Interpolant(LinearSchedule(), SquareRootGamma(2.0)),
    Interpolant(TrigonometricSchedule(), SineSquaredGamma()),
    Interpolant(EncoderDecoder(), SineSquaredGamma()),
]


@pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)
def test_the_score_is_the_gradient_of_the_density_and_the_noise_its_multiple(
    interpolant: Interpolant,
) -> None:
    bridge = MixtureBridge(*mixtures(), interpolant)
    t = torch.tensor([0.1, 0.37, 0.8]).double()
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_(
        True
    )
    (slope,) = torch.autograd.grad(bridge.log_density(x, t).sum(), x)
    torch.testing.assert_close(bridge.score(x, t).detach(), slope, atol=1e-10, rtol=1e-10)
    gamma = interpolant.coefficients(t).gamma[:, None]
    torch.testing.assert_close(bridge.eta(x, t).detach(), -gamma * slope, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)
def test_the_velocity_carries_the_density(interpolant: Interpolant) -> None:
    """Continuity: d log p/dt = -div u - u . score, with dt by central differences."""
    bridge = MixtureBridge(*mixtures(), interpolant)
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for t in (0.2, 0.45, 0.77):
        at = torch.tensor(t).double()
        h = 1e-5
        change = (bridge.log_density(x, at + h) - bridge.log_density(x, at - h)) / (2 * h)
        jacobian = torch.autograd.functional.jacobian(lambda y, at=at: bridge.velocity(y, at), x)[0, :, 0]
        u = bridge.velocity(x, at)
        wanted = -jacobian.trace() - (u * bridge.score(x, at)).sum()
        torch.testing.assert_close(change[0], wanted, atol=1e-5, rtol=1e-5)


def test_the_fields_are_conditional_means() -> None:
    """Regression of draws on functions of the state: E[(target - field) h(x)] = 0. 3 x 4 x 3 z-scores, |z| < 4.5: a true
    bridge fails in less than 1 of 4000 runs."""
    first, second = mixtures()
    bridge = MixtureBridge(first, second, INTERPOLANTS[0])
    g = torch.Generator().manual_seed(5)
    n, t = 40_000, torch.tensor(0.3).double()
    x0, x1 = first.sample(n, g), second.sample(n, g)
    z = torch.randn(n, 3, generator=g, dtype=torch.float64)
    x = bridge.interpolant.state(x0, x1, z, t)
    functions = (torch.ones(n, 1).double(), x[:, :1], torch.sin(x[:, 1:2]), (x**2).sum(1, keepdim=True))
    fields = (bridge.velocity(x, t), bridge.ends(x, t)[1], bridge.eta(x, t))
    targets = (bridge.interpolant.velocity(x0, x1, z, t), x1, z)
    for field, target in zip(fields, targets, strict=True):
        for h in functions:
            values = (target - field) * h
            scores = values.mean(0) / values.std(0) * math.sqrt(n)
            assert float(scores.abs().max()) < 4.5


def test_no_false_modes_in_the_middle_of_encoder_and_decoder() -> None:
    """At t = 1/2 the encoder-decoder is one unit Gaussian; the linear bridge without much noise has six modes."""
    one = torch.tensor([[-3.0], [3.0]]).double()
    two = torch.tensor([[-4.0], [0.0], [4.0]]).double()
    tight = 0.05 * torch.ones(3, 1, 1).double()
    first = GaussianMixture(torch.ones(2).double(), one, tight[:2])
    second = GaussianMixture(torch.ones(3).double(), two, tight)
    x, t = torch.linspace(-8, 8, 4001).double()[:, None], torch.tensor(0.5).double()

    def modes(interpolant: Interpolant) -> int:
        p = MixtureBridge(first, second, interpolant).log_density(x, t)
        return int(((p[1:-1] > p[:-2]) & (p[1:-1] > p[2:])).sum())

    assert modes(Interpolant(EncoderDecoder(), SineSquaredGamma())) == 1
    assert modes(Interpolant(LinearSchedule(), SquareRootGamma(0.01))) == 6


def test_the_biased_bridge_matches_its_simulation_of_moments() -> None:
    """The mean of dX = (-eps X + delta) dt + noise from 0 gives the KL, since the variance stays 1."""
    for eps in (0.3, 1.26, 4.0):
        steps, mean = 200_000, 0.0
        for _ in range(steps):
            mean += (0.7 - eps * mean) / steps
        assert abs(0.5 * mean**2 - biased_bridge_kl(0.7, eps)) < 1e-5


def test_a_mixture_needs_matching_parts() -> None:
    with pytest.raises(InputError, match="as many positive weights"):
        GaussianMixture(-torch.ones(3).double(), torch.zeros(3, 1).double(), torch.ones(3, 1, 1).double())
