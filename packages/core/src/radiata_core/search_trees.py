r"""Searches that compare many next states: value-based decoding, its blocks, and the particle filter.

A stochastic step makes K different next states from one; the reward of their posterior means says which to follow.

- **SVDD** takes the best of K at every step, or draws one with probability $\propto e^{r/\mathrm{temperature}}$.
- **CoDe** lets the K copies run L steps before it chooses: fewer choices, of clearer posterior means.
- **SMC** lets N particles run and weighs them by the potentials

$$G_i = \exp\left(\frac{r(\mathrm E[x_0|x_{t_i}]) - r(\mathrm E[x_0|x_{t_{i-1}}])}{\lambda}\right), \qquad
  \prod_i G_i = e^{r(x_0)/\lambda}, \tag{1}$$

so that the weighted particles at the end stand for $p(x_0) e^{r(x_0)/\lambda}$, the law of the model tilted by the reward
(the first potential is $e^{r/\lambda}$). When the effective number $(\sum w)^2/\sum w^2$ falls below a share of N, they
are drawn anew by their weights. With a constant reward nothing is ever resampled and the particles are plain samples.

References:
    Li et al., 2024, *Derivative-free guidance in continuous and discrete diffusion models with soft value-based decoding*,
        https://arxiv.org/abs/2408.08252 (SVDD).
    Singh et al., 2025, *CoDe: Blockwise control for denoising diffusion models*, https://arxiv.org/abs/2502.00968.
    Kim, Kim & Park, 2025, *Test-time alignment of diffusion models without reward over-optimization*,
        https://arxiv.org/abs/2501.05803 (DAS; its tempering is not implemented).
    Wu et al., 2023, *Practical and asymptotically exact conditional sampling in diffusion models*,
        https://arxiv.org/abs/2306.17775 (particle filter over a denoiser).
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

__all__ = ["code", "smc", "svdd"]


def svdd(
    denoiser: Callable[..., Tensor],
    noise: Batch,
    transition: Transition,
    reward: Reward,
    budget: Budget,
    *,
    generators: Sequence[torch.Generator],
    beams: int = 2,
    copies: int | None = None,
    starts: int = 1,
    temperature: float = 0.0,
    rows: int | None = None,
    **conditions: Any,
) -> SearchResult:
    """The best of B beams, each of which follows the best of K proposals at every step: `code` with blocks of one step.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        noise: First state of each chain at the first time, (chains, *event).
        transition: Stochastic steps.
        reward: `(x0) -> (rows,)`.
        budget: What a chain may spend.
        generators: One a chain.
        beams: B >= 1, independent of each other until the end.
        copies: K >= 1; None: as many as the budget allows.
        starts: Starting points a beam, of which it takes the best; at t = 1 of a linear path all are alike.
        temperature: In units of the reward; 0 takes the best, more draws by exp(reward / temperature).
        rows: Most rows the network sees at a time.
        conditions: Passed on to the denoiser, one row a chain.

    Raises:
        InputError: as `code`.

    References:
        Li et al. 2024, https://arxiv.org/abs/2408.08252, algorithm 1.
    """
    walk = Particles(denoiser, noise, transition, reward, budget, generators, conditions, rows)
    return _blockwise(walk, beams, copies, starts, 1, temperature)


def code(
    denoiser: Callable[..., Tensor],
    noise: Batch,
    transition: Transition,
    reward: Reward,
    budget: Budget,
    *,
    generators: Sequence[torch.Generator],
    beams: int = 2,
    copies: int | None = None,
    starts: int = 1,
    every: int = 2,
    temperature: float = 0.0,
    rows: int | None = None,
    **conditions: Any,
) -> SearchResult:
    """The best of B beams, each of which runs K copies for L steps and follows the best.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        noise: First state of each chain at the first time, (chains, *event).
        transition: Stochastic steps.
        reward: `(x0) -> (rows,)`.
        budget: What a chain may spend.
        generators: One a chain.
        beams: B >= 1.
        copies: K >= 1; None: as many as the budget allows.
        starts: Starting points a beam, of which it takes the best.
        every: L >= 1, steps between two choices; the last block may be shorter.
        temperature: In units of the reward; 0 takes the best, more draws by exp(reward / temperature).
        rows: Most rows the network sees at a time.
        conditions: Passed on to the denoiser, one row a chain.

    Raises:
        InputError: a number out of range, a deterministic transition, a budget too small, a value of network or reward that
            is not finite.

    References:
        Singh et al. 2025, https://arxiv.org/abs/2502.00968.
    """
    walk = Particles(denoiser, noise, transition, reward, budget, generators, conditions, rows)
    return _blockwise(walk, beams, copies, starts, every, temperature)


def _blockwise(
    walk: Particles, beams: int, copies: int | None, starts: int, every: int, temperature: float
) -> SearchResult:
    walk.require_random()
    if min(beams, starts, every) < 1 or not 0 <= temperature < float("inf"):
        raise InputError(
            f"expected beams, starts, every >= 1 and a temperature >= 0; got {beams}, {starts}, {every} and "
            f"{temperature}. The usual values are 2, 1, 1 and 0."
        )
    cost = beams * (walk.levels - 1)
    if copies is None:
        copies = max(1, (walk.budget.left - beams * starts) // cost)
    if copies < 1:
        raise InputError(f"expected copies >= 1; got {copies}. None uses the whole budget.")
    walk.budget.require(beams * starts + copies * cost, f"{beams} beams with {copies} copies")

    x = walk.starts(beams * starts)
    x0, level = walk.look(x, 0), 0
    scores = walk.score(x0, 0)
    x, x0, scores = _chosen(walk, x, x0, scores, beams, temperature)
    walk.record(0, scores)
    while level < walk.levels - 1:
        x, x0 = x.repeat_interleave(copies, 1), x0.repeat_interleave(copies, 1)
        for _ in range(min(every, walk.levels - 1 - level)):
            x = walk.move(x, x0, level)
            level += 1
            x0 = walk.look(x, level)
        scores = walk.score(x0, level)
        walk.record(level, scores)
        x, x0, scores = _chosen(walk, x, x0, scores, beams, temperature)
    best = scores.argmax(1, keepdim=True)
    return walk.result(walk.picked(x0, best)[:, 0], scores.gather(1, best)[:, 0])


def _chosen(
    walk: Particles, x: Tensor, x0: Tensor, scores: Tensor, beams: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One particle of each beam's: state, posterior mean, reward."""
    grouped = scores.reshape(walk.chains, beams, -1)
    if temperature > 0 and grouped.shape[2] > 1:
        # The largest of r / temperature + Gumbel noise is a draw from the softmax.
        uniform = walk.uniform(grouped[0].numel()).reshape(grouped.shape)
        pick = (grouped / temperature - uniform.log().neg().log()).argmax(2)
    else:
        pick = grouped.argmax(2)
    which = pick + torch.arange(beams) * grouped.shape[2]
    return walk.picked(x, which), walk.picked(x0, which), scores.gather(1, which)


