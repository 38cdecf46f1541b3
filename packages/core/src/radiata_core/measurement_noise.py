r"""The noise of a measurement: Gaussian, Rician (magnitudes of MRI), Poisson (counts).

    Gaussian   y = a + sigma z                      complex a: sigma in the real and in the imaginary part
    Rician     y = |a + sigma (z_1 + i z_2)|        E y^2 = a^2 + 2 sigma^2: biased where the signal is weak
    Poisson    y = k / c,  k ~ Poisson(c a)         E y = a,  Var y = a / c

A noise is a frozen object: `noise(clean, generators)` draws, one generator a row, on the generator's device, so that a row
is the same alone and in any batch; `log_likelihood(y, clean)` is log p(y | a) of each row, differentiable in a. Samplers
and `LinearOperator.prox` assume Gaussian noise; `RicianNoise.debiased` brings magnitudes near to it.

References:
    Gudbjartsson & Patz, "The Rician distribution of noisy MRI data", 1995, https://doi.org/10.1002/mrm.1910340618,
        eq. 1 and section "correction".
    Rice, "Mathematical analysis of random noise", 1944, https://doi.org/10.1002/j.1538-7305.1944.tb00874.x.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.types import Batch, Measurement, Row

__all__ = ["GaussianNoise", "MeasurementNoise", "PoissonNoise", "RicianNoise"]


@runtime_checkable
class MeasurementNoise(Protocol):
    """A law of y given the measurement without noise."""

    def __call__(self, clean: Measurement, generators: Sequence[Generator]) -> Measurement:
        """A noisy measurement, (batch, *measurement); row i from generator i alone."""
        ...

    def log_likelihood(self, y: Measurement, clean: Measurement) -> Row:
        """log p(y | clean) of each row, (batch,)."""
        ...


@dataclass(frozen=True)
class GaussianNoise:
    """White noise, of the same standard deviation everywhere.

    Attributes:
        sigma: Standard deviation in units of the measurement, >= 0; of complex ones, of the real and of the imaginary part.

    Raises:
        InputError: sigma is negative.
    """

    sigma: float | int

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise InputError(f"expected sigma >= 0; got {self.sigma}. In units of the measurement.")

    def __call__(self, clean: Measurement, generators: Sequence[Generator]) -> Measurement:
        """clean + sigma z, (batch, *measurement).

        Raises:
            InputError: not one generator a row.
        """
        return clean + self.sigma * _normal(clean, generators)

    def log_likelihood(self, y: Measurement, clean: Measurement) -> Row:
        """log p(y | clean), (batch,).

        Raises:
            InputError: sigma is 0: there is no density.
        """
        _require_density(self.sigma)
        difference = y - clean
        if difference.is_complex():
            difference = torch.view_as_real(difference)
        scaled = (difference / self.sigma).flatten(1)
        return -0.5 * (scaled.square() + math.log(2 * math.pi * self.sigma**2)).sum(1)


@dataclass(frozen=True)
class RicianNoise:
    """The magnitude of complex Gaussian noise on a signal: what a magnitude image of MRI has.

    Attributes:
        sigma: Standard deviation of the real and of the imaginary part, >= 0.

    Raises:
        InputError: sigma is negative.
    """

    sigma: float | int

    def __post_init__(self) -> None:
        GaussianNoise(self.sigma)

    def __call__(self, clean: Measurement, generators: Sequence[Generator]) -> Batch:
        """|clean + sigma (z_1 + i z_2)|, real, (batch, *measurement); only |clean| matters.

        Raises:
            InputError: not one generator a row.
        """
        signal = clean.to(clean.dtype.to_complex())
        return (signal + self.sigma * _normal(signal, generators)).abs()

    def log_likelihood(self, y: Batch, clean: Batch) -> Row:
        r"""log p(y | a), (batch,): y/sigma^2 exp(-(y^2 + a^2)/2 sigma^2) I_0(y a/sigma^2).

        Args:
            y: Magnitudes, > 0.
            clean: a >= 0.

        Raises:
            InputError: sigma is 0, or a number is negative.
        """
        _require_density(self.sigma)
        if bool((y < 0).any()) or bool((clean < 0).any()):
            raise InputError("expected magnitudes >= 0; got negative numbers. Take their absolute values.")
        y, a = y / self.sigma, clean / self.sigma
        terms = (y / self.sigma).log() - (y - a).square() / 2 + torch.special.i0e(y * a).log()
        return terms.flatten(1).sum(1)

    def debiased(self, y: Batch) -> Batch:
        """sqrt(max(y^2 - sigma^2, 0)), (batch, *measurement): its mean is the signal, where that is above 2 sigma or so."""
        return (y.square() - self.sigma**2).clamp_min(0).sqrt()


@dataclass(frozen=True)
class PoissonNoise:
    """Counts, brought back to the units of the signal.

    Attributes:
        counts: c > 0, expected counts where the signal is 1; large counts are little noise.

    Raises:
        InputError: counts are not positive.
    """

    counts: float | int

    def __post_init__(self) -> None:
        if not 0 < self.counts < math.inf:
            raise InputError(
                f"expected counts > 0; got {self.counts}. Expected counts where the signal is 1."
            )

    def __call__(self, clean: Batch, generators: Sequence[Generator]) -> Batch:
        """Poisson(c clean) / c, (batch, *measurement).

        Raises:
            InputError: a signal is negative, or not one generator a row.
        """
        rates = (self.counts * self._checked(clean)).detach()
        _require_rows(clean, generators)
        rows = [
            torch.poisson(rate.to(generator.device, torch.float64), generator=generator)
            for rate, generator in zip(rates, generators, strict=True)
        ]
        drawn = torch.stack([row.to(clean.device) for row in rows]) if rows else clean
        return (drawn / self.counts).to(clean.dtype)

    def log_likelihood(self, y: Batch, clean: Batch) -> Row:
        """log p(k = c y | c clean), (batch,).

        Raises:
            InputError: a signal is negative.
        """
        rate, k = self.counts * self._checked(clean), self.counts * y
        return (torch.xlogy(k, rate) - rate - torch.lgamma(k + 1)).flatten(1).sum(1)

    def _checked(self, clean: Tensor) -> Tensor:
        if clean.is_complex() or bool((clean < 0).any()):
            raise InputError("expected a real signal >= 0; got another. Counts have no phase; clip at 0.")
        return clean


def _normal(like: Tensor, generators: Sequence[Generator]) -> Tensor:
    """Standard normal numbers like a tensor, row i from generator i; complex: each part has variance 1."""
    _require_rows(like, generators)
    dtype = torch.promote_types(like.dtype.to_real(), torch.float32)
    shape = (*like.shape[1:], 2) if like.is_complex() else tuple(like.shape[1:])
    rows = [torch.randn(shape, generator=g, dtype=dtype, device=g.device) for g in generators]
    if not rows:
        return torch.zeros_like(like)
    drawn = torch.stack([row.to(like.device) for row in rows])
    return (torch.view_as_complex(drawn) if like.is_complex() else drawn).to(like.dtype)


def _require_rows(like: Tensor, generators: Sequence[Generator]) -> None:
    if len(generators) != len(like):
        raise InputError(
            f"expected one generator a row, {len(like)}; got {len(generators)}. Use generators_of(seeds)."
        )


def _require_density(sigma: float | int) -> None:
    if sigma == 0:
        raise InputError("expected sigma > 0 for a likelihood; got 0. Without noise there is no density.")
