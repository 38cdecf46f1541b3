r"""The loop of all posterior samplers: renoise, denoise, relax, data step, until t = 0.

    x_t = arrive()                      from the estimate of the last step, with old and fresh noise
    D   = denoiser(x_t, t)              once, or the mean over several arrivals
    e   = e + w (D - e)
    e   = data step (e)                 and maybe a shift of the next state

The last arrival is at t = 0, where alpha = 1 and sigma = 0: the estimate itself. What is in the four places is a
`PosteriorMethod`; `posterior` has the functions to call. The loop keeps the graph of one evaluation at a time, and only for
a step that asks for the network's gradient.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from radiata_core.data_steps import Correction, DataStep, Moment, Problem
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.kernels import require_gaussian
from radiata_core.relaxation import ConstantRelaxation, Relaxation
from radiata_core.renoising import Renoising
from radiata_core.seeds import noise_of
from radiata_core.solvers import Callback, Step
from radiata_core.times import checked_grid
from radiata_core.types import Times

__all__ = ["PosteriorMethod", "Walk"]


@dataclass(frozen=True)
class PosteriorMethod:
    """A point in the space of posterior samplers.

    Attributes:
        data: The data step.
        renoising: How the next state is made.
        relaxation: How far the estimate follows the denoiser.
        from_measurement: Start about A^+ y instead of 0.
        averages: Renoised states a step, whose denoised images are averaged, >= 1.

    Raises:
        InputError: averages < 1, or more than one where the next state keeps old noise.
    """

    data: DataStep
    renoising: Renoising
    relaxation: Relaxation = field(default_factory=ConstantRelaxation)
    from_measurement: bool = False
    averages: int = 1

    def __post_init__(self) -> None:
        if self.averages < 1 or (self.averages > 1 and not self.renoising.fresh_only):
            raise InputError(
                f"expected averages >= 1, and 1 unless all noise is fresh; got {self.averages}. "
                "Average finished samples instead."
            )

    def evaluations(self, times: Times) -> int:
        """Calls of the denoiser on a grid, each with one row a sample."""
        return (len(times) - 1) * self.averages


class Walk:
    """The loop, and what it counts."""

    def __init__(
        self,
        denoiser: Denoiser,
        times: Tensor,
        method: PosteriorMethod,
        generators: Sequence[torch.Generator],
        problem: Problem | None,
        callback: Callback | None,
        conditions: dict[str, Any],
    ) -> None:
        require_gaussian(denoiser, "posterior sampling, which adds noise,")
        self.denoiser, self.method, self.problem = denoiser, method, problem
        self.times = checked_grid(times.detach().cpu())
        self.generators, self.callback, self.conditions = generators, callback, conditions
        c = denoiser.path.coefficients(self.times)
        self.alphas, self.sigmas = c.alpha.tolist(), c.sigma.tolist()
        self.evaluations, self.watch = 0, FiniteWatch()

    def run(self, first: Tensor, *, started: bool) -> Tensor:
        """x at t = 0; `first` is the state at the first time, or only tells the shape and where to start."""
        method, steps = self.method, len(self.times) - 1
        if (self.problem is not None or not started) and len(self.generators) != len(first):
            raise InputError(
                f"expected one generator a row, {len(first)} here; got {len(self.generators)}. Use generators_of(seeds)."
            )
        kappas = [s / a if a else math.inf for a, s in zip(self.alphas[:-1], self.sigmas[:-1], strict=True)]
        weights = method.relaxation.weights(kappas)
        estimate = self._guess()
        arrive: Callable[[], Tensor] = (lambda: first) if started else (lambda: self._start(first, estimate))
        for index in range(steps):
            x, denoised = self._denoised(arrive, index)
            seen = denoised.detach()
            relaxed = seen if estimate is None else torch.lerp(estimate, seen, weights[index])
            moment = self._moment(index, x, denoised, relaxed)
            correction = method.data(moment)
            estimate = correction.estimate.detach()
            arrive = _arrival(method.renoising, moment, correction)
        self.watch.finish()
        return arrive()

    def _guess(self) -> Tensor | None:
        if self.problem is None or not self.method.from_measurement:
            return None
        return self.problem.operator.pseudo_inverse(self.problem.y)

    def _start(self, like: Tensor, guess: Tensor | None) -> Tensor:
        assert self.problem is not None
        return self.method.renoising.start(
            self.problem, guess, self._draw(like), self.alphas[0], self.sigmas[0]
        )

    def _denoised(self, arrive: Callable[[], Tensor], index: int) -> tuple[Tensor, Tensor]:
        """The (last) state at a time and the mean of what the denoiser makes of it."""
        through = self.method.data.through_network
        total: Tensor | None = None
        for _ in range(self.method.averages):
            with torch.set_grad_enabled(through):
                x = arrive().detach().requires_grad_(through)
                x0 = self.denoiser(x, self.times[index], **self.conditions)
            self.evaluations += 1
            if x0.shape != x.shape:
                raise InputError(
                    f"expected E[x_0 | x_t] of the state's shape {tuple(x.shape)}; got {tuple(x0.shape)}. "
                    "Check the network's output channels and the operator's events."
                )
            t = float(self.times[index])
            self.watch.see(x0, index, t)
            if self.callback is not None:
                self.callback(Step(index, t, x.detach(), x0.detach()))
            total = x0 if total is None else total + x0
        assert total is not None
        return x, total / self.method.averages if self.method.averages > 1 else total

    def _moment(self, index: int, x: Tensor, denoised: Tensor, relaxed: Tensor) -> Moment:
        alpha, sigma = self.alphas[index], self.sigmas[index]
        alpha_next, sigma_next = self.alphas[index + 1], self.sigmas[index + 1]
        kappa = sigma / alpha if alpha else math.inf
        fresh = self.method.renoising.fresh(kappa, sigma_next / alpha_next, sigma_next)
        last = sigma_next == 0
        return Moment(
            self.problem,
            index,
            last,
            alpha,
            sigma,
            alpha_next,
            sigma_next,
            fresh,
            x,
            denoised,
            relaxed,
            self._draw,
        )

    def _draw(self, like: Tensor) -> Tensor:
        if not like.is_complex():
            return noise_of(self.generators, like.shape[1:], like.dtype, like.device)
        parts = noise_of(self.generators, (*like.shape[1:], 2), like.dtype.to_real(), like.device)
        return torch.view_as_complex(parts)


def _arrival(renoising: Renoising, moment: Moment, correction: Correction) -> Callable[[], Tensor]:
    """The next state, drawn anew at every call."""

    def arrive() -> Tensor:
        x = renoising(moment, correction).detach()
        return x if correction.shift is None else x + correction.shift.detach()

    return arrive
