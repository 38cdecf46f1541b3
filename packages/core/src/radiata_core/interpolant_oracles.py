r"""An interpolant between two mixtures of Gaussians in closed form: the fields that a perfect network would learn.

With independent ends each pair (j, k) of components is jointly Gaussian, so given $x_t = x$ and the pair

$$C = a^2 S_j + b^2 S_k + \gamma^2 I, \quad r = C^{-1}(x - a\mu_j - b\mu_k), \qquad
  \eta_0 = \mu_j + a S_j r, \quad \eta_1 = \mu_k + b S_k r, \quad \eta_z = \gamma r, \quad s = -r,$$

and the mixture averages these with the pairs' responsibilities. Dense matrices: for some tens of dimensions.

References:
    Albergo, Boffi & Vanden-Eijnden, 2023, https://arxiv.org/abs/2303.08797, section 4.4 and appendix A.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.coefficients import expand
from radiata_core.errors import InputError
from radiata_core.interpolants import Interpolant
from radiata_core.types import Batch, Row, Time

__all__ = ["GaussianMixture", "MixtureBridge", "biased_bridge_kl"]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of Gaussians on R^n.

    Attributes:
        weights: Shape (components,), > 0; they are normalised.
        means: Shape (components, n).
        covariances: Shape (components, n, n).
    """

    weights: Float[Tensor, "components"]
    means: Float[Tensor, "components n"]
    covariances: Float[Tensor, "components n n"]

    def __post_init__(self) -> None:
        counts = (len(self.weights), len(self.means), len(self.covariances))
        if len(set(counts)) > 1 or not bool((self.weights > 0).all()):
            raise InputError(f"expected as many positive weights as means and covariances; got {counts}.")

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count n"]:
        """Draws, float64."""
        chosen = torch.multinomial(self.weights.double(), count, replacement=True, generator=generator)
        factors = torch.linalg.cholesky(self.covariances.double())
        z = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means.double()[chosen] + torch.einsum("bij,bj->bi", factors[chosen], z)


@dataclass(frozen=True, eq=False)
class MixtureBridge:
    """The exact bridge between two mixtures with independent ends; a `Bridge` for every sampler.

    Attributes:
        first: Law of x_0.
        second: Law of x_1, on the same R^n.
        interpolant: Between them.
    """

    first: GaussianMixture
    second: GaussianMixture
    interpolant: Interpolant

    def velocity(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """u(x, t) = a' eta_0 + b' eta_1 + gamma' eta_z, in a form that is finite where gamma' is not."""
        c = self.interpolant.coefficients(t)
        eta0, eta1, slope, _ = self._solved(x, t)
        # gamma' eta_z = gamma gamma' r, and gamma gamma' = (gamma^2)'/2 stays finite for a square root.
        product = _gamma_slope(self.interpolant, t)
        terms = ((c.d_a, eta0), (c.d_b, eta1), (product, slope))
        total = torch.zeros_like(x)
        for factor, value in terms:
            total = total + expand(factor, x).to(x) * value
        return total

    def eta(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[z | x_t = x] = gamma r."""
        c = self.interpolant.coefficients(t)
        return expand(c.gamma, x).to(x) * self._solved(x, t)[2]

    def score(self, x: Batch, t: Time) -> Batch:
        """Gradient of `log_density`."""
        return -self._solved(x, t)[2]

    def ends(self, x: Batch, t: Time) -> tuple[Batch, Batch]:
        """E[x_0 | x_t = x] and E[x_1 | x_t = x]."""
        return self._solved(x, t)[:2]

    def log_density(self, x: Batch, t: Time) -> Row:
        """log of the density of x_t at x, in nats, float64."""
        return self._solved(x, t)[3]

    def _solved(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """eta_0, eta_1, r averaged over the pairs, and log p."""
        c = self.interpolant.coefficients(t)
        a, b, g = (v.double().reshape(-1, 1, 1, 1, 1) for v in (c.a, c.b, c.gamma))
        m0, m1 = (m.means.double().to(x.device) for m in (self.first, self.second))
        s0, s1 = (m.covariances.double().to(x.device) for m in (self.first, self.second))
        n = x.shape[1]
        eye = torch.eye(n, dtype=torch.float64, device=x.device)
        covariance = a**2 * s0[:, None] + b**2 * s1 + g**2 * eye  # (rows, j, k, n, n)
        centre = a[..., 0] * m0[:, None] + b[..., 0] * m1
        factor = torch.linalg.cholesky(covariance)
        residual = x.double()[:, None, None] - centre
        inverse = torch.cholesky_inverse(factor)
        if len(inverse) == 1:  # one time for all rows: one inverse a pair
            r = torch.einsum("jkab,rjkb->rjka", inverse[0], residual)
        else:
            r = torch.einsum("rjkab,rjkb->rjka", inverse, residual)
        log_weights = _log_weights(self.first)[:, None] + _log_weights(self.second)
        log_p = (
            log_weights.to(x.device)
            - 0.5 * (residual * r).sum(-1)
            - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            - 0.5 * n * math.log(2 * math.pi)
        )
        share = log_p.flatten(1).softmax(1).view_as(log_p)[..., None]
        eta0 = m0[:, None] + a[..., 0] * torch.einsum("jab,rjkb->rjka", s0, r)
        eta1 = m1 + b[..., 0] * torch.einsum("kab,rjkb->rjka", s1, r)
        averaged = [(share * value).sum((1, 2)).to(x) for value in (eta0, eta1, r)]
        return averaged[0], averaged[1], averaged[2], log_p.flatten(1).logsumexp(1)


def _log_weights(mixture: GaussianMixture) -> Tensor:
    return (mixture.weights.double() / mixture.weights.double().sum()).log()


def _gamma_slope(interpolant: Interpolant, t: Tensor) -> Tensor:
    """gamma gamma', finite for every gamma of `interpolants`."""
    from radiata_core.interpolants import SquareRootGamma

    if isinstance(interpolant.gamma, SquareRootGamma):
        return interpolant.gamma.scale * (1 - 2 * t.double()) / 2
    c = interpolant.coefficients(t)
    return c.gamma * c.d_gamma


def biased_bridge_kl(error: float, epsilon: float) -> float:
    r"""KL of the diffusion of a bridge from N(0, 1) to itself whose forward drift is off by a constant, in nats.

    With $\gamma^2 = 2t(1-t)$ on the linear schedule the law is N(0, 1) at every time, so u = 0 and s = -x. The biased
    drift $-\epsilon x + \delta$ ends at mean $\delta(1 - e^{-\epsilon})/\epsilon$ and
    $KL = \delta^2(1-e^{-\epsilon})^2/2\epsilon^2$.

    Args:
        error: delta.
        epsilon: Diffusion coefficient, > 0.
    """
    return error**2 * (1 - math.exp(-epsilon)) ** 2 / (2 * epsilon**2)
