"""Learning a bridge: minimisers, antithetic variance, and the price of errors."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.interpolant_objectives import (
    InterpolantRegression,
    best_diffusion,
    kl_bound,
    kl_bound_of_drift,
    quadratic_loss,
)
from radiata_core.interpolant_oracles import MixtureBridge, biased_bridge_kl
from radiata_core.interpolants import (
    Interpolant,
    LinearSchedule,
    NetworkBridge,
    SineSquaredGamma,
    SquareRootGamma,
)
from radiata_core.seeds import generators_of

from .test_interpolants import mixtures

INTERPOLANT = Interpolant(LinearSchedule(), SquareRootGamma(2.0))


class Exact(torch.nn.Module):
    """The exact bridge with an error added to a field."""

    def __init__(self, bridge: MixtureBridge, u: float = 0.0, eta: float = 0.0) -> None:
        super().__init__()
        self.bridge, self.u, self.by, self.interpolant = bridge, u, eta, bridge.interpolant

    def forward(self, x, t):
        return self.bridge.velocity(x, t) + self.u, self.bridge.eta(x, t) + self.by


def test_an_error_costs_half_its_square_and_rows_are_their_own() -> None:
    """The exact fields are the minimiser: with the same draws, a constant error of 0.5 adds 0.125 on average (|z| < 4)."""
    first, second = mixtures()
    g = torch.Generator().manual_seed(0)
    n = 2000
    x0, x1 = first.sample(n, g), second.sample(n, g)
    bridge = MixtureBridge(first, second, INTERPOLANT)
    loss = InterpolantRegression(INTERPOLANT, cap=1e-2)

    def rows(**errors: float) -> torch.Tensor:
        return loss(Exact(bridge, **errors), x0, generators_of(range(n)), target=x1).per_sample

    base = rows()
    for errors in ({"u": 0.5}, {"eta": 0.5}):
        more = rows(**errors) - base
        z = (more.mean() - 0.125) / more.std() * math.sqrt(n)
        assert abs(float(z)) < 4
    part = loss(Exact(bridge), x0[7:9], generators_of([7, 8]), target=x1[7:9]).per_sample
    torch.testing.assert_close(part, base[7:9])


def test_mirrored_noise_tames_the_score_near_the_ends() -> None:
    """At t = 1e-4 the loss of the score, target -z/gamma, has a hundredth of the variance with z and -z together."""
    first, second = mixtures()
    g = torch.Generator().manual_seed(1)
    n, t = 4000, torch.tensor(1e-4).double()
    x0, x1 = first.sample(n, g), second.sample(n, g)
    z = torch.randn(n, 3, generator=g, dtype=torch.float64)
    for gamma in (SquareRootGamma(2.0), SineSquaredGamma()):
        interpolant = Interpolant(LinearSchedule(), gamma)
        bridge = MixtureBridge(first, second, interpolant)
        scale = float(interpolant.coefficients(t).gamma)
        plus, minus = (
            quadratic_loss(bridge.score(interpolant.state(x0, x1, s * z, t), t), -s * z / scale)
            for s in (1.0, -1.0)
        )
        assert float((0.5 * (plus + minus)).var()) < 0.01 * float(plus.var())


def test_networks_learn_the_bridge() -> None:
    """Two linear networks on a Gaussian bridge at one time reach the exact fields, which are linear there."""
    from dataclasses import dataclass

    from radiata_core.interpolant_oracles import GaussianMixture
    from radiata_core.times import TimeLaw

    @dataclass(frozen=True)
    class Always(TimeLaw):
        def quantile(self, u):
            return torch.full_like(u, 0.3, dtype=torch.float64)

        def density(self, t):
            return torch.ones_like(t)

    first = GaussianMixture(
        torch.ones(1).double(), torch.tensor([[1.0]]).double(), torch.tensor([[[0.5]]]).double()
    )
    second = GaussianMixture(
        torch.ones(1).double(), torch.tensor([[-2.0]]).double(), torch.tensor([[[2.0]]]).double()
    )
    exact = MixtureBridge(first, second, INTERPOLANT)

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = (torch.nn.Parameter(torch.zeros(()).double()) for _ in range(2))

        def forward(self, x, t):
            return self.weight * x + self.bias

    bridge = NetworkBridge(Line(), Line(), INTERPOLANT)
    loss = InterpolantRegression(INTERPOLANT, Always())
    g = torch.Generator().manual_seed(2)
    x0, x1 = first.sample(3000, g), second.sample(3000, g)
    generators = generators_of(range(3000))
    states = [generator.get_state() for generator in generators]
    optimiser = torch.optim.LBFGS(bridge.parameters(), max_iter=12)

    def closure() -> torch.Tensor:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        optimiser.zero_grad()
        value = loss(bridge, x0, generators, target=x1).value
        value.backward()
        return value

    optimiser.step(closure)
    x, t = torch.linspace(-2, 2, 5).double()[:, None], torch.tensor(0.3).double()
    with torch.no_grad():
        torch.testing.assert_close(bridge.velocity(x, t), exact.velocity(x, t), atol=0.2, rtol=0)
        torch.testing.assert_close(bridge.eta(x, t), exact.eta(x, t), atol=0.06, rtol=0)


def test_the_bound_holds_and_is_nearly_reached() -> None:
    """On the bridge of a Gaussian to itself KL <= delta^2/(4 eps) with ratio 0.815 at eps = 1.26, its largest."""
    ratios = {
        e: biased_bridge_kl(0.3, e) / kl_bound_of_drift(0.09, e) for e in (0.1, 0.5, 1.0, 1.26, 2.0, 5.0)
    }
    assert all(r <= 1 for r in ratios.values())
    assert max(ratios, key=ratios.__getitem__) == 1.26
    assert abs(ratios[1.26] - 0.815) < 1e-3


def test_the_best_diffusion_is_the_least_bound() -> None:
    best = best_diffusion(0.3, 1.7)
    least = kl_bound(0.3, 1.7, best)
    assert all(kl_bound(0.3, 1.7, best * f) > least for f in (0.5, 0.9, 1.1, 2.0))
    assert abs(least - math.sqrt(0.3 * 1.7)) < 1e-12
    assert best_diffusion(1.0, 0.0) == math.inf


def test_bad_input_is_refused() -> None:
    bridge, loss = NetworkBridge(torch.nn.Identity(), None, INTERPOLANT), InterpolantRegression(INTERPOLANT)
    x = torch.zeros(2, 3)
    with pytest.raises(InputError, match='partners "target"'):
        loss(bridge, x, generators_of(range(2)))
    with pytest.raises(InputError, match="2 generators; got one on"):
        loss(bridge, x, generators_of(range(3)), target=x)
    with pytest.raises(InputError, match="expected a bridge on"):
        InterpolantRegression(Interpolant())(bridge, x, generators_of(range(2)), target=x)
    with pytest.raises(InputError, match="epsilon > 0"):
        kl_bound(1.0, 1.0, 0.0)
    with pytest.raises(InputError, match="cap"):
        InterpolantRegression(INTERPOLANT, cap=0.5)
