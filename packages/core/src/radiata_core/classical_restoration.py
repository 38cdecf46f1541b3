r"""Restoration without a network: total variation and wavelet shrinkage, the baselines that a learned prior must beat.

    min_x |A x - y|^2/2 + w TV(x),          TV: sum over voxels of the length of the gradient            (total variation)
    min_x |A x - y|^2/2 + w |details(x)|_1, details: of an orthonormal Haar transform                   (wavelets)

Both by the alternating direction method of multipliers with the operator's own prox, so that every operator that can be
sampled from (`posterior`) can be solved here too, in any number of dimensions. Every inner problem has a closed form:
the gradient's is diagonal in the cosine transform, since differences vanish at the border. The number of iterations is
fixed, so that a row does not depend on its batch.

The still simpler baseline, zero-filled k-space or a resampled image, is `operator.pseudo_inverse(y)`.

The weight w has the unit of y^2 per unit of x. Choose it on validation images by a grid of factors of two; for noise of
standard deviation s and an operator of norm 1, s/8 to s is where to look.

References:
    Rudin, Osher & Fatemi, "Nonlinear total variation based noise removal algorithms", 1992.
    Goldstein & Osher, "The split Bregman method for L1-regularized problems", 2009, https://doi.org/10.1137/080725891.
    Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994; Coifman & Donoho, "Translation-invariant
        de-noising", 1995 (shifts).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator
from radiata_core.types import Batch, Measurement, Row

__all__ = ["haar", "inverse_haar", "total_variation", "tv_restoration", "wavelet_restoration"]


def tv_restoration(
    operator: LinearOperator,
    y: Measurement,
    weight: float,
    iterations: int = 100,
    penalty: float = 0.3,
) -> Batch:
    """argmin_x |A x - y|^2/2 + weight TV(x), (batch, *event), channels first and on their own.

    Splits v = x and d = grad x; with rho = penalty (|A|^2 + weight), for data of order 1,

        x = (1 + grad^T grad)^{-1} (v - u + grad^T (d - b)),   v = prox(x + u),   d = shrink(grad x + b, weight/rho).

    Args:
        operator: A, on real events (channel, *space).
        y: (batch, *measurement).
        weight: >= 0.
        iterations: >= 1; 100 leave the objective within 0.5 % of the least for unit noise and weights from 0.03 to 3.
        penalty: > 0; changes the speed, not the solution.

    Raises:
        InputError: a number out of range, or events without an axis of space.

    References:
        Goldstein & Osher 2009, https://doi.org/10.1137/080725891, section 3.
    """
    _check(operator, weight, iterations, penalty)
    rho = penalty * (float(operator.norm) ** 2 + weight)
    x = operator.pseudo_inverse(y)
    v, u = x, torch.zeros_like(x)
    d = _gradient(x)
    b, bases = torch.zeros_like(d), [_cosines(n, x) for n in x.shape[2:]]
    for _ in range(iterations):
        x = _smoothed(v - u + _gradient_adjoint(d - b), bases)
        slope = _gradient(x)
        v = operator.prox(x + u, y, rho)
        length = torch.linalg.vector_norm(slope + b, dim=0, keepdim=True)
        d = (slope + b) * (1 - weight / rho / length.clamp_min(1e-30)).clamp_min(0)
        u, b = u + x - v, b + slope - d
    return x


def total_variation(x: Batch) -> Row:
    """Sum over voxels of the length of the gradient (forward differences, 0 beyond the border), (batch,)."""
    return torch.linalg.vector_norm(_gradient(x), dim=0).flatten(1).sum(1)


def wavelet_restoration(
    operator: LinearOperator,
    y: Measurement,
    weight: float,
    levels: int = 3,
    iterations: int = 100,
    penalty: float = 0.1,
    shifts: int = 1,
) -> Batch:
    """argmin_x |A x - y|^2/2 + weight |details|_1 of an orthonormal Haar transform, (batch, *event).

    Args:
        operator: A, on real events (channel, *space), whose axes of space 2^levels divides.
        y: (batch, *measurement).
        weight: >= 0.
        levels: >= 1.
        iterations: >= 1.
        penalty: > 0; changes the speed, not the solution.
        shifts: Diagonal shifts that shrinkage is averaged over, in [1, 2^levels]: more hide the blocks of the transform, and
            the result is then no longer a minimum of the objective.

    Raises:
        InputError: a number out of range, or a shape that 2^levels does not divide.
    """
    _check(operator, weight, iterations, penalty)
    space = operator.event_shape[1:]
    if levels < 1 or any(n % 2**levels for n in space) or not 1 <= shifts <= 2**levels:
        raise InputError(
            f"expected levels >= 1 with 2^levels dividing {space} and shifts from 1 to 2^levels; got {levels} levels and "
            f"{shifts} shifts. Take fewer levels, or pad the image."
        )
    rho = penalty * (float(operator.norm) ** 2 + weight)
    z = operator.pseudo_inverse(y)
    u = torch.zeros_like(z)
    for _ in range(iterations):
        x = operator.prox(z - u, y, rho)
        z = _shrunk(x + u, weight / rho, levels, shifts)
        u = u + x - z
    return z


def haar(x: Batch, levels: int) -> Batch:
    """Orthonormal Haar coefficients in the shape of x: averages in the first corner, details around them, level by level."""
    out = x.clone()
    for level in range(levels):
        part = (slice(None), slice(None), *(slice(n >> level) for n in x.shape[2:]))
        corner = out[part]
        for axis in range(2, x.ndim):
            even, odd = corner.unfold(axis, 2, 2).unbind(-1)
            corner = torch.cat([even + odd, even - odd], axis) * math.sqrt(0.5)
        out[part] = corner
    return out


def inverse_haar(coefficients: Batch, levels: int) -> Batch:
    """The inverse, and adjoint, of `haar`."""
    out = coefficients.clone()
    for level in reversed(range(levels)):
        part = (slice(None), slice(None), *(slice(n >> level) for n in out.shape[2:]))
        corner = out[part]
        for axis in reversed(range(2, out.ndim)):
            average, detail = corner.chunk(2, axis)
            pair = torch.stack([average + detail, average - detail], axis + 1) * math.sqrt(0.5)
            corner = pair.flatten(axis, axis + 1)
        out[part] = corner
    return out


def _shrunk(x: Tensor, threshold: float, levels: int, shifts: int) -> Tensor:
    axes = tuple(range(2, x.ndim))
    corner = (slice(None), slice(None), *(slice(n >> levels) for n in x.shape[2:]))
    total = torch.zeros_like(x)
    for shift in range(shifts):
        coefficients = haar(x.roll([-shift] * len(axes), axes), levels)
        kept = coefficients[corner]
        coefficients = coefficients - coefficients.clamp(-threshold, threshold)
        coefficients[corner] = kept
        total = total + inverse_haar(coefficients, levels).roll([shift] * len(axes), axes)
    return total / shifts


def _gradient(x: Tensor) -> Tensor:
    """(axes of space, batch, channel, *space)."""
    parts = []
    for axis in range(2, x.ndim):
        zero = torch.zeros_like(x.narrow(axis, 0, 1))
        parts.append(torch.cat([x.diff(dim=axis), zero], axis))
    return torch.stack(parts)


def _gradient_adjoint(d: Tensor) -> Tensor:
    total = torch.zeros_like(d[0])
    for axis, part in enumerate(d, start=2):
        inner = part.narrow(axis, 0, part.shape[axis] - 1)
        zero = torch.zeros_like(part.narrow(axis, 0, 1))
        total = total - torch.cat([inner, zero], axis) + torch.cat([zero, inner], axis)
    return total


def _smoothed(x: Tensor, bases: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(1 + grad^T grad)^{-1} x, diagonal in the cosine transform of every axis of space."""
    for axis, (basis, _) in enumerate(bases, start=2):
        x = torch.movedim(torch.movedim(x, axis, -1) @ basis.mT, -1, axis)
    total = torch.ones((), dtype=x.dtype, device=x.device)
    for axis, (_, values) in enumerate(bases, start=2):
        total = total + values.reshape(-1, *(1,) * (x.ndim - 1 - axis))
    x = x / total
    for axis, (basis, _) in enumerate(bases, start=2):
        x = torch.movedim(torch.movedim(x, axis, -1) @ basis, -1, axis)
    return x


def _cosines(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal cosine transform (frequency, place), and the eigenvalues 2 - 2 cos(pi k/n) of the second difference."""
    k = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * k[:, None] * (k + 0.5)) * math.sqrt(2 / n)
    basis[0] *= math.sqrt(0.5)
    return basis.to(like), (2 - 2 * torch.cos(math.pi * k / n)).to(like)


def _check(operator: LinearOperator, weight: float, iterations: int, penalty: float) -> None:
    if not (0 <= weight < math.inf and iterations >= 1 and 0 < penalty < math.inf):
        raise InputError(
            f"expected a weight >= 0, at least 1 iteration and a penalty > 0; got {weight}, {iterations} and {penalty}. "
            "Start with the noise's standard deviation as weight."
        )
    if len(operator.event_shape) < 2 or operator.complex_event:
        raise InputError(
            f"expected real events (channel, *space); got {operator}. Give the operator events with a channel."
        )
