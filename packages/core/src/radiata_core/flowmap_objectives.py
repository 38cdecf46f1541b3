r"""Consistency trajectories: a student flow map from a teacher's denoiser.

Two ways from $x_t$ to $x_s$ must end in the same place: one jump of the student, and a few small steps of the teacher's
ODE to u followed by a jump of the student from there,

$$\mathcal L = \mathbb E\; w\; \ell\big(G_\theta(x_t, t, s),\;
  \mathrm{sg}\, G_{\bar\theta}(\mathrm{Solver}(x_t, t, u), u, s)\big)
  + \lambda\, \mathbb E\; w'\, \ell'\big(g_\theta(x_{t'}, t', t'), x_0\big), \qquad t > u \ge s .$$

The first term spreads what the teacher knows over longer and longer jumps; with u = s it is plain regression on the
teacher's solution. The second is denoising score matching on the diagonal, which keeps the student a denoiser: it is what
makes more steps help. Fixing s = 0 gives consistency distillation (`consistency`); the average-velocity identity replaces
the teacher by a derivative (`average_velocity`).

The comparison is made at s, or with `compare_at_data` after a further stopped jump of both to t = 0, as in the paper,
where the distance is one of images. Times come from a grid of the path: the start $t_i$ uniform over it, the teacher's
depth h out of 1 .. `depth` with probability proportional to h, the destination uniform over the nodes from $t_{i+h}$ on.

References:
    Kim et al., "Consistency trajectory models", 2023, https://arxiv.org/abs/2310.02279, eqs. 9-15, algorithm 1.
    Song & Dhariwal, "Improved techniques for training consistency models", 2023, https://arxiv.org/abs/2310.14189,
        section 3.2 (the stopped student itself as target).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import FlowMap, NetworkFlowMap, trapezoid_step
from radiata_core.kernels import GaussianKernel
from radiata_core.objectives import Loss, LossFunction, Regression, SquaredError
from radiata_core.paths import Path, add_noise
from radiata_core.types import Batch, Times

__all__ = [
    "ConsistencyTrajectory",
    "TrajectoryDraw",
    "average_velocity_weight",
    "draw_trajectory",
    "solve_between",
]

Grid = Callable[[int, Path], Tensor]
Weighting = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TrajectoryDraw:
    """Nodes of the grid, one of each a row, int64 (batch,): start < middle <= end (times decrease along a grid)."""

    start: Tensor
    middle: Tensor
    end: Tensor


def average_velocity_weight(t: Tensor, s: Tensor) -> Tensor:
    """1 / (t - s)^2: the squared error of a jump in units of the average velocity; short jumps count like long ones."""
    return (t - s).clamp_min(1e-3) ** -2


def draw_trajectory(
    steps: int,
    depth: int,
    generators: Sequence[Generator],
    from_noise: float = 0.0,
    to_data: float = 0.0,
) -> TrajectoryDraw:
    """Start, teacher's stop and destination for each row, from the row's own generator.

    The start is uniform over the nodes 0 .. steps - 1, the depth h over 1 .. min(depth, steps - start) with probability
    proportional to h, the destination uniform over the nodes from start + h to `steps`. With probability `from_noise` the
    start is node 0 instead, with probability `to_data` the destination is `steps`.

    References:
        Kim et al. 2023, section 3 and appendix C; the proportionality is that of the authors' program.
    """
    rows = []
    for generator in generators:
        u = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        start = 0 if u[3] < from_noise else min(int(u[0] * steps), steps - 1)
        longest = min(depth, steps - start)
        weights = torch.arange(1, longest + 1, dtype=torch.float64).cumsum(0)
        middle = (
            start
            + 1
            + int(torch.searchsorted(weights, u[1] * weights[-1], right=True).clamp_max(longest - 1))
        )
        end = steps if u[4] < to_data else min(middle + int(u[2] * (steps - middle + 1)), steps)
        rows.append((start, middle, end))
    start, middle, end = torch.tensor(rows).T
    return TrajectoryDraw(start, middle, end)


@torch.no_grad()
def solve_between(
    teacher: Denoiser,
    x: Batch,
    times: Times,
    start: Tensor,
    end: Tensor,
    step: Callable[..., Tensor] = trapezoid_step,
    **conditions: Any,
) -> Batch:
    """The teacher's ODE from node `start` to node `end` of a grid, each row its own way; rows that are done cost nothing.

    Args:
        teacher: E[x_0 | x_t].
        x: State at times[start], (batch, *event).
        times: The grid, decreasing, (steps + 1,).
        start: Node of each row, int64 (batch,).
        end: Node each row ends at, int64 (batch,).
        step: `(denoiser, x, t, s, **conditions) -> x_s`; `flowmaps.trapezoid_step` takes two evaluations.
        conditions: Rows of conditions, passed on.
    """
    x, node = x.clone(), start.clone()
    while bool((node < end).any()):
        active = (node < end).nonzero().flatten()
        rows = active.to(x.device)
        chosen = {name: None if value is None else value[rows] for name, value in conditions.items()}
        here, there = times[node[active]], times[node[active] + 1]
        x[rows] = step(teacher, x[rows], here.to(x.device), there.to(x.device), **chosen).to(x.dtype)
        node[active] += 1
    return x


@dataclass(frozen=True)
class ConsistencyTrajectory:
    """The objective of a consistency trajectory model: consistency of jumps plus denoising on the diagonal.

    An objective like `objectives.Regression`: call it with a `NetworkFlowMap`, data and one generator a row, or give it to
    `train.train`. It keeps no state, so a resumed run is the same run.

    Attributes:
        teacher: The denoiser whose ODE is followed; on the student's path.
        grid: Grid of times, `(steps, path) -> (steps + 1,)`, e.g. `times.LogSNRGrid()`.
        steps: Steps of the grid; 18 in the paper for 32 x 32 images.
        depth: Most teacher steps before the student takes over, 1 .. steps.
        loss: Distance of the two ends.
        weight: Weight of a row as a function of (t, s), or None for 1.
        denoising: The diagonal's regression (`objectives.Regression` on the same path), or None.
        denoising_weight: lambda.
        denoising_rows: The diagonal's term is taken on this many rows of each batch; None for all.
        target: Flow map of the second way, e.g. an average of the student; None for the stopped student itself.
        compare_at_data: Both ends go on to t = 0 by a stopped jump before they are compared.
        from_noise: Probability that a row starts at the first node whatever the draw: few-step students need these.
        to_data: Probability that its destination is t = 0; 1 is consistency distillation.
        step: One step of the teacher.
        terms: Further terms `(student, jumped, data, draw, conditions) -> ()` added to the loss (adversarial, perceptual;
            see `flowmap_terms`).
    """

    teacher: Denoiser
    grid: Grid
    steps: int = 18
    depth: int = 17
    loss: LossFunction = field(default_factory=SquaredError)
    weight: Weighting | None = None
    denoising: Regression | None = None
    denoising_weight: float = 1.0
    denoising_rows: int | None = None
    target: FlowMap | None = None
    compare_at_data: bool = False
    from_noise: float = 0.0
    to_data: float = 0.0
    step: Callable[..., Tensor] = trapezoid_step
    terms: Sequence[Callable[..., Tensor]] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= self.steps:
            raise InputError(
                f"expected a depth between 1 and the {self.steps} steps of the grid; got {self.depth}. Lower it."
            )
        if self.denoising is not None and self.denoising.path != self.teacher.path:
            raise InputError(
                f"expected the denoising term on the teacher's path {self.teacher.path}; got one on "
                f"{self.denoising.path}. Make it with teacher.path."
            )

    @property
    def path(self) -> Path:
        return self.teacher.path

    def __call__(
        self, denoiser: NetworkFlowMap, x0: Batch, generators: Sequence[Generator], **conditions: Any
    ) -> Loss:
        """The loss on a batch; row i draws its times and noise from generator i only.

        Args:
            denoiser: The student.
            x0: Data, (batch, *event).
            generators: One a row.
            conditions: Passed to student and teacher, one row a sample.

        Raises:
            InputError: a student on another path, not one generator a row, a denoiser that is not a flow map.
        """
        if not hasattr(denoiser, "jump"):
            raise InputError(
                f"expected a flow map with a method jump; got {type(denoiser).__name__}. Wrap the network in NetworkFlowMap."
            )
        if denoiser.path != self.path or len(generators) != len(x0):
            raise InputError(
                f"expected a student on {self.path} and one generator a row, {len(x0)}; got one on {denoiser.path} and "
                f"{len(generators)} generators. Take the teacher's path and generators_of(seeds)."
            )
        times = self.grid(self.steps, self.path).double().cpu()
        draw = draw_trajectory(self.steps, self.depth, generators, self.from_noise, self.to_data)
        t, u, s = (times[nodes].to(x0.device) for nodes in (draw.start, draw.middle, draw.end))
        x = add_noise(self.path, x0, GaussianKernel().noise(x0, generators), t)
        jumped = denoiser.jump(x, t, s, **conditions)
        with torch.no_grad():
            solved = solve_between(self.teacher, x, times, draw.start, draw.middle, self.step, **conditions)
            second = denoiser if self.target is None else self.target
            wanted = second.jump(solved, u, s, **conditions)
        found = jumped
        if self.compare_at_data:
            found, wanted = _to_data(second, jumped, wanted, s, conditions)
        per_sample = self.loss(found, wanted)
        if self.weight is not None:
            per_sample = per_sample * self.weight(t, s).to(per_sample)
        value = per_sample.mean()
        if self.denoising is not None:
            rows = slice(self.denoising_rows)
            held = {name: None if given is None else given[rows] for name, given in conditions.items()}
            value = (
                value
                + self.denoising_weight * self.denoising(denoiser, x0[rows], generators[rows], **held).value
            )
        for term in self.terms:
            value = value + term(denoiser, jumped, x0, draw, conditions)
        return Loss(value, per_sample, t)


def _to_data(
    stopped: FlowMap, found: Tensor, wanted: Tensor, s: Tensor, conditions: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Both ends at t = 0. The gradient passes through the stopped map to the student's jump, not to the map's weights."""
    zero = torch.zeros_like(s)
    parameters = list(stopped.parameters()) if isinstance(stopped, torch.nn.Module) else []
    kept = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        found = stopped.jump(found, s, zero, **conditions)
    finally:
        for parameter, needed in zip(parameters, kept, strict=True):
            parameter.requires_grad_(needed)
    with torch.no_grad():
        wanted = stopped.jump(wanted, s, zero, **conditions)
    return found, wanted
