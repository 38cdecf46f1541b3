r"""Diffusions g(t): how random the process is that runs from noise to data, free to choose.

Any $g(t) \ge 0$ leaves the marginals of $dx = [u - \tfrac12 g^2\nabla\log p_t]\,dt + g\,dw$ (run with dt < 0) as
they are. What a step needs of it is $g(t)^2$ (Euler–Maruyama) or the decay of the noise over the step,

$$\tau = \int_s^t \frac{g(r)^2}{2\sigma_r^2}\,dr, \tag{1}$$

of which $e^{-\tau}$ is the share of the old noise that stays (`transitions.exact_transition`).

References:
    Albergo, Boffi & Vanden-Eijnden, 2023, https://arxiv.org/abs/2303.08797, section 2 (free diffusion).
    Kim et al., 2025, https://arxiv.org/abs/2503.19385 (g = 3 t² for search).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.paths import Path
from radiata_core.types import Times

__all__ = ["AncestralDiffusion", "Diffusion", "FunctionDiffusion", "PowerDiffusion", "require_rate"]

_NODES, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(48))


class Diffusion(ABC):
    """A diffusion g(t) >= 0: how much randomness the process has, free to choose."""

    @abstractmethod
    def squared(self, t: Times, path: Path) -> Times:
        """g(t)², float64, of the shape of t."""

    def decay(self, t: Times, s: Times, path: Path) -> Times:
        r"""$\tau = \int_s^t g^2/(2\sigma^2)\,dr$ for 0 < s < t, float64: by Gauss–Legendre in log r."""
        half = torch.log(t / s) / 2
        r = s[:, None] * torch.exp(half[:, None] * (_NODES + 1))
        rate = self.squared(r.flatten(), path).reshape(r.shape)
        require_rate(rate)
        return ((rate / (2 * path.coefficients(r).sigma.square()) * r) @ _WEIGHTS) * half


@dataclass(frozen=True)
class PowerDiffusion(Diffusion):
    """g(t) = scale · t^power. The default, 3 t², is the paper's; scale 0 is the deterministic flow.

    Args:
        scale: g at t = 1, >= 0.
        power: >= 0. With 1 or more the score, which grows like 1/sigma, is tamed near the data of a linear path.

    Raises:
        InputError: a negative or infinite number.
    """

    scale: float = 3.0
    power: float = 2.0

    def __post_init__(self) -> None:
        if not (0 <= self.scale < float("inf") and 0 <= self.power < float("inf")):
            raise InputError(
                f"expected scale >= 0 and power >= 0; got {self.scale} and {self.power}. The paper's are 3 and 2."
            )

    def squared(self, t: Times, path: Path) -> Times:
        """scale² t^(2 power)."""
        return self.scale**2 * t.to(torch.float64) ** (2 * self.power)


@dataclass(frozen=True)
class AncestralDiffusion(Diffusion):
    r"""$g^2 = -2\,\mathrm{share}\,\sigma^2\lambda'$: at share 1 the noise of the forward diffusion.

    The decay over a step is share times its length in log-SNR. With share 1 `exact_transition` is DDPM and
    SDE-DPM-Solver++ of order 1. Infinite where alpha = 0: the exact form then replaces all the noise, the Euler form
    refuses.

    Args:
        share: >= 0; 0 is DDIM.

    Raises:
        InputError: a negative or infinite share.
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.share < float("inf"):
            raise InputError(f"expected share >= 0; got {self.share}. 1 is ancestral, 0 deterministic.")

    def squared(self, t: Times, path: Path) -> Times:
        """2 share (sigma sigma' - sigma² alpha'/alpha)."""
        c = path.coefficients(t)
        return 2 * self.share * c.sigma * (c.d_sigma - c.sigma * c.d_alpha / c.alpha)

    def decay(self, t: Times, s: Times, path: Path) -> Times:
        """share times the step in log-SNR, without quadrature."""
        if self.share == 0:
            return torch.zeros_like(t)
        return self.share * (path.log_snr(s) - path.log_snr(t))


@dataclass(frozen=True)
class FunctionDiffusion(Diffusion):
    """Any g(t), given as a function of float64 times.

    Args:
        g: `(times) -> g`, of the same shape, finite and >= 0.
    """

    g: Callable[[Tensor], Tensor]

    def squared(self, t: Times, path: Path) -> Times:
        """g(t)²; a negative g becomes NaN, which is refused."""
        g = self.g(t.to(torch.float64)).to(torch.float64)
        return torch.where(g >= 0, g, torch.nan).square()


def require_rate(rate: Tensor) -> None:
    """Nothing, if g² is finite and >= 0 everywhere.

    Raises:
        InputError: it is not.
    """
    if not bool((rate.isfinite() & (rate >= 0)).all()):
        raise InputError(
            "expected a diffusion that is finite and >= 0 at every time of the grid; got another. "
            "Use PowerDiffusion, or exact_transition for the ancestral one."
        )
