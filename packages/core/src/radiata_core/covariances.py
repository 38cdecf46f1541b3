r"""Covariances as spectra: one `apply(f, x)` is denoiser, score, flow and density.

Everything a Gaussian diffusion needs is a scalar function of the eigenvalues l of the data's covariance
Sigma = U diag(l) U^T:

    denoiser   f(l) = alpha l / (alpha^2 l + sigma^2)
    score      f(l) = 1 / (alpha^2 l + sigma^2)
    flow       f(l) = sqrt((alpha_s^2 l + sigma_s^2) / (alpha_t^2 l + sigma_t^2))

so a covariance only has to know how to apply U f(l) U^T to a batch and how to sum f over its spectrum. For volumes a
dense matrix is out of the question; `LowRank` keeps q eigenpairs and one floor l_0 for every other direction:

    U_D f(l) U_D^T x = f(l_0) x + U diag(f(l) - f(l_0)) U^T x,

and `fit_low_rank` estimates it from samples without ever forming a matrix larger than min(samples, elements)².

The function is called with float64 eigenvalues that carry a leading axis of size 1, and answers with that axis 1 or
`batch`: coefficients of a time a row are therefore reshaped to (batch, 1, ..., 1) by the caller.

References:
    Wang & Vastola, *Diffusion Models Generate Images Like Painters*, 2023, https://arxiv.org/abs/2303.02490, eq. 6.
    Ledoit & Wolf, *A well-conditioned estimator for large-dimensional covariance matrices*, 2004 (linear shrinkage).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.types import Batch, Event

__all__ = ["Covariance", "Dense", "Diagonal", "LowRank", "LowRankFit", "Spectral", "fit_low_rank"]

Spectral = Callable[[Tensor], Tensor]


class Covariance(ABC):
    """A symmetric positive semi-definite operator on events, known by its spectrum."""

    @abstractmethod
    def apply(self, function: Spectral, x: Batch) -> Batch:
        """U f(l) U^T x for every row of x, in the dtype of x."""

    @abstractmethod
    def total(self, function: Spectral) -> Tensor:
        """Sum of f over all eigenvalues with their multiplicity; shape (1,) or (batch,), float64."""


@dataclass(frozen=True, eq=False)
class Diagonal(Covariance):
    """Independent coordinates.

    Args:
        values: Variances, shape (*event), >= 0.
    """

    values: Event

    def __post_init__(self) -> None:
        _require_non_negative(self.values, "variances")

    def apply(self, function: Spectral, x: Batch) -> Batch:
        return function(self.values.to(x.device, torch.float64)[None]).to(x.dtype) * x

    def total(self, function: Spectral) -> Tensor:
        return function(self.values.double()[None]).flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class Dense(Covariance):
    """Any covariance of a small event, diagonalised once in float64.

    Args:
        matrix: Shape (D, D) with D the number of elements of an event, symmetric, eigenvalues >= 0.
    """

    matrix: Float[Tensor, "elements elements"]

    def __post_init__(self) -> None:
        scale = self.matrix.abs().max().clamp_min(1e-300)
        if not torch.isfinite(self.matrix).all() or (self.matrix - self.matrix.mT).abs().max() > 1e-5 * scale:
            raise InputError("expected a finite symmetric covariance; got another matrix. Use (M + M.T) / 2.")
        if self._spectrum[0].min() < -1e-6 * scale:
            raise InputError(
                f"expected a covariance with eigenvalues >= 0; got {self._spectrum[0].min():.3g}. "
                "Add a multiple of the identity."
            )

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.matrix.double())
        return values, vectors

    def apply(self, function: Spectral, x: Batch) -> Batch:
        values, vectors = (part.to(x.device) for part in self._spectrum)
        vectors = vectors.to(x.dtype)
        coordinates = x.flatten(1) @ vectors * function(values.clamp_min(0)[None]).to(x.dtype)
        return (coordinates @ vectors.mT).view_as(x)

    def total(self, function: Spectral) -> Tensor:
        return function(self._spectrum[0].clamp_min(0)[None]).sum(1)


@dataclass(frozen=True, eq=False)
class LowRank(Covariance):
    """q eigenpairs and one variance for all other directions: the covariance of a volume that fits in memory.

    Args:
        basis: Orthonormal eigenvectors, shape (rank, *event).
        eigenvalues: Variances along them, shape (rank,), >= 0, the floor included.
        floor: Variance in every other direction, >= 0.
    """

    basis: Float[Tensor, "rank *event"]
    eigenvalues: Float[Tensor, "rank"]
    floor: float

    def __post_init__(self) -> None:
        _require_non_negative(self.eigenvalues, "eigenvalues")
        if not (math.isfinite(self.floor) and self.floor >= 0):
            raise InputError(f"expected a floor >= 0; got {self.floor}. Give the variance outside the basis.")
        flat = self.basis.flatten(1)
        if flat.shape[0] > flat.shape[1]:
            raise InputError(
                f"expected at most {flat.shape[1]} directions; got {flat.shape[0]}. Lower the rank or use Dense."
            )
        error = (flat @ flat.mT - torch.eye(len(flat), dtype=flat.dtype, device=flat.device)).abs()
        if error.numel() and not error.max() < 1e-3:
            raise InputError(
                f"expected an orthonormal basis; got one that is off by {float(error.max()):.2g}. "
                "Orthonormalise it (torch.linalg.qr)."
            )

    def _functions(self, function: Spectral, device: torch.device) -> tuple[Tensor, Tensor]:
        floor = function(torch.full((1, 1), self.floor, dtype=torch.float64, device=device))
        return floor, function(self.eigenvalues.to(device, torch.float64)[None])

    def apply(self, function: Spectral, x: Batch) -> Batch:
        floor, values = self._functions(function, x.device)
        flat, basis = x.flatten(1), self.basis.flatten(1).to(x)
        correction = (flat @ basis.mT * (values - floor).to(x.dtype)) @ basis
        return torch.addcmul(correction, floor.to(x.dtype), flat).view_as(x)

    def total(self, function: Spectral) -> Tensor:
        floor, values = self._functions(function, self.eigenvalues.device)
        rest = self.basis.shape[1:].numel() - len(self.eigenvalues)
        return values.sum(1) + rest * floor[:, 0]


@dataclass(frozen=True, eq=False)
class LowRankFit:
    """Mean and covariance of a set of samples. mean: shape (*event); covariance: `LowRank`."""

    mean: Event
    covariance: LowRank


def fit_low_rank(data: Batch, rank: int, shrinkage: float = 0.0) -> LowRankFit:
    """Sample mean, the `rank` leading principal components and an isotropic floor.

    With centred data X (N × D) and the eigenvalues l_k of X^T X / (N - 1), the floor is the mean of the D - rank
    eigenvalues that are not kept, so the trace is that of the sample covariance. Shrinkage s in [0, 1] pulls every
    eigenvalue towards the mean one, l <- (1 - s) l + s tr / D, and keeps the trace.

    The decomposition is that of the N × N Gram matrix (D × D where that is smaller) in float64;
    memory beside the data is one centred copy and the basis.

    Args:
        data: Samples, shape (N, *event), N >= 2, finite.
        rank: Number of components kept, 0 <= rank <= min(N - 1, D). At rank = N - 1 < D nothing is left for the
            floor: then give some shrinkage.
        shrinkage: Linear shrinkage towards a multiple of the identity, in [0, 1].

    Raises:
        InputError: too few or non-finite samples, rank or shrinkage out of range.
    """
    samples, elements = len(data), data[0].numel() if len(data) else 0
    if samples < 2 or not 0 <= rank <= min(samples - 1, elements):
        raise InputError(
            f"expected at least 2 samples and a rank from 0 to min(samples - 1, elements); got {samples} samples of "
            f"{elements} elements and rank {rank}. Lower the rank."
        )
    if not 0 <= shrinkage <= 1:
        raise InputError(
            f"expected a shrinkage in [0, 1]; got {shrinkage}. Zero keeps the sample covariance."
        )
    mean = data.mean(0, dtype=torch.float64)
    if not torch.isfinite(mean).all():
        raise InputError("expected finite samples; got NaN or infinity. Drop the broken ones.")
    centred = (data - mean.to(data.dtype)).flatten(1)
    wide = elements >= samples  # the smaller of samples × samples and elements × elements is diagonalised
    size = samples if wide else elements
    gram = torch.zeros(size, size, dtype=torch.float64, device=data.device)
    for part in (centred if wide else centred.mT).split(max(1, 2**24 // size), dim=1):
        gram.addmm_(part.double(), part.double().mT)
    gram /= samples - 1
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0)[:rank], vectors.flip(1)[:, :rank].to(centred.dtype)
    trace = float(gram.trace())
    # Components of (almost) no variance cannot be normalised from the Gram matrix; QR completes them orthonormally.
    basis = torch.linalg.qr(centred.mT @ vectors if wide else vectors).Q.mT.contiguous()
    floor = max(trace - float(values.sum()), 0.0) / (elements - rank) if elements > rank else 0.0
    average = trace / elements
    shrunk = LowRank(
        basis.view(rank, *data.shape[1:]),
        (1 - shrinkage) * values + shrinkage * average,
        (1 - shrinkage) * floor + shrinkage * average,
    )
    return LowRankFit(mean.to(data.dtype), shrunk)


def _require_non_negative(values: Tensor, what: str) -> None:
    if not (torch.isfinite(values).all() and (values >= 0).all()):
        raise InputError(f"expected finite {what} >= 0; got others. Check the data or clamp them at 0.")
