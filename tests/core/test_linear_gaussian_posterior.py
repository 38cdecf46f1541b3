"""The oracle of posterior samplers, against numerical integration and its own draws."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.linear_gaussian_posterior import gaussian_posterior, mixture_posterior, operator_matrix
from radiata_core.seeds import generators_of

_spec = importlib.util.spec_from_file_location(
    "gaussian_problem", Path(__file__).with_name("gaussian_problem.py")
)
assert _spec is not None and _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["gaussian_problem"] = known
_spec.loader.exec_module(known)

NOISE, Matrix, Problem, normal = known.NOISE, known.Matrix, known.Problem, known.normal
long_covariance, mixer = known.long_covariance, known.mixer


def test_the_matrix_of_an_operator_and_of_a_complex_one() -> None:
    torch.testing.assert_close(operator_matrix(mixer()), mixer().matrix)
    operator = FourierSampling(torch.tensor([True, False, True, True]), (1, 4), real=True)
    a, x = operator_matrix(operator), normal(1, 1, 4)
    numbers = torch.view_as_real(operator(x)).flatten()
    torch.testing.assert_close(a @ x.flatten(), numbers, rtol=0, atol=1e-12)


def test_two_dimensions_by_integration_on_a_grid() -> None:
    """Weights, mean, covariance and evidence of a mixture in 2-D, one combination measured: 1e-6."""
    weights = torch.tensor([0.6, 0.4], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5]], dtype=torch.float64)
    covariances = [
        torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64),
        torch.tensor([[0.3, -0.1], [-0.1, 0.6]], dtype=torch.float64),
    ]
    operator = Matrix(torch.tensor([[0.8, -0.6]], dtype=torch.float64), (2,))
    y, noise = torch.tensor([[0.3]], dtype=torch.float64), 0.4
    axis = torch.linspace(-7, 7, 701, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    parts = []
    for w, m, c in zip(weights, means, covariances, strict=True):
        law = torch.distributions.MultivariateNormal(m, c)
        likelihood = torch.distributions.Normal(operator(points)[:, 0], noise).log_prob(y[0, 0])
        parts.append(w * (law.log_prob(points) + likelihood).exp())
    mass, area = torch.stack(parts), float(axis[1] - axis[0]) ** 2
    found = mixture_posterior(weights, means, covariances, operator, y, noise)
    torch.testing.assert_close(found.weights[0], mass.sum(1) / mass.sum(), rtol=0, atol=1e-6)
    density = mass.sum(0) / mass.sum()
    mean = (density[:, None] * points).sum(0)
    torch.testing.assert_close(found.mean[0], mean, rtol=0, atol=1e-6)
    off = points - mean
    torch.testing.assert_close(found.covariance[0], (density * off.mT) @ off, rtol=0, atol=1e-6)
    evidence = torch.stack([part.log_evidence[0] for part in found.components]).exp() @ weights
    assert float(evidence) == pytest.approx(float(mass.sum()) * area, rel=1e-6)
    shares = mass / mass.sum(0)
    picked = torch.arange(0, len(points), 977)
    torch.testing.assert_close(
        torch.cat([found.responsibilities(point[None]) for point in points[picked]]),
        shares.mT[picked],
        rtol=0,
        atol=1e-6,
    )


def test_exact_draws_have_mean_and_covariance() -> None:
    """4000 draws: error rate 1e-4 for all means, 10 % for the covariance."""
    problem = Problem(long_covariance(), mixer())
    rows = 4000
    exact = gaussian_posterior(
        problem.mean, problem.covariance, problem.operator, problem.y.expand(rows, -1), NOISE
    )
    flat = exact.sample(generators_of(range(rows))).flatten(1)
    z = (flat.mean(0) - exact.mean[0].flatten()) / (exact.covariance.diagonal() / rows).sqrt()
    assert z.abs().max() < 4.3
    assert (torch.cov(flat.mT) - exact.covariance).norm() < 0.1 * exact.covariance.norm()


def test_bad_input() -> None:
    problem = Problem(long_covariance(), mixer())
    with pytest.raises(InputError, match="noise > 0"):
        gaussian_posterior(problem.mean, problem.covariance, problem.operator, problem.y, 0.0)
    with pytest.raises(InputError, match="Flatten the event"):
        gaussian_posterior(problem.mean.flatten(), problem.covariance, problem.operator, problem.y, 0.1)
