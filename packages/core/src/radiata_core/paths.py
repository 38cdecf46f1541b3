r"""Paths from data to noise: how much signal and how much noise there is at every time.

$$x_t = \alpha_t x_0 + \sigma_t \varepsilon, \qquad \varepsilon \sim \mathcal N(0, I), \qquad t \in [0, 1]$$

`t = 0` is data and `t = 1` is noise. A path gives $\alpha_t$, $\sigma_t$ and their time derivatives in
float64, so that everything else follows: the velocity $u_t = \alpha'_t x_0 + \sigma'_t\varepsilon$, the half
log-SNR $\lambda_t = \log(\alpha_t/\sigma_t)$ and the noise-to-signal ratio $\kappa_t = \sigma_t/\alpha_t$
(EDM's sigma).

| path | alpha | sigma | alpha(1) |
|---|---|---|---|
| `LinearPath` (rectified flow) | $1 - t$ | $t$ | 0 |
| `TrigonometricPath` | $\cos(\pi t/2)$ | $\sin(\pi t/2)$ | 0 |
| `VPPath` | $\exp(-\tfrac12\int_0^t\beta)$ | $\sqrt{1-\alpha^2}$ | 6.6e-3 |
| `VEPath` | 1 | $\sigma_{\min}\left((1+\sigma_{\max}/\sigma_{\min})^t-1\right)$ | 1 |
| `DiscreteVPPath` (DDPM, MedForJ) | $\sqrt{\bar\alpha_i}$ at $t=(i+1)/N$ | $\sqrt{1-\bar\alpha_i}$ | 6.4e-3 |

On every path `alpha(0) = 1` and `sigma(0) = 0` hold exactly. Two paths with the same log-SNR differ by a
scale only: `same_log_snr` is that change of path.

Times live best on the CPU: their range is checked, which on an accelerator waits for it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.specs import buildable
from radiata_core.types import Batch

__all__ = [
    "Coefficients",
    "DiscreteVPPath",
    "LinearPath",
    "Path",
    "ScaleTime",
    "TrigonometricPath",
    "VEPath",
    "VPPath",
    "add_noise",
    "expand",
    "same_log_snr",
]

AnyTime = Float[Tensor, "*times"]


@dataclass(frozen=True)
class Coefficients:
    """Signal and noise coefficients and their time derivatives, float64, each of the shape of the time.

    `d_sigma` is infinite at t = 0 on the variance-preserving paths, where sigma grows like the root of t.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class Path(ABC):
    """A path from data (t = 0) to noise (t = 1)."""

    def coefficients(self, t: AnyTime) -> Coefficients:
        """Alpha, sigma and their derivatives at `t`, in float64 and differentiable.

        Args:
            t: Times in [0, 1], any shape.

        Raises:
            InputError: a time is not a number or lies outside [0, 1].
        """
        return self._coefficients(_checked(t))

    def log_snr(self, t: AnyTime) -> AnyTime:
        """Half log-SNR log(alpha/sigma), float64, falling with `t`; +inf at t = 0, -inf where alpha is 0.

        Raises:
            InputError: a time is not a number or lies outside [0, 1].
        """
        return self._log_snr(_checked(t))

    def time_of_log_snr(self, lam: AnyTime) -> AnyTime:
        """Time in [0, 1], float64, of the half log-SNR `lam`; what the path never reaches gives t = 1.

        Args:
            lam: Half log-SNR log(alpha/sigma), any shape; infinities are allowed.

        Raises:
            InputError: a value is not a number.
        """
        lam = lam.to(torch.float64)
        if not torch.compiler.is_compiling() and bool(torch.isnan(lam).any()):
            raise InputError("expected numbers as log-SNR; got NaN. Check the grid or the law of time.")
        return self._time_of_log_snr(lam).clamp(0.0, 1.0)

    @abstractmethod
    def _coefficients(self, t: Tensor) -> Coefficients:
        """`coefficients` for a checked float64 time."""

    @abstractmethod
    def _log_snr(self, t: Tensor) -> Tensor:
        """`log_snr` for a checked float64 time."""

    @abstractmethod
    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        """`time_of_log_snr` for float64 values, before the clamp to [0, 1]."""


def _checked(t: Tensor) -> Tensor:
    t = t.to(torch.float64)
    if not torch.compiler.is_compiling() and not bool(((t >= 0) & (t <= 1)).all()):
        worst = t[~((t >= 0) & (t <= 1))].flatten()[0].item()
        raise InputError(
            f"expected times in [0, 1] (0 is data, 1 is noise); got {worst:g}. "
            "Divide step indices by the number of steps, or see `time_of_index`."
        )
    return t


