r"""Data steps: how a measurement y = A x_0 + n, n ~ N(0, s^2 I), moves the denoiser's estimate D = E[x_0 | x_t].

Between the denoiser and the next state a posterior sampler does one of these. With e = y - A D and r^2 a `Spread` (the
variance about D):

| step | what it does to D | who |
|---|---|---|
| `Unmoved` | nothing | DDRM, unconditional samples |
| `ProximalStep` | argmin \|A z - y\|^2/(2 s^2) + \|z - D\|^2/(2 r^2), or a draw | DiffPIR, FLAIR, Flower, Radiata |
| `ProjectionStep` | D + w A^+ e | DDNM |
| `KrylovStep` | a few conjugate gradients of (I + g A^T A) z = D + g A^T y | DDS |
| `DescentStep` | D + g(t) A^T e/\|A\|^2 | PnP-Flow |

None of them needs a gradient of the network; those that may are in `steering_steps`. The prox knows the noise of the
measurement and has no step size to tune. Where that noise is 0, it is the projection.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.conjugate_gradients import conjugate_gradients
from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator, SpectralOperator
from radiata_core.posterior_spread import Spread
from radiata_core.types import Batch, Measurement

__all__ = [
    "Correction",
    "DataStep",
    "DescentStep",
    "KrylovStep",
    "Moment",
    "Problem",
    "ProjectionStep",
    "ProximalStep",
    "Unmoved",
    "descent",
    "gaussian_update",
    "seen",
]


@dataclass(frozen=True, eq=False)
class Problem:
    """A measurement: y = A x_0 + n.

    Attributes:
        operator: A.
        y: (batch, *measurement), real or complex.
        noise_sd: s, standard deviation of every (real and imaginary) number of y, in units of y, >= 0.
    """

    operator: LinearOperator
    y: Measurement
    noise_sd: float


@dataclass(frozen=True, eq=False)
class Moment:
    """What is known at a step, after the denoiser.

    Attributes:
        problem: The measurement; None where only a loss steers.
        index: Of the step, from 0.
        last: Whether the next time is 0.
        alpha: Coefficients of the path at this time.
        sigma: The same.
        alpha_next: At the next time.
        sigma_next: The same.
        fresh: Standard deviation of the noise that the renoising will add, unless a data step says otherwise.
        x: State, (batch, *event).
        denoised: D(x), with the network's graph if the step asks for it.
        estimate: D(x) after relaxation, without a graph: what a step moves.
        draw: Standard normal noise like a tensor, row i from generator i.
    """

    problem: Problem | None
    index: int
    last: bool
    alpha: float
    sigma: float
    alpha_next: float
    sigma_next: float
    fresh: float
    x: Tensor
    denoised: Tensor
    estimate: Tensor
    draw: Callable[[Tensor], Tensor]

    @property
    def kappa(self) -> float:
        """Noise level sigma/alpha, infinite where alpha is 0."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def given(self) -> Problem:
        """The measurement.

        Raises:
            InputError: there is none.
        """
        if self.problem is None:
            raise InputError(
                "expected a measurement for this data step; got none. Use sample_posterior, or a LossStep."
            )
        return self.problem

    def residual(self) -> Measurement:
        """e = y - A D of the estimate."""
        return self.given.y - self.given.operator(self.estimate)

    def pulled_back(self, cotangent: Tensor) -> Tensor:
        """J^T times a cotangent of D, J = dD/dx: one backward pass."""
        return torch.autograd.grad(self.denoised, self.x, cotangent, retain_graph=True)[0]


@dataclass(frozen=True, eq=False)
class Correction:
    """What a data step gives back.

    Attributes:
        estimate: Of x_0, (batch, *event).
        shift: Added to the next state; None: nothing.
        added: What the renoising adds in place of its fresh noise, of standard normal noise; None: the fresh noise.
    """

    estimate: Tensor
    shift: Tensor | None = None
    added: Callable[[Tensor], Tensor] | None = None


class DataStep(ABC):
    """How the measurement moves the estimate. `through_network`: whether it needs the gradient of the network."""

    through_network: bool = False

    @abstractmethod
    def __call__(self, moment: Moment) -> Correction:
        """The corrected estimate."""


@dataclass(frozen=True)
class Unmoved(DataStep):
    """No data step."""

    def __call__(self, moment: Moment) -> Correction:
        return Correction(moment.estimate)


@dataclass(frozen=True)
class ProximalStep(DataStep):
    """Mean (or a draw) of N(D, r^2 I) given the measurement: `gaussian_update`.

    Attributes:
        spread: r^2 as a function of the noise level.
        draw: A draw instead of the mean; its spread then enters the next state.
    """

    spread: Spread
    draw: bool = False

    def __call__(self, moment: Moment) -> Correction:
        variance = self.spread.variance(moment.kappa)
        draw = moment.draw if self.draw else None
        return Correction(gaussian_update(moment.given, moment.estimate, variance, draw))