def smc(
    denoiser: Callable[..., Tensor],
    noise: Batch,
    transition: Transition,
    reward: Reward,
    budget: Budget,
    *,
    generators: Sequence[torch.Generator],
    particles: int | None = None,
    temperature: float = 0.1,
    threshold: float = 0.5,
    tilted: bool = False,
    rows: int | None = None,
    **conditions: Any,
) -> SearchResult:
    """The best of N particles that were resampled by the potentials (1), or a draw from the tilted law.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        noise: First state of each chain at the first time, (chains, *event).
        transition: Stochastic steps.
        reward: `(x0) -> (rows,)`.
        budget: What a chain may spend.
        generators: One a chain.
        particles: N >= 1; None: as many as the budget allows.
        temperature: Lambda, in units of the reward, > 0; smaller follows the reward more closely.
        threshold: Resample if the effective number is below this share of N, in [0, 1]; 0 never, by (1) still weighted.
        tilted: Return one particle drawn by its weight, a sample of p exp(reward / temperature), instead of the best one.
        rows: Most rows the network sees at a time.
        conditions: Passed on to the denoiser, one row a chain.

    Raises:
        InputError: a number out of range, a deterministic transition, a budget too small, a value of network or reward that
            is not finite.

    References:
        Kim, Kim & Park 2025, https://arxiv.org/abs/2501.05803 (potentials); multinomial resampling.
    """
    walk = Particles(denoiser, noise, transition, reward, budget, generators, conditions, rows)
    walk.require_random()
    budget.require(walk.levels, "one pass")
    count = budget.left // walk.levels if particles is None else particles
    if count < 1 or not 0 < temperature < float("inf") or not 0 <= threshold <= 1:
        raise InputError(
            f"expected particles >= 1, temperature > 0 and threshold in [0, 1]; got {count}, {temperature} and {threshold}. "
            "The usual threshold is 0.5."
        )
    budget.require(count * walk.levels, f"{count} particles")

    x = walk.starts(count)
    before = log_weight = torch.zeros(walk.chains, count, dtype=torch.float64)
    own = torch.arange(count).expand(walk.chains, count)
    for index in range(walk.levels):
        x0 = walk.look(x, index)
        scores = walk.score(x0, index)
        log_weight = log_weight + (scores - before) / temperature
        weight = log_weight.softmax(1)
        if index == walk.levels - 1:
            break
        # Equal weights count as N also after rounding.
        uneven = 1 / weight.square().sum(1) < threshold * count * (1 - 1e-9)
        walk.record(index, scores, uneven)
        if bool(uneven.any()):
            drawn = _multinomial(weight, walk.uniform(count, uneven))
            which = torch.where(uneven[:, None], drawn, own)
            x, x0, scores = walk.picked(x, which), walk.picked(x0, which), scores.gather(1, which)
            log_weight = torch.where(uneven[:, None], 0.0, log_weight)
        before = scores
        x = walk.move(x, x0, index)
    walk.record(index, scores, torch.zeros(walk.chains, dtype=torch.bool))
    best = _multinomial(weight, walk.uniform(1)) if tilted else scores.argmax(1, keepdim=True)
    return walk.result(walk.picked(x0, best)[:, 0], scores.gather(1, best)[:, 0])


def _multinomial(weight: Tensor, uniform: Tensor) -> Tensor:
    """Indices (chains, k) drawn with probabilities weight (chains, particles) from uniform numbers (chains, k)."""
    return torch.searchsorted(weight.cumsum(1), uniform).clamp_max(weight.shape[1] - 1)