@buildable("linear-path")
@dataclass(frozen=True)
class LinearPath(Path):
    r"""The straight line $x_t = (1-t) x_0 + t\varepsilon$, with velocity $\varepsilon - x_0$.

    References:
        Liu, Gong, Liu, 2023, Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified
        Flow, https://arxiv.org/abs/2209.03003, eq. 1 (time runs the other way there).
        Esser et al., 2024, Scaling Rectified Flow Transformers, https://arxiv.org/abs/2403.03206, eq. 13.
    """

    def _coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(alpha=1 - t, sigma=t, d_alpha=-one, d_sigma=one)

    def _log_snr(self, t: Tensor) -> Tensor:
        return torch.log1p(-t) - torch.log(t)

    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        return torch.sigmoid(-lam)


@buildable("trigonometric-path")
@dataclass(frozen=True)
class TrigonometricPath(Path):
    r"""The quarter circle $\alpha = \cos(\pi t/2)$, $\sigma = \sin(\pi t/2)$; keeps unit variance.

    References:
        Albergo, Boffi, Vanden-Eijnden, 2023, Stochastic Interpolants, https://arxiv.org/abs/2303.08797,
        table 8 (time runs the other way there).
    """

    def _coefficients(self, t: Tensor) -> Coefficients:
        half_pi = math.pi / 2
        # sin(pi/2 (1 - t)) instead of the cosine: exactly 0 at t = 1, not 6e-17.
        alpha, sigma = torch.sin(half_pi * (1 - t)), torch.sin(half_pi * t)
        return Coefficients(alpha=alpha, sigma=sigma, d_alpha=-half_pi * sigma, d_sigma=half_pi * alpha)

    def _log_snr(self, t: Tensor) -> Tensor:
        both = self._coefficients(t)
        return torch.log(both.alpha) - torch.log(both.sigma)

    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        return torch.atan(torch.exp(-lam)) * (2 / math.pi)


@buildable("vp-path")
@dataclass(frozen=True)
class VPPath(Path):
    r"""The variance-preserving diffusion with $\beta(t) = \beta_{\min} + t(\beta_{\max} - \beta_{\min})$.

    $$\alpha_t = e^{-B_t/2}, \quad \sigma_t = \sqrt{1 - e^{-B_t}}, \quad
      B_t = \beta_{\min} t + \tfrac12(\beta_{\max}-\beta_{\min}) t^2$$

    Args:
        beta_min: Rate at t = 0, >= 0.
        beta_max: Rate at t = 1, >= `beta_min` and > 0.

    References:
        Song et al., 2021, Score-Based Generative Modeling through Stochastic Differential Equations,
        https://arxiv.org/abs/2011.13456, eq. 11 and appendix C.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not (0 <= self.beta_min <= self.beta_max < math.inf and self.beta_max > 0):
            raise InputError(
                f"expected 0 <= beta_min <= beta_max and beta_max > 0; got beta_min={self.beta_min}, "
                f"beta_max={self.beta_max}. The usual values are 0.1 and 20."
            )

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def _coefficients(self, t: Tensor) -> Coefficients:
        rate = self.beta_min + t * (self.beta_max - self.beta_min)
        return _preserving(-self._integral(t), -rate)

    def _log_snr(self, t: Tensor) -> Tensor:
        return -0.5 * torch.log(torch.expm1(self._integral(t)))

    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        # expm1(B) = exp(-2 lam); then the positive root of the quadratic in t, without
        # cancellation.
        last = 0.5 * (self.beta_min + self.beta_max)
        integral = torch.logaddexp(torch.zeros_like(lam), -2 * lam).clamp(max=last)
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return torch.where(integral > 0, 2 * integral / (self.beta_min + root), 0.0)


@buildable("ve-path")
@dataclass(frozen=True)
class VEPath(Path):
    r"""The variance-exploding path: $\alpha = 1$ and noise that grows geometrically up to `sigma_max`.

    $$\sigma_t = \sigma_{\min}\left[(1 + \sigma_{\max}/\sigma_{\min})^t - 1\right]$$

    The geometric schedule of the paper starts at $\sigma_{\min}$ and never reaches data. Here
    $\sigma_t + \sigma_{\min}$ is geometric instead, so that sigma is exactly 0 at t = 0 and exactly
    `sigma_max` at t = 1, smoothly. The two differ by the naming of time only: any grid in sigma (Karras) and
    any law in log-SNR is the same on both.

    Args:
        sigma_min: Level where the growth turns from linear to geometric, in units of the data, > 0.
        sigma_max: Standard deviation at t = 1, in units of the data, > `sigma_min`.

    References:
        Song et al., 2021, https://arxiv.org/abs/2011.13456, appendix C (the geometric schedule).
        Karras et al., 2022, Elucidating the Design Space of Diffusion-Based Generative Models,
        https://arxiv.org/abs/2206.00364, table 1 (the two levels).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(
                f"expected 0 < sigma_min < sigma_max; got sigma_min={self.sigma_min}, "
                f"sigma_max={self.sigma_max}. The usual values are 0.002 and 80."
            )

    @property
    def _growth(self) -> float:
        return math.log1p(self.sigma_max / self.sigma_min)

    def _coefficients(self, t: Tensor) -> Coefficients:
        grown = torch.expm1(self._growth * t)
        one = torch.ones_like(t)
        d_sigma = self.sigma_min * self._growth * (grown + 1)
        return Coefficients(alpha=one, sigma=self.sigma_min * grown, d_alpha=0 * one, d_sigma=d_sigma)

    def _log_snr(self, t: Tensor) -> Tensor:
        return -torch.log(self.sigma_min * torch.expm1(self._growth * t))

    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        return torch.log1p(torch.exp(-lam) / self.sigma_min) / self._growth


