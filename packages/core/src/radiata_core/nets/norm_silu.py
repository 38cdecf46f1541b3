r"""SiLU of a group normalisation that remembers its input alone.

    y = SiLU(n),    n = γ (x − μ)/σ + β,    SiLU(n) = n/(1 + e^−n),

with mean μ and standard deviation σ of every group of channels of every row. Written as two operations, `torch` keeps x for
the gradient of the one and n for that of the other. Here n is made in place of y, and again in the backward pass, one
row after the other: of three maps two remain, and x is the caller's anyway. For training with checkpointing, whose largest
moment is one block's gradient at the finest grid.

Once differentiable, and not for functional transforms: `torch.func` and second derivatives want the two operations.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["norm_silu"]


def norm_silu(
    x: Float[Tensor, "batch channel *space"], norm: nn.GroupNorm
) -> Float[Tensor, "batch channel *space"]:
    """SiLU(norm(x)), as `F.silu(norm(x))` to rounding, with gradients of x and of the norm's weight and bias.

    Args:
        x: In the norm's numbers (no autocast).
        norm: With weight and bias.
    """
    made: Tensor = _NormSilu.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return made


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.groups, ctx.eps = groups, eps
        return F.silu(F.group_norm(x, groups, weight, bias, eps), inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        into = torch.empty_like(x) if wanted[0] else None
        sums = [
            torch.zeros_like(weight) if wanted[1] else None,
            torch.zeros_like(bias) if wanted[2] else None,
        ]
        for row in range(len(x)):
            parts = [part.detach().requires_grad_(want) for part, want in zip(
                (x[row : row + 1], weight, bias), wanted, strict=True
            )]  # fmt: skip
            with torch.enable_grad():
                normed = F.group_norm(parts[0], ctx.groups, parts[1], parts[2], ctx.eps)
            slope = torch.ops.aten.silu_backward(given[row : row + 1], normed.detach())
            asked = [part for part in parts if part.requires_grad]
            found = list(torch.autograd.grad(normed, asked, slope))
            if into is not None:
                into[row : row + 1] = found.pop(0)
            for total in sums:
                if total is not None:
                    total += found.pop(0)
        return into, *sums, None, None
