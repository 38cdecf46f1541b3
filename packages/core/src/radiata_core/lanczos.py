r"""The largest eigenvalue of a symmetric operator, from a few dozen applications of it.

Lanczos' recursion writes H in an orthonormal basis of the Krylov space of one start vector, where it is tridiagonal,

    beta_{j+1} q_{j+1} = H q_j - alpha_j q_j - beta_j q_{j-1},      T = tridiag(beta, alpha, beta),

and the largest eigenvalue of T rises to that of H, at the rate of the best polynomial where power iteration has the
power. It costs what power iteration costs, and keeps three vectors; the basis loses its orthogonality in rounding, which
makes copies of eigenvalues that have been found and leaves the largest one right (Paige).

References:
    Paige, "Accuracy and effectiveness of the Lanczos algorithm for the symmetric eigenproblem", 1980,
        https://doi.org/10.1016/0024-3795(80)90167-6.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["largest_eigenvalue"]

_PATIENCE = 5  # a start that has almost nothing of the first vector seems to stand still for a step or two


@torch.no_grad()
def largest_eigenvalue(
    apply: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-6, iterations: int = 300
) -> float:
    """The largest eigenvalue of a symmetric positive semi-definite operator: from below, to about `tolerance`.

    Args:
        apply: The operator, (1, *event) to the same.
        start: Not 0, (1, *event), real or complex; a random one meets every eigenvector.
        tolerance: It stops where five steps together raise the value by less than this share of it.
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
        diagonal.append(alpha)
        found.append(_top(diagonal, beside))
        still = len(found) > _PATIENCE and found[-1] - found[-1 - _PATIENCE] <= tolerance * found[-1]
        if still or beta <= 1e-12 * max(abs(found[-1]), 1e-300):
            break
        beside.append(beta)
        before, now = now, ahead / beta
    if found[-1] != found[-1]:
        raise InputError("expected finite numbers from the operator; got NaN. Look at its parameters.")
    return max(found[-1], 0.0)


def _top(diagonal: list[float], beside: list[float]) -> float:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
        matrix = matrix + off + off.mT
    if not bool(torch.isfinite(matrix).all()):
        return float("nan")
    return float(torch.linalg.eigvalsh(matrix)[-1])
