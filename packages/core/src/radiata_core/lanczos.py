r"""The largest eigenvalue of a symmetric operator, from a few dozen applications of it.

Lanczos' recursion writes H in an orthonormal basis of the Krylov space of one start vector, where it is tridiagonal,

    beta_{j+1} q_{j+1} = H q_j - alpha_j q_j - beta_j q_{j-1},      T = tridiag(beta, alpha, beta),

and the largest eigenvalue of T rises to that of H, at the rate of the best polynomial where power iteration has the
power. With s the last number of its eigenvector, an eigenvalue of H lies within beta |s| of it. A step costs what one of
power iteration costs, and three vectors are kept; the basis loses its orthogonality in rounding, which makes
copies of eigenvalues that have been found and leaves the largest one right (Paige).

References:
    Paige, "Accuracy and effectiveness of the Lanczos algorithm for the symmetric eigenproblem", 1980,
        https://doi.org/10.1016/0024-3795(80)90167-6.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["largest_eigenvalue"]


_ROUNDING = 1e-6  # a next vector of this size is rounding, in single precision: the space is exhausted


@torch.no_grad()
def largest_eigenvalue(
    apply: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-3, iterations: int = 200
) -> float:
    """The largest eigenvalue of a symmetric positive semi-definite operator: from below, to about `tolerance`.

    It stops where five steps raise it by a tenth of that, relatively, and an eigenvalue is known to be within 1 %: the value
    converges as the square of that bound, which alone would ask for many more steps where eigenvalues crowd.

    Args:
        apply: The operator, (1, *event) to the same.
        start: Not 0, (1, *event), real or complex; a random one meets every eigenvector.
        tolerance: Relative.
        iterations: At most.

    Raises:
        InputError: the start is 0, or the operator answers with NaN.
    """
    size = start.norm()
    if not bool(size > 0):
        raise InputError("expected a start that is not 0; got one that is. Draw it at random.")
    now, before, beta = start / size, torch.zeros_like(start), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    found: list[float] = []
    for _ in range(iterations):
        ahead = apply(now) - beta * before
        alpha = float((now.conj() * ahead).real.sum())
        ahead = ahead - alpha * now
        beta = float(ahead.norm())
        if not math.isfinite(alpha + beta):
            raise InputError("expected finite numbers from the operator; got others. Look at its parameters.")
        diagonal.append(alpha)
        top, last = _top(diagonal, beside)
        found.append(top)
        still = len(found) > 5 and found[-1] - found[-6] <= tolerance / 10 * top
        if beta <= _ROUNDING * abs(top) or (still and beta * abs(last) <= 0.01 * top):
            break
        beside.append(beta)
        before, now = now, ahead / beta
    return max(found[-1], 0.0)


def _top(diagonal: list[float], beside: list[float]) -> tuple[float, float]:
    """The largest eigenvalue of a tridiagonal matrix and the last number of its eigenvector."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
        matrix = matrix + off + off.mT
    values, vectors = torch.linalg.eigh(matrix)
    return float(values[-1]), float(vectors[-1, -1])
