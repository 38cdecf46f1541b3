r"""Renoising: from an estimate of x_0 at one time to a state at the next.

With the corrected estimate e, D the denoiser's own, and q the share of fresh noise in the variance,

    x_s = alpha_s e + sigma_s (sqrt(1 - q) n + sqrt(q) z),      n = (x_t - alpha e)/sigma  or  (x_t - alpha D)/sigma,

is every rule of the literature but DDRM's: keep the old noise, deal out fresh one, or mix them.

| share q | n from | who |
|---|---|---|
| 0 | D | FlowChef, the ODE (DDIM) |
| eta^2 | D | DDNM, DDS (eta = 0.85) |
| zeta | e | DiffPIR |
| 1 | | Flower, PnP-Flow, the relaxed prox |
| eta^2 (1 - kappa_s^2/kappa^2) | e or D | ancestral sampling (DPS, PiGDM, MMPS) |
| 1 - (alpha_s/(alpha_s + sigma_s))^2 | D | FLAIR, "deterministic trajectory adjustment" |

`SpectralRenoising` is DDRM, whose noise differs by singular value.

References:
    Song, Meng & Ermon, "Denoising diffusion implicit models", 2021, https://arxiv.org/abs/2010.02502, eqs. 12 and 16.
    Zhu et al., DiffPIR, 2023, https://arxiv.org/abs/2305.08995, algorithm 1.
    Kawar et al., "Denoising diffusion restoration models", 2022, https://arxiv.org/abs/2201.11793, eqs. 7 and 8.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.data_steps import Correction, Moment, Problem, seen
from radiata_core.errors import InputError
from radiata_core.operators import SpectralOperator

__all__ = [
    "AncestralShare",
    "FixedShare",
    "MixedNoise",
    "PathShare",
    "Renoising",
    "Share",
    "SpectralRenoising",
]


class Share(ABC):
    """Share of fresh noise in the variance of the next state, in [0, 1]."""

    @abstractmethod
    def __call__(self, kappa: float, kappa_next: float) -> float:
        """The share for a step from one noise level, which may be infinite, to the next."""


@dataclass(frozen=True)
class FixedShare(Share):
    """The same at every step.

    Attributes:
        value: In [0, 1]; 0 keeps the noise, 1 deals out fresh one.
    """

    value: float

    def __post_init__(self) -> None:
        _require_share(self.value)

    def __call__(self, kappa: float, kappa_next: float) -> float:
        return self.value


@dataclass(frozen=True)
class AncestralShare(Share):
    """eta^2 (1 - kappa_s^2/kappa^2): the noise that the reverse diffusion adds in that time.

    Attributes:
        eta: In [0, 1]; 1 is DDPM, 0 the ODE.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.eta)

    def __call__(self, kappa: float, kappa_next: float) -> float:
        return self.eta**2 * (1 - (kappa_next / kappa) ** 2)


@dataclass(frozen=True)
class PathShare(Share):
    """1 - a^2 with a = alpha_s/(alpha_s + sigma_s), which on the linear path is 1 - s: FLAIR's."""

    def __call__(self, kappa: float, kappa_next: float) -> float:
        return 1 - 1 / (1 + kappa_next) ** 2


class Renoising(ABC):
    """How the next state is made."""

    fresh_only: bool = False
    """Whether the next state depends on the estimate alone, so that several may be drawn from it."""

    @abstractmethod
    def fresh(self, kappa: float, kappa_next: float, sigma_next: float) -> float:
        """Standard deviation of the noise that the step adds to the state."""

    @abstractmethod
    def __call__(self, moment: Moment, correction: Correction) -> Tensor:
        """The next state, without the shift of the correction."""

    def start(
        self, problem: Problem, guess: Tensor | None, like: Tensor, alpha: float, sigma: float
    ) -> Tensor:
        """The first state, from standard normal noise `like`: sigma z, about alpha times a first guess if there is one."""
        return sigma * like if guess is None else alpha * guess + sigma * like


