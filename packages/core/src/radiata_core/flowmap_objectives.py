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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import FlowMap, trapezoid_step
from radiata_core.kernels import kernel_of
from radiata_core.objectives import Loss, LossFunction, Regression, SquaredError
from radiata_core.paths import Path, add_noise
from radiata_core.types import Batch, Times

__all__ = [
    "Balance",
    "ConsistencyTrajectory",
    "Jumps",
    "TrajectoryDraw",
    "average_velocity_weight",
    "draw_trajectory",
    "held_fixed",
    "solve_between",
]

Grid = Callable[[int, Path], Tensor]
Weighting = Callable[[Tensor, Tensor], Tensor]
Balance = Callable[[Tensor, Tensor, Any], Tensor]
"""(consistency term, other term, student) -> factor of the other term, ()."""


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


@dataclass(frozen=True, eq=False)
class Jumps:
    """A batch's two ways to s, and on to t = 0: what a further term of the loss may look at.

    Attributes:
        student: The flow map in training.
        stopped: The map of the second way, whose weights get no gradient.
        x0: Data, (batch, *event).
        t: Where the jumps start, (batch,).
        s: Where they end, (batch,).
        found: The student's jump, with gradient, like x0.
        wanted: Teacher and stopped map, without gradient, like x0.
        conditions: One row a sample.
    """

    student: FlowMap
    stopped: FlowMap
    x0: Tensor
    t: Tensor
    s: Tensor
    found: Tensor
    wanted: Tensor
    conditions: dict[str, Any]

    @cached_property
    def found_at_data(self) -> Tensor:
        """`found` at t = 0; the gradient passes through the stopped map, not to its weights."""
        with held_fixed(self.stopped):
            return self.stopped.jump(self.found, self.s, torch.zeros_like(self.s), **self.conditions)

    @cached_property
    def wanted_at_data(self) -> Tensor:
        """`wanted` at t = 0, without gradient."""
        with torch.no_grad():
            return self.stopped.jump(self.wanted, self.s, torch.zeros_like(self.s), **self.conditions)


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
        denoising_weight: lambda, or a `Balance` that finds it (`flowmap_terms.AdaptiveWeight`).
        denoising_rows: The diagonal's term is taken on this many rows of each batch; None for all.
        target: Flow map of the second way, e.g. an average of the student; None for the stopped student itself.
        compare_at_data: Both ends go on to t = 0 by a stopped jump before they are compared.
        from_noise: Probability that a row starts at the first node whatever the draw: few-step students need these.
        to_data: Probability that its destination is t = 0; 1 is consistency distillation.
        step: One step of the teacher.
        terms: Further terms `(jumps, consistency) -> ()` added to the loss, where consistency is the first term's mean
            (adversarial, perceptual; see `flowmap_terms`).
    """

    teacher: Denoiser
    grid: Grid
    steps: int = 18
    depth: int = 17
    loss: LossFunction = field(default_factory=SquaredError)
    weight: Weighting | None = None
    denoising: Regression | None = None
    denoising_weight: float | Balance = 1.0
    denoising_rows: int | None = None
    target: FlowMap | None = None
    compare_at_data: bool = False
    from_noise: float = 0.0
    to_data: float = 0.0
    step: Callable[..., Tensor] = trapezoid_step
    terms: Sequence[Callable[[Jumps, Tensor], Tensor]] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.from_noise <= 1 and 0 <= self.to_data <= 1):
            raise InputError(
                f"expected probabilities in [0, 1]; got from_noise={self.from_noise}, to_data={self.to_data}. "
                "0 leaves the draw as it is."
            )
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

    def __call__(self, denoiser: Any, x0: Batch, generators: Sequence[Generator], **conditions: Any) -> Loss:
        """The loss on a batch; row i draws its times and noise from generator i only.

        Args:
            denoiser: The student, a `FlowMap` (with a denoising term also a denoiser, as `NetworkFlowMap` is).
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
        jumps = self.jumps(denoiser, x0, generators, **conditions)
        found, wanted = jumps.found, jumps.wanted
        if self.compare_at_data:
            found, wanted = jumps.found_at_data, jumps.wanted_at_data
        per_sample = self.loss(found, wanted)
        if self.weight is not None:
            per_sample = per_sample * self.weight(jumps.t, jumps.s).to(per_sample)
        consistency = per_sample.mean()
        value = consistency
        if self.denoising is not None:
            rows = slice(self.denoising_rows)
            held = {name: None if given is None else given[rows] for name, given in conditions.items()}
            term = self.denoising(denoiser, x0[rows], generators[rows], **held).value
            balance = self.denoising_weight
            value = value + term * (balance(consistency, term, denoiser) if callable(balance) else balance)
        for further in self.terms:
            value = value + further(jumps, consistency)
        return Loss(value, per_sample, jumps.t)

    def jumps(
        self, denoiser: FlowMap, x0: Batch, generators: Sequence[Generator], **conditions: Any
    ) -> Jumps:
        """The two ways of a batch, before they are compared; a discriminator's step takes its samples from here.

        Args:
            denoiser: The student.
            x0: Data, (batch, *event).
            generators: One a row.
            conditions: Passed to student and teacher, one row a sample.
        """
        times = self.grid(self.steps, self.path).double().cpu()
        draw = draw_trajectory(self.steps, self.depth, generators, self.from_noise, self.to_data)
        t, u, s = (times[nodes].to(x0.device) for nodes in (draw.start, draw.middle, draw.end))
        x = add_noise(self.path, x0, kernel_of(self.teacher).noise(x0, generators), t)
        found = denoiser.jump(x, t, s, **conditions)
        stopped = denoiser if self.target is None else self.target
        with torch.no_grad():
            solved = solve_between(self.teacher, x, times, draw.start, draw.middle, self.step, **conditions)
            wanted = stopped.jump(solved, u, s, **conditions)
        return Jumps(denoiser, stopped, x0, t, s, found, wanted, conditions)


@contextmanager
def held_fixed(module: object) -> Iterator[None]:
    """Within, the weights of a module (of anything else, nothing) collect no gradient; what passes through it does."""
    parameters = list(module.parameters()) if isinstance(module, torch.nn.Module) else []
    kept = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, needed in zip(parameters, kept, strict=True):
            parameter.requires_grad_(needed)
