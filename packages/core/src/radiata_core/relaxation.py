r"""Relaxation: an estimate that follows the denoiser a part of the way, e <- e + w (D - e).

A denoiser at much noise says an average, at little noise it repeats the noise that it was given. An estimate that is kept
across the steps of a posterior sampler and relaxed averages over both: w = 1 is a sampler without memory, w = 1/2 averages
over two or three steps. FLAIR's gradient of a variational objective, e <- e - lambda (v - u), is a relaxation too, since at
fixed x_t the difference of the velocities is v - u = (e - D)/t: its weight is lambda/t.

References:
    Erbach et al., "Solving inverse problems with FLAIR", 2025, https://arxiv.org/abs/2506.02680 (calibrated weights).
    Mardani et al., "A variational perspective on solving inverse problems with diffusion models", 2024,
        https://arxiv.org/abs/2305.04391 (the gradient without the network's).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from radiata_core.errors import InputError
from radiata_core.posterior_spread import Spread

__all__ = ["CalibratedRelaxation", "ConstantRelaxation", "Relaxation"]


class Relaxation(ABC):
    """How far the estimate follows the denoiser at every step: e <- e + w (D - e), w in [0, 1]."""

    @abstractmethod
    def weights(self, kappas: Sequence[float]) -> list[float]:
        """w at every step of a walk over these noise levels, which may begin with infinity."""


@dataclass(frozen=True)
class ConstantRelaxation(Relaxation):
    """The same weight at every step but the first, which follows the denoiser.

    Attributes:
        weight: In (0, 1]; 1 forgets the last estimate.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise InputError(f"expected a weight in (0, 1]; got {self.weight}. 1 forgets the last estimate.")

    def weights(self, kappas: Sequence[float]) -> list[float]:
        return [1.0] + [self.weight] * (len(kappas) - 1)


@dataclass(frozen=True)
class CalibratedRelaxation(Relaxation):
    """FLAIR's: w = regularisation c(tau)/tau, at most 1, with tau = sigma/(alpha + sigma), the time of the straight path.

    c = 1/error(tau), divided by its mean over the walk, less its last value, error = r^2/tau^2 that of the velocity; where
    nothing was measured c = 1. The last weight is then 0.

    Attributes:
        regularisation: > 0.
        spread: r^2 of the denoiser; None: c = 1.

    Raises:
        InputError: all weights but the first would be 0.
    """

    regularisation: float = 0.5
    spread: Spread | None = None

    def weights(self, kappas: Sequence[float]) -> list[float]:
        times = [kappa / (1 + kappa) if math.isfinite(kappa) else 1.0 for kappa in kappas]
        trust = [1.0] * len(times)
        if self.spread is not None:
            errors = [
                self.spread.variance(kappa) / time**2 for kappa, time in zip(kappas, times, strict=True)
            ]
            inverse = [1 / (error + 1e-7) for error in errors]
            mean = sum(inverse) / len(inverse)
            trust = [max((value - inverse[-1]) / mean, 0.0) for value in inverse]
            if not any(trust[1:]):
                raise InputError(
                    "expected a denoiser whose velocity is known best between the ends of the walk; got the least error "
                    "at its last time. Leave the spread out, or end the grid at more noise."
                )
        return [min(self.regularisation * c / t, 1.0) for c, t in zip(trust, times, strict=True)]
