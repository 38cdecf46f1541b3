"""A linear Gaussian problem whose posterior is known, and the exact law of what a sampler makes of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from radiata_core import posterior_walk
from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Dense
from radiata_core.linear_gaussian_posterior import GaussianPosterior, gaussian_posterior
from radiata_core.operators import LinearOperator, SpectralOperator
from radiata_core.paths import LinearPath, Path
from radiata_core.posterior import sample_posterior
from radiata_core.posterior_walk import PosteriorMethod
from radiata_core.seeds import generator_of, generators_of, noise_of

EVENT = (2, 4)
SIZE = math.prod(EVENT)
NOISE = 0.2


class Matrix(SpectralOperator):
    """A small dense operator, its singular vectors by an eigendecomposition."""

    def __init__(self, matrix: Tensor, event_shape: Sequence[int] = EVENT) -> None:
        super().__init__(event_shape, (len(matrix),))
        self.matrix = matrix
        values, self.vectors = torch.linalg.eigh(matrix.mT @ matrix)
        self.values = torch.where(values > 1e-12 * values[-1], values, 0.0)

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.mT.to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.to(y)).view(len(y), *self.event_shape)

    @property
    def largest(self) -> float:
        return float(self.values[-1])

    def spectral(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        vectors = self.vectors.to(x)
        values = function(self.values.to(x).view(1, *self.event_shape)).reshape(-1, len(self.values))
        return ((x.flatten(1) @ vectors * values) @ vectors.mT).view_as(x)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def round_covariance() -> Tensor:
    return torch.eye(SIZE, dtype=torch.float64)


def long_covariance() -> Tensor:
    """Eigenvalues from 3.1 to 0.1, of mean 1, in random directions."""
    values = (1.0 + torch.arange(SIZE, dtype=torch.float64)) ** -1.5
    vectors = torch.linalg.qr(normal(SIZE, SIZE, seed=7)).Q
    return vectors @ torch.diag(values / values.mean()) @ vectors.mT


def mask() -> Matrix:
    """Five of eight numbers."""
    return Matrix(torch.eye(SIZE, dtype=torch.float64)[[0, 2, 3, 5, 6]])


def mixer() -> Matrix:
    """Five random combinations, singular values from 0.3 to 1.9."""
    return Matrix(normal(5, SIZE, seed=5) / 2)


@dataclass(frozen=True, eq=False)
class Problem:
    """One measurement of a draw of N(mean, covariance)."""

    covariance: Tensor
    operator: LinearOperator
    path: Path = field(default_factory=LinearPath)
    noise: float = NOISE

    @property
    def mean(self) -> Tensor:
        return torch.linspace(-1, 1, SIZE, dtype=torch.float64).view(EVENT)

    @property
    def denoiser(self) -> GaussianDenoiser:
        return GaussianDenoiser(self.mean, Dense(self.covariance), self.path)

    @property
    def y(self) -> Tensor:
        root = torch.linalg.cholesky(self.covariance)
        clean = self.operator(self.mean[None] + (root @ normal(SIZE, seed=3)).view(1, *EVENT))
        return clean + self.noise * normal(*clean.shape, seed=4)

    @property
    def exact(self) -> GaussianPosterior:
        return gaussian_posterior(self.mean, self.covariance, self.operator, self.y, self.noise)

    def sample(
        self, method: PosteriorMethod, times: Tensor, rows: int, first: int = 0, denoiser: object = None
    ) -> Tensor:
        y = self.y.expand(rows, *self.y.shape[1:]).contiguous()
        seeds = generators_of(range(first, first + rows))
        return sample_posterior(
            denoiser or self.denoiser, self.operator, y, self.noise, times, method, seeds
        ).x


@dataclass(frozen=True)
class Law:
    """Mean and covariance of a sampler against the exact ones, in units of the posterior.

    bias: distance of the means over the root of the trace of the posterior covariance. variance: ratio of traces.
    shape: distance of the covariances over the norm of the exact one.
    """

    bias: float
    variance: float
    shape: float


def law(mean: Tensor, covariance: Tensor, exact: GaussianPosterior) -> Law:
    total = exact.covariance.trace()
    return Law(
        float((mean - exact.mean[0].flatten()).norm() / total.sqrt()),
        float(covariance.trace() / total),
        float((covariance - exact.covariance).norm() / exact.covariance.norm()),
    )


def affine_law(problem: Problem, method: PosteriorMethod, times: Tensor, patch: pytest.MonkeyPatch) -> Law:
    """The exact law of a sampler that is affine in its noise, without Monte Carlo.

    All noise 0 gives the mean. Then every number of every draw of noise is 1 in a row of its own, and the covariance is the
    sum of the squares of these impulse responses.
    """
    drawn: list[int] = []

    def silent(generators: Sequence[torch.Generator], shape: Sequence[int], dtype, device) -> Tensor:
        drawn.append(math.prod(shape))
        return torch.zeros(len(generators), *shape, dtype=dtype)

    patch.setattr(posterior_walk, "noise_of", silent)
    centre = problem.sample(method, times, 1)
    total, at = sum(drawn), 0

    def impulses(generators: Sequence[torch.Generator], shape: Sequence[int], dtype, device) -> Tensor:
        nonlocal at
        size = math.prod(shape)
        noise = torch.zeros(len(generators), size, dtype=dtype)
        noise[at + torch.arange(size), torch.arange(size)] = 1
        at += size
        return noise.view(len(generators), *shape)

    patch.setattr(posterior_walk, "noise_of", impulses)
    response = (problem.sample(method, times, total) - centre).flatten(1)
    patch.undo()
    assert at == total
    return law(centre.flatten(), response.mT @ response, problem.exact)


def monte_carlo_law(problem: Problem, method: PosteriorMethod, times: Tensor, rows: int = 600) -> Law:
    """The law from draws: the bias is off by about 1/sqrt(rows)."""
    flat = problem.sample(method, times, rows).flatten(1)
    return law(flat.mean(0), torch.cov(flat.mT), problem.exact)


def prior_draws(problem: Problem, rows: int) -> Tensor:
    white = noise_of(generators_of(range(rows)), EVENT, torch.float64).flatten(1)
    return problem.mean + (white @ torch.linalg.cholesky(problem.covariance).mT).view(rows, *EVENT)