@dataclass(frozen=True)
class ProjectionStep(DataStep):
    """D + W A^+ (y - A D), which without noise (W = 1) meets the measurement exactly.

    With noise s, the direction of singular value c takes w = min(1, C c/(alpha_s s)): the noise that comes in with y is at
    most the fresh noise C of the next state, which is reduced by as much in that direction. Where the singular vectors of A
    are not known, all directions are treated as if c were |A|, which is right for masks and block means.
    """

    def __call__(self, moment: Moment) -> Correction:
        operator, s, fresh = moment.given.operator, moment.given.noise_sd, moment.fresh
        pull = operator.pseudo_inverse(moment.residual())
        if s == 0:
            return Correction(moment.estimate + pull)
        brought = moment.alpha_next * s

        def weight(c: Tensor) -> Tensor:
            return (fresh * c / brought).clamp_max(1.0)

        def left(c: Tensor) -> Tensor:
            return (fresh**2 - (brought * weight(c) / c).square()).clamp_min(0).sqrt()

        if not isinstance(operator, SpectralOperator):
            norm = torch.tensor(float(operator.norm), dtype=torch.float64)
            rest = float(left(norm))
            return Correction(moment.estimate + float(weight(norm)) * pull, added=lambda z: rest * z)

        def added(z: Tensor) -> Tensor:
            def spread(c2: Tensor) -> Tensor:
                known = left(c2.clamp_min(1e-6 * operator.largest).sqrt())
                return torch.where(seen(c2, operator), known, torch.full_like(c2, fresh))

            return operator.spectral(spread, z)

        moved = operator.spectral(lambda c2: weight(c2.clamp_min(0).sqrt()), pull)
        return Correction(moment.estimate + moved, added=added)


@dataclass(frozen=True)
class KrylovStep(DataStep):
    """At most `iterations` conjugate gradients of (I + g A^T A) z = D + g A^T y from D, g = strength/|A|^2.

    Attributes:
        strength: > 0.
        iterations: >= 1.
    """

    strength: float = 5.0
    iterations: int = 5

    def __call__(self, moment: Moment) -> Correction:
        problem = moment.given
        gain = self.strength / float(problem.operator.norm) ** 2
        found = conjugate_gradients(
            lambda z: z + gain * problem.operator.normal(z),
            moment.estimate + gain * problem.operator.adjoint(problem.y),
            start=moment.estimate,
            iterations=self.iterations,
        )
        return Correction(found.x)


@dataclass(frozen=True)
class DescentStep(DataStep):
    """D + tau_s^power A^T (y - A D)/|A|^2, tau = sigma/(alpha + sigma) at the next time; none at the last step.

    Attributes:
        power: >= 0; larger trusts the denoiser earlier.
    """

    power: float = 0.5

    def __call__(self, moment: Moment) -> Correction:
        if moment.last:
            return Correction(moment.estimate)
        tau = moment.sigma_next / (moment.alpha_next + moment.sigma_next)
        return Correction(moment.estimate + tau**self.power * descent(moment))


def gaussian_update(
    problem: Problem, mean: Batch, variance: float, draw: Callable[[Tensor], Tensor] | None = None
) -> Batch:
    """The mean of N(mean, variance I) given a measurement, or a draw of that posterior.

    argmin_z |A z - y|^2/(2 s^2) + |z - mean|^2/(2 variance). A draw is the same function of a perturbed prior and a
    perturbed measurement, mean + sqrt(variance) z and y + s z', which is exact for Gaussians.

    Args:
        problem: A, y and s.
        mean: (batch, *event).
        variance: >= 0, may be infinite (the measurement is then met as well as rounding allows: directions of A that are
            fainter than the fourth root of it are left alone, not amplified).
        draw: Standard normal noise like a tensor; None: the mean.

    Raises:
        InputError: a draw of an infinite variance.

    References:
        Papandreou & Yuille, "Gaussian sampling by local perturbations", 2010 (perturb and optimise).
    """
    operator, y, s = problem.operator, problem.y, problem.noise_sd
    if variance == 0:
        return mean
    if draw is not None:
        if math.isinf(variance):
            raise InputError(
                "expected a finite spread to draw from; got an infinite one, at the noise end of the path. "
                "Start the grid at a time with alpha > 0, or use UnitSpread."
            )
        mean = mean + variance**0.5 * draw(mean)
        y = y + s * draw(y) if s else y
    if s == 0:
        return mean + operator.pseudo_inverse(y - operator(mean))
    # Rounding of A^T (y - A mean) leaks into the null space as eps/rho; the root of eps balances that with the bias.
    least = torch.finfo(mean.dtype).eps ** 0.5 * float(operator.norm) ** 2
    return operator.prox(mean, y, max(s**2 / variance, least))


def descent(moment: Moment) -> Batch:
    """A^T (y - A D)/|A|^2, the direction of steepest descent in units in which a step of 1 is safe, (batch, *event)."""
    operator = moment.given.operator
    return operator.adjoint(moment.residual()) / float(operator.norm) ** 2


def seen(squared: Tensor, operator: SpectralOperator) -> Tensor:
    """Which squared singular values count as more than 0."""
    return squared > 1e-6 * operator.largest
