r"""Conjugate gradients on a batch: H x = b for a symmetric positive (semi-)definite H that is known by its action.

    x <- x + a p,  r <- r - a H p,  a = <r, z>/<p, H p>,  z = M r,  p <- z + (<r', z'>/<r, z>) p

The error in the norm of H falls at least as (sqrt(k) - 1)/(sqrt(k) + 1) a step, k the condition number of M H. Each row
of the batch has its own a, stops by itself at |r| <= tolerance |b|, and is the same alone and in any batch. Complex
vectors live in the real inner product Re <x, y>, so an operator between real and complex vectors has its adjoint.

`ridge_solve` is (N + rho I)^{-1} b with exact derivatives in b and rho: the inverse is its own adjoint, so the way back is
one more solve instead of a tape of all iterations. `least_norm_solve` is N^+ b for a b in the range of N: started at 0,
conjugate gradients never leave that range.

References:
    Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems", 1952,
        https://doi.org/10.6028/jres.049.044.
    Hanke, "Conjugate gradient type methods for ill-posed problems", 1995 (the semi-definite case).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.types import Row, Signal

__all__ = ["Solution", "conjugate_gradients", "least_norm_solve", "real_product", "ridge_solve"]

Action = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients found.

    Attributes:
        x: The solution, (batch, *event).
        residual: |b - H x|/|b| as the recursion has it, (batch,); 0 where b is 0.
        iterations: Steps that each row took, (batch,).
    """

    x: Signal
    residual: Row
    iterations: Int[Tensor, "batch"]


def real_product(x: Signal, y: Signal) -> Row:
    """Re <x, y> of every row, (batch,)."""
    if x.is_complex():
        x, y = torch.view_as_real(x), torch.view_as_real(y)
    return (x.flatten(1) * y.flatten(1)).sum(1)


def default_tolerance(dtype: torch.dtype) -> float:
    """Of the relative residual: 1e-10 in double precision, 1e-5 in single, where rounding leaves little more."""
    return 1e-10 if torch.finfo(dtype).bits > 32 else 1e-5


@torch.no_grad()
def conjugate_gradients(
    apply: Action,
    b: Signal,
    *,
    start: Signal | None = None,
    tolerance: float | None = None,
    iterations: int = 200,
    preconditioner: Action | None = None,
) -> Solution:
    """The solution of H x = b, row by row, without derivatives.

    Args:
        apply: H, symmetric positive semi-definite: (batch, *event) to the same.
        b: Right-hand side, (batch, *event), real or complex.
        start: First guess; None: 0.
        tolerance: A row stops at |r| <= tolerance |b|; None: 1e-10 in double precision, 1e-5 in single.
        iterations: At most, >= 1. What has not converged by then is returned as it is: look at the residual.
        preconditioner: An approximation M of the inverse of H, symmetric positive definite; None: the identity.

    Raises:
        InputError: tolerance or number of iterations out of range.
    """
    tolerance = default_tolerance(b.dtype) if tolerance is None else tolerance
    if not (tolerance > 0 and iterations >= 1):
        raise InputError(
            f"expected a tolerance > 0 and at least 1 iteration; got {tolerance} and {iterations}. "
            "Leave them out for the defaults."
        )
    shape = (-1, *(1,) * (b.ndim - 1))
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b.clone() if start is None else b - apply(start)
    z = r if preconditioner is None else preconditioner(r)
    p, slope, size = z, real_product(r, z), real_product(b, b).sqrt()
    active = real_product(r, r).sqrt() > tolerance * size
    count = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    for _ in range(iterations):
        if not bool(active.any()):
            break
        ahead = apply(p)
        curvature = real_product(p, ahead)
        active = active & (curvature > 0)  # 0: p is in the null space, nothing is left to gain
        step = torch.where(active, slope / curvature, 0).reshape(shape)
        x, r = x + step * p, r - step * ahead
        z = r if preconditioner is None else preconditioner(r)
        new = real_product(r, z)
        count += active
        active = active & (real_product(r, r).sqrt() > tolerance * size)
        p = z + torch.where(active, new / slope, 0).reshape(shape) * p
        slope = new
    residual = torch.where(size > 0, real_product(r, r).sqrt() / size, 0)
    return Solution(x, residual, count)


def ridge_solve(
    normal: Action,
    b: Signal,
    rho: Tensor,
    *,
    start: Signal | None = None,
    tolerance: float | None = None,
    iterations: int = 200,
) -> Signal:
    """(N + rho I)^{-1} b for N symmetric positive semi-definite, differentiable in b and rho (not in what N holds).

    Args:
        normal: N.
        b: Right-hand side, (batch, *event).
        rho: > 0, with as many axes as b, (1 or batch, 1, ..., 1).
        start: First guess.
        tolerance: Of the relative residual.
        iterations: At most.
    """
    x: Tensor = _RidgeSolve.apply(b, rho, (normal, start, tolerance, iterations))
    return x


class _RidgeSolve(torch.autograd.Function):
    @staticmethod
    def forward(b: Tensor, rho: Tensor, how: tuple[Action, Tensor | None, float | None, int]) -> Tensor:
        normal, start, tolerance, iterations = how
        return conjugate_gradients(
            lambda x: normal(x) + rho * x, b, start=start, tolerance=tolerance, iterations=iterations
        ).x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output, inputs[1])
        ctx.how = inputs[2]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, rho = ctx.saved_tensors
        normal, _, tolerance, iterations = ctx.how
        u = _RidgeSolve.apply(slopes[0], rho, (normal, None, tolerance, iterations))
        along = -(u.conj() * x).real.sum_to_size(rho.shape) if ctx.needs_input_grad[1] else None
        return u, along, None


def least_norm_solve(
    normal: Action, b: Signal, *, tolerance: float | None = None, iterations: int = 1000
) -> Signal:
    """N^+ b, differentiable in b. A b outside the range of N is projected on it in the derivative, where it can occur.

    Where N is nearly singular, stopping is a regularisation: directions of little weight in b stay out.

    Args:
        normal: N, symmetric positive semi-definite.
        b: In the range of N, (batch, *event).
        tolerance: Of the relative residual.
        iterations: At most.
    """
    x: Tensor = _LeastNormSolve.apply(b, (normal, tolerance, iterations))
    return x


class _LeastNormSolve(torch.autograd.Function):
    @staticmethod
    def forward(b: Tensor, how: tuple[Action, float | None, int]) -> Tensor:
        normal, tolerance, iterations = how
        return conjugate_gradients(normal, b, tolerance=tolerance, iterations=iterations).x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[1]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        inside = _LeastNormSolve.apply(ctx.how[0](slopes[0]), ctx.how)
        return _LeastNormSolve.apply(inside, ctx.how), None
