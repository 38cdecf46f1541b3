"""One stateless loop for every solver that is a table.

    table = unipc_2(LogSNRGrid()(20, path), path)
    x0 = integrate(denoiser, noise, table)

A scheduler with a state can be called in the wrong order, resumed halfway, shared by two samplers; this loop cannot. It
reads Python floats that were made once, evaluates the denoiser once a step, allocates one tensor a step beside the
denoiser's own (two for the correctors), and never waits for an accelerator: times are given to the denoiser on the CPU,
and the check for NaN is read at the end. On the CPU it is read at every step.

The solvers themselves, and their equations, are in `tables`; Runge–Kutta methods, which need more than one evaluation a
step, in `runge_kutta`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.kernels import require_gaussian
from radiata_core.seeds import noise_of
from radiata_core.tables import (
    MultistepTable,
    TableRow,
    ab2_velocity,
    ddim,
    ddpm,
    dpmpp_2m,
    sde_dpmpp_2m,
    unipc_2,
)
from radiata_core.types import Batch

__all__ = [
    "Callback",
    "MultistepTable",
    "Step",
    "TableRow",
    "ab2_velocity",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "integrate",
    "sde_dpmpp_2m",
    "unipc_2",
]


@dataclass(frozen=True, eq=False)
class Step:
    """What a callback sees after an evaluation: the state at time t and what the denoiser made of it."""

    index: int
    t: float
    x: Tensor
    x0: Tensor


Callback = Callable[[Step], None]


def integrate(
    denoiser: Callable[..., Tensor],
    x: Batch,
    table: MultistepTable,
    *,
    generators: Sequence[torch.Generator] | None = None,
    noise: Callable[[int], Tensor] | None = None,
    callback: Callback | None = None,
    gradients: bool = False,
    **conditions: Any,
) -> Batch:
    """The state at the last time of the table; at t = 0 a sample.

    Row i of the result depends on row i of x, of the conditions and on generator i only: a seed is a sample, not a batch.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]` with t a float64 scalar on the CPU. If it has a `path`, that must
            be the table's.
        x: State at the first time of the table, shape (batch, *event). It is not changed.
        table: A solver on a grid.
        generators: One a row, for stochastic tables.
        noise: In place of generators, the standard normal noise of a step by its number, like x: for noise that belongs to
            a place (`overlapping_windows.noise_of_box`).
        callback: Called after each evaluation with a `Step`; it may keep its tensors but not change them.
        gradients: Keep the graph of all evaluations (distillation, guidance through the sampler). Otherwise none is built.
        conditions: Passed on to the denoiser.

    Raises:
        InputError: the denoiser lives on another path, a stochastic table and noise that is not Gaussian, generators are
            missing or too few, or the denoiser gave a value of another shape or one that is not finite; step and t are
            named.
    """
    _check(denoiser, x, table, generators if noise is None else None, noise is not None)
    times, floats, rows = table.times.unbind(0), table.times.tolist(), table.rows
    corrected = table.corrector is not None
    depth_states, depth_outputs = table.states.shape[1], table.outputs.shape[1] + corrected
    watch = FiniteWatch()
    with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
        states = [x.clone() if corrected else x]
        outputs: list[Tensor] = []
        for index, row in enumerate(rows):
            x0 = denoiser(x, times[index], **conditions)
            if x0.shape != x.shape:  # it would be broadcast without a word
                raise InputError(
                    f"expected E[x_0 | x_t] of the state's shape {tuple(x.shape)}; got {tuple(x0.shape)}. "
                    "Check the network's output channels."
                )
            watch.see(x0, index, floats[index])
            if callback is not None:
                callback(Step(index, floats[index], x, x0))
            outputs.insert(0, x0)
            del outputs[depth_outputs:]
            if row.corrector:
                _accumulate(states[0].mul_(row.corrector[0]), row.corrector[1:], outputs)
            elif corrected and index:
                states[0].copy_(x)
            x = _accumulate(torch.mul(states[0], row.states[0]), row.outputs, outputs)
            if len(row.states) > 1:
                _accumulate(x, row.states[1:], states[1:])
            if row.noise:
                drawn = (
                    noise_of(generators or (), x.shape[1:], x.dtype, x.device)
                    if noise is None
                    else noise(index)
                )
                x.add_(drawn.to(x), alpha=row.noise)
            if not corrected:
                states.insert(0, x)
                del states[depth_states:]
    watch.finish()
    return x


def _accumulate(total: Tensor, weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    for weight, value in zip(weights, values, strict=False):
        total.add_(value, alpha=weight)
    return total


def _check(
    denoiser: object,
    x: Tensor,
    table: MultistepTable,
    generators: Sequence[torch.Generator] | None,
    given: bool = False,
) -> None:
    path = getattr(denoiser, "path", table.path)
    if path != table.path:
        raise InputError(
            f"expected a table for the denoiser's path {path}; got one for {table.path}. Make the table with denoiser.path."
        )
    if not x.is_floating_point():
        raise InputError(f"expected a floating-point state; got {x.dtype}. Draw it with noise_of.")
    if table.stochastic:
        require_gaussian(denoiser, "a stochastic solver")
    if table.stochastic and not given and len(generators or ()) != x.shape[0]:
        raise InputError(
            f"expected one generator a row for a stochastic solver, {x.shape[0]} here; got {len(generators or ())}. "
            "Use generators_of(seeds)."
        )
