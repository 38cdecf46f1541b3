r"""Inference-time scaling: spend network evaluations on better samples, by any reward of the posterior mean.

A reward r is any callable on $\mathrm E[x_0|x_t]$, which a denoiser knows at every step; no gradient is needed. At equal
evaluations a search is the better the earlier it drops what is bad, and it can only choose where the next state is random:
so the flow becomes an SDE first (`transitions`), and maybe its path another (`conversion`).

    path = denoiser.path
    steps = exact_transition(LinearGrid()(10, path), path)          # g = 3 t²
    found = rollover_budget(denoiser, noise, steps, reward, Budget(500), generators=generators_of(seeds))
    found.x, found.reward, found.evaluations, found.trace

| method | states it compares | chooses | evaluations a chain, n steps |
|---|---|---|---|
| `best_of_n` | N finished samples | once, at the end | N n |
| `search_over_paths` | N paths × K copies, noised again and solved | every few steps, the N best | N (start + K Σ ahead) |
| `svdd` | B beams × K proposals of the next state | every step, the best of K | B (starts + K (n-1)) |
| `code` | the same, blocks of L steps | every L steps | the same |
| `smc` | N weighted particles | by resampling, when the weights are uneven | N n |
| `rollover_budget` | proposals one after another | at the first that beats the record | all |

All take `(denoiser, noise, transition, reward, budget)`, one generator a chain, and keep to the budget exactly as counted
above; `noise` is the first state of each chain, (chains, *event), at the first time of the grid (unit normal on most
paths, times sigma(1) on VE), further ones are drawn. The result is the posterior mean at the last noisy time, that is the
sample at t = 0. What is told apart here is how to spend; the reward decides what comes out, with all its blind spots.

The trees and the particle filter are in `search_trees`, rollover in `rollover`, what they share in `particles`.

References:
    Kim et al., 2025, *Inference-Time Scaling for Flow Models via Stochastic Generation and Rollover Budget Forcing*,
        https://arxiv.org/abs/2503.19385 (comparison of all of these at 500 evaluations).
    Ma et al., 2025, *Inference-time scaling for diffusion models beyond scaling denoising steps*,
        https://arxiv.org/abs/2501.09732 (random search, search over paths).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from radiata_core.budget import Budget
from radiata_core.errors import InputError
from radiata_core.particles import Particles, Reward, SearchResult, Trace
from radiata_core.rollover import rollover_budget
from radiata_core.search_trees import code, smc, svdd
from radiata_core.seeds import generator_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import MultistepTable
from radiata_core.transitions import Transition, renoise
from radiata_core.types import Batch

__all__ = [
    "Budget",
    "Reward",
    "SearchResult",
    "Trace",
    "best_of_n",
    "code",
    "rollover_budget",
    "search_over_paths",
    "smc",
    "svdd",
]


def best_of_n(
    denoiser: Callable[..., Tensor],
    noise: Batch,
    transition: Transition | MultistepTable,
    reward: Reward,
    budget: Budget,
    *,
    generators: Sequence[torch.Generator],
    n: int | None = None,
    rows: int | None = None,
    **conditions: Any,
) -> SearchResult:
    """The best of n independent samples; draw k of a chain is the same whatever n is.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        noise: State of the first draw at the first time, (chains, *event).
        transition: A transition, or any table of `solvers`.
        reward: `(x0) -> (rows,)`, of the finished sample.
        budget: What a chain may spend.
        generators: One a chain.
        n: Draws a chain, >= 1; None: as many as the budget allows.
        rows: Most rows the network sees at a time.
        conditions: Passed on to the denoiser, one row a chain.

    Raises:
        InputError: a budget below one pass, or below n; a value of network or reward that is not finite.

    References:
        Ma et al. 2025, https://arxiv.org/abs/2501.09732 (random search).
    """
    walk = Particles(denoiser, noise, transition, reward, budget, generators, conditions, rows)
    table = transition.table if isinstance(transition, Transition) else transition
    budget.require(table.evaluations, "one pass")
    draws = budget.left // table.evaluations if n is None else n
    if draws < 1:
        raise InputError(f"expected n >= 1; got {draws}. None uses the whole budget.")
    budget.require(draws * table.evaluations, f"{draws} passes")
    budget.spend(draws * table.evaluations)
    # One generator a draw, so that a draw depends neither on n nor on `rows`.
    own = [
        generator_of(int(torch.randint(2**62, (), generator=g, device=g.device)))
        for g in walk.generators
        for _ in range(draws)
    ]
    scale = float(table.path.coefficients(table.times[0]).sigma)
    x = scale * noise_of(own, noise.shape[1:], noise.dtype, noise.device)
    x[::draws] = walk.noise
    owner = torch.arange(walk.chains).repeat_interleave(draws)
    solved = [
        integrate(denoiser, x[part], table, generators=own[part], **walk.conditions_of(owner[part]))
        for part in walk.parts(len(x))
    ]
    samples = torch.cat(solved).reshape(walk.chains, draws, *noise.shape[1:])
    scores = walk.score(samples, walk.levels - 1)
    for k in range(draws):
        walk.record(walk.levels - 1, scores[:, k, None], spent=(k + 1) * table.evaluations)
    best = scores.argmax(1)
    return walk.result(walk.picked(samples, best[:, None])[:, 0], scores.amax(1))


def search_over_paths(
    denoiser: Callable[..., Tensor],
    noise: Batch,
    transition: Transition,
    reward: Reward,
    budget: Budget,
    *,
    generators: Sequence[torch.Generator],
    paths: int = 2,
    copies: int | None = None,
    start: int = 1,
    back: int = 1,
    ahead: int = 2,
    rows: int | None = None,
    **conditions: Any,
) -> SearchResult:
    """The best end of N paths that are noised again, copied and solved onward, the N best kept each round.

    `start` steps are solved first. Then, until t = 0: each of N paths goes `back` steps of the grid into the noise, K times
    with fresh noise (`transitions.renoise`), `ahead` steps are solved, and the N best of the N K stay. The reward is that of
    the posterior mean with which a state arrived, so it costs nothing more. The published search solves an ODE: give
    `exact_transition(times, path, PowerDiffusion(0.0))`; a stochastic transition works as well.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        noise: First state of each chain at the first time, (chains, *event).
        transition: The steps.
        reward: `(x0) -> (rows,)`.
        budget: What a chain may spend.
        generators: One a chain.
        paths: N, >= 1.
        copies: K, >= 1; None: as many as the budget allows.
        start: Steps before the first choice, >= 1.
        back: Steps into the noise, >= 1.
        ahead: Steps solved a round, > back.
        rows: Most rows the network sees at a time.
        conditions: Passed on to the denoiser, one row a chain.

    Raises:
        InputError: a number out of range, a budget too small for it, a value of network or reward that is not finite.

    References:
        Ma et al. 2025, https://arxiv.org/abs/2501.09732 (search over paths); grid steps stand for their times here.
    """
    walk = Particles(denoiser, noise, transition, reward, budget, generators, conditions, rows)
    n = walk.levels
    if paths < 1 or not 1 <= start < n or not 1 <= back < ahead:
        raise InputError(
            f"expected paths >= 1, 1 <= start < {n} steps and 1 <= back < ahead; got paths={paths}, start={start}, "
            f"back={back}, ahead={ahead}. Use a longer grid or the defaults 2, 1, 1, 2."
        )
    rounds, reached = [], start
    while reached < n:
        first = max(reached - back, 0)
        rounds.append((reached, first, min(first + ahead, n)))
        reached = rounds[-1][2]
    cost = paths * sum(last - first for _, first, last in rounds)
    if copies is None:
        copies = max(1, (budget.left - paths * start) // cost)
    if copies < 1:
        raise InputError(f"expected copies >= 1; got {copies}. None uses the whole budget.")
    budget.require(paths * start + copies * cost, f"{paths} paths with {copies} copies")

    x, mean = _solved(walk, walk.starts(paths), 0, start)
    for reached, first, last in rounds:
        many = x.repeat_interleave(copies, 1)
        t, s = (float(transition.times[i]) for i in (reached, first))
        noisy = renoise(many.flatten(0, 1), t, s, transition.path, walk.repeated(paths * copies))
        x, mean = _solved(walk, noisy.reshape(many.shape), first, last)
        scores = walk.score(mean, last - 1)
        best = scores.topk(paths, 1).indices
        walk.record(last - 1, scores)
        x, scores = walk.picked(x, best), scores.gather(1, best)
    return walk.result(x[:, 0], scores[:, 0])


def _solved(walk: Particles, x: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """The states at t_last and the posterior means with which they arrived."""
    for index in range(first, last):
        mean = walk.look(x, index)
        x = walk.move(x, mean, index)
    return x, mean
