r"""Is a learned score the gradient of anything? Differential and integral tests.

A score is $\nabla\log p_t$, so its Jacobian is symmetric, its line integrals depend on the ends only,
$\int_a^b s\cdot dl = \log p(b) - \log p(a)$, and they vanish around every loop. A network is free to say something else,
and trained ones do (Vuong et al. 2025). Four measurements, for events of any shape, all at one fixed t:

| function | number | conservative field |
|---|---|---|
| `asymmetry` | $E\lvert Jv - J^\top v\rvert^2 / (2 E\lvert Jv\rvert^2)$ over random signs v | 0 (2 if J is antisymmetric) |
| `sub_jacobian` | the same of an exact k × k block of J | 0 |
| `loop_integral` | $\oint s\cdot dl\,/\oint\lvert s\cdot dl\rvert$ around a circle in a 2-plane | 0 |
| `path_integrals` | $\int s\cdot dl$ straight and around a corner | equal |

`curl_flux` is the surface integral of the curl over the disc of the loop; by Stokes' theorem it is the loop integral, which
checks the two measurements against each other.

Which field? At low noise $D \approx x$ and the identity in $J_D$ hides an asymmetry, at high noise the identity in
$J_s = (\alpha J_D - I)/\sigma^2$ does. `asymmetry` of `score_field(...)` is the published number; ask the denoiser too. And
small curl does not mean accurate, nor the reverse: a gauge field (`gauge`) has curl and samples exactly.

References:
    Vuong, McCann, Santos & Lin, "Are we really learning the score function? Reinterpreting diffusion models through
        Wasserstein gradient flow matching", 2025, https://arxiv.org/abs/2509.00336 (integral and differential constraints).
    Horvat & Pfister, "On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models", 2024,
        https://arxiv.org/abs/2402.03845.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from radiata_core.coefficients import expand
from radiata_core.errors import InputError
from radiata_core.jacobians import Field, inner, jvp, rademacher, vjp
from radiata_core.kernels import GaussianKernel
from radiata_core.types import Batch, Row

__all__ = [
    "Asymmetry",
    "Loop",
    "PathIntegrals",
    "SubJacobian",
    "asymmetry",
    "curl_flux",
    "loop_integral",
    "path_integrals",
    "random_plane",
    "sub_jacobian",
]


@dataclass(frozen=True, eq=False)
class Asymmetry:
    """|Jv - J^T v|^2 and (|Jv|^2 + |J^T v|^2) / 2 summed over probes, each (batch,)."""

    difference: Row
    size: Row

    @property
    def rows(self) -> Row:
        """The ratio of every row, in [0, 2]."""
        return self.difference / (2 * self.size)

    @property
    def ratio(self) -> float:
        """Ratio of the sums over rows, in [0, 2]: 0 for a symmetric Jacobian, 2 for an antisymmetric one."""
        return float(self.difference.sum() / (2 * self.size.sum()))


@dataclass(frozen=True, eq=False)
class SubJacobian:
    """A block of the Jacobian. matrix: (batch, k, k); indices: the elements of the flattened event, (k,)."""

    matrix: Float[Tensor, "batch k k"]
    indices: Int[Tensor, "k"]

    def ratio(self, diagonal: bool = True) -> float:
        """|S - S^T|^2 / (2 |S|^2), sums over rows; without the diagonal the identity part hides nothing."""
        block = (
            self.matrix if diagonal else self.matrix - torch.diag_embed(self.matrix.diagonal(dim1=1, dim2=2))
        )
        size = float(block.square().sum())
        return float((block - block.mT).square().sum()) / (2 * size) if size else math.nan


@dataclass(frozen=True, eq=False)
class Loop:
    """Integrals around a closed curve, each (batch,). signed: of s . dl; absolute: of |s . dl|."""

    signed: Row
    absolute: Row

    @property
    def rows(self) -> Row:
        """signed / absolute, in [-1, 1]."""
        return self.signed / self.absolute

    @property
    def ratio(self) -> float:
        """Root mean square over rows of signed / absolute."""
        return float(self.rows.double().square().mean().sqrt())


@dataclass(frozen=True, eq=False)
class PathIntegrals:
    """Work of a field from a to b, each (batch,), in nats for a score. straight: the segment; dogleg: over a corner."""

    straight: Row
    dogleg: Row

    @property
    def gap(self) -> Row:
        """|straight - dogleg|: 0 for a gradient field."""
        return (self.straight - self.dogleg).abs()


def asymmetry(field: Field, x: Batch, generators: Sequence[torch.Generator], probes: int = 1) -> Asymmetry:
    r"""Jacobian asymmetry $E|Jv - J^Tv|^2 / (2E|Jv|^2) = \|J - J^T\|_F^2 / (2\|J\|_F^2)$ by Rademacher probes.

    One forward and one reverse product a probe. |Jv| and |J^T v| have the same mean square; the mean of both is taken, which
    is quieter and bounds the ratio of every row by 2. float32 resolves ratios down to about 1e-11; give x
    (and the network) in float64 for less.

    Args:
        field: The score at fixed t, usually: `score_field(denoiser, t)`.
        x: Where, shape (batch, *event).
        generators: One a row.
        probes: Random directions a row, >= 1.

    Raises:
        InputError: no probe, or not one generator a row.

    References:
        Vuong et al. 2025, differential constraints.
    """
    if probes < 1:
        raise InputError(f"expected at least one probe; got {probes}. One a row is enough for many rows.")
    difference = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    size = torch.zeros_like(difference)
    for _ in range(probes):
        v = rademacher(x, generators)
        ahead, back = jvp(field, x, v), vjp(field, x, v)
        difference += inner(ahead - back, ahead - back)
        size += (inner(ahead, ahead) + inner(back, back)) / 2
    return Asymmetry(difference, size)


def sub_jacobian(field: Field, x: Batch, indices: Int[Tensor, "k"]) -> SubJacobian:
    """J[indices, indices] exactly, by k forward products.

    Args:
        field: A field.
        x: Where, shape (batch, *event).
        indices: Elements of the flattened event: random ones, or a patch (far pixels hardly interact).

    Raises:
        InputError: no index, one outside the event, or one given twice.
    """
    elements = x[0].numel()
    if (
        not len(indices)
        or len(indices.unique()) != len(indices)
        or int(indices.min()) < 0
        or int(indices.max()) >= elements
    ):
        raise InputError(
            f"expected different indices from 0 to {elements - 1}; got {indices.tolist()[:8]}. "
            "Use torch.randperm(elements, generator=generator)[:k]."
        )
    columns = []
    for index in indices.tolist():
        one = torch.zeros_like(x)
        one.view(len(x), -1)[:, index] = 1
        columns.append(jvp(field, x, one).flatten(1)[:, indices.to(x.device)])
    return SubJacobian(torch.stack(columns, 2), indices)


def random_plane(x: Batch, generators: Sequence[torch.Generator]) -> tuple[Batch, Batch]:
    """Two orthonormal directions a row, from generator i alone: a random 2-plane, uniform among all.

    Raises:
        InputError: an event of one element has no plane, or not one generator a row.
    """
    if x[0].numel() < 2:
        raise InputError("expected events of two elements or more; got one. A line has no loops.")
    kernel = GaussianKernel()
    u, v = kernel.noise(x, generators), kernel.noise(x, generators)
    u = u / expand(inner(u, u).sqrt(), x)
    v = v - expand(inner(u, v), x) * u
    return u, v / expand(inner(v, v).sqrt(), x)


def loop_integral(
    field: Field, x: Batch, plane: tuple[Batch, Batch], radius: float, points: int = 64
) -> Loop:
    """Work of the field around the circle of `radius` about x in the plane: trapezoid rule, exact beyond all orders.

    Args:
        field: A field.
        x: Centres, shape (batch, *event).
        plane: Two orthonormal directions a row, see `random_plane`.
        radius: In units of x, > 0. In d dimensions noise is about sigma sqrt(d) long: a loop within the shell is small.
        points: Evaluations, >= 4.

    Raises:
        InputError: fewer than 4 points, or no radius.

    References:
        Vuong et al. 2025, integral constraints; Trefethen & Weideman, "The exponentially convergent trapezoidal rule", 2014.
    """
    if points < 4 or radius <= 0:
        raise InputError(f"expected points >= 4 and a radius > 0; got {points} and {radius}. Use 16 or more.")
    u, v = plane
    signed, absolute = x.new_zeros(len(x)), x.new_zeros(len(x))
    for k in range(points):
        angle = 2 * math.pi * k / points
        with torch.no_grad():
            value = field(x + radius * (math.cos(angle) * u + math.sin(angle) * v))
        work = inner(value, math.cos(angle) * v - math.sin(angle) * u) * (radius * 2 * math.pi / points)
        signed, absolute = signed + work, absolute + work.abs()
    return Loop(signed, absolute)


def curl_flux(
    field: Field, x: Batch, plane: tuple[Batch, Batch], radius: float, rings: int = 8, points: int = 24
) -> Row:
    """Integral over the disc of the curl v^T J u - u^T J v, (batch,): by Stokes' theorem the loop integral.

    Gauss-Legendre in the radius, trapezoid in the angle; 2 forward products a node.
    """
    u, v = plane
    nodes, weights = np.polynomial.legendre.leggauss(rings)
    total = x.new_zeros(len(x))
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        r = radius * (node + 1) / 2
        area = weight * radius / 2 * r * 2 * math.pi / points
        for k in range(points):
            angle = 2 * math.pi * k / points
            where = x + r * (math.cos(angle) * u + math.sin(angle) * v)
            total = total + area * (inner(v, jvp(field, where, u)) - inner(u, jvp(field, where, v)))
    return total


def path_integrals(field: Field, a: Batch, b: Batch, corner: Batch, points: int = 16) -> PathIntegrals:
    """Work of the field from a to b, straight and over the corner. For an exact score both are log p(b) - log p(a).

    Args:
        field: A field.
        a: Starts, shape (batch, *event).
        b: Ends.
        corner: The bend of the dogleg.
        points: Gauss-Legendre nodes a segment.

    References:
        Vuong et al. 2025, path independence.
    """
    return PathIntegrals(
        _segment(field, a, b, points),
        _segment(field, a, corner, points) + _segment(field, corner, b, points),
    )


def _segment(field: Field, a: Tensor, b: Tensor, points: int) -> Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = a.new_zeros(len(a))
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        with torch.no_grad():
            total = total + weight / 2 * inner(field(a + (node + 1) / 2 * (b - a)), b - a)
    return total
