r"""Solvers as numbers: a table of float64 coefficients, made once for a path and a grid of times.

Every multistep, ancestral and SDE solver of the diffusion literature is one line. With denoised estimates
m_i = E[x_0 | x_i] and standard normal z, the step from t_i to t_{i+1} is

    x_{i+1} = sum_j A_ij x_{i-j} + sum_j B_ij m_{i-j} + C_i z                        (step)
    x_i    <- a_i x_{i-1} + sum_j b_ij m_{i-j}      once m_i is known                (corrector, UniPC)

so a solver is a function that fills A, B, C (and a, b). With a prime for t_{i+1}, lambda = log(alpha / sigma),
h = lambda' - lambda, e = exp(-h), and q = h / h_previous:

| solver | A | B_0 | B_1 | C |
|---|---|---|---|---|
| DDIM, eta = 0 | sigma'/sigma | alpha' (1 - e) | | |
| DDPM (DDIM, eta = 1) | sigma'/sigma e | alpha' (1 - e²) | | sigma' √(1 - e²) |
| DPM-Solver++(2M) | sigma'/sigma | alpha' (1 - e)(1 + q/2) | -alpha' (1 - e) q/2 | |
| UniPC-2 | the same, and a corrector | | | |
| SDE-DPM-Solver++(2M) | sigma'/sigma e | alpha' (1 - e²)(1 + q/2) | -alpha' (1 - e²) q/2 | sigma' √(1 - e²) |

Rows are written in x, not in y = x / alpha, so that they stay finite on paths whose alpha ends at zero. Two rows need
no care by the user: the first one from alpha = 0 (h is infinite, q of the next row is 0) and the last one to sigma = 0
(A = 0, B_0 = 1: it returns m) are of first order, and nothing is extrapolated across them.

Two identities hold for every row, and the tests ask for them: sum_j B_ij = alpha' - sum_j A_ij alpha_{i-j} (a constant
denoiser is solved exactly) and, for a stochastic row, A² sigma² + C² = sigma'² (a point mass keeps its variance).

Other diffusions than the forward one, exact or by Euler–Maruyama, are in `transitions`, and are tables too.

The grid matters more than the order: multistep rows on a grid uniform in t of a VP path are unsafe; give them a grid
uniform in log-SNR. Below 8 evaluations AB2 or DDIM, above UniPC-2 or DPM-Solver++(2M).

References:
    Song, Meng, Ermon, *Denoising Diffusion Implicit Models*, 2021, https://arxiv.org/abs/2010.02502, eqs. 12, 16.
    Ho, Jain, Abbeel, *Denoising Diffusion Probabilistic Models*, 2020, https://arxiv.org/abs/2006.11239, eq. 7.
    Lu et al., *DPM-Solver++*, 2022, https://arxiv.org/abs/2211.01095, algorithm 2 and appendix (SDE).
    Zhao et al., *UniPC*, 2023, https://arxiv.org/abs/2302.04867, algorithms 5–8, B_2(h).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.paths import Path
from radiata_core.types import Times

__all__ = [
    "MultistepTable",
    "TableRow",
    "ab2_velocity",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "sde_dpmpp_2m",
    "unipc_2",
]


class TableRow(NamedTuple):
    """One step as Python floats, zero weights at the end cut off: what the loop reads."""

    states: tuple[float, ...]
    outputs: tuple[float, ...]
    noise: float
    corrector: tuple[
        float, ...
    ]  # of the previous state, then of the outputs; empty: no correction on arrival


@dataclass(frozen=True, eq=False)
class MultistepTable:
    """The coefficients of a solver on a grid; float64.

    Args:
        path: The path they belong to.
        times: The grid t_0 > t_1 > ... > t_n, shape (n + 1,).
        states: A, weights of x_i, x_{i-1}, ..., shape (n, states).
        outputs: B, weights of m_i, m_{i-1}, ..., shape (n, outputs).
        noise: C, standard deviation of fresh noise, shape (n,).
        corrector: a and b, applied on arrival at t_i as soon as m_i is known: weights of x_{i-1}, m_i, m_{i-1}, ...,
            shape (n, 1 + outputs); a row of zeros does nothing. None: no corrector.
    """

    path: Path
    times: Times
    states: Float[Tensor, "steps states"]
    outputs: Float[Tensor, "steps outputs"]
    noise: Float[Tensor, "steps"]
    corrector: Float[Tensor, "steps corrections"] | None = None

    @property
    def stochastic(self) -> bool:
        """Whether any step draws noise."""
        return bool((self.noise != 0).any())

    @property
    def evaluations(self) -> int:
        """Number of network evaluations: one a step."""
        return len(self.noise)

    @cached_property
    def rows(self) -> tuple[TableRow, ...]:
        """The table as Python floats, row by row."""
        corrector = (
            [()] * len(self.noise) if self.corrector is None else map(_trimmed, self.corrector.tolist())
        )
        return tuple(
            TableRow(_trimmed(a) or (0.0,), _trimmed(b), c, d)
            for a, b, c, d in zip(
                self.states.tolist(), self.outputs.tolist(), self.noise.tolist(), corrector, strict=True
            )
        )


def ddim(times: Times, path: Path, eta: float = 0.0) -> MultistepTable:
    """DDIM: the exact step of a constant denoiser, first order.

    With C = eta sigma' sqrt(1 - (kappa'/kappa)²):  x' = sqrt(sigma'² - C²)/sigma x + (alpha' - A alpha) m + C z.

    Args:
        times: Grid, shape (n + 1,), strictly decreasing in [0, 1], usually ending at exactly 0.
        path: The path.
        eta: Share of the ancestral noise, in [0, 1]: 0 follows the probability-flow ODE, 1 is `ddpm`.

    Raises:
        InputError: times or eta out of range.

    References:
        Song, Meng, Ermon 2021, https://arxiv.org/abs/2010.02502, eqs. 12 and 16.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"expected eta in [0, 1]; got {eta}. 0 is deterministic, 1 is ancestral.")
    g = _Grid.of(times, path)
    noise = eta * g.sigma_next * (-torch.expm1(-2 * g.h)).sqrt()
    state = (g.sigma_next.square() - noise.square()).clamp_min(0).sqrt() / g.sigma
    return g.table(states=[state], outputs=[g.alpha_next - state * g.alpha], noise=noise)


def ddpm(times: Times, path: Path) -> MultistepTable:
    """Ancestral sampling with the exact posterior variance for the grid at hand: DDIM with eta = 1, first order.

    Raises:
        InputError: times out of range.

    References:
        Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239, eqs. 6–7, with betas of the strided grid.
    """
    return ddim(times, path, eta=1.0)


def dpmpp_2m(times: Times, path: Path) -> MultistepTable:
    """DPM-Solver++(2M), midpoint variant: second order in log-SNR, one evaluation a step.

    Raises:
        InputError: times out of range.

    References:
        Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2.
    """
    g = _Grid.of(times, path)
    return g.table(states=[g.sigma_next / g.sigma], outputs=g.extrapolated(g.alpha_next * -torch.expm1(-g.h)))


def sde_dpmpp_2m(times: Times, path: Path) -> MultistepTable:
    """SDE-DPM-Solver++(2M): second order in the drift, exact in the noise of the diffusion SDE.

    Raises:
        InputError: times out of range.

    References:
        Lu et al. 2022, https://arxiv.org/abs/2211.01095, appendix, SDE-DPM-Solver++(2M).
    """
    g = _Grid.of(times, path)
    gained = -torch.expm1(-2 * g.h)
    return g.table(
        states=[g.sigma_next / g.sigma * torch.exp(-g.h)],
        outputs=g.extrapolated(g.alpha_next * gained),
        noise=g.sigma_next * gained.sqrt(),
    )


def unipc_2(times: Times, path: Path) -> MultistepTable:
    """UniPC of order 2 with B_2(h) = e^h - 1: the predictor of DPM-Solver++(2M) and a corrector at no further evaluation.

    On arrival, m' re-does the last step:  x' = A x + alpha' (1 - e) [m + rho_1 q (m - m_before) + rho_2 (m' - m)] with

        rho_1 + rho_2 = phi_2 / phi_1,   -rho_1 / q + rho_2 = 2 phi_3 / phi_1,

    phi_k(-h) = sum_j (-h)^j / (j + k)!; without a past rho_2 = 1/2. Measured order on smooth fields: almost 3.

    Raises:
        InputError: times out of range.

    References:
        Zhao et al. 2023, https://arxiv.org/abs/2302.04867, algorithms 5–8.
    """
    g = _Grid.of(times, path)
    gained = g.alpha_next * -torch.expm1(-g.h)
    first, second = _phi_ratios(g.h)
    past = g.q > 0
    rho_1 = torch.where(past, (first - second) * g.q / (1 + g.q), 0.0)
    rho_2 = torch.where(past, first - rho_1, 0.5)
    old = rho_1 * g.q
    rows = torch.stack([g.sigma_next / g.sigma, gained * rho_2, gained * (1 + old - rho_2), -gained * old], 1)
    # Row i corrects the arrival at t_i, that is step i - 1; an infinite h (from alpha = 0) is not corrected.
    rows = torch.where(torch.isfinite(g.h)[:, None], rows, 0.0)
    corrector = torch.cat([torch.zeros_like(rows[:1]), rows[:-1]])
    return g.table([g.sigma_next / g.sigma], g.extrapolated(gained), corrector=corrector)


def ab2_velocity(times: Times, path: Path) -> MultistepTable:
    """Adams–Bashforth of order 2 in the velocity of the straight path: the best cheap choice below 8 evaluations.

    Any path is first carried over to the straight one by scale and time, X = x / (alpha + sigma) and
    tau = sigma / (alpha + sigma), where the velocity V = (X - m) / tau is regular up to alpha = 0. Then, with
    k = tau' - tau and r = k / k_before,  X' = X + k [(1 + r/2) V - (r/2) V_before]. The step to sigma = 0 is Euler's,
    which returns m.

    Raises:
        InputError: times out of range.

    References:
        Hairer, Nørsett, Wanner, *Solving Ordinary Differential Equations I*, section III.5 (variable steps).
    """
    g = _Grid.of(times, path)
    scale, scale_next = g.alpha + g.sigma, g.alpha_next + g.sigma_next
    tau, step = g.sigma / scale, g.sigma_next / scale_next - g.sigma / scale
    ratio = torch.where(g.sigma_next > 0, step / _before(step, float("inf")), 0.0)
    now, past = step * (1 + ratio / 2) / tau, -step * (ratio / 2) / _before(tau, 1.0)
    return g.table(
        states=[scale_next * (1 + now) / scale, scale_next * past / _before(scale, 1.0)],
        outputs=[-scale_next * now, -scale_next * past],
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """Path coefficients at both ends of every step. h is infinite from alpha = 0 and to sigma = 0, and q is 0 there."""

    path: Path
    times: Tensor
    alpha: Tensor
    sigma: Tensor
    alpha_next: Tensor
    sigma_next: Tensor
    h: Tensor
    q: Tensor

    @staticmethod
    def of(times: Tensor, path: Path) -> "_Grid":
        times = times.detach().to("cpu", torch.float64)
        if times.ndim != 1 or len(times) < 2 or not (times[1:] < times[:-1]).all():
            raise InputError(
                f"expected at least two strictly decreasing times; got shape {tuple(times.shape)}. "
                "Use a grid of radiata_core.times."
            )
        c = path.coefficients(times)
        h = path.log_snr(times).diff()
        q = h / _before(h, float("inf"))
        q = torch.where(torch.isfinite(h) & torch.isfinite(q), q, 0.0)
        return _Grid(path, times, c.alpha[:-1], c.sigma[:-1], c.alpha[1:], c.sigma[1:], h, q)

    def extrapolated(self, gained: Tensor) -> list[Tensor]:
        """Weights of m_i and m_{i-1} that stand for `gained` times the estimate at the middle of the step."""
        return [gained * (1 + self.q / 2), -gained * self.q / 2]

    def table(
        self,
        states: list[Tensor],
        outputs: list[Tensor],
        noise: Tensor | None = None,
        corrector: Tensor | None = None,
    ) -> MultistepTable:
        noise = torch.zeros_like(self.h) if noise is None else noise
        return MultistepTable(
            self.path, self.times, torch.stack(states, 1), torch.stack(outputs, 1), noise, corrector
        )


def _before(values: Tensor, first: float) -> Tensor:
    """The value of the step before; `first` at the first."""
    return torch.cat([values.new_tensor([first]), values[:-1]])


def _phi_ratios(h: Tensor) -> tuple[Tensor, Tensor]:
    """phi_2(-h)/phi_1(-h) and 2 phi_3(-h)/phi_1(-h); by series where the recursion would cancel."""
    z = torch.where(torch.isfinite(h), -h, -1.0)
    small = z.abs() < 0.5
    near = torch.where(small, z, 0.0)
    series = [torch.zeros_like(z) for _ in range(3)]
    for k in (1, 2, 3):
        term = torch.full_like(z, 1 / (1, 1, 2, 6)[k])
        for j in range(1, 16):
            series[k - 1] += term
            term = term * near / (j + k)
    far = torch.where(small, -1.0, z)
    phi_1 = torch.expm1(far) / far
    phi_2 = (phi_1 - 1) / far
    phi_3 = (phi_2 - 0.5) / far
    first = torch.where(small, series[1] / series[0], phi_2 / phi_1)
    return first, torch.where(small, 2 * series[2] / series[0], 2 * phi_3 / phi_1)


def _trimmed(values: list[float]) -> tuple[float, ...]:
    """Without the zeros at the end."""
    while values and values[-1] == 0:
        values = values[:-1]
    return tuple(values)
