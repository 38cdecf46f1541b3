r"""Gauge freedom: fields that may be added to a score without any sample noticing.

The flow $\dot x = f x - \tfrac12 g^2 s_t$ moves the density $p_t$, and only the divergence of $p_t s_t$ matters for that. So
$s = \nabla\log p_t + r_t$ has exactly the same marginals as the score, in the ODE and in every SDE of the family, if

$$\nabla\cdot(p_t r_t) = 0 \quad\Longleftrightarrow\quad \nabla\cdot r_t + r_t\cdot\nabla\log p_t = 0
  \qquad\text{(the gauge condition)}.$$

Single trajectories do change: a gauge part costs steps, not bias. Hence curl alone (`conservativity`) does not say that a
network samples badly, and no curl does not say that it samples well. Where the score is known, two things follow:

*Exact test objects.* For any antisymmetric A and any function h, $p_t r = A\nabla(p_t h)$ has no divergence, so

$$r = h\,A\nabla\log p_t + A\nabla h$$

is a gauge field; with h = 1 it is a turned score and even $\nabla\cdot r = 0$ and $r\cdot\nabla\log p_t = 0$ hold by
themselves. `GaugeField` is this field and `GaugedDenoiser` adds it to a denoiser, $D \mathrel{+}= \sigma^2 r/\alpha$.

*A measurement.* `gauge_residual` evaluates the condition for r = (any field) - (reference score). Its mean under p_t is 0
for every r (integrate by parts), so it is the absolute values that are averaged.

In $L^2(p_t)$ gauge fields are orthogonal to gradients, $E|\nabla\phi + r|^2 = E|\nabla\phi|^2 + E|r|^2$, which is why
regression pushes a network towards no gauge part at all.

References:
    Horvat & Pfister, "On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models", 2024,
        https://arxiv.org/abs/2402.03845 (gauge condition, decomposition).
    Vuong et al., 2025, https://arxiv.org/abs/2509.00336 (curl need not harm transport).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.jacobians import Divergence, ExactDivergence, Field, inner
from radiata_core.kernels import GaussianKernel
from radiata_core.paths import Path, expand
from radiata_core.types import Batch, Row, Time

__all__ = [
    "GaugeField",
    "GaugeResidual",
    "GaugedDenoiser",
    "KnownScore",
    "SkewMatrix",
    "gauge_residual",
    "quarter_turn",
]


@runtime_checkable
class KnownScore(Protocol):
    """A law whose score is known at every time: the denoisers of `analytic`."""

    path: Path

    def score(self, x: Batch, t: Time) -> Batch:
        """Gradient of log p_t, shape of x."""
        ...


def quarter_turn(x: Batch) -> Batch:
    """A x for the antisymmetric A that turns elements (0, 1), (2, 3), ... of the flattened event by 90 degrees.

    A^2 = -1 but for the last element of an odd number, which becomes 0. Of any size, so it serves volumes too.
    """
    flat = x.flatten(1)
    pairs = flat[:, : flat.shape[1] // 2 * 2].unflatten(1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(1)
    return torch.cat([turned, torch.zeros_like(flat[:, turned.shape[1] :])], 1).view_as(x)


@dataclass(frozen=True, eq=False)
class SkewMatrix:
    """A x for a given antisymmetric matrix.

    Args:
        matrix: Shape (elements, elements), on the flattened event.

    Raises:
        InputError: the matrix is not antisymmetric.
    """

    matrix: Float[Tensor, "elements elements"]

    def __post_init__(self) -> None:
        if not torch.allclose(self.matrix, -self.matrix.mT):
            raise InputError("expected an antisymmetric matrix; got another one. Use (M - M.T) / 2.")

    def __call__(self, x: Batch) -> Batch:
        return (x.flatten(1) @ self.matrix.to(x).mT).view_as(x)


@dataclass(frozen=True, eq=False)
class GaugeField:
    r"""$r_t = c_t (h\,A\nabla\log p_t + A\nabla h)$ with $c_t = c\,\alpha^2/(\alpha^2+\sigma^2)$: a gauge field.

    The share of the signal in $c_t$ keeps the change of a denoiser, $\sigma^2 r/\alpha$, finite; it vanishes at both ends.
    With h = 1 and the default A, data N(mean, v I) give the score $s + r$ an asymmetry of $2c_t^2/(1+c_t^2)$.

    Args:
        law: Whose score is known.
        strength: c, in units of the score.
        turn: The antisymmetric A, as a function of (batch, *event).
        stream: h, (batch, *event) -> (batch,), smooth; None is h = 1.
    """

    law: KnownScore
    strength: float = 1.0
    turn: Callable[[Tensor], Tensor] = quarter_turn
    stream: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Batch, t: Time) -> Batch:
        """r_t(x), shape of x."""
        c = self.law.path.coefficients(t)
        share = self.strength * c.alpha.square() / (c.alpha.square() + c.sigma.square())
        push = self.law.score(x, t)
        if self.stream is not None:
            stream = self.stream
            slope = torch.func.grad(lambda y: stream(y).sum())(x)
            push = expand(stream(x), x) * push + slope
        return expand(share, x).to(x.dtype) * self.turn(push)


@dataclass(frozen=True, eq=False)
class GaugedDenoiser:
    """A denoiser with a gauge field: exact samples of a field that is no gradient.

    Args:
        denoiser: E[x_0 | x_t] under Gaussian noise.
        gauge: `(x, t) -> r`, shape of x. It must vanish faster than alpha where alpha = 0; there it is taken as 0.

    Raises:
        InputError: the noise is not Gaussian.
    """

    denoiser: Denoiser
    gauge: Callable[[Tensor, Tensor], Tensor]
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        kernel = getattr(self.denoiser, "kernel", GaussianKernel())
        if not isinstance(kernel, GaussianKernel):
            raise InputError(
                f"expected Gaussian noise, where the denoiser is the score; got {type(kernel).__name__}. "
                "Add the gauge field to the score itself."
            )
        object.__setattr__(self, "path", self.denoiser.path)

    def __call__(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """D(x, t) + sigma^2 r / alpha, shape of x."""
        c = self.path.coefficients(t)
        noisy = (c.alpha > 0) & (c.sigma > 0)
        factor = torch.where(noisy, c.sigma.square() / torch.where(noisy, c.alpha, 1.0), 0.0)
        change = torch.where(noisy.reshape(-1, *(1,) * (x.ndim - 1)).to(x.device), self.gauge(x, t), 0.0)
        return self.denoiser(x, t, **conditions) + expand(factor, x).to(x.dtype) * change


@dataclass(frozen=True, eq=False)
class GaugeResidual:
    """The gauge condition of r = field - score at points of p_t, each (batch,).

    Attributes:
        divergence: div r.
        work: r . score.
        size: |r|^2.
        reference: |score|^2.
    """

    divergence: Row
    work: Row
    size: Row
    reference: Row

    @property
    def rows(self) -> Row:
        """div r + r . score = div(p r) / p of every row: 0 for a gauge field."""
        return self.divergence + self.work

    @property
    def ratio(self) -> float:
        """E|div r + r . score| / sqrt(E|r|^2 E|score|^2): 0 for a gauge field, about sqrt(2 / elements) for r = c score."""
        scale = (self.size.double().mean() * self.reference.double().mean()).sqrt()
        return float(self.rows.double().abs().mean() / scale) if scale else 0.0

    @property
    def share(self) -> float:
        """E|r|^2 / E|score|^2: how large the difference is at all."""
        return float(self.size.double().mean() / self.reference.double().mean())


def gauge_residual(
    field: Field, score: Field, x: Batch, divergence: Divergence | None = None
) -> GaugeResidual:
    r"""Does a field differ from the score only by what no sample notices? $\nabla\cdot r + r\cdot\nabla\log p$.

    Args:
        field: A learned score at fixed t (`jacobians.score_field`).
        score: The true one at that t, or the best there is.
        x: Draws of p_t, shape (batch, *event).
        divergence: Exact (default; costs an evaluation an element) or `hutchinson(x, generators, probes)`, whose spread
            counts as residual: give many probes.

    References:
        Horvat & Pfister 2024, https://arxiv.org/abs/2402.03845.
    """
    take = ExactDivergence() if divergence is None else divergence
    r, spread = take(lambda y: field(y) - score(y), x)
    with torch.no_grad():
        reference = score(x)
    return GaugeResidual(spread, inner(r, reference), inner(r, r), inner(reference, reference))
