"""Particles of a search: many states a chain, evaluated together, counted, checked, and what a search leaves behind.

A *chain* is one independent search and one row of the result; its *particles* are the states it compares. Arrays are
`(chains, particles, *event)`; the network sees `(chains · particles, *event)`, chain by chain, at most `rows` of them at a
time. Chain i draws from generator i alone, in an order that depends neither on the other chains nor on `rows`.

Everything that every search does alike is here: to ask the budget before the network, to repeat conditions, to stop at a
NaN of the network (with step and t) or of the reward, to write the trace. The searches themselves are in `search`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from radiata_core.budget import Budget
from radiata_core.errors import InputError
from radiata_core.kernels import require_gaussian
from radiata_core.seeds import noise_of
from radiata_core.tables import MultistepTable
from radiata_core.transitions import Transition

__all__ = ["Particles", "Reward", "SearchResult", "Trace", "checked_reward"]

Reward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened, one record a decision (best-of-n: one a draw; rollover: one an evaluation), on the CPU.

    Attributes:
        evaluations: Evaluations a chain had spent by then, (records,).
        step: Step of the grid at which the rewarded posterior means stand, (records, chains).
        reward: Best reward among the particles of this record, (records, chains).
        chosen: Whether the chain chose: moved on (rollover, trees) or resampled (smc), (records, chains).
    """

    evaluations: Int[Tensor, "records"]
    step: Int[Tensor, "records chains"]
    reward: Float[Tensor, "records chains"]
    chosen: Bool[Tensor, "records chains"]

    @property
    def best(self) -> Float[Tensor, "records chains"]:
        """Best reward so far."""
        return self.reward.cummax(0).values


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found.

    Attributes:
        x: The sample of each chain, (chains, *event).
        reward: Its reward, float64 on the CPU, (chains,).
        evaluations: Network evaluations each chain spent.
        trace: How it came to it.
    """

    x: Tensor
    reward: Float[Tensor, "chains"]
    evaluations: int
    trace: Trace


class Particles:
    """The network, the reward and the budget, for (chains, particles, *event) states.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        noise: First particle of each chain, at the first time of the transition, (chains, *event).
        transition: The steps.
        reward: `(x0) -> (rows,)`, larger is better.
        budget: What one chain may spend.
        generators: One a chain.
        conditions: Keywords of the denoiser; tensors have one row a chain.
        rows: Most rows the network and the reward see at a time; None: all.

    Raises:
        InputError: another path or noise, a state that is not floating-point, generators or conditions that are not one a
            chain, rows < 1.
    """

    def __init__(
        self,
        denoiser: Callable[..., Tensor],
        noise: Tensor,
        transition: Transition | MultistepTable,
        reward: Reward,
        budget: Budget,
        generators: Sequence[torch.Generator],
        conditions: Mapping[str, Any],
        rows: int | None = None,
    ) -> None:
        _check(denoiser, noise, transition, generators, conditions, rows)
        self.denoiser, self.noise, self.transition = denoiser, noise.detach(), transition
        self.reward, self.budget, self.generators = reward, budget, list(generators)
        self.conditions, self.rows = dict(conditions), rows
        self.chains, self._before = len(noise), budget.spent
        self._records: list[tuple[int, Tensor, Tensor, Tensor]] = []

    @property
    def levels(self) -> int:
        """Noisy times of the grid, t_0 .. t_{n-1}: evaluations of one pass."""
        return len(self.transition.noise)

    def repeated(self, particles: int) -> list[torch.Generator]:
        """The generator of every row."""
        return [g for g in self.generators for _ in range(particles)]

    def starts(self, count: int) -> Tensor:
        """Pure noise at the first time, (chains, count, *event): the given one, then draws from the chain's generator."""
        first = self.noise[:, None]
        if count == 1:
            return first
        scale = float(self.transition.path.coefficients(self.transition.times[0]).sigma)
        drawn = noise_of(self.repeated(count - 1), self.noise.shape[1:], self.noise.dtype, self.noise.device)
        more = scale * drawn.reshape(self.chains, count - 1, *self.noise.shape[1:])
        return torch.cat([first, more], 1)

    def look(self, x: Tensor, index: int | Tensor) -> Tensor:
        """E[x_0 | x] at step `index`, one for all chains or one a chain: `particles` evaluations, like x.

        Raises:
            InputError: the budget does not allow it, or the network gave a value that is not finite (step and t are named).
        """
        particles = x.shape[1]
        self.budget.spend(particles)
        flat, owner = x.flatten(0, 1), torch.arange(self.chains).repeat_interleave(particles)
        if isinstance(index, Tensor) and bool((index == index[0]).all()):
            index = int(index[0])
        times = self.transition.times[index]
        parts = []
        with torch.no_grad():
            for part in self.parts(len(flat)):
                t = times if times.ndim == 0 else times[owner[part]]
                x0 = self.denoiser(flat[part], t, **self.conditions_of(owner[part]))
                total = torch.promote_types(x0.dtype, torch.float32)
                sound = x0.reshape(len(x0), -1).sum(1, dtype=total).isfinite().cpu()
                if not bool(sound.all()):
                    row = int(owner[part][~sound][0])
                    step = index if isinstance(index, int) else int(index[row])
                    raise InputError(
                        "expected finite values from the denoiser; got NaN or infinity at step "
                        f"{step}, t={float(self.transition.times[step]):.6g}. "
                        "Check the weights, the conditions, or use float32."
                    )
                parts.append(x0)
        return torch.cat(parts).reshape(x.shape)

    def score(self, x0: Tensor, index: int | Tensor) -> Tensor:
        """Rewards of posterior means that stand at step `index`, (chains, particles), float64 on the CPU.

        Raises:
            InputError: the reward is not one finite number a row.
        """
        flat = x0.flatten(0, 1)
        with torch.no_grad():
            parts = [
                checked_reward(self.reward, flat[part], self._where(index)) for part in self.parts(len(flat))
            ]
        return torch.cat(parts).reshape(x0.shape[:2])

    def move(self, x: Tensor, x0: Tensor, index: int | Tensor) -> Tensor:
        """The states after step `index`, like x; fresh noise for every particle."""
        if not isinstance(self.transition, Transition):
            raise _not_a_transition(self.transition)
        rows = index.repeat_interleave(x.shape[1]) if isinstance(index, Tensor) else index
        with torch.no_grad():
            moved = self.transition.move(x.flatten(0, 1), x0.flatten(0, 1), rows, self.repeated(x.shape[1]))
        return moved.reshape(x.shape)

    def uniform(self, count: int, needed: Tensor | None = None) -> Tensor:
        """Uniform numbers in (0, 1), (chains, count), float64 on the CPU, row i from generator i.

        Chains that do not need any (`needed` is False) draw none and get 1/2.
        """
        drawn = torch.full((self.chains, count), 0.5, dtype=torch.float64)
        for i, g in enumerate(self.generators):
            if needed is None or needed[i]:
                drawn[i] = torch.rand(count, generator=g, dtype=torch.float64, device=g.device)
        return drawn.clamp_min(1e-300)

    def require_random(self) -> None:
        """Nothing, if there are at least 2 steps and all but the last draw noise.

        Raises:
            InputError: there is nothing to choose from, or it is a table of another solver.
        """
        if not isinstance(self.transition, Transition):
            raise _not_a_transition(self.transition)
        if self.levels < 2 or not bool((self.transition.noise[:-1] > 0).all()):
            raise InputError(
                f"expected at least 2 steps that draw noise; got {self.levels}, of which "
                f"{int((self.transition.noise > 0).sum())} do. Use a diffusion g > 0: PowerDiffusion() is 3 t²."
            )

    def picked(self, values: Tensor, which: Tensor) -> Tensor:
        """The particles `which` (chains, k) of every chain, (chains, k, *event)."""
        return values[torch.arange(self.chains)[:, None], which]

    @property
    def spent(self) -> int:
        """Evaluations a chain has spent in this search."""
        return self.budget.spent - self._before

    def record(
        self,
        index: int | Tensor,
        reward: Tensor,
        chosen: Tensor | None = None,
        spent: int | None = None,
    ) -> None:
        """Add to the trace: step, best of the rewards (chains, particles), which chains chose (None: all), evaluations."""
        step = index.clone() if isinstance(index, Tensor) else torch.full((self.chains,), index)
        chosen = torch.ones(self.chains, dtype=torch.bool) if chosen is None else chosen
        self._records.append((self.spent if spent is None else spent, step, reward.amax(1), chosen))

    def result(self, x: Tensor, reward: Tensor) -> SearchResult:
        """x (chains, *event) and its reward, with what was spent and the trace."""
        spent, step, best, chosen = zip(*self._records, strict=True)
        trace = Trace(torch.tensor(spent), torch.stack(step), torch.stack(best), torch.stack(chosen))
        return SearchResult(x, reward, self.spent, trace)

    def parts(self, count: int) -> list[slice]:
        """Rows that go through the network together."""
        size = self.rows or count
        return [slice(first, first + size) for first in range(0, count, size)]

    def conditions_of(self, owner: Tensor) -> dict[str, Any]:
        """The conditions of rows that belong to these chains, (rows,)."""
        return {
            name: value[owner.to(value.device)] if _has_rows(value) else value
            for name, value in self.conditions.items()
        }

    def _where(self, index: int | Tensor) -> str:
        if isinstance(index, Tensor) and bool((index == index[0]).all()):
            index = int(index[0])
        if isinstance(index, int):
            return f"step {index}, t={float(self.transition.times[index]):.6g}"
        return f"steps {int(index.min())} to {int(index.max())}"


