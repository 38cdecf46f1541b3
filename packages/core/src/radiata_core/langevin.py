r"""Langevin dynamics of any force: a particle with mass, friction and temperature, and its overdamped limit.

$$dq = v\,dt, \qquad m\,dv = F(q)\,dt - \gamma m v\,dt + \sqrt{2\gamma m T}\;dW, \qquad
  \text{at rest: } p(q, v) \propto e^{-U(q)/T}\, e^{-m v^2/2T} \text{ for } F = -\nabla U .$$

A step is kick, linear flow, kick:

    v <- v + h/2m F(q);    (q, v) <- E (q, v) + L xi;    v <- v + h/2m F(q)

with the linear flow of `oscillators`: `baoab` for forces of any kind, `oscillator` where the quadratic part of the energy is
known (it is then exact, and F is only what is left: omega h may be large). One evaluation of the force a step; second order;
time-reversible and volume-preserving without friction (leapfrog), where the energy does not drift.

    step = baoab(0.1, Bath(friction=0.5, temperature=1.0))
    trajectory = simulate(force, PhasePoint(q, v), step, 1000, generators=generators_of(seeds))

Everything is a function of tensors: gradients flow through force, parameters, start, noise and drive. Row i depends on row
i of its inputs and generator i only.

The overdamped limit, with time counted so that its mobility is 1, is $dx = \nabla\log p\,dt + \sqrt2\,dW$.
`unadjusted_langevin` takes Euler steps of it, whose stationary law is off by a bias of order h (for N(0, s²) the variance is
$s^2/(1 - h/2s^2)$); `adjusted_langevin` accepts or rejects each step so that the law is exactly p.

References:
    Leimkuhler & Matthews, 2013, https://arxiv.org/abs/1203.5428 (BAOAB).
    Roberts & Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations", 1996,
        https://doi.org/10.2307/3318418 (unadjusted and Metropolis-adjusted).
    Song et al., "Langevin flows for modeling neural latent dynamics", 2025, https://arxiv.org/abs/2507.11531 (as a prior of
        latent dynamics; its step is not this one).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.oscillators import Bath, LinearStep, autocovariance, baoab, oscillator
from radiata_core.seeds import noise_of
from radiata_core.types import Batch, Row, Times

__all__ = [
    "Bath",
    "Chain",
    "LinearStep",
    "PhasePoint",
    "Trajectory",
    "adjusted_langevin",
    "autocovariance",
    "baoab",
    "oscillator",
    "simulate",
    "unadjusted_langevin",
]

Force = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class PhasePoint:
    """Where the rows are and how fast they go, (batch, *event) each."""

    position: Tensor
    velocity: Tensor


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What was recorded.

    Attributes:
        times: From 0, in the caller's unit of time, float64.
        position: One state a time, the start first.
        velocity: Likewise.
    """

    times: Times
    position: Float[Tensor, "times batch *event"]
    velocity: Float[Tensor, "times batch *event"]

    @property
    def end(self) -> PhasePoint:
        """The last state."""
        return PhasePoint(self.position[-1], self.velocity[-1])


def simulate(
    force: Force | None,
    start: PhasePoint,
    step: LinearStep,
    steps: int,
    *,
    generators: Sequence[Generator] | None = None,
    noise: Tensor | None = None,
    drive: Tensor | None = None,
    every: int = 1,
) -> Trajectory:
    """The trajectory of a force in a bath, from its start, step by step.

    Args:
        force: `(position) -> force`, (batch, *event) both, energy per length; None: the linear step alone.
        start: Position and velocity.
        step: `baoab` or `oscillator`; the force is what the step does not contain.
        steps: Number of steps, >= 1.
        generators: One a row; a longer run goes on from a shorter one.
        noise: Standard normal numbers instead, (steps, batch, step.draws, *event): a posterior's, or drawn at once.
        drive: A further force, constant over each step, (steps, batch, *event).
        every: Record each so many steps.

    Raises:
        InputError: shapes that do not fit, no generators for a step with noise, a force that is not finite (its step and
            time are named).

    References:
        Leimkuhler & Matthews, 2013, https://arxiv.org/abs/1203.5428 (BAOAB).
    """
    q, v = start.position, start.velocity
    _check(q, v, step, steps, generators, noise, drive, every)
    numbers, h = step.like(q), step.duration
    half = h / (2 * numbers.mass)
    watch = FiniteWatch("the force")
    held = None if force is None else _seen(force, q, watch, 0, h)
    positions, velocities = [q], [v]
    for k in range(steps):
        given = None if drive is None else drive[k].to(q)
        v = _kicked(v, half, held, given)
        xi = None
        if numbers.draws:
            xi = (
                noise_of(generators or (), (numbers.draws, *q.shape[1:]), q.dtype, q.device)
                if noise is None
                else noise[k].to(q)
            )
        q, v = numbers(q, v, xi)
        if force is not None:
            held = _seen(force, q, watch, k + 1, h)
        v = _kicked(v, half, held, given)
        if (k + 1) % every == 0:
            positions.append(q)
            velocities.append(v)
    watch.finish()
    times = h * every * torch.arange(len(positions), dtype=torch.float64)
    return Trajectory(times, torch.stack(positions), torch.stack(velocities))


def _kicked(v: Tensor, half: Tensor, *forces: Tensor | None) -> Tensor:
    for force in forces:
        if force is not None:
            v = v + half * force
    return v


