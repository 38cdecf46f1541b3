r"""Denoisers in closed form: Gaussian, mixture of Gaussians, and the data set itself.

If the data are known, so is the best denoiser. With x_t = alpha x_0 + sigma eps and x_0 ~ N(mu, Sigma),

    E[x_0 | x_t] = mu + alpha Sigma (alpha^2 Sigma + sigma^2 I)^{-1} (x_t - alpha mu)
    score        = -(alpha^2 Sigma + sigma^2 I)^{-1} (x_t - alpha mu)
    flow t -> s  = alpha_s mu + sqrt((alpha_s^2 Sigma + sigma_s^2) / (alpha_t^2 Sigma + sigma_t^2)) (x_t - alpha_t mu).

A mixture weighs its components by their responsibilities; the empirical denoiser is a mixture of points, i.e. what a
network that memorised its training set would say. All are finite at alpha = 0 (they answer E[x_0]) and at sigma = 0.

They are part of the product, not only of the tests: `wiener_denoiser` is the best *linear* denoiser of a data set and
the baseline a trained network must beat; `gaussian_flow` jumps through the noisiest part of a trajectory, where the
score of any data is that of a Gaussian.

References:
    Wang & Vastola, *Diffusion Models Generate Images Like Painters*, 2023, https://arxiv.org/abs/2303.02490, eqs. 5–6.
    Wang & Vastola, *The Unreasonable Effectiveness of Gaussian Score Approximation*, 2024,
    https://arxiv.org/abs/2412.09726 (teleportation).
    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, 2022,
    https://arxiv.org/abs/2206.00364, eq. 57 (denoiser of a finite set).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.covariances import Covariance, fit_low_rank
from radiata_core.errors import InputError
from radiata_core.paths import Path
from radiata_core.types import Batch, Event, Row, Time

__all__ = ["EmpiricalDenoiser", "GaussianDenoiser", "MixtureDenoiser", "gaussian_flow", "wiener_denoiser"]

_TINY = 1e-60  # variance that stands for zero: 0 / _TINY = 0, and its square root is still a float64
_CHUNK = 2**22  # elements of the data set that are widened to float64 at a time: 32 MiB


@dataclass(frozen=True, eq=False)
class GaussianDenoiser:
    """E[x_0 | x_t] of Gaussian data. With a `LowRank` covariance it is the Wiener filter of a data set of volumes.

    Args:
        mean: Shape (*event).
        covariance: Of the data, on the same events.
        path: alpha and sigma of t.
    """

    mean: Event
    covariance: Covariance
    path: Path

    def __call__(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """Posterior mean mu + alpha Sigma (alpha^2 Sigma + sigma^2)^{-1} (x - alpha mu); conditions are ignored."""
        alpha, sigma = _alpha_sigma(self.path, t, x)

        def wiener(value: Tensor) -> Tensor:
            a, s = _over(alpha, value), _over(sigma, value)
            return a * value / (a.square() * value + s.square()).clamp_min(_TINY)

        mean = self.mean.to(x)
        return mean + self.covariance.apply(wiener, x - _over(alpha, x).to(x.dtype) * mean)

    def score(self, x: Batch, t: Time) -> Batch:
        """Gradient of `log_density`, shape of x. Infinite at t = 0 along directions in which the data do not vary."""
        alpha, sigma = _alpha_sigma(self.path, t, x)
        residual = x - _over(alpha, x).to(x.dtype) * self.mean.to(x)
        return -self.covariance.apply(lambda value: 1 / _variance(alpha, sigma, value), residual)

    def log_density(self, x: Batch, t: Time) -> Row:
        """log p_t(x) in nats, shape (batch,), float64."""
        return _gaussian_log_density(x, self.mean, self.covariance, *_alpha_sigma(self.path, t, x))


@dataclass(frozen=True, eq=False)
class MixtureDenoiser:
    """E[x_0 | x_t] of a mixture of Gaussians: sum_k r_k(x_t) E_k[x_0 | x_t] with responsibilities r_k.

    Args:
        weights: Shape (components,), > 0; they are normalised.
        means: Shape (components, *event).
        covariances: One a component.
        path: alpha and sigma of t.

    Raises:
        InputError: numbers of weights, means and covariances differ, or a weight is not positive.
    """

    weights: Float[Tensor, "components"]
    means: Float[Tensor, "components *event"]
    covariances: Sequence[Covariance]
    path: Path

    def __post_init__(self) -> None:
        counts = (len(self.weights), len(self.means), len(self.covariances))
        if len(set(counts)) > 1 or not counts[0] or not (self.weights > 0).all():
            raise InputError(
                "expected as many positive weights as means and covariances; got "
                f"{counts[0]}, {counts[1]} and {counts[2]}. Drop empty components."
            )

    def __call__(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """Posterior mean, shape of x; conditions are ignored."""
        return self._average(x, t, lambda component: component(x, t))

    def score(self, x: Batch, t: Time) -> Batch:
        """Gradient of `log_density`, shape of x."""
        return self._average(x, t, lambda component: component.score(x, t))

    def log_density(self, x: Batch, t: Time) -> Row:
        """log p_t(x) in nats, shape (batch,), float64."""
        return self._log_joint(x, t).logsumexp(1)

    def responsibilities(self, x: Batch, t: Time) -> Float[Tensor, "batch components"]:
        """Probability that a row came from a component, float64, rows sum to 1."""
        return self._log_joint(x, t).softmax(1)

    @property
    def _components(self) -> list[GaussianDenoiser]:
        pairs = zip(self.means, self.covariances, strict=True)
        return [GaussianDenoiser(mean, covariance, self.path) for mean, covariance in pairs]

    def _log_joint(self, x: Tensor, t: Tensor) -> Tensor:
        log_weights = (self.weights.double() / self.weights.double().sum()).log().to(x.device)
        return torch.stack([part.log_density(x, t) for part in self._components], 1) + log_weights

    def _average(self, x: Tensor, t: Tensor, value: Callable[[GaussianDenoiser], Tensor]) -> Tensor:
        shares = self.responsibilities(x, t).to(x.dtype)
        average = torch.zeros_like(x)
        for share, part in zip(shares.unbind(1), self._components, strict=True):
            average = average + _over(share, x) * value(part)
        return average


@dataclass(frozen=True, eq=False)
class EmpiricalDenoiser:
    """E[x_0 | x_t] of the data set itself, each sample smoothed by an isotropic Gaussian.

    A softmax over -|x - alpha y_i|^2 / (2 v), v = sigma^2 + alpha^2 bandwidth^2. Distances are float64; the data set
    is walked in chunks.

    Args:
        data: Samples, shape (samples, *event).
        path: alpha and sigma of t.
        bandwidth: Standard deviation of the smoothing in units of the data, >= 0. Zero: a memorising network.
    """

    data: Float[Tensor, "samples *event"]
    path: Path
    bandwidth: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.data) or not (math.isfinite(self.bandwidth) and self.bandwidth >= 0):
            raise InputError(
                f"expected at least one sample and a bandwidth >= 0; got {len(self.data)} samples and {self.bandwidth}."
                " Check the data set."
            )

    def __call__(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """Posterior mean, shape of x; at sigma = bandwidth = 0 the nearest sample. Conditions are ignored."""
        alpha, sigma = _alpha_sigma(self.path, t, x)
        average = self._weighted_average(x, alpha, sigma)
        variance = _variance(alpha, sigma, self._spread(alpha)).clamp_min(_TINY)
        gain = (alpha * self.bandwidth**2 / variance).to(x.dtype)
        return average + _over(gain, x) * (x - _over(alpha, x).to(x.dtype) * average)

    def score(self, x: Batch, t: Time) -> Batch:
        """Gradient of `log_density`, shape of x; sigma or bandwidth must be positive."""
        alpha, sigma = _alpha_sigma(self.path, t, x)
        pull = _over(alpha, x).to(x.dtype) * self._weighted_average(x, alpha, sigma) - x
        return pull / _over(_variance(alpha, sigma, self._spread(alpha)), x).to(x.dtype)

    def log_density(self, x: Batch, t: Time) -> Row:
        """log p_t(x) in nats, shape (batch,), float64; sigma or bandwidth must be positive."""
        alpha, sigma = _alpha_sigma(self.path, t, x)
        variance = _variance(alpha, sigma, self._spread(alpha))
        constant = math.log(len(self.data)) + 0.5 * x[0].numel() * (2 * math.pi * variance).log()
        return self._logits(x, alpha, sigma).logsumexp(1) - constant

    def weights(self, x: Batch, t: Time) -> Float[Tensor, "batch samples"]:
        """Posterior probability of every sample, float64, rows sum to 1."""
        return self._logits(x, *_alpha_sigma(self.path, t, x)).softmax(1)

    def _spread(self, alpha: Tensor) -> Tensor:
        return torch.full_like(alpha, self.bandwidth**2)

    def _chunks(self) -> Sequence[Tensor]:
        return self.data.flatten(1).split(max(1, _CHUNK // max(1, self.data[0].numel())))

    def _logits(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        flat, a = x.flatten(1).double(), alpha.reshape(-1, 1)
        parts = []
        for chunk in self._chunks():
            y = chunk.to(x.device, torch.float64)
            cross = flat @ y.mT
            parts.append(flat.square().sum(1, keepdim=True) - 2 * a * cross + a.square() * y.square().sum(1))
        squared = torch.cat(parts, 1).clamp_min(0)
        return -0.5 * squared / _variance(alpha, sigma, self._spread(alpha)).clamp_min(_TINY).reshape(-1, 1)

    def _weighted_average(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        shares = self._logits(x, alpha, sigma).softmax(1)
        average = torch.zeros(x.shape[0], x[0].numel(), dtype=torch.float64, device=x.device)
        first = 0
        for chunk in self._chunks():
            average = average + shares[:, first : first + len(chunk)] @ chunk.to(x.device, torch.float64)
            first += len(chunk)
        return average.to(x.dtype).view_as(x)


def gaussian_flow(
    x: Batch, t_from: Time, t_to: Time, mean: Event, covariance: Covariance, path: Path
) -> Batch:
    """Solution at t_to of the probability-flow ODE of Gaussian data that passes through x at t_from.

    alpha_s mu + sqrt((alpha_s^2 Sigma + sigma_s^2) / (alpha_t^2 Sigma + sigma_t^2)) (x - alpha_t mu), t -> s.

    Args:
        x: State, shape (batch, *event).
        t_from: Its time, () or (batch,). From t = 0 only where the data vary (sigma = 0 elsewhere has no past).
        t_to: Time asked for, () or (batch,); either direction.
        mean: Of the data, shape (*event).
        covariance: Of the data.
        path: alpha and sigma of t.

    References:
        Wang & Vastola 2023, https://arxiv.org/abs/2303.02490, eq. 6.
    """
    alpha_t, sigma_t = _alpha_sigma(path, t_from, x)
    alpha_s, sigma_s = _alpha_sigma(path, t_to, x)

    def growth(value: Tensor) -> Tensor:
        return (
            _variance(alpha_s, sigma_s, value) / _variance(alpha_t, sigma_t, value).clamp_min(_TINY)
        ).sqrt()

    centre = mean.to(x)
    residual = covariance.apply(growth, x - _over(alpha_t, x).to(x.dtype) * centre)
    return _over(alpha_s, x).to(x.dtype) * centre + residual


def wiener_denoiser(data: Batch, path: Path, rank: int, shrinkage: float = 0.0) -> GaussianDenoiser:
    """The best linear (affine) denoiser of a data set: a Gaussian fitted by `fit_low_rank`.

    Among all denoisers that are affine in x_t it has the least mean squared error for data of this mean and
    covariance, whatever their distribution; a network has learnt something beyond second moments where it beats it.

    Args:
        data: Training samples, shape (N, *event).
        path: alpha and sigma of t.
        rank: Principal components kept.
        shrinkage: Linear shrinkage, in [0, 1]; choose both on validation data.

    Raises:
        InputError: as `fit_low_rank`.
    """
    fit = fit_low_rank(data, rank, shrinkage)
    return GaussianDenoiser(fit.mean, fit.covariance, path)


def _alpha_sigma(path: Path, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    coefficients = path.coefficients(t)  # where t lives: a time on the CPU costs an accelerator no wait
    return coefficients.alpha.to(x.device), coefficients.sigma.to(x.device)


def _over(values: Tensor, like: Tensor) -> Tensor:
    """() or (batch,) as (1, ..., 1) or (batch, 1, ..., 1), to multiply with (any, ...)."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _variance(alpha: Tensor, sigma: Tensor, value: Tensor) -> Tensor:
    return _over(alpha, value).square() * value + _over(sigma, value).square()


def _gaussian_log_density(
    x: Tensor, mean: Tensor, covariance: Covariance, alpha: Tensor, sigma: Tensor
) -> Tensor:
    residual = x.double() - _over(alpha, x) * mean.to(x.device, torch.float64)
    whitened = covariance.apply(lambda value: 1 / _variance(alpha, sigma, value), residual)
    device = alpha.device
    log_determinant = covariance.total(
        lambda value: _variance(alpha.to(value.device), sigma.to(value.device), value).log()
    ).to(device)
    quadratic = (residual * whitened).flatten(1).sum(1)
    return -0.5 * (quadratic + log_determinant + x[0].numel() * math.log(2 * math.pi))