def checked_reward(reward: Reward, x0: Tensor, where: str) -> Tensor:
    """The rewards of x0, (rows,), float64 on the CPU.

    Raises:
        InputError: they are not one finite number a row.
    """
    values = reward(x0)
    if not isinstance(values, Tensor) or values.shape != (len(x0),):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"expected a reward of shape ({len(x0)},), one number a row; got {got}. Sum over the event's axes."
        )
    values = values.detach().to("cpu", torch.float64)
    if not bool(values.isfinite().all()):
        broken = float(values[~values.isfinite()][0])
        raise InputError(
            f"expected finite rewards; got {broken} at {where}. "
            "Make the reward finite on posterior means, which are blurred at large t."
        )
    return values


def _not_a_transition(other: object) -> InputError:
    return InputError(
        f"expected a Transition, whose steps stand alone; got a {type(other).__name__}. "
        "Make one with exact_transition; a table serves best_of_n only."
    )


def _has_rows(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _check(
    denoiser: object,
    noise: Tensor,
    transition: Transition | MultistepTable,
    generators: Sequence[torch.Generator],
    conditions: Mapping[str, Any],
    rows: int | None,
) -> None:
    path = getattr(denoiser, "path", transition.path)
    if path != transition.path:
        raise InputError(
            f"expected steps for the denoiser's path {path}; got some for {transition.path}. "
            "Make them with denoiser.path, or wrap the denoiser in OnPath."
        )
    require_gaussian(denoiser, "a search, which adds noise,")
    if not noise.is_floating_point() or noise.ndim < 1 or not len(noise):
        raise InputError(
            f"expected floating-point noise (chains, *event) of at least one chain; got {noise.dtype} of shape "
            f"{tuple(noise.shape)}. Draw it with noise_of."
        )
    if len(generators) != len(noise):
        raise InputError(
            f"expected one generator a chain, {len(noise)} here; got {len(generators)}. Use generators_of(seeds)."
        )
    for name, value in conditions.items():
        if _has_rows(value) and len(value) != len(noise):
            raise InputError(
                f"expected one row of {name} a chain, {len(noise)} here; got {len(value)}. Repeat it with expand."
            )
    if rows is not None and rows < 1:
        raise InputError(f"expected rows >= 1; got {rows}. None evaluates all at once.")