@dataclass(frozen=True)
class MixedNoise(Renoising):
    """alpha_s e + sigma_s (sqrt(1 - q) n + sqrt(q) z).

    Attributes:
        share: q.
        corrected: Whether n is what the corrected estimate leaves of the state (else what the denoiser leaves).
    """

    share: Share
    corrected: bool = False

    @property
    def fresh_only(self) -> bool:  # type: ignore[override]
        """Whether all of the noise is fresh."""
        return self.share == FixedShare(1.0)

    def fresh(self, kappa: float, kappa_next: float, sigma_next: float) -> float:
        return sigma_next * self.share(kappa, kappa_next) ** 0.5

    def __call__(self, moment: Moment, correction: Correction) -> Tensor:
        x = moment.alpha_next * correction.estimate
        if moment.sigma_next == 0:
            return x
        kept = math.sqrt(max(moment.sigma_next**2 - moment.fresh**2, 0.0))
        if kept:
            clean = correction.estimate if self.corrected else moment.denoised.detach()
            x = x + kept / moment.sigma * (moment.x.detach() - moment.alpha * clean)
        if not moment.fresh:
            return x
        noise = moment.draw(x)
        return x + (moment.fresh * noise if correction.added is None else correction.added(noise))


@dataclass(frozen=True)
class SpectralRenoising(Renoising):
    """DDRM's: x_s/alpha_s along every right singular vector of A, whose singular value is c, with s the noise of y,

        c = 0:           D + sqrt(1 - eta^2) kappa_s n + eta kappa_s z
        kappa_s < s/c:   D + sqrt(1 - eta^2) kappa_s (A^+ y - D) c/s + eta kappa_s z
        kappa_s >= s/c:  (1 - eta_b) D + eta_b A^+ y + sqrt(kappa_s^2 - eta_b^2 s^2/c^2) z.

    Only for operators whose singular vectors are known. The last state is D.

    Attributes:
        eta: In [0, 1].
        eta_b: In [0, 1].

    Raises:
        InputError: another operator.

    References:
        Kawar et al. 2022, https://arxiv.org/abs/2201.11793, eqs. 7 and 8; eta = 0.85 and eta_b = 1 as there.
    """

    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.eta)
        _require_share(self.eta_b)

    def fresh(self, kappa: float, kappa_next: float, sigma_next: float) -> float:
        return self.eta * sigma_next

    def start(
        self, problem: Problem, guess: Tensor | None, like: Tensor, alpha: float, sigma: float
    ) -> Tensor:
        if alpha == 0:
            return sigma * like
        operator, kappa, s = _spectral(problem), sigma / alpha, problem.noise_sd
        known = operator.pseudo_inverse(problem.y)
        centre = operator.spectral(lambda c2: self._measured(c2, kappa, s, operator).to(c2), known)

        def spread(c2: Tensor) -> Tensor:
            inside = self._measured(c2, kappa, s, operator)
            left = (kappa**2 - s**2 / torch.where(inside, c2, 1.0)).sqrt()
            return torch.where(
                inside, left, torch.full_like(c2, kappa)
            )  # a bare number would be rounded to float32

        return alpha * (centre + operator.spectral(spread, like))

    def __call__(self, moment: Moment, correction: Correction) -> Tensor:
        x0 = correction.estimate
        if moment.sigma_next == 0:
            return moment.alpha_next * x0
        operator, s = _spectral(moment.given), moment.given.noise_sd
        kappa = moment.sigma_next / moment.alpha_next
        kept = math.sqrt(1 - self.eta**2) * kappa

        def of_known(c2: Tensor) -> Tensor:
            faint = kept * c2.sqrt() / s if s else 0.0 * c2
            faint = torch.where(seen(c2, operator), faint, 0.0)
            return torch.where(self._measured(c2, kappa, s, operator), torch.full_like(c2, self.eta_b), faint)

        def of_noise(c2: Tensor) -> Tensor:
            inside = self._measured(c2, kappa, s, operator)
            left = (kappa**2 - (self.eta_b * s) ** 2 / torch.where(inside, c2, 1.0)).clamp_min(0).sqrt()
            return torch.where(inside, left, torch.full_like(c2, self.eta * kappa))

        known = operator.pseudo_inverse(moment.given.y) - x0
        old = (moment.x - moment.alpha * x0) / moment.sigma
        x = x0 + operator.spectral(of_known, known) + operator.spectral(of_noise, moment.draw(x0))
        unseen = operator.spectral(lambda c2: kept * (~seen(c2, operator)).to(c2), old)
        return moment.alpha_next * (x + unseen)

    @staticmethod
    def _measured(c2: Tensor, kappa: float, s: float, operator: SpectralOperator) -> Tensor:
        return seen(c2, operator) & (c2 * kappa**2 >= s**2)


def _spectral(problem: Problem) -> SpectralOperator:
    operator = problem.operator
    if not isinstance(operator, SpectralOperator):
        raise InputError(
            f"expected an operator whose singular vectors are known, for DDRM; got {operator}. "
            "Use another method, flower() say."
        )
    return operator


def _require_share(value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"expected a share or a weight in [0, 1]; got {value}. 1 forgets, 0 keeps.")
