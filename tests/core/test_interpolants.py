"""Interpolants: derivatives, ends, the two identities, and what the fields are told apart by."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.interpolant_oracles import GaussianMixture, MixtureBridge
from radiata_core.interpolants import (
    EncoderDecoder,
    Interpolant,
    LinearSchedule,
    MirrorSchedule,
    NetworkBridge,
    NoGamma,
    OfPath,
    QuadraticGamma,
    SigmoidGamma,
    SineSquaredGamma,
    SquareRootGamma,
    TrigonometricSchedule,
    VariancePreservingSchedule,
)
from radiata_core.paths import LinearPath, TrigonometricPath
from radiata_core.specs import describe, rebuild

SCHEDULES = [
    LinearSchedule(),
    TrigonometricSchedule(),
    EncoderDecoder(),
    VariancePreservingSchedule(),
    MirrorSchedule(),
    OfPath(TrigonometricPath()),
]
GAMMAS = [NoGamma(), SquareRootGamma(2.0), QuadraticGamma(), SineSquaredGamma(), SigmoidGamma(8.0)]
TIMES = torch.tensor([0.05, 0.31, 0.499, 0.62, 0.97], dtype=torch.float64)


def mixtures() -> tuple[GaussianMixture, GaussianMixture]:
    g = torch.Generator().manual_seed(0)
    root = 0.4 * torch.randn(5, 3, 3, generator=g, dtype=torch.float64)
    covariances = root @ root.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    means = 2 * torch.randn(5, 3, generator=g, dtype=torch.float64)
    first = GaussianMixture(torch.tensor([0.3, 0.7]).double(), means[:2], covariances[:2])
    return first, GaussianMixture(torch.tensor([0.2, 0.5, 0.3]).double(), means[2:], covariances[2:])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_derive(schedule) -> None:
    for of in (schedule.a, schedule.b):
        t = TIMES.clone().requires_grad_(True)
        value, slope = of(t)
        (wanted,) = torch.autograd.grad(value.sum(), t, allow_unused=True) if value.requires_grad else (None,)
        wanted = torch.zeros_like(t) if wanted is None else wanted
        torch.testing.assert_close(slope.detach(), wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS, ids=lambda g: type(g).__name__)
def test_gammas_derive_and_vanish_at_the_ends(gamma) -> None:
    t = TIMES.clone().requires_grad_(True)
    value, slope = gamma.of(t)
    if value.requires_grad and not isinstance(gamma, NoGamma):
        torch.testing.assert_close(
            slope.detach(), torch.autograd.grad(value.sum(), t)[0], atol=1e-12, rtol=1e-12
        )
        assert bool((value > 0).all())
    assert float(gamma.of(torch.tensor([0.0, 1.0], dtype=torch.float64))[0].abs().max()) < 1e-15


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if not isinstance(s, MirrorSchedule)], ids=str)
def test_the_ends_are_the_two_sets(schedule) -> None:
    x0, x1, z = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    flips = isinstance(schedule, VariancePreservingSchedule)
    for t, wanted in ((0.0, x0), (1.0, x1)):
        state = Interpolant(schedule, SineSquaredGamma()).state(x0, x1, z, torch.tensor(t).double())
        torch.testing.assert_close(state, wanted, atol=1e-12, rtol=0)
    assert flips or schedule.a(torch.zeros(1).double())[0] == 1


@pytest.mark.parametrize("gamma", GAMMAS[1:], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("schedule", [LinearSchedule(), TrigonometricSchedule(), EncoderDecoder()], ids=str)
def test_two_fields_give_the_third(schedule, gamma) -> None:
    """T9: a eta_0 + b eta_1 + gamma eta_z = x, and the ends from velocity and noise, on the exact bridge."""
    bridge = MixtureBridge(*mixtures(), Interpolant(schedule, gamma))
    x = torch.randn(len(TIMES), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    c = bridge.interpolant.coefficients(TIMES)
    eta0, eta1 = bridge.ends(x, TIMES)
    eta = bridge.eta(x, TIMES)
    total = c.a[:, None] * eta0 + c.b[:, None] * eta1 + c.gamma[:, None] * eta
    torch.testing.assert_close(total, x, atol=1e-10, rtol=0)
    found0, found1 = bridge.interpolant.ends(x, bridge.velocity(x, TIMES), eta, TIMES)
    seen0, seen1 = c.a > 1e-3, c.b > 1e-3
    torch.testing.assert_close(found0[seen0], eta0[seen0], atol=1e-8, rtol=0)
    torch.testing.assert_close(found1[seen1], eta1[seen1], atol=1e-8, rtol=0)


def test_a_one_sided_interpolant_is_a_path() -> None:
    """With x_0 the data and x_1 the noise, state and velocity are the path's."""
    x0, noise = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.9]).double()
    c = TrigonometricPath().coefficients(t)
    one = Interpolant(OfPath(TrigonometricPath()), NoGamma())
    zero = torch.zeros_like(x0)
    torch.testing.assert_close(
        one.state(x0, noise, zero, t), c.alpha[:, None] * x0 + c.sigma[:, None] * noise
    )
    torch.testing.assert_close(
        one.velocity(x0, noise, zero, t), c.d_alpha[:, None] * x0 + c.d_sigma[:, None] * noise
    )
    both = (Interpolant(OfPath(LinearPath()), NoGamma()), Interpolant(LinearSchedule(), NoGamma()))
    torch.testing.assert_close(*(i.state(x0, noise, zero, t) for i in both))


def test_trigonometric_keeps_variance_of_white_ends_only() -> None:
    c = Interpolant(TrigonometricSchedule(), NoGamma()).coefficients(TIMES)
    torch.testing.assert_close(c.a**2 + c.b**2, torch.ones_like(TIMES))
    correlated = (c.a + c.b) ** 2  # x_1 = x_0
    assert float(correlated.max()) > 1.9


def test_a_mirror_says_nothing_of_its_first_end() -> None:
    mirror = Interpolant(MirrorSchedule(), SquareRootGamma())
    x, eta = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    first, second = mirror.ends(x, torch.zeros_like(x), eta, torch.tensor(0.5).double())
    assert not first.any()
    torch.testing.assert_close(second, x - 0.5 * eta)


def test_descriptions_come_back() -> None:
    for schedule in SCHEDULES:
        for gamma in GAMMAS:
            assert rebuild(describe(Interpolant(schedule, gamma))) == Interpolant(schedule, gamma)


def test_a_bridge_without_noise_says_so() -> None:
    bridge = NetworkBridge(torch.nn.Identity(), None, Interpolant())
    with pytest.raises(InputError, match="velocity alone"):
        bridge.eta(torch.zeros(2, 2), torch.tensor(0.5))


@pytest.mark.parametrize("t", [-0.1, 1.2, math.nan])
def test_times_are_checked(t: float) -> None:
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        Interpolant().coefficients(torch.tensor(t, dtype=torch.float64))


def test_ends_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(InputError, match="told apart"):
        x = torch.zeros(1, 2).double()
        Interpolant(EncoderDecoder(), SineSquaredGamma()).ends(x, x, x, torch.tensor(0.5).double())
    with pytest.raises(InputError, match="scale > 0"):
        SquareRootGamma(0.0)
