"""Data steps, one by one, against linear algebra."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from radiata_core.data_steps import (
    DescentStep,
    KrylovStep,
    Moment,
    Problem,
    ProjectionStep,
    ProximalStep,
    Unmoved,
    gaussian_update,
)
from radiata_core.errors import InputError
from radiata_core.linear_gaussian_posterior import gaussian_posterior
from radiata_core.pointwise import Identity
from radiata_core.posterior_spread import KappaSpread, UnitSpread
from radiata_core.seeds import generators_of, noise_of
from radiata_core.steering_steps import MomentStep, ResidualNormStep, SteeringStep

_spec = importlib.util.spec_from_file_location(
    "gaussian_problem", Path(__file__).with_name("gaussian_problem.py")
)
assert _spec is not None and _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["gaussian_problem"] = known
_spec.loader.exec_module(known)

EVENT, NOISE, normal, mask, mixer = known.EVENT, known.NOISE, known.normal, known.mask, known.mixer
EYE = torch.eye(8, dtype=torch.float64)


def moment(operator=None, noise: float = NOISE, alpha: float = 0.7, sigma: float = 0.3, **changes) -> Moment:
    """Row by row: a linear denoiser 0.8 x + 0.1, two rows."""
    operator = mixer() if operator is None else operator
    x = normal(2, *EVENT, seed=11).requires_grad_()
    denoised = 0.8 * x + 0.1
    y = operator(normal(2, *EVENT, seed=12))
    generators = generators_of([0, 1])
    given = {
        "problem": Problem(operator, y, noise),
        "index": 0,
        "last": False,
        "alpha": alpha,
        "sigma": sigma,
        "alpha_next": 0.8,
        "sigma_next": 0.2,
        "fresh": 0.1,
        "x": x,
        "denoised": denoised,
        "estimate": denoised.detach(),
        "draw": lambda like: noise_of(generators, like.shape[1:], like.dtype),
    }
    return Moment(**(given | changes))


def test_the_update_is_the_posterior_of_a_round_prior() -> None:
    at = moment()
    for row in range(2):
        exact = gaussian_posterior(
            at.estimate[row], 0.3 * EYE, at.given.operator, at.given.y[row : row + 1], NOISE
        )
        found = gaussian_update(at.given, at.estimate, 0.3)[row]
        torch.testing.assert_close(found, exact.mean[0], rtol=0, atol=1e-12)


def test_draws_of_the_update_have_the_posterior_covariance() -> None:
    """Perturb and optimise, by impulses: exact."""
    at = moment(estimate=torch.zeros(13, *EVENT, dtype=torch.float64))
    problem = Problem(at.given.operator, torch.zeros(13, 5, dtype=torch.float64), NOISE)
    drawn = iter(
        [torch.cat([EYE, torch.zeros(5, 8)]).double(), torch.cat([torch.zeros(8, 5), torch.eye(5)]).double()]
    )
    response = gaussian_update(problem, at.estimate, 0.3, lambda like: next(drawn).view_as(like)).flatten(1)
    exact = gaussian_posterior(torch.zeros(EVENT).double(), 0.3 * EYE, problem.operator, problem.y[:1], NOISE)
    torch.testing.assert_close(response.mT @ response, exact.covariance, rtol=0, atol=1e-12)


def test_an_infinite_spread_projects_and_none_stays() -> None:
    at = moment()
    operator, y = at.given.operator, at.given.y
    met = gaussian_update(at.given, at.estimate, math.inf)
    torch.testing.assert_close(operator(met), y, rtol=0, atol=1e-6)
    gone = met - at.estimate
    torch.testing.assert_close(operator.pseudo_inverse(operator(gone)), gone, rtol=0, atol=1e-6)
    torch.testing.assert_close(gaussian_update(at.given, at.estimate, 0.0), at.estimate, rtol=0, atol=0)
    with pytest.raises(InputError, match="finite spread to draw from"):
        gaussian_update(at.given, at.estimate, math.inf, at.draw)


def test_identity_weighs_by_variances() -> None:
    at = moment(Identity(EVENT))
    kappa2 = (0.3 / 0.7) ** 2
    found = ProximalStep(KappaSpread())(at).estimate
    expected = (kappa2 * at.given.y + NOISE**2 * at.estimate) / (kappa2 + NOISE**2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_projection_meets_a_clean_measurement_and_shares_a_noisy_one() -> None:
    clean = moment(noise=0.0)
    found = ProjectionStep()(clean)
    torch.testing.assert_close(clean.given.operator(found.estimate), clean.given.y, rtol=0, atol=1e-10)
    assert found.added is None
    # A mask: what comes in and what is added make up the fresh noise in the measured numbers, all of it elsewhere.
    noisy = moment(mask())
    found = ProjectionStep()(noisy)
    weight = noisy.fresh / (noisy.alpha_next * NOISE)
    assert weight < 1
    moved = noisy.given.operator(found.estimate - noisy.estimate)
    torch.testing.assert_close(
        moved,
        weight * noisy.given.operator.pseudo_inverse(noisy.residual()).flatten(1)[:, [0, 2, 3, 5, 6]],
        rtol=0,
        atol=1e-12,
    )
    assert found.added is not None
    added = found.added(torch.ones(1, *EVENT, dtype=torch.float64)).flatten()
    measured = torch.zeros(8, dtype=torch.bool)
    measured[[0, 2, 3, 5, 6]] = True
    torch.testing.assert_close(
        added[~measured], torch.full((3,), noisy.fresh, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert added[measured].abs().max() < 1e-8  # w is below 1: y brings all the noise
    composed = mask() @ Identity(EVENT)
    plain = ProjectionStep()(moment(composed, noise=0.05))
    full = ProjectionStep()(moment(mask(), noise=0.05))
    torch.testing.assert_close(plain.estimate, full.estimate, rtol=0, atol=1e-6)


def test_krylov_steps_reach_the_solution_that_the_prox_has() -> None:
    at = moment()
    norm2 = float(at.given.operator.norm) ** 2
    few, many = KrylovStep(5.0, 2)(at).estimate, KrylovStep(5.0, 20)(at).estimate
    prox = at.given.operator.prox(at.estimate, at.given.y, norm2 / 5)
    torch.testing.assert_close(many, prox, rtol=0, atol=1e-8)
    assert (few - prox).norm() < 0.5 * (at.estimate - prox).norm()


def test_gradients_are_those_of_autograd() -> None:
    at = moment()
    operator, y, norm2 = at.given.operator, at.given.y, float(at.given.operator.norm) ** 2

    def grad(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, at.x, retain_graph=True)[0]

    residual = operator(at.denoised) - y
    exact = grad(0.5 * residual.square().sum()) / norm2
    torch.testing.assert_close(SteeringStep(1.5, through_network=True)(at).shift, -1.5 * exact)
    torch.testing.assert_close(SteeringStep(1.5)(at).shift, -1.5 * exact / 0.8)  # the denoiser's slope is 0.8
    norms = residual.flatten(1).norm(dim=1).sum()
    torch.testing.assert_close(ResidualNormStep(0.7)(at).shift, -0.7 * grad(norms))
    tau = 0.2 / (0.8 + 0.2)
    torch.testing.assert_close(DescentStep(0.5)(at).estimate, at.estimate - tau**0.5 * exact / 0.8)


def test_moments_are_the_gaussian_update_of_the_denoisers_own_covariance() -> None:
    """J = 0.8: the covariance (sigma^2/alpha) 0.8 is round, so MMPS is a prox with that spread, and so is PiGDM."""
    at = moment()
    variance = 0.3**2 / 0.7 * 0.8
    expected = gaussian_update(at.given, at.estimate, variance)
    torch.testing.assert_close(MomentStep()(at).estimate, expected, rtol=0, atol=1e-8)
    kappa2 = (0.3 / 0.7) ** 2
    same = UnitSpread(kappa2 * variance / (kappa2 - variance))
    torch.testing.assert_close(MomentStep(same)(at).estimate, expected, rtol=0, atol=1e-8)


def test_the_last_step_is_unguided_and_pure_noise_says_nothing() -> None:
    at = moment(last=True)
    for step in (SteeringStep(), DescentStep(), Unmoved()):
        found = step(at)
        assert found.shift is None
        torch.testing.assert_close(found.estimate, at.estimate, rtol=0, atol=0)
    start = moment(alpha=0.0, sigma=1.0)
    assert start.kappa == math.inf
    torch.testing.assert_close(MomentStep()(start).estimate, start.estimate, rtol=0, atol=0)


def test_a_step_without_a_measurement_says_so() -> None:
    with pytest.raises(InputError, match="expected a measurement"):
        ProjectionStep()(moment(problem=None))
