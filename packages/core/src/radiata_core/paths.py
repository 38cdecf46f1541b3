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

What a path is, is in `coefficients`; the DDPM schedule in `discrete_path`; the change in `change_of_path`. All of it is
imported from here.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.change_of_path import ScaleTime, same_log_snr
from radiata_core.coefficients import AnyTime, Coefficients, Path, add_noise, expand, variance_preserving
from radiata_core.discrete_path import DiscreteVPPath
from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = [
    "AnyTime",
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
        return variance_preserving(-self._integral(t), -rate)

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
