"""Paths against closed forms, autograd and quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from radiata_core.errors import InputError
from radiata_core.paths import (
    DiscreteVPPath,
    LinearPath,
    Path,
    TrigonometricPath,
    VEPath,
    VPPath,
)
from radiata_core.specs import describe, rebuild

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@over_paths
def test_data_end_is_exact(path: Path) -> None:
    c = path.coefficients(times(0.0))
    assert c.alpha.item() == 1
    assert c.sigma.item() == 0
    assert math.copysign(1, c.sigma.item()) == 1
    assert path.log_snr(times(0.0)).item() == math.inf


def test_noise_end_is_exact() -> None:
    for path, alpha, sigma in [
        (LinearPath(), 0, 1),
        (TrigonometricPath(), 0, 1),
        (VEPath(), 1, 80),
        (VPPath(), math.exp(-5.025), math.sqrt(1 - math.exp(-10.05))),
    ]:
        c = path.coefficients(times(1.0))
        assert c.alpha.item() == pytest.approx(alpha, rel=1e-13, abs=0)
        assert c.sigma.item() == pytest.approx(sigma, rel=1e-13)
    assert LinearPath().log_snr(times(1.0)).item() == -math.inf
    assert TrigonometricPath().log_snr(times(1.0)).item() == -math.inf


@over_paths
def test_derivatives_are_autograds(path: Path, rng: np.random.Generator) -> None:
    t = torch.tensor(rng.uniform(1e-3, 1 - 1e-3, 50), requires_grad=True)
    c = path.coefficients(t)
    for value, derivative in [(c.alpha, c.d_alpha), (c.sigma, c.d_sigma)]:
        if value.requires_grad:
            (expected,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        else:
            expected = torch.zeros_like(t)
        torch.testing.assert_close(derivative.detach(), expected, rtol=1e-9, atol=1e-9)


@over_paths
def test_log_snr_is_the_log_ratio_and_falls(path: Path) -> None:
    t = torch.linspace(1e-6, 1 - 1e-6, 301, dtype=torch.float64)
    c = path.coefficients(t)
    torch.testing.assert_close(path.log_snr(t), torch.log(c.alpha / c.sigma), rtol=1e-8, atol=1e-9)
    assert (path.log_snr(t).diff() < 0).all()


@over_paths
def test_log_snr_inverts(path: Path) -> None:
    t = torch.cat(
        [times(0.0, 1e-9, 1e-6, 1e-3), torch.linspace(0.01, 0.99, 99, dtype=torch.float64), times(1.0)]
    )
    torch.testing.assert_close(path.time_of_log_snr(path.log_snr(t)), t, rtol=1e-10, atol=1e-12)
    assert path.time_of_log_snr(times(math.inf, -math.inf)).tolist() == [0, 1]


@over_paths
def test_inverse_is_differentiable(path: Path) -> None:
    t = times(0.2013, 0.5017, 0.8049).requires_grad_()
    lam = path.log_snr(t)
    (slope,) = torch.autograd.grad(lam.sum(), t)
    lam = lam.detach().requires_grad_()
    (inverse_slope,) = torch.autograd.grad(path.time_of_log_snr(lam).sum(), lam)
    torch.testing.assert_close(slope * inverse_slope, torch.ones(3, dtype=torch.float64))


@over_paths
def test_probability_flow_ode(path: Path, rng: np.random.Generator) -> None:
    """u = f x - g²/2 score with f = alpha'/alpha and g² = 2 sigma sigma' - 2 f sigma², and g² = -2 sigma² lambda'."""
    t = torch.tensor(rng.uniform(0.01, 0.99, 40), requires_grad=True)
    (slope,) = torch.autograd.grad(path.log_snr(t).sum(), t)
    t = t.detach()
    c = path.coefficients(t)
    x0, noise = (torch.tensor(rng.standard_normal(40)) for _ in range(2))
    x, u, score = c.alpha * x0 + c.sigma * noise, c.d_alpha * x0 + c.d_sigma * noise, -noise / c.sigma
    f = c.d_alpha / c.alpha
    g2 = 2 * c.sigma * c.d_sigma - 2 * f * c.sigma**2
    torch.testing.assert_close(f * x - 0.5 * g2 * score, u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(g2, -2 * c.sigma**2 * slope, rtol=1e-9, atol=1e-9)
    if isinstance(path, VPPath):
        beta = path.beta_min + t * (path.beta_max - path.beta_min)
        torch.testing.assert_close(f, -beta / 2, rtol=1e-10, atol=0)
        torch.testing.assert_close(g2, beta, rtol=1e-10, atol=0)


def test_vp_integrates_its_rate() -> None:
    path = VPPath(0.3, 7.0)
    for t in (0.05, 0.4, 1.0):
        integral = quad(lambda s: 0.3 + s * 6.7, 0, t)[0]
        c = path.coefficients(times(t))
        assert c.alpha.item() == pytest.approx(math.exp(-integral / 2), rel=1e-12)
        assert c.sigma.item() == pytest.approx(math.sqrt(1 - math.exp(-integral)), rel=1e-12)


def test_vp_with_constant_and_with_vanishing_rate() -> None:
    t = times(0.0, 1e-4, 0.3, 1.0)
    for path in (VPPath(3.0, 3.0), VPPath(0.0, 20.0)):
        torch.testing.assert_close(path.time_of_log_snr(path.log_snr(t)), t, rtol=1e-9, atol=1e-12)


def test_ve_grows_geometrically_to_its_ends() -> None:
    """sigma + sigma_min is a geometric progression from sigma_min to sigma_max + sigma_min."""
    path = VEPath(0.01, 50.0)
    sigma = path.coefficients(torch.linspace(0, 1, 11, dtype=torch.float64)).sigma
    np.testing.assert_allclose(sigma + 0.01, np.geomspace(0.01, 50.01, 11), rtol=1e-12)


@over_paths
def test_paths_survive_json(path: Path) -> None:
    assert rebuild(describe(path)) == path


@pytest.mark.parametrize(
    "make",
    [
        lambda: VPPath(-1.0, 20.0),
        lambda: VPPath(2.0, 1.0),
        lambda: VPPath(0.0, 0.0),
        lambda: VPPath(0.1, math.nan),
        lambda: VEPath(0.0, 1.0),
        lambda: VEPath(2.0, 1.0),
        lambda: DiscreteVPPath(0.0, 0.1),
        lambda: DiscreteVPPath(0.1, 1.0),
        lambda: DiscreteVPPath(steps=0),
        lambda: DiscreteVPPath().time_of_index(1000),
        lambda: DiscreteVPPath().time_of_index(-2),
    ],
)
def test_impossible_schedules_are_refused(make) -> None:
    with pytest.raises(InputError, match=r"^expected .*; got .*\. "):
        make()
