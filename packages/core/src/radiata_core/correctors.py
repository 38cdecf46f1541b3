r"""Predictor and corrector: after a solver's step to t, a few Langevin steps that stay at t.

A denoiser gives the score of the noisy data at every time, $\nabla\log p_t(x) = (\alpha_t E[x_0|x_t] - x_t)/\sigma_t^2$. The
Langevin dynamics of that score have $p_t$ as their stationary law, so

$$x \leftarrow x + \epsilon\,\nabla\log p_t(x) + \sqrt{2\epsilon}\,z$$

pulls the samples of a predictor, that are not quite of the law $p_t$, towards it. It costs one evaluation a correction, and
it has an error of its own, since epsilon is finite. For Gaussian data with $V_t = \alpha_t^2 s^2 + \sigma_t^2$, where s² is
their variance in some direction, one correction makes of a variance q

$$q' = (1 - \epsilon/V_t)^2 q + 2\epsilon \quad\to\quad \frac{V_t}{1 - \epsilon/2V_t},$$

at rest too large by about $\epsilon/2V_t$, stable for $\epsilon < 2V_t$, while an error shrinks by $(1 - \epsilon/V_t)^2$.
All directions share one epsilon. A share of $\sigma_t^2 \le V_t$ is stable for any data and forgets an error while there is
much noise, but hardly touches one in a direction with $\sigma_t \ll \alpha_t s$; a share of $V_t$ would.

| rule | epsilon | |
|---|---|---|
| `SignalToNoise(r)` | $2\,(r\,\|z\|/\|\nabla\log p_t\|)^2$, a row its own | Song et al.; $2r^2V_t$ if directions are alike |
| `NoiseShare(delta)` | $\delta\,\sigma_t^2$ | the same for all rows; stable |

With the first, in many dimensions that are alike, the variance at rest is $(1 + r^2) V_t$.

Any path, any denoiser with Gaussian noise, any table of one evaluation a step whose step needs no past (`tables.ddim`,
`ddpm`, a transition's): the past of a corrected state is not its own. The first time is not corrected (noise is exact
there), nor is sigma = 0, where there is no score.

References:
    Song et al., "Score-based generative modeling through stochastic differential equations", 2021,
        https://arxiv.org/abs/2011.13456, section 4.2, appendix G, algorithms 4 and 5 (there, norms are means over the
        batch; the factor alpha_i of algorithm 5 is close to 1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.kernels import require_gaussian
from radiata_core.seeds import noise_of
from radiata_core.solvers import Callback, Step
from radiata_core.tables import MultistepTable
from radiata_core.types import Batch

__all__ = ["NoiseShare", "SignalToNoise", "StepRule", "corrected", "predictor_corrector"]


@runtime_checkable
class StepRule(Protocol):
    """How long a Langevin step is."""

    def __call__(self, score: Tensor, noise: Tensor, sigma: float) -> Tensor:
        """epsilon > 0, shape () or (batch,), from the score and the fresh noise, (batch, *event), and sigma_t."""
        ...


@dataclass(frozen=True)
class SignalToNoise:
    """epsilon = 2 (r |z| / |score|)², each row its own, at most `limit` sigma².

    The norms are close to their means if the event is large. In few dimensions they are not: epsilon depends on z, and is
    huge near a mode, where the score vanishes. Use `NoiseShare` there.

    Args:
        r: Ratio of the norms of the two terms, > 0; 0.16 in the paper for images of 32² (variance-exploding path).
        limit: Largest epsilon in units of sigma², > 0; below 2 the dynamics are stable for any data.

    References:
        Song et al., 2021, https://arxiv.org/abs/2011.13456, algorithm 4.
    """

    r: float = 0.16
    limit: float = math.inf

    def __post_init__(self) -> None:
        if not (0 < self.r < math.inf and self.limit > 0):
            raise InputError(
                f"expected r > 0 and limit > 0; got {self.r} and {self.limit}. The paper's r is 0.16."
            )

    def __call__(self, score: Tensor, noise: Tensor, sigma: float) -> Tensor:
        loud, size = noise.flatten(1).norm(dim=1), score.flatten(1).norm(dim=1)
        epsilon = (2 * (self.r * loud / size) ** 2).clamp(max=self.limit * sigma**2)
        return torch.where(size > 0, epsilon, sigma**2)


@dataclass(frozen=True)
class NoiseShare:
    """epsilon = delta sigma²: the variance of Gaussian data comes out too large by a factor below 1 / (1 - delta / 2).

    Args:
        delta: In (0, 2), where the dynamics are stable for any data.
    """

    delta: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.delta < 2:
            raise InputError(f"expected delta in (0, 2); got {self.delta}. 0.05 errs by at most 2.6 percent.")

    def __call__(self, score: Tensor, noise: Tensor, sigma: float) -> Tensor:
        return noise.new_tensor(self.delta * sigma**2)


def corrected(
    x: Batch, x0: Batch, alpha: float, sigma: float, rule: StepRule, generators: Sequence[Generator]
) -> Batch:
    """One Langevin step at a time that stands still; like x.

    Args:
        x: State, (batch, *event).
        x0: E[x_0 | x], like x.
        alpha: Coefficients of the path at the time.
        sigma: > 0.
        rule: The step's length.
        generators: One a row.
    """
    noise = noise_of(generators, x.shape[1:], x.dtype, x.device)
    score = torch.add(-x, x0, alpha=alpha) / sigma**2
    epsilon = rule(score, noise, sigma).reshape(-1, *[1] * (x.ndim - 1))
    return x + epsilon * score + (2 * epsilon).sqrt() * noise


def predictor_corrector(
    denoiser: Callable[..., Tensor],
    x: Batch,
    table: MultistepTable,
    *,
    generators: Sequence[Generator],
    rule: StepRule | None = None,
    corrections: int = 1,
    callback: Callback | None = None,
    **conditions: Any,
) -> Batch:
    """The state at the last time of the table, with Langevin steps after each of its steps; at t = 0 a sample.

    n steps that end at t = 0 take n + (n - 1) `corrections` evaluations. Row i depends on row i of x and of the conditions
    and on generator i only.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]` with Gaussian noise.
        x: State at the first time, (batch, *event).
        table: The predictor: `ddim`, `ddpm`, or the table of a transition.
        generators: One a row.
        rule: Length of the Langevin steps; `SignalToNoise()` if left out.
        corrections: Langevin steps at each time, >= 0; 0 is `integrate`.
        callback: Called after the evaluation that each predictor step starts with.
        conditions: Passed on.

    Raises:
        InputError: a table that needs a past, another path, noise that is not Gaussian, not one generator a row, a value of
            the denoiser of another shape or not finite (step and t are named).

    References:
        Song et al., 2021, https://arxiv.org/abs/2011.13456, algorithms 2-5.
    """
    _check(denoiser, x, table, generators, corrections)
    rule = SignalToNoise() if rule is None else rule
    c = table.path.coefficients(table.times)
    alphas, sigmas, floats = c.alpha.tolist(), c.sigma.tolist(), table.times.tolist()
    watch = FiniteWatch()

    def denoised(state: Tensor, place: int) -> Tensor:
        x0 = denoiser(state, table.times[place], **conditions)
        if x0.shape != state.shape:
            raise InputError(
                f"expected E[x_0 | x_t] of the state's shape {tuple(state.shape)}; got {tuple(x0.shape)}. "
                "Check the network's output channels."
            )
        watch.see(x0, place, floats[place])
        return x0

    with torch.no_grad():
        for index, row in enumerate(table.rows):
            x0 = denoised(x, index)
            if callback is not None:
                callback(Step(index, floats[index], x, x0))
            x = torch.mul(x, row.states[0])
            if row.outputs:
                x.add_(x0, alpha=row.outputs[0])
            if row.noise:
                x.add_(noise_of(generators, x.shape[1:], x.dtype, x.device), alpha=row.noise)
            alpha, sigma = alphas[index + 1], sigmas[index + 1]
            if sigma > 0:
                for _ in range(corrections):
                    x = corrected(x, denoised(x, index + 1), alpha, sigma, rule, generators)
    watch.finish()
    return x


def _check(
    denoiser: object, x: Tensor, table: MultistepTable, generators: Sequence[Generator], corrections: int
) -> None:
    require_gaussian(denoiser, "Langevin steps")
    path = getattr(denoiser, "path", table.path)
    if path != table.path:
        raise InputError(
            f"expected a table for the denoiser's path {path}; got one for {table.path}. Make the table with denoiser.path."
        )
    if table.corrector is not None or any(len(r.states) > 1 or len(r.outputs) > 1 for r in table.rows):
        raise InputError(
            "expected a predictor without a past; got a multistep table. Use ddim, ddpm or exact_transition(...).table."
        )
    if corrections < 0 or len(generators) != len(x):
        raise InputError(
            f"expected corrections >= 0 and one generator a row, {len(x)}; got {corrections} and {len(generators)}. "
            "Use generators_of(seeds)."
        )
