r"""The posterior in closed form: linear measurements with Gaussian noise, and a prior that is Gaussian or a mixture.

With x ~ N(m, S) and y = A x + n, n ~ N(0, s^2 I),

    K = S A^T (A S A^T + s^2 I)^{-1},    E[x|y] = m + K (y - A m),    Cov[x|y] = S - K A S,

and a mixture sum_k w_k N(m_k, S_k) becomes a mixture with weights w_k N(y; A m_k, A S_k A^T + s^2 I). Small events only: A
is written out as a matrix. This is what posterior samplers are tested against, with the exact denoisers of `analytic`.

References:
    Bishop, "Pattern recognition and machine learning", 2006, eqs. 2.113 to 2.117.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator
from radiata_core.seeds import noise_of
from radiata_core.types import Batch, Event, Measurement

__all__ = [
    "GaussianPosterior",
    "MixturePosterior",
    "gaussian_posterior",
    "mixture_posterior",
    "operator_matrix",
]


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """Law of x given each row of a measurement: one mean a row, one covariance for all.

    Attributes:
        mean: (batch, *event), float64.
        covariance: (elements, elements), float64.
        log_evidence: log p(y), (batch,), in nats.
    """

    mean: Batch
    covariance: Float[Tensor, "elements elements"]
    log_evidence: Float[Tensor, "batch"]

    @cached_property
    def _root(self) -> Tensor:
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp_min(0).sqrt()

    def sample(self, generators: Sequence[torch.Generator]) -> Batch:
        """One exact draw a row, (batch, *event), float64."""
        flat = noise_of(generators, (len(self.covariance),), torch.float64)
        return self.mean + (flat @ self._root.mT).view_as(self.mean)


@dataclass(frozen=True, eq=False)
class MixturePosterior:
    """Law of x given each row of a measurement, a mixture.

    Attributes:
        weights: (batch, components), float64, rows sum to 1.
        components: The posterior of each component of the prior.
    """

    weights: Float[Tensor, "batch components"]
    components: tuple[GaussianPosterior, ...]

    @property
    def mean(self) -> Batch:
        """(batch, *event)."""
        means = torch.stack([part.mean for part in self.components], 1)
        return (means * _columns(self.weights, means)).sum(1)

    @property
    def covariance(self) -> Float[Tensor, "batch elements elements"]:
        """Within the components and between them, (batch, elements, elements)."""
        centre = self.mean
        total = centre.new_zeros(len(centre), centre[0].numel(), centre[0].numel())
        for share, part in zip(self.weights.unbind(1), self.components, strict=True):
            off = (part.mean - centre).flatten(1)
            total = total + share[:, None, None] * (part.covariance + off[:, :, None] * off[:, None, :])
        return total

    def responsibilities(self, x: Batch) -> Float[Tensor, "batch components"]:
        """Probability that a row of x, drawn from the posterior of its row, came from each component."""
        logs = []
        for share, part in zip(self.weights.unbind(1), self.components, strict=True):
            off = (x.double() - part.mean).flatten(1)
            logs.append(share.log() + _log_normal(off, part.covariance))
        return torch.stack(logs, 1).softmax(1)


def operator_matrix(operator: LinearOperator) -> Float[Tensor, "numbers elements"]:
    """A as a matrix, float64; a complex number of the measurement is two rows."""
    size = math.prod(operator.event_shape)
    eye = torch.eye(size, dtype=torch.float64).view(size, *operator.event_shape)
    return _numbers(operator(eye)).mT


def gaussian_posterior(
    mean: Event,
    covariance: Float[Tensor, "elements elements"],
    operator: LinearOperator,
    y: Measurement,
    noise_sd: float,
) -> GaussianPosterior:
    """The posterior of N(mean, covariance) given y = A x + noise.

    Args:
        mean: (*event).
        covariance: (elements, elements) over the flattened event, positive semi-definite.
        operator: A.
        y: (batch, *measurement).
        noise_sd: > 0, of every real number in y.

    Raises:
        InputError: the noise is not positive or shapes differ.
    """
    if not (math.isfinite(noise_sd) and noise_sd > 0):
        raise InputError(f"expected noise > 0; got {noise_sd}. Take a small one for a limit without noise.")
    size = math.prod(operator.event_shape)
    if tuple(mean.shape) != operator.event_shape or tuple(covariance.shape) != (size, size):
        raise InputError(
            f"expected a mean {operator.event_shape} and a covariance ({size}, {size}); got {tuple(mean.shape)} and "
            f"{tuple(covariance.shape)}. Flatten the event for the covariance."
        )
    a, prior, centre = operator_matrix(operator), covariance.double(), mean.double()
    off = _numbers(y.to(torch.complex128 if y.is_complex() else torch.float64)) - a @ centre.flatten()
    evidence = a @ prior @ a.mT + noise_sd**2 * torch.eye(len(a), dtype=torch.float64)
    gain = torch.linalg.solve(evidence, a @ prior).mT
    posterior = prior - gain @ a @ prior
    return GaussianPosterior(
        centre + (off @ gain.mT).view(len(y), *mean.shape),
        (posterior + posterior.mT) / 2,
        _log_normal(off, evidence),
    )


def mixture_posterior(
    weights: Float[Tensor, "components"],
    means: Float[Tensor, "components *event"],
    covariances: Sequence[Float[Tensor, "elements elements"]],
    operator: LinearOperator,
    y: Measurement,
    noise_sd: float,
) -> MixturePosterior:
    """The posterior of sum_k w_k N(m_k, S_k) given y = A x + noise; arguments as `gaussian_posterior`, one a component.

    Raises:
        InputError: as `gaussian_posterior`.
    """
    parts = [
        gaussian_posterior(mean, covariance, operator, y, noise_sd)
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    logs = torch.stack([part.log_evidence for part in parts], 1) + weights.double().log()
    return MixturePosterior(logs.softmax(1), tuple(parts))


def _numbers(y: Tensor) -> Tensor:
    """(batch, real numbers)."""
    return (torch.view_as_real(y) if y.is_complex() else y).flatten(1)


def _log_normal(off: Tensor, covariance: Tensor) -> Tensor:
    """log N(off; 0, covariance) of every row."""
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, off.mT, upper=False)
    log_determinant = 2 * root.diagonal().log().sum()
    return -0.5 * (white.square().sum(0) + log_determinant + off.shape[1] * math.log(2 * math.pi))


def _columns(weights: Tensor, like: Tensor) -> Tensor:
    return weights.reshape(*weights.shape, *(1,) * (like.ndim - 2))
