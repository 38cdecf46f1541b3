"""Straightness, curvature and cost against integrals that are known."""

import math

import pytest
import torch
from scipy.integrate import quad

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.straightness import curvature, even_times, straightness, transport_cost

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
VARIANCES = torch.tensor([4.0, 0.25], dtype=torch.float64)


class FirstOrder:
    """The ideal rectified denoiser of x_0 = MEAN + sqrt(VARIANCES) noise, with the state at t = 1 exactly sigma noise."""

    def __init__(self, path):
        self.path = path

    def __call__(self, x, t, **conditions):
        c, one = self.path.coefficients(t), self.path.coefficients(torch.ones((), dtype=torch.float64))
        alpha = c.alpha - c.sigma * one.alpha / one.sigma
        root = VARIANCES.sqrt()
        noise = (x - alpha[..., None] * MEAN) / (alpha[..., None] * root + c.sigma[..., None])
        return MEAN + root * noise


def start(path, rows=6):
    noise = noise_of(generators_of(range(rows)), (2,), torch.float64)
    return noise, float(path.coefficients(torch.ones((), dtype=torch.float64)).sigma) * noise


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), VEPath()])
def test_a_first_order_flow_is_straight_on_every_path(path):
    _, x = start(path)
    assert straightness(FirstOrder(path), x, 20).max() < 1e-18


def test_a_first_order_flow_has_curvature_where_the_path_has():
    _, x = start(LinearPath())
    assert curvature(FirstOrder(LinearPath()), x, 20).max() < 1e-12
    assert curvature(FirstOrder(TrigonometricPath()), x, 200).min() > 1e-4


def test_curvature_of_a_quarter_ellipse():
    """x_t = cos x0 + sin noise is a quarter of a circle if x0 is orthogonal to the noise and as long."""

    class Orthogonal:
        path = TrigonometricPath()

        def __call__(self, x, t, **conditions):
            c = self.path.coefficients(t)
            turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=x.dtype)  # x0 = turn noise
            mixed = c.alpha * turn + c.sigma * torch.eye(2, dtype=x.dtype)
            return torch.linalg.solve(mixed, x.T).T @ turn.T

    _, x = start(TrigonometricPath())
    found = curvature(Orthogonal(), x, 400)
    assert torch.allclose(found, torch.full_like(found, math.pi / 2 / math.sqrt(2) - 1), atol=1e-4)


def test_straightness_of_a_gaussian_flow():
    """x_t = (1 - t) m + sqrt(v_t) noise: S is the variance of the derivative of sqrt(v) over t."""
    denoiser = GaussianDenoiser(MEAN, Diagonal(VARIANCES), LinearPath())
    noise, x = start(LinearPath())
    found = straightness(denoiser, x, 400)
    wanted = torch.zeros(len(x), dtype=torch.float64)
    for axis, variance in enumerate(VARIANCES.tolist()):
        chord = 1 - math.sqrt(variance)

        def gap(t, variance=variance, chord=chord):
            return ((t - (1 - t) * variance) / math.sqrt((1 - t) ** 2 * variance + t**2) - chord) ** 2

        wanted += noise[:, axis] ** 2 * quad(gap, 0, 1)[0]
    assert torch.allclose(found, wanted, rtol=1e-2)


def test_straightness_does_not_depend_on_the_path():
    """The trajectories of one data set are the same in the coordinates of the linear path."""
    found = []
    for path in (LinearPath(), TrigonometricPath()):
        _, x = start(path)
        found.append(straightness(GaussianDenoiser(MEAN, Diagonal(VARIANCES), path), x, 100))
    assert torch.allclose(found[0], found[1], rtol=1e-9)


def test_transport_cost_of_gaussian_couplings(generator):
    """Independent: |m|^2 + tr S + d. By the flow: |m|^2 + tr (sqrt S - 1)^2, the optimum (5 standard errors)."""
    n = 40_000
    noise, other = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    for used, wanted in (
        (other, float(MEAN.square().sum() + VARIANCES.sum() + 2)),
        (noise, float(MEAN.square().sum() + (VARIANCES.sqrt() - 1).square().sum())),
    ):
        cost = transport_cost(MEAN + VARIANCES.sqrt() * used, noise)
        assert abs(float(cost.mean()) - wanted) < 5 * float(cost.std()) / n**0.5


@pytest.mark.parametrize("path", [LinearPath(), VPPath(), VEPath()])
def test_even_times_are_even_in_tau(path):
    times = even_times(7, path)
    c = path.coefficients(times)
    tau = c.sigma / (c.alpha + c.sigma)
    assert times[0] == 1 and times[-1] == 0
    assert torch.allclose(tau.diff(), tau.diff().mean().expand(7), atol=1e-9)
    with pytest.raises(InputError, match="at least 1 step"):
        even_times(0, path)
