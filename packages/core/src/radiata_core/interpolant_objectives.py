r"""Learning an interpolant: velocity and noise by regression on pairs with mirrored noise, and what their errors cost.

$$\mathcal L_u = E\big[\tfrac12 |\hat u|^2 - (\dot I_t + \gamma' z)\cdot \hat u\big], \qquad
  \mathcal L_\eta = E\big[\tfrac12 |\hat\eta|^2 - z\cdot\hat\eta\big], \qquad \dot I = a'x_0 + b'x_1$$

Both are squared errors without the part that no network can change. Every draw is used twice, with z and with -z
(*antithetic*): near the ends $\gamma'$ (and $1/\gamma$ in the loss of the score) is large, and the pair cancels what would
be its variance. Learning the noise instead of the score divides by nothing.

What the errors cost a diffusion of the learnt fields, with $\Delta u, \Delta s$ the errors of velocity and score,

$$KL(\rho_1 \| \hat\rho_1) \le \frac1{4\epsilon}\int_0^1 E|\Delta u + \epsilon\,\Delta s|^2 dt
  \le \frac1{2\epsilon}\int E|\Delta u|^2 + \frac{\epsilon}{2}\int E|\Delta s|^2 .$$

The ODE (epsilon = 0) has no such bound. The best constant is $\epsilon^* = (\int E|\Delta u|^2 / \int E|\Delta s|^2)^{1/2}$.
$\int E|\Delta u|^2$ is twice the excess of $\mathcal L_u$ over its least value.

References:
    Albergo, Boffi & Vanden-Eijnden, 2023, https://arxiv.org/abs/2303.08797, eqs. 2.13, 2.16-2.19, lemma 2.22, theorem 2.23,
        section 6.1 (antithetic sampling).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.interpolants import Interpolant
from radiata_core.kernels import GaussianKernel
from radiata_core.objectives import Loss
from radiata_core.optimal_transport import OptimalTransportCoupling
from radiata_core.times import TimeLaw, UniformTime
from radiata_core.types import Batch, Row

__all__ = [
    "InterpolantRegression",
    "best_diffusion",
    "kl_bound",
    "kl_bound_of_drift",
    "quadratic_loss",
]


def quadratic_loss(found: Batch, target: Batch) -> Row:
    """1/2 |found|^2 - target . found, mean over the event, (batch,): a squared error without the target's own part."""
    value = 0.5 * found * found - target.to(found) * found
    return value.flatten(1).mean(1)


@dataclass(frozen=True)
class InterpolantRegression:
    """The objective of both fields; like `objectives.Regression` it is called by `train.train`.

    Items carry x_0 as "image" and its partner x_1 as "target". Partners are whatever the data set gives, known pairs or
    independent draws; independent draws may be dealt out anew in each batch (`matching`).

    Attributes:
        interpolant: The student's.
        time_law: Law of the times.
        cap: Times are moved into [cap, 1 - cap]: where gamma' is infinite at the ends nothing can be learnt there.
        eta_weight: Weight of the noise's loss beside the velocity's; ignored for a bridge without it.
        antithetic: Use each draw with z and with -z; twice the evaluations.
        matching: Optimal transport within the batch, for partners that were drawn independently; None keeps those given.
    """

    interpolant: Interpolant
    time_law: TimeLaw = field(default_factory=UniformTime)
    cap: float = 1e-3
    eta_weight: float = 1.0
    antithetic: bool = True
    matching: OptimalTransportCoupling | None = None
    companions: ClassVar[tuple[str, ...]] = ("target",)

    def __post_init__(self) -> None:
        if not 0 <= self.cap < 0.5:
            raise InputError(f"expected a cap in [0, 0.5); got {self.cap}. 0.001 suits most interpolants.")

    def __call__(
        self,
        bridge: Any,
        x0: Batch,
        generators: Sequence[Generator],
        *,
        target: Batch | None = None,
        **conditions: Any,
    ) -> Loss:
        """Loss on a batch; row i draws its time and then its noise from generator i only.

        Args:
            bridge: `(x, t, **conditions) -> (velocity, eta or None)` with `.interpolant`, e.g. `NetworkBridge`.
            x0: Samples of the first set, (batch, *event).
            generators: One a row.
            target: Their partners of the second set, (batch, *event).
            conditions: Passed to the bridge.

        Raises:
            InputError: no partners, partners of another shape, another interpolant, not one generator a row.
        """
        if target is None or target.shape != x0.shape:
            got = "none" if target is None else f"partners of shape {tuple(target.shape)}"
            raise InputError(
                f'expected partners "target" of shape {tuple(x0.shape)}; got {got}. Give each x_0 one x_1.'
            )
        if bridge.interpolant != self.interpolant or len(generators) != len(x0):
            raise InputError(
                f"expected a bridge on {self.interpolant} and {len(x0)} generators; got one on {bridge.interpolant} and "
                f"{len(generators)}. Train it on its own interpolant, one generator a row."
            )
        if self.matching is not None:
            target = self.matching.partners(x0, target, **conditions)
        t = torch.cat([self.time_law.sample(1, g).cpu() for g in generators]).double()
        t = t.clamp(self.cap, 1 - self.cap).to(x0.device)
        noise = GaussianKernel().noise(x0, generators)
        signs = (1.0, -1.0) if self.antithetic else (1.0,)
        per_sample = torch.stack(
            [self._row_loss(bridge, x0, target, sign * noise, t, conditions) for sign in signs]
        ).mean(0)
        return Loss(per_sample.mean(), per_sample, t)

    def _row_loss(
        self, bridge: Any, x0: Tensor, x1: Tensor, z: Tensor, t: Tensor, conditions: dict[str, Any]
    ) -> Tensor:
        x = self.interpolant.state(x0, x1, z, t)
        velocity, eta = bridge(x, t, **conditions)
        loss = quadratic_loss(velocity, self.interpolant.velocity(x0, x1, z, t))
        return loss if eta is None else loss + self.eta_weight * quadratic_loss(eta, z)


def kl_bound_of_drift(squared_error: float, epsilon: float) -> float:
    """KL(rho_1 || rho_hat_1) <= squared_error / (4 epsilon), in nats.

    Args:
        squared_error: Integral over t in [0, 1] of E|error of the forward drift u + epsilon s|^2, under the true law.
        epsilon: Diffusion coefficient, constant, > 0.

    Raises:
        InputError: epsilon not positive: the ODE has no bound.

    References:
        Albergo et al., 2023, lemma 2.22.
    """
    _check(epsilon)
    return squared_error / (4 * epsilon)


def kl_bound(velocity_error: float, score_error: float, epsilon: float) -> float:
    """KL(rho_1 || rho_hat_1) <= velocity_error / (2 epsilon) + epsilon score_error / 2, in nats.

    Args:
        velocity_error: Integral of E|error of u|^2; twice the excess of its loss, summed over the event.
        score_error: Integral of E|error of s|^2.
        epsilon: Diffusion coefficient, constant, > 0.

    Raises:
        InputError: epsilon not positive: the ODE has no bound.

    References:
        Albergo et al., 2023, theorem 2.23.
    """
    _check(epsilon)
    return velocity_error / (2 * epsilon) + epsilon * score_error / 2


def best_diffusion(velocity_error: float, score_error: float) -> float:
    """The epsilon that makes `kl_bound` least: sqrt(velocity_error / score_error); infinite for a perfect score."""
    return math.sqrt(velocity_error / score_error) if score_error > 0 else math.inf


def _check(epsilon: float) -> None:
    if not epsilon > 0:
        raise InputError(f"expected epsilon > 0; got {epsilon}. The ODE's error is not bounded by its loss.")
