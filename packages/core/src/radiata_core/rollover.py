r"""Rollover Budget Forcing: propose until the record falls, move on, and take what was saved along.

Step by step with a quota is wasteful: some steps find a better state at once, others never. Here a chain at step i draws
one next state after another, and rewards its posterior mean:

- reward above the best so far, r*: take it, set r*, go to step i + 1 at once; the unspent rest of the quota is **added** to
  the next one: $Q \leftarrow (Q - c) + Q_0$;
- quota spent without: take the best of this step and go on with $Q \leftarrow Q_0$; r* is **not** lowered.

The last choice (step n - 2, whose proposals stand at t_{n-1}) is never left: all that remains is spent there, and the best
posterior mean of that step is the result, which is the sample at t = 0. The quota is
$Q_0 = \lfloor(\mathrm{budget} - \mathrm{starts})/n\rfloor$, so the steps before leave it at least as much.

The number of tries differs between chains: each has its own step, quota and record, and all are evaluated together, one row
a chain. So every chain spends its budget to the last evaluation.

References:
    Kim, Yoon, Hwang & Sung, 2025, https://arxiv.org/abs/2503.19385 (rollover budget forcing), and the authors' program for
        what happens at the end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from radiata_core.budget import Budget
from radiata_core.errors import InputError
from radiata_core.particles import Particles, Reward, SearchResult
from radiata_core.transitions import Transition
from radiata_core.types import Batch

__all__ = ["rollover_budget"]


def rollover_budget(
    denoiser: Callable[..., Tensor],
    noise: Batch,
    transition: Transition,
    reward: Reward,
    budget: Budget,
    *,
    generators: Sequence[torch.Generator],
    starts: int | None = None,
    quota: int | None = None,
    rows: int | None = None,
    **conditions: Any,
) -> SearchResult:
    """The best posterior mean of the last step, reached by moving on whenever the record falls.

    The trace has one record an evaluation (the starts are one): the step at which the rewarded mean stands, its reward, and
    whether the chain moved on.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`, with t of shape () or (batch,).
        noise: First state of each chain at the first time, (chains, *event).
        transition: Stochastic steps.
        reward: `(x0) -> (rows,)`.
        budget: What a chain may spend; all of it is spent.
        generators: One a chain.
        starts: Starting points, of which the best is taken, >= 1; None: a tenth of the budget (the paper's 50 of 500).
        quota: Q_0 >= 1; None: what remains after the starts, divided by the steps.
        rows: Most rows the network sees at a time.
        conditions: Passed on to the denoiser, one row a chain.

    Raises:
        InputError: a number out of range, a deterministic transition, a budget with which the last step might not be
            reached, a value of network or reward that is not finite.

    References:
        Kim et al. 2025, https://arxiv.org/abs/2503.19385, algorithm of rollover budget forcing.
    """
    walk = Particles(denoiser, noise, transition, reward, budget, generators, conditions, rows)
    walk.require_random()
    last = walk.levels - 2
    starts = max(1, budget.left // 10) if starts is None else starts
    base = max(1, (budget.left - starts) // walk.levels) if quota is None else quota
    if min(starts, base) < 1:
        raise InputError(f"expected starts >= 1 and quota >= 1; got {starts} and {base}. Leave them out.")
    needed = starts + base * last + 1
    budget.require(needed, f"{starts} starts and {last} steps of {base} proposals before the last")

    x = walk.starts(starts)
    x0 = walk.look(x, 0)
    scores = walk.score(x0, 0)
    walk.record(0, scores)
    best = scores.argmax(1, keepdim=True)
    here = (walk.picked(x, best), walk.picked(x0, best))
    record = scores.amax(1)

    top = here
    step, count = (torch.zeros(walk.chains, dtype=torch.int64) for _ in range(2))
    allowed = torch.full_like(step, base)
    top_score = torch.full_like(record, -torch.inf)
    while budget.left:
        x = walk.move(*here, step)
        x0 = walk.look(x, step + 1)
        scores = walk.score(x0, step + 1)
        score, count = scores[:, 0], count + 1
        better = score > top_score
        top = _where(better, (x, x0), top)
        top_score = torch.where(better, score, top_score)

        improved = score > record
        record = torch.maximum(record, score)
        moves = (improved | (count >= allowed)) & (step < last)
        walk.record(step + 1, scores, moves)
        # A new record is also the best of its step, so both ways of moving on take the top.
        here = _where(moves, top, here)
        allowed = torch.where(moves, torch.where(improved, allowed - count, 0) + base, allowed)
        step, count = step + moves.long(), torch.where(moves, 0, count)
        top_score = torch.where(moves, -torch.inf, top_score)
    return walk.result(top[1][:, 0], top_score)


def _where(rows: Tensor, new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`new` in these rows (chains,), else `old`."""
    shape = rows.reshape(-1, *(1,) * (new[0].ndim - 1)).to(new[0].device)
    return torch.where(shape, new[0], old[0]), torch.where(shape, new[1], old[1])
