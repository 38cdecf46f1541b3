r"""How far off a denoiser is: r^2(kappa), the variance of x_0 about E[x_0 | x_t], one number a noise level.

A data step weighs the measurement against the denoiser's estimate. If x_0 given x_t is taken to be N(D, r^2 I), then
given also y = A x_0 + n, n ~ N(0, s^2 I), it is Gaussian with the mean

    argmin_z |A z - y|^2 / (2 s^2) + |z - D|^2 / (2 r^2),                                                       (prox)

and all that presets of the literature disagree about is r^2 as a function of kappa = sigma/alpha:

| spread | r^2 | who | exact for |
|---|---|---|---|
| `KappaSpread(c)` | c kappa^2 | DiffPIR (c = 1/lambda), FLAIR, relaxed prox | a flat prior: D = x_t/alpha |
| `UnitSpread(v)` | kappa^2 v / (kappa^2 + v) | Flower, PiGDM (v = 1) | data N(m, v I) |
| `MeasuredSpread` | mean squared error of D on held-out data | Radiata's samples | data with a round posterior |

`measured_spread` makes the last from a handful of images; it belongs beside the weights of a prior, and drives the
strength of the data step, the weights of FLAIR and the check whether an image looks like the training data.

References:
    Zhu et al., "Denoising diffusion models for plug-and-play image restoration" (DiffPIR), 2023,
        https://arxiv.org/abs/2305.08995, algorithm 1.
    Song et al., "Pseudoinverse-guided diffusion models for inverse problems", 2023,
        https://openreview.net/forum?id=9_gsMA8MRKQ, section 3 (r_t for data of unit variance).
    Pourya, El Rawas & Unser, "Flower", 2025, https://arxiv.org/abs/2509.26287, algorithm 1 (nu_t).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.paths import add_noise
from radiata_core.seeds import noise_of
from radiata_core.types import Batch, Times

__all__ = ["KappaSpread", "MeasuredSpread", "Spread", "UnitSpread", "measured_spread"]


class Spread(ABC):
    """Variance of the data about the denoiser's estimate."""

    @abstractmethod
    def variance(self, kappa: float) -> float:
        """r^2 at the noise level kappa = sigma/alpha in [0, inf], in squared units of the data, >= 0, may be inf."""


@dataclass(frozen=True)
class KappaSpread(Spread):
    """r^2 = scale kappa^2: the state divided by alpha, as far as the noise put it.

    Attributes:
        scale: > 0; DiffPIR's 1/lambda.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self.scale, "a scale of the spread", "1 takes the noise as it is")

    def variance(self, kappa: float) -> float:
        return self.scale * kappa**2


@dataclass(frozen=True)
class UnitSpread(Spread):
    """r^2 = kappa^2 v/(kappa^2 + v): the posterior variance of data N(m, v I).

    Attributes:
        data_variance: v > 0, in squared units of the data.
    """

    data_variance: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self.data_variance, "a variance of the data", "measure it on training images")

    def variance(self, kappa: float) -> float:
        if math.isinf(kappa):
            return self.data_variance
        return kappa**2 * self.data_variance / (kappa**2 + self.data_variance)


@dataclass(frozen=True)
class MeasuredSpread(Spread):
    """A table of r^2 over kappa, straight between its nodes in log-log, r^2 ~ kappa^2 below the first, flat above the last.

    Attributes:
        kappas: Noise levels, rising, > 0.
        mean_squared_errors: r^2 there, > 0.
    """

    kappas: tuple[float, ...]
    mean_squared_errors: tuple[float, ...]

    def __post_init__(self) -> None:
        levels, errors = np.asarray(self.kappas, float), np.asarray(self.mean_squared_errors, float)
        sound = len(levels) == len(errors) > 0 and np.isfinite(levels).all() and np.isfinite(errors).all()
        if not (sound and (levels > 0).all() and (errors > 0).all() and (np.diff(levels) > 0).all()):
            raise InputError(
                f"expected rising noise levels > 0 with an error > 0 each; got {len(levels)} levels and "
                f"{len(errors)} errors that are not. Use measured_spread."
            )

    def variance(self, kappa: float) -> float:
        first = self.kappas[0]
        if kappa < first:
            return self.mean_squared_errors[0] * (kappa / first) ** 2
        level = math.log(min(kappa, self.kappas[-1]))
        return math.exp(np.interp(level, np.log(self.kappas), np.log(self.mean_squared_errors)))


@torch.no_grad()
def measured_spread(
    denoiser: Denoiser, data: Batch, times: Times, generators: Sequence[torch.Generator], **conditions: Any
) -> MeasuredSpread:
    """The mean squared error of a denoiser on data it has not seen, at every time: one evaluation of all rows a time.

    Args:
        denoiser: E[x_0 | x_t].
        data: Held-out samples, (batch, *event); 8 images are enough, since the mean is over their elements too.
        times: Where to measure, in (0, 1), any order; those of the grid that will be walked, or a dozen even in log kappa.
        generators: One a row.
        conditions: Passed on to the denoiser.

    Raises:
        InputError: a time at which kappa is 0 or infinite, or not one generator a row.
    """
    if len(generators) != len(data):
        raise InputError(
            f"expected one generator a row, {len(data)} here; got {len(generators)}. Use generators_of(seeds)."
        )
    found = {}
    for t in times.to("cpu", torch.float64):
        kappa = math.exp(-float(denoiser.path.log_snr(t)))
        if not 0 < kappa < math.inf:
            raise InputError(
                f"expected times with signal and noise; got t={float(t):g}, where sigma/alpha is {kappa:g}. "
                "Leave out the ends."
            )
        noise = noise_of(generators, data.shape[1:], data.dtype, data.device)
        x0 = denoiser(add_noise(denoiser.path, data, noise, t), t, **conditions)
        found[kappa] = float((x0 - data).double().square().mean())
    levels = sorted(found)
    return MeasuredSpread(tuple(levels), tuple(found[level] for level in levels))


def _require_positive(value: float, what: str, advice: str) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"expected {what} > 0; got {value}. {advice[0].upper()}{advice[1:]}.")