def _seen(force: Force, q: Tensor, watch: FiniteWatch, index: int, h: float) -> Tensor:
    found = force(q)
    if found.shape != q.shape:
        raise InputError(
            f"expected a force of the position's shape {tuple(q.shape)}; got {tuple(found.shape)}. One a coordinate."
        )
    watch.see(found, index, index * h)
    return found


def _check(
    q: Tensor,
    v: Tensor,
    step: LinearStep,
    steps: int,
    generators: Sequence[Generator] | None,
    noise: Tensor | None,
    drive: Tensor | None,
    every: int,
) -> None:
    if q.shape != v.shape or not q.is_floating_point():
        raise InputError(
            f"expected position and velocity of one shape, floating-point; got {tuple(q.shape)} {q.dtype} and "
            f"{tuple(v.shape)}. A start at rest has velocity torch.zeros_like(position)."
        )
    if steps < 1 or every < 1:
        raise InputError(
            f"expected steps >= 1 and every >= 1; got {steps} and {every}. every=1 records all of them."
        )
    for name, value, wanted in (
        ("noise", noise, (steps, len(q), step.draws, *q.shape[1:])),
        ("drive", drive, (steps, *q.shape)),
    ):
        if value is not None and value.shape != wanted:
            raise InputError(
                f"expected {name} of shape {wanted}; got {tuple(value.shape)}. One a step, row and coordinate."
            )
    if noise is None and step.draws:
        _one_a_row(generators, q)


def _one_a_row(generators: Sequence[Generator] | None, x: Tensor) -> None:
    if len(generators or ()) != len(x):
        raise InputError(
            f"expected one generator a row, {len(x)} here; got {len(generators or ())}. Use generators_of(seeds)."
        )


@dataclass(frozen=True, eq=False)
class Chain:
    """The end of a chain and the share of its proposals that were accepted.

    Attributes:
        x: State, (batch, *event).
        accepted: In [0, 1], (batch,); 1 without adjustment.
    """

    x: Batch
    accepted: Row


def unadjusted_langevin(
    score: Force, x: Batch, duration: float, steps: int, *, generators: Sequence[Generator]
) -> Chain:
    r"""Euler steps of the overdamped dynamics, $x' = x + h\,\nabla\log p(x) + \sqrt{2h}\,\xi$.

    Args:
        score: Gradient of log p, (batch, *event) -> the same.
        x: Start.
        duration: h, > 0, in units of x²; stable below twice the least variance of p.
        steps: >= 1.
        generators: One a row.

    Raises:
        InputError: a step that is not positive, not one generator a row, a score that is not finite.

    References:
        Roberts & Tweedie, 1996.
    """
    _check_chain(x, duration, steps, generators)
    watch = FiniteWatch("the score")
    for k in range(steps):
        push = _seen(score, x, watch, k, duration)
        x = x + duration * push + (2 * duration) ** 0.5 * noise_of(generators, x.shape[1:], x.dtype, x.device)
    watch.finish()
    return Chain(x, x.new_ones(len(x)))


def adjusted_langevin(
    log_density: Callable[[Tensor], Tensor],
    x: Batch,
    duration: float,
    steps: int,
    *,
    generators: Sequence[Generator],
) -> Chain:
    """The same steps as proposals, each accepted with the probability that leaves p invariant (MALA).

    Args:
        log_density: log p up to a constant, (batch, *event) -> (batch,), differentiable; -inf outside the support.
        x: Start, inside the support.
        duration: h, > 0; an acceptance near 0.57 is best in high dimension.
        steps: >= 1.
        generators: One a row.

    Raises:
        InputError: a step that is not positive, not one generator a row, a density at the start that is not finite.

    References:
        Roberts & Tweedie, 1996; Roberts & Rosenthal, 1998, https://doi.org/10.1111/1467-9868.00123 (0.574).
    """
    _check_chain(x, duration, steps, generators)
    value, push = _with_score(log_density, x)
    FiniteWatch("the log-density", deferred=False).see(value, 0, 0.0)
    accepted = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(steps):
        xi = noise_of(generators, x.shape[1:], x.dtype, x.device)
        proposal = x + duration * push + (2 * duration) ** 0.5 * xi
        ahead, ahead_push = _with_score(log_density, proposal)
        back = x - proposal - duration * ahead_push
        log_ratio = ahead - value + (xi.square() / 2 - back.square() / (4 * duration)).flatten(1).sum(1)
        coins = torch.stack([torch.rand((), generator=g, device=g.device).to(x.device) for g in generators])
        taken = coins.log() < log_ratio  # false for NaN: outside the support
        accepted += taken
        rows = taken.reshape(-1, *[1] * (x.ndim - 1))
        x, push = torch.where(rows, proposal, x), torch.where(rows, ahead_push, push)
        value = torch.where(taken, ahead, value)
    return Chain(x, accepted / steps)


def _with_score(log_density: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = log_density(x)
        (score,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), score


def _check_chain(x: Tensor, duration: float, steps: int, generators: Sequence[Generator]) -> None:
    if not 0 < duration < float("inf") or steps < 1:
        raise InputError(
            f"expected a step > 0 and steps >= 1; got {duration} and {steps}. Start at a tenth of the least variance."
        )
    _one_a_row(generators, x)
