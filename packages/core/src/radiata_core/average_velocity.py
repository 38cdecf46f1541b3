r"""Average velocity (MeanFlow): a flow map from data alone, by a derivative instead of a teacher.

On the linear path the flow map is $x_s = x_t + (s - t)\, h(x_t, t, s)$, where h is the average of the marginal velocity v
over the way, $(t - s)\, h(x_t, t, s) = \int_s^t v(x_u, u)\, du$. Its derivative along the trajectory through $x_t$, at
fixed s, is the MeanFlow identity

$$h = v(x_t, t) - (t - s)\, \frac{d h}{d t}, \qquad
  \frac{d h}{d t} = v \cdot \nabla_x h + \partial_t h ,$$

and the right-hand side, stopped, is a target for the left:

$$\mathcal L = \mathbb E\; \mathrm{sg}(w)\, \overline{e^2}, \qquad
  e = h_\theta - \mathrm{sg}\big(v - (t - s)\, \tfrac{d}{dt} h_\theta\big), \qquad w = (\overline{e^2} + c)^{-p} .$$

The total derivative is one Jacobian-vector product with the tangent (v, 1, 0) of (x, t, s), `torch.func.jvp`: about the
cost of one more forward pass. In place of the marginal v, which nobody knows, stands the conditional
$\varepsilon - x_0$: the target is linear in v, so that given $x_t$ its mean is the same. A share of the rows has s = t,
where the target is v itself and the loss that of flow matching. With a `teacher` its marginal velocity is taken, and the
loss of the exact map is exactly zero.

Times run as everywhere here, t = 1 is noise; the paper writes r for s and u for h. Of the signs: t > s, a sample is
$x_0 = x_1 - h(x_1, 1, 0)$. The network must allow forward-mode differentiation; activation checkpointing does not.

References:
    Geng, Deng, Bai, Kolter & He, "Mean flows for one-step generative modeling", 2025,
        https://arxiv.org/abs/2505.13447, eqs. 3, 6, 8-11, 22, algorithm 1.
    Lai et al., "The principles of diffusion models", 2025, https://arxiv.org/abs/2510.21890 (average velocity).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from radiata_core.couplings import Coupling, IndependentCoupling
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.objectives import Loss
from radiata_core.paths import LinearPath, add_noise, expand
from radiata_core.predictions import Prediction, convert
from radiata_core.times import TimeLaw
from radiata_core.types import Batch, Time

__all__ = ["AverageVelocity", "MeanFlow", "average_velocity", "mean_flow_target"]


@dataclass(frozen=True)
class MeanFlow:
    """The two sides of the identity: h with gradient, and v - (t - s) dh/dt without, each (batch, *event)."""

    velocity: Tensor
    target: Tensor


def average_velocity(flow_map: Any, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
    """h(x, t, s) of a `flowmaps.NetworkFlowMap` on the linear path, with x_s = x_t + (s - t) h; like x.

    What the network says if it predicts VELOCITY; else (x - g) / t, which needs t > 0.

    Args:
        flow_map: The map; it answers `predict(x, t, s)`.
        x: State at t, (batch, *event).
        t: Its time, () or (batch,).
        s: Time of the destination, likewise, <= t.
        conditions: Passed to the map.
    """
    said = flow_map.predict(x, t, s, **conditions)
    return convert(said, x, t, flow_map.path, flow_map.prediction, Prediction.VELOCITY)


def mean_flow_target(
    flow_map: Any, x: Batch, velocity: Batch, t: Time, s: Time, **conditions: Any
) -> MeanFlow:
    """Both sides of the MeanFlow identity for a map and a velocity: equal where the map is that velocity's flow map.

    Args:
        flow_map: A `flowmaps.NetworkFlowMap` on the linear path.
        x: State at t, (batch, *event).
        velocity: dx/dt there, marginal or conditional, like x.
        t: Its time, () or (batch,).
        s: Time of the destination, likewise, <= t.
        conditions: Passed to the map.

    References:
        Geng et al. 2025, eqs. 6 and 8.
    """

    def at(state: Tensor, now: Tensor) -> Tensor:
        return average_velocity(flow_map, state, now, s, **conditions)

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no forward mode
        h, slope = torch.func.jvp(at, (x, t), (velocity.to(x), torch.ones_like(t)))  # type: ignore[misc]
    target = velocity.to(h) - expand(t - s, h).to(h) * slope
    return MeanFlow(h, target.detach())


@dataclass(frozen=True)
class AverageVelocity:
    """The MeanFlow objective: call it with a flow map on the linear path, data and generators, or give it to `train.train`.

    Attributes:
        time_law: Law of both times of a row; the later is t, the earlier s. The paper: `LogNormalSNR(-0.4, 1.0)`.
        diagonal: Share of rows with s = t, in [0, 1].
        power: p of the adaptive weight: 0 is the squared error, 1 the paper's, 0.5 like a pseudo-Huber loss.
        offset: c of the adaptive weight, in units of the mean squared error, > 0.
        coupling: How data and noise are paired.
        teacher: Denoiser whose velocity replaces the conditional one, or None.
    """

    time_law: TimeLaw
    diagonal: float = 0.75
    power: float = 1.0
    offset: float = 1e-3
    coupling: Coupling = field(default_factory=IndependentCoupling)
    teacher: Denoiser | None = None
    path: LinearPath = field(default_factory=LinearPath, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.diagonal <= 1:
            raise InputError(
                f"expected a share of rows with s = t in [0, 1]; got {self.diagonal}. The paper's is 0.75."
            )
        if self.power < 0 or self.offset <= 0:
            raise InputError(
                f"expected power >= 0 and offset > 0; got {self.power} and {self.offset}. The paper's are 1 and 1e-3."
            )
        if self.teacher is not None and self.teacher.path != self.path:
            raise InputError(
                f"expected a teacher on the linear path; got one on {self.teacher.path}. Use conversion.OnPath."
            )

    def __call__(self, denoiser: Any, x0: Batch, generators: Sequence[Generator], **conditions: Any) -> Loss:
        """The loss on a batch; row i draws its times and its noise from generator i only.

        Args:
            denoiser: A `flowmaps.NetworkFlowMap` on the linear path; best with VELOCITY as prediction.
            x0: Data, (batch, *event).
            generators: One a row.
            conditions: Passed to the map, the teacher and the coupling.

        Raises:
            InputError: a map of another path, a denoiser that is no flow map, not one generator a row.
        """
        if not hasattr(denoiser, "jump") or not hasattr(denoiser, "predict"):
            raise InputError(
                f"expected a NetworkFlowMap; got {type(denoiser).__name__}. Wrap the network in flowmaps.NetworkFlowMap."
            )
        if denoiser.path != self.path or len(generators) != len(x0):
            raise InputError(
                f"expected a flow map on {self.path} and one generator a row, {len(x0)}; got one on {denoiser.path} and "
                f"{len(generators)} generators. Average velocities are those of the straight path."
            )
        t, s = self.draw_times(generators)
        t, s = t.to(x0.device), s.to(x0.device)
        pair = self.coupling(x0, generators, **conditions)
        x = add_noise(self.path, pair.x0, pair.noise, t)
        velocity = pair.noise - pair.x0
        if self.teacher is not None:
            with torch.no_grad():
                clean = self.teacher(x, t, **conditions)
                velocity = convert(clean, x, t, self.path, Prediction.X0, Prediction.VELOCITY)
        sides = mean_flow_target(denoiser, x, velocity, t, s, **conditions)
        fine = torch.promote_types(x.dtype, torch.float32)
        squared = (sides.velocity.to(fine) - sides.target.to(fine)).square().flatten(1).mean(1)
        per_sample = squared * (squared.detach() + self.offset) ** -self.power
        return Loss(per_sample.mean(), per_sample, t)

    def draw_times(self, generators: Sequence[Generator]) -> tuple[Tensor, Tensor]:
        """(t, s) with s <= t, (batch,) each, float64: two draws of the law, sorted, s = t with probability `diagonal`."""
        later, earlier = [], []
        for generator in generators:
            both = torch.cat([self.time_law.sample(1, generator), self.time_law.sample(1, generator)])
            both = self.time_law.on(self.path, both.cpu().double())
            same = float(torch.rand((), generator=generator, dtype=torch.float64)) < self.diagonal
            later.append(both.max())
            earlier.append(both.max() if same else both.min())
        return torch.stack(later), torch.stack(earlier)