@buildable("discrete-vp-path")
@dataclass(frozen=True)
class DiscreteVPPath(Path):
    r"""The linear-beta DDPM schedule of MedForJ, made continuous.

    $$\beta_i = \mathrm{linspace}(\beta_{start}, \beta_{end}, N)_i, \quad
      \bar\alpha_i = \prod_{j \le i}(1 - \beta_j), \quad
      \alpha = \sqrt{\bar\alpha}, \quad \sigma = \sqrt{1-\bar\alpha}$$

    The step of index i = 0 … N-1 sits at t = (i+1)/N, so that t = 0 is exactly data; between two nodes
    $\log\bar\alpha$ is linear in t. Derivatives at a node are those of the interval below it.

    Args:
        beta_start: Variance added by the first step, in (0, 1).
        beta_end: Variance added by the last step, in [`beta_start`, 1).
        steps: Number of steps N.

    References:
        Ho, Jain, Abbeel, 2020, Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239,
        section 4.
    """

    beta_start: float = 1e-4
    beta_end: float = 2e-2
    steps: int = 1000

    def __post_init__(self) -> None:
        if not (0 < self.beta_start <= self.beta_end < 1 and self.steps >= 1):
            raise InputError(
                f"expected 0 < beta_start <= beta_end < 1 and steps >= 1; got beta_start={self.beta_start}, "
                f"beta_end={self.beta_end}, steps={self.steps}. The usual values are 1e-4, 2e-2 and 1000."
            )

    def time_of_index(self, index: Tensor | int) -> AnyTime:
        """Time (i+1)/N, float64, of the step of index `index` (0 … N-1; -1 is data, t = 0).

        Raises:
            InputError: an index lies outside -1 … N-1.
        """
        index = torch.as_tensor(index, dtype=torch.float64)
        if not bool(((index >= -1) & (index <= self.steps - 1)).all()):
            raise InputError(
                f"expected step indices in -1 (data) … {self.steps - 1}; got {index.tolist()}. Count from 0."
            )
        return (index + 1) / self.steps

    def model_time(self, t: AnyTime) -> AnyTime:
        """What a network of this schedule is given for time `t`: the fractional index N t - 1, float64.

        Raises:
            InputError: a time is not a number or lies outside [0, 1].
        """
        return self.steps * _checked(t) - 1

    def _nodes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        times, logs = _discrete_nodes(self.beta_start, self.beta_end, self.steps)
        return times.to(like.device), logs.to(like.device)

    def _log_mean(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The log of alpha-bar and its slope in time."""
        times, logs = self._nodes(t)
        upper = torch.searchsorted(times, t.detach().contiguous()).clamp(1, self.steps)
        width = times[upper] - times[upper - 1]
        slope = (logs[upper] - logs[upper - 1]) / width
        to_go = (times[upper] - t) / width
        return logs[upper] - to_go * (logs[upper] - logs[upper - 1]), slope

    def _coefficients(self, t: Tensor) -> Coefficients:
        return _preserving(*self._log_mean(t))

    def _log_snr(self, t: Tensor) -> Tensor:
        return -0.5 * torch.log(torch.expm1(-self._log_mean(t)[0]))

    def _time_of_log_snr(self, lam: Tensor) -> Tensor:
        times, logs = self._nodes(lam)
        decay = torch.logaddexp(torch.zeros_like(lam), -2 * lam).clamp(max=-logs[-1].item())
        upper = torch.searchsorted(-logs, decay.detach().contiguous()).clamp(1, self.steps)
        to_go = (logs[upper] + decay) / (logs[upper] - logs[upper - 1])
        return times[upper] - to_go * (times[upper] - times[upper - 1])


def _preserving(log_mean: Tensor, slope: Tensor) -> Coefficients:
    """Coefficients of a variance-preserving path from log(alpha^2) and its time derivative."""
    alpha, sigma = torch.exp(0.5 * log_mean), torch.sqrt(0.0 - torch.expm1(log_mean))
    return Coefficients(
        alpha=alpha, sigma=sigma, d_alpha=0.5 * slope * alpha, d_sigma=-0.5 * slope * alpha**2 / sigma
    )


@lru_cache(maxsize=8)
def _discrete_nodes(beta_start: float, beta_end: float, steps: int) -> tuple[Tensor, Tensor]:
    """Times 0, 1/N … 1 and log alpha-bar there, float64."""
    betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    logs = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
    return torch.arange(steps + 1, dtype=torch.float64) / steps, logs


@dataclass(frozen=True)
class ScaleTime:
    """The time on another path and the factor from its state to ours, float64, shaped like the time."""

    t: Tensor
    scale: Tensor


def same_log_snr(s: AnyTime, target: Path, source: Path) -> ScaleTime:
    r"""The time on `source` with the noise of `target` at time `s`, and the scale between their states.

    $$\bar x_s = c_s x_{t_s}, \qquad \lambda(t_s) = \bar\lambda(s), \qquad
      c_s = \bar\alpha_s/\alpha_{t_s} = \bar\sigma_s/\sigma_{t_s}$$

    So a denoiser D of `source` serves `target` as $\bar D(\bar x, s) = D(\bar x / c_s, t_s)$. Noise beyond
    the end of `source` is taken at its end.

    Args:
        s: Times on `target`, in [0, 1].

    References:
        Lipman et al., 2024, Flow Matching Guide and Code, https://arxiv.org/abs/2412.06264, section 4.9.
        Karras et al., 2022, https://arxiv.org/abs/2206.00364, appendix B.
    """
    t = source.time_of_log_snr(target.log_snr(s))
    ours, theirs = target.coefficients(s), source.coefficients(t)
    # The length of (alpha, sigma) keeps the ratio where one of the two vanishes.
    return ScaleTime(t, torch.hypot(ours.alpha, ours.sigma) / torch.hypot(theirs.alpha, theirs.sigma))


def expand(values: AnyTime, like: Tensor) -> Tensor:
    """`values`, one for all or one a row, shaped to multiply `like`, on its device, in float32 or finer.

    Args:
        values: Shape () or (batch,).
        like: Shape (batch, *event).

    Raises:
        InputError: the number of values is not that of rows.
    """
    if values.ndim > 1 or (values.ndim == 1 and values.shape[0] not in (1, like.shape[0])):
        raise InputError(
            f"expected one value, or one for each of the {like.shape[0]} rows; got shape "
            f"{tuple(values.shape)}. Give t the shape () or (batch,)."
        )
    values = values.to(like.device, torch.promote_types(like.dtype, torch.float32))
    return values.reshape(values.shape + (1,) * (like.ndim - 1)) if values.ndim else values


def add_noise(path: Path, x0: Batch, noise: Batch, t: AnyTime) -> Batch:
    r"""The noisy state $x_t = \alpha_t x_0 + \sigma_t \varepsilon$, in the dtype of `x0`.

    Args:
        x0: Data, (batch, *event).
        noise: Unit normal noise of the same shape.
        t: Times in [0, 1], shape () or (batch,).

    Raises:
        InputError: a time outside [0, 1], or not one a row.
    """
    c = path.coefficients(t)
    return (expand(c.alpha, x0) * x0 + expand(c.sigma, x0) * noise).to(x0.dtype)
