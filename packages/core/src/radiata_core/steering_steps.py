r"""Steering: data steps by the gradient of a loss, and the ones that need a gradient of the network.

With e = y - A D and J = dD/dx_t, one backward pass a product:

| step | what it does | network's gradient | who |
|---|---|---|---|
| `SteeringStep` | x_s <- x_s + step A^T e/\|A\|^2 | optional | FlowChef |
| `LossStep` | x_s <- x_s - step grad loss(D) | optional | FlowChef with any loss: classifier, editing |
| `ResidualNormStep` | x_s <- x_s - scale grad_x \|e\| | yes | DPS |
| `MomentStep` | D <- D + (sigma^2/alpha) J^T A^T (A C A^T + s^2)^{-1} e | yes | PiGDM, MMPS |

*Gradient skipping* is J = 1: free, right where the network's field is straight or t small. A pass through the network
doubles the memory and multiplies the time by 2.5, which is why it is never the default.

References:
    Patel et al. 2024, https://arxiv.org/abs/2412.00100, section 4 (gradient skipping).
    Chung et al. 2023, https://arxiv.org/abs/2209.14687, eq. 16.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.conjugate_gradients import conjugate_gradients
from radiata_core.data_steps import Correction, DataStep, Moment, descent, gaussian_update
from radiata_core.errors import InputError
from radiata_core.posterior_spread import Spread
from radiata_core.types import Row

__all__ = ["LossStep", "MomentStep", "ResidualNormStep", "SteeringStep"]


@dataclass(frozen=True)
class SteeringStep(DataStep):
    """x_s + step J^T A^T (y - A D)/|A|^2, with J replaced by 1 unless `through_network`; none at the last step.

    Attributes:
        step: In units of 1/|A A^T|, in (0, 2): beyond it the steps overshoot.
        through_network: Take the gradient through the network.
    """

    step: float = 1.0
    through_network: bool = False

    def __call__(self, moment: Moment) -> Correction:
        if moment.last:
            return Correction(moment.estimate)
        pull = descent(moment)
        return Correction(
            moment.estimate, self.step * (moment.pulled_back(pull) if self.through_network else pull)
        )


@dataclass(frozen=True)
class LossStep(DataStep):
    """x_s - step grad loss(D), through the network or not; none at the last step.

    Attributes:
        loss: Differentiable, (batch, *event) to (batch,): a classifier's, a distance to an edit, a segmenter's.
        step: > 0, in squared units of the data per unit of the loss.
        through_network: Take the gradient through the network.
    """

    loss: Callable[[Tensor], Tensor]
    step: float
    through_network: bool = False

    def __call__(self, moment: Moment) -> Correction:
        if moment.last:
            return Correction(moment.estimate)
        with torch.enable_grad():
            x0 = moment.estimate.detach().requires_grad_()
            values = self.loss(x0)
            if values.shape != (len(x0),):
                raise InputError(
                    f"expected a loss of shape ({len(x0)},), one number a row; got {tuple(values.shape)}. "
                    "Sum over the event's axes."
                )
            slope = torch.autograd.grad(values.sum(), x0)[0]
        if self.through_network:
            slope = moment.pulled_back(slope)
        return Correction(moment.estimate, -self.step * slope)


@dataclass(frozen=True)
class ResidualNormStep(DataStep):
    """x_s - scale grad_x |y - A D(x)|, the norm of every row, through the network.

    Attributes:
        scale: > 0, in units of the state per unit of y.
    """

    scale: float = 1.0
    through_network = True

    def __call__(self, moment: Moment) -> Correction:
        error = moment.residual()
        norm = _row_norm(error).clamp_min(torch.finfo(moment.x.dtype).tiny)
        pull = moment.pulled_back(moment.given.operator.adjoint(error / _over(norm, error)))
        return Correction(moment.estimate, self.scale * pull)


@dataclass(frozen=True)
class MomentStep(DataStep):
    """E[x_0 | x_t, y] of a Gaussian of mean D and covariance C: D + (sigma^2/alpha) J^T A^T (A C A^T + s^2)^{-1} (y - A D).

    Attributes:
        spread: C = r^2 I (PiGDM); None: C = (sigma^2/alpha) J, the covariance itself (MMPS), by conjugate gradients.
        iterations: Of the conjugate gradients, one backward pass each.
    """

    spread: Spread | None = None
    iterations: int = 20
    through_network = True

    def __call__(self, moment: Moment) -> Correction:
        if moment.alpha == 0:  # the state says nothing and J is 0: the step is of the order of alpha
            return Correction(moment.estimate)
        operator, noise = moment.given.operator, moment.given.noise_sd**2
        gain, error = moment.sigma**2 / moment.alpha, moment.residual()
        if self.spread is None:
            inverse = conjugate_gradients(
                lambda u: noise * u + gain * operator(moment.pulled_back(operator.adjoint(u))),
                error,
                iterations=self.iterations,
            )
            pull = operator.adjoint(inverse.x)
        else:
            variance = self.spread.variance(moment.kappa)
            pull = (gaussian_update(moment.given, moment.estimate, variance) - moment.estimate) / variance
        return Correction(moment.estimate + gain * moment.pulled_back(pull))


def _row_norm(values: Tensor) -> Row:
    return torch.linalg.vector_norm(values.flatten(1), dim=1)


def _over(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))
