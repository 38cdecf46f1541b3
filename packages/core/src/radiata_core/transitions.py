r"""Stochastic steps of a deterministic denoiser: the SDE with any diffusion g(t) that keeps the marginals of the flow.

A denoiser gives the velocity u and the score, and with them a whole family of processes with the same marginals at
every time, run from noise to data:

$$dx = \left[u_t(x) - \tfrac12 g(t)^2\,\nabla\log p_t(x)\right]dt + g(t)\,dw, \qquad dt < 0 \tag{1}$$

g = 0 is the probability-flow ODE; any other g makes the next state random, so that a search has something to choose from.
A step from t to s is one line of numbers, $x_s = A x_t + B\,\mathrm E[x_0|x_t] + C z$, in two forms:

| form | A | B | C |
|---|---|---|---|
| `exact_transition` | $\tfrac{\sigma_s}{\sigma_t} e^{-\tau}$ | $\alpha_s - A \alpha_t$ | $\sigma_s\sqrt{1 - e^{-2\tau}}$ |
| `euler_maruyama` | $1 - p$ | $\alpha_t p - \Delta\,\alpha_t'$ | $g_t\sqrt\Delta$ |

with $\Delta = t - s$, $p = \Delta\,(\sigma'/\sigma + g^2/2\sigma^2)$ at t and $\tau = \int_s^t g^2/(2\sigma^2)\,dr$. The
exact form comes from the noise in x: for a constant denoiser $w = (x - \alpha m)/\sigma$ obeys
$dw = \tfrac{g^2}{2\sigma^2} w\,dt + \tfrac g\sigma d\omega$, an Ornstein–Uhlenbeck process, whose step is known whatever g
is. So $A^2\sigma_t^2 + C^2 = \sigma_s^2$ in every row: a point mass keeps its variance with any number of steps. With
$g^2 = -2\sigma^2\lambda'$ it is the ancestral (DDPM) row, with g = 0 DDIM. The Euler form, the one of the paper,
approximates it to first order; for wide data it can be the closer of the two. In both, the last step, to sigma = 0, returns
the posterior mean.

A transition is a table of `solvers` too (`table`), so `integrate` draws with it.

References:
    Kim, Yoon, Hwang & Sung, 2025, *Inference-Time Scaling for Flow Models via Stochastic Generation and Rollover Budget
        Forcing*, https://arxiv.org/abs/2503.19385 (SDE conversion of a flow; g = 3 t²).
    Albergo, Boffi & Vanden-Eijnden, 2023, https://arxiv.org/abs/2303.08797, section 2 (the family, free diffusion).
    Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix D.1 (probability-flow ODE).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from radiata_core.diffusions import (
    AncestralDiffusion,
    Diffusion,
    FunctionDiffusion,
    PowerDiffusion,
    require_rate,
)
from radiata_core.errors import InputError
from radiata_core.kernels import require_gaussian
from radiata_core.paths import Path, expand
from radiata_core.seeds import noise_of
from radiata_core.tables import MultistepTable
from radiata_core.times import checked_grid
from radiata_core.types import Batch, Times

__all__ = [
    "AncestralDiffusion",
    "Diffusion",
    "FunctionDiffusion",
    "PowerDiffusion",
    "StochasticStep",
    "Transition",
    "euler_maruyama",
    "exact_transition",
    "renoise",
    "require_gaussian",
    "stochastic_step",
]


@dataclass(frozen=True, eq=False)
class Transition:
    """The steps x_i -> x_{i+1} = A_i x_i + B_i E[x_0 | x_i] + C_i z on a grid; float64 coefficients.

    Args:
        path: The path they belong to.
        times: Grid t_0 > ... > t_n = 0, shape (n + 1,).
        state: A, shape (n,).
        mean: B, shape (n,).
        noise: C >= 0, shape (n,).
    """

    path: Path
    times: Times
    state: Float[Tensor, "steps"]
    mean: Float[Tensor, "steps"]
    noise: Float[Tensor, "steps"]

    @property
    def steps(self) -> int:
        """n: also the network evaluations of one pass."""
        return len(self.noise)

    @property
    def stochastic(self) -> bool:
        """Whether any step draws noise."""
        return bool((self.noise > 0).any())

    @property
    def table(self) -> MultistepTable:
        """The same numbers for `solvers.integrate`."""
        return MultistepTable(self.path, self.times, self.state[:, None], self.mean[:, None], self.noise)

    def move(
        self,
        x: Batch,
        x0: Batch,
        index: int | Int[Tensor, "batch"],
        generators: Sequence[torch.Generator],
    ) -> Batch:
        """The state after step `index`, given the posterior mean there; like x.

        Args:
            x: State at t_index, (batch, *event).
            x0: E[x_0 | x], like x.
            index: The step, one for all rows or one a row (on the CPU), 0 .. n - 1.
            generators: One a row (the same one may stand for several); not drawn from if no row needs noise.
        """
        a, b, c = self.state[index], self.mean[index], self.noise[index]
        moved = expand(a, x).to(x) * x + expand(b, x).to(x) * x0
        if bool((c > 0).any()):
            moved += expand(c, x).to(x) * noise_of(generators, x.shape[1:], x.dtype, x.device)
        return moved


def exact_transition(times: Times, path: Path, diffusion: Diffusion | None = None) -> Transition:
    """Steps of equation (1) that are exact for a constant denoiser, whatever the diffusion and the step size.

    Args:
        times: Grid, strictly falling in [0, 1] to exactly 0, shape (n + 1,).
        path: The path of the denoiser.
        diffusion: g; `PowerDiffusion()` (3 t²) if left out.

    Raises:
        InputError: the times are not such a grid, or g is negative or not finite.
    """
    diffusion = PowerDiffusion() if diffusion is None else diffusion
    times = checked_grid(times.detach().cpu())
    c = path.coefficients(times)
    # The last step is to sigma = 0; its row is filled in by `_finished`.
    tau = torch.cat([diffusion.decay(times[:-2], times[1:-1], path), torch.full((1,), torch.inf)])
    if not bool((tau >= 0).all()):
        raise InputError(f"expected a diffusion g >= 0; got {diffusion}. PowerDiffusion() is 3 t².")
    state = c.sigma[1:] / c.sigma[:-1] * torch.exp(-tau)
    noise = c.sigma[1:] * (-torch.expm1(-2 * tau)).sqrt()
    return _finished(path, times, state, c.alpha[1:] - state * c.alpha[:-1], noise)


def euler_maruyama(times: Times, path: Path, diffusion: Diffusion | None = None) -> Transition:
    """Euler–Maruyama steps of equation (1), the form of the paper: first order, and over-dispersed where g is large.

    Args:
        times: Grid, strictly falling in [0, 1] to exactly 0, shape (n + 1,).
        path: The path of the denoiser.
        diffusion: g; `PowerDiffusion()` (3 t²) if left out.

    Raises:
        InputError: the times are not such a grid, or g is negative or not finite on it.

    References:
        Kim et al. 2025, https://arxiv.org/abs/2503.19385, section on the SDE conversion.
    """
    diffusion = PowerDiffusion() if diffusion is None else diffusion
    times = checked_grid(times.detach().cpu())
    start, step = times[:-1], -times.diff()
    c, rate = path.coefficients(start), diffusion.squared(start, path)
    require_rate(rate)
    # u = alpha' m + sigma' (x - alpha m)/sigma and score = -(x - alpha m)/sigma²: one factor of (x - alpha m).
    pull = step * (c.d_sigma / c.sigma + rate / (2 * c.sigma.square()))
    return _finished(path, times, 1 - pull, c.alpha * pull - step * c.d_alpha, rate.sqrt() * step.sqrt())


@dataclass(frozen=True, eq=False)
class StochasticStep:
    """One step of a transition.

    Attributes:
        x: The state at t_{i+1}.
        x0: E[x_0 | x_i], with which it was made.
        evaluations: Rows the network saw.
    """

    x: Tensor
    x0: Tensor
    evaluations: int


def stochastic_step(
    denoiser: Callable[..., Tensor],
    x: Batch,
    transition: Transition,
    index: int,
    generators: Sequence[torch.Generator],
    **conditions: Any,
) -> StochasticStep:
    """One stochastic step of any denoiser: the next state, the posterior mean, the evaluations.

    Args:
        denoiser: `(x, t, **conditions) -> E[x_0 | x_t]`.
        x: State at time t_index of the transition, (batch, *event).
        transition: `exact_transition` or `euler_maruyama`.
        index: Step, 0 .. n - 1.
        generators: One a row.
        conditions: Passed on to the denoiser.

    Raises:
        InputError: there is no such step, generators are missing, the denoiser's noise is not Gaussian.
    """
    require_gaussian(denoiser, "a stochastic step")
    if not 0 <= index < transition.steps:
        raise InputError(f"expected a step in 0 .. {transition.steps - 1}; got {index}. Use a longer grid.")
    if transition.noise[index] > 0 and len(generators) != len(x):
        raise InputError(
            f"expected one generator a row, {len(x)} here; got {len(generators)}. Use generators_of(seeds)."
        )
    x0 = denoiser(x, transition.times[index], **conditions)
    return StochasticStep(transition.move(x, x0, index, generators), x0, len(x))


def renoise(x: Batch, t: float, s: float, path: Path, generators: Sequence[torch.Generator]) -> Batch:
    r"""The state at a noisier time s, drawn from the forward process that went through x at t; like x.

    $$x_s \mid x_t \sim \mathcal N\left(\tfrac{\alpha_s}{\alpha_t} x_t,\;
      \sigma_s^2 - \tfrac{\alpha_s^2}{\alpha_t^2}\sigma_t^2\right)$$

    Args:
        x: State at t, (batch, *event).
        t: Its time, in [0, 1].
        s: The time asked for, in [t, 1].
        path: alpha and sigma of t.
        generators: One a row.

    Raises:
        InputError: s is less noisy than t.

    References:
        Ma et al., 2025, *Inference-time scaling for diffusion models beyond scaling denoising steps*,
            https://arxiv.org/abs/2501.09732 (search over paths).
    """
    if s == t:
        return x
    if not 0 <= t < s <= 1:
        raise InputError(f"expected 0 <= t <= s <= 1; got t={t}, s={s}. Noise is only added forward.")
    c = path.coefficients(torch.tensor([t, s], dtype=torch.float64))
    ratio = float(c.alpha[1] / c.alpha[0])
    spread = float((c.sigma[1].square() - ratio**2 * c.sigma[0].square()).clamp_min(0).sqrt())
    return ratio * x + spread * noise_of(generators, x.shape[1:], x.dtype, x.device)


def _finished(path: Path, times: Tensor, state: Tensor, mean: Tensor, noise: Tensor) -> Transition:
    """The last row, to sigma = 0, returns the posterior mean."""
    state[-1], mean[-1], noise[-1] = 0.0, 1.0, 0.0
    return Transition(path, times, state, mean, noise)
