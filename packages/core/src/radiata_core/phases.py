r"""Phased rectification: a trajectory that is first-order within each of M segments of time.

One straight line from noise to data is much to ask of a small student. Between two times t > s of the teacher's ODE there
is always a first-order trajectory, $x_u = \alpha_u x_0 + \sigma_u\varepsilon$ with constant $(x_0, \varepsilon)$:

$$\varepsilon = \frac{x_t/\alpha_t - x_s/\alpha_s}{\kappa_t - \kappa_s}, \qquad
  x_0 = \frac{x_s}{\alpha_s} - \kappa_s\varepsilon .$$

A student regressed on it within each segment is sampled exactly by M steps of DDIM, one a segment. M = 1 is Rectified
Diffusion with its pairs made on the fly. The field jumps in t from one segment to the next, just where DDIM evaluates it,
and a small network blurs the jump. A flow map (`flowmaps.NetworkFlowMap`) is told the end of its segment instead, where
nothing jumps: $x_0$ is the value g of its Euler form, and M of its jumps sample it.

References:
    Wang et al., "Rectified diffusion", 2024, https://arxiv.org/abs/2410.07303, section 3.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from radiata_core.couplings import Pair
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.flowmap_objectives import solve_between
from radiata_core.flowmaps import FlowMap, trapezoid_step
from radiata_core.kernels import kernel_of
from radiata_core.objectives import Loss, LossFunction, Regression, SquaredError
from radiata_core.paths import Path, add_noise, expand
from radiata_core.predictions import Prediction
from radiata_core.rectification import Rectification
from radiata_core.times import LinearGrid, UniformTime
from radiata_core.types import Batch, Time

__all__ = ["PhasedRectification", "segment_pair"]


def segment_pair(late: Batch, early: Batch, t: Time, s: Time, path: Path) -> Pair:
    r"""The data and noise of the first-order trajectory through two states, x_t and x_s.

    $$\varepsilon = \frac{x_t/\alpha_t - x_s/\alpha_s}{\kappa_t - \kappa_s}, \qquad
      x_0 = \frac{x_s}{\alpha_s} - \kappa_s\varepsilon$$

    solved as two equations, so that alpha may be 0 at t and sigma 0 at s.

    Args:
        late: State at t, (batch, *event).
        early: State at s, like it.
        t: Later time, () or (batch,).
        s: Earlier time, like t.
        path: alpha and sigma.

    References:
        Wang et al., 2024, section 3.3.
    """
    a, b = path.coefficients(t), path.coefficients(s)
    det = b.alpha * a.sigma - a.alpha * b.sigma

    def mix(of_late: Tensor, of_early: Tensor) -> Tensor:
        return expand(of_late / det, late).to(late) * late + expand(of_early / det, late).to(late) * early

    return Pair(x0=mix(-b.sigma, a.sigma), noise=mix(b.alpha, -a.alpha))


@dataclass(frozen=True)
class PhasedRectification:
    r"""Rectification within each of M segments of time, from data: an objective like `objectives.Regression`.

    A row draws a segment $[t_{m-1}, t_m]$, noises its data to $t_m$, follows the teacher to $t_{m-1}$, and is regressed at a
    time within the segment on the first-order trajectory through both ends. A denoiser is sampled by DDIM on `nodes`; a flow
    map is told the segment's end, $g(x_t, t, t_{m-1}) = x_0$, and sampled by `flowmaps.sample_flow_map` on `nodes`.

    Attributes:
        teacher: E[x_0 | x_t], on the student's path.
        phases: M, >= 1.
        steps: Steps of the teacher in a segment.
        target: In which units the loss is taken, as in `Rectification`.
        loss: Distance of prediction and target.
        grid: Grid of the times, `(steps, path) -> times`.
        step: One step of the teacher; `flowmaps.trapezoid_step` takes two evaluations.

    References:
        Wang et al., 2024, section 3.3 (4 phases of 10 DDIM steps there).
    """

    teacher: Denoiser
    phases: int = 4
    steps: int = 5
    target: Prediction = Prediction.X0
    loss: LossFunction = field(default_factory=SquaredError)
    grid: Callable[[int, Path], Tensor] = field(default_factory=LinearGrid)
    step: Callable[..., Tensor] = trapezoid_step

    def __post_init__(self) -> None:
        if min(self.phases, self.steps) < 1:
            raise InputError(
                f"expected at least one phase and one step in it; got {self.phases} and {self.steps}. Use 4 and 10."
            )
        Rectification(self.teacher.path, target=self.target)

    @property
    def path(self) -> Path:
        return self.teacher.path

    @property
    def nodes(self) -> Tensor:
        """Ends of the segments, decreasing, (phases + 1,), float64: where the student is sampled."""
        return self.grid(self.phases * self.steps, self.path).double().cpu()[:: self.steps]

    def __call__(self, denoiser: Any, x0: Batch, generators: Sequence[Generator], **conditions: Any) -> Loss:
        """The loss on a batch of data; row i draws segment, place in it and noise from generator i only.

        Raises:
            InputError: a student on another path, or not one generator a row.
        """
        if denoiser.path != self.path or len(generators) != len(x0):
            raise InputError(
                f"expected a student on {self.path} and one generator a row, {len(x0)}; got one on {denoiser.path} and "
                f"{len(generators)} generators. Take the teacher's path and generators_of(seeds)."
            )
        times = self.grid(self.phases * self.steps, self.path).double().cpu()
        draws = torch.stack(
            [torch.rand(2, generator=g, dtype=torch.float64, device=g.device).cpu() for g in generators]
        )
        phase = (draws[:, 0] * self.phases).long().clamp_max(self.phases - 1)
        start, end = phase * self.steps, (phase + 1) * self.steps
        late, early = times[start].to(x0.device), times[end].to(x0.device)
        x = add_noise(self.path, x0, kernel_of(self.teacher).noise(x0, generators), late)
        solved = solve_between(self.teacher, x, times, start, end, self.step, **conditions)
        pair = segment_pair(x, solved, late, early, self.path)
        t = torch.lerp(late, early, draws[:, 1].to(x0.device))
        regression = Regression(self.path, UniformTime(), target=self.target, loss=self.loss)
        told = {"s": early} if isinstance(denoiser, FlowMap) else {}
        return regression.compare(denoiser, pair, t, **told, **conditions)
