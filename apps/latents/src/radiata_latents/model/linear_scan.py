r"""Positions and velocities of all bins from a start, a linear force and given noise: one loop, differentiated by hand.

$$z_t = z_{t-1} + h\,v_{t-1}, \qquad v_t = d\,(v_{t-1} - h\,S z_{t-1}) + \xi_t.$$

Three operations a bin forwards, and four backwards. With a = dL/dz and b = dL/dv the adjoint runs

$$a_{t-1} \mathrel{+}= a_t - d h\, S^\top b_t, \qquad b_{t-1} \mathrel{+}= h\, a_t + d\, b_t, \qquad
  \frac{dL}{dS} = -d h \sum_t b_t z_{t-1}^\top,$$

the last as a single product over all bins and rows. Nothing is recorded a bin, which is where an automatic derivative of
the force spends its time (`benchmarks/latents_speed.py`).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["langevin_scan"]


class _Scan(torch.autograd.Function):
    """Time first: (time, batch, hidden). `pull` is -d h Sᵀ, applied from the right."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, kicks: Tensor, pull: Tensor, step: float, keep: float) -> Tensor:
        states = kicks.new_empty(2, len(kicks) + 1, *kicks.shape[1:])
        states[:, 0] = start
        z, v = states[0].unbind(0), states[1].unbind(0)
        for t, kick in enumerate(kicks.unbind(0)):
            torch.add(z[t], v[t], alpha=step, out=z[t + 1])
            torch.addmm(kick, z[t], pull, out=v[t + 1])
            v[t + 1].add_(v[t], alpha=keep)
        ctx.save_for_backward(states, pull)
        ctx.step, ctx.keep = step, keep
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        states, pull = ctx.saved_tensors
        adjoint = grads[0].clone(memory_format=torch.contiguous_format)
        a, b = adjoint[0].unbind(0), adjoint[1].unbind(0)
        back = pull.T
        for t in range(len(a) - 1, 0, -1):
            a[t - 1].add_(a[t]).addmm_(b[t], back)
            b[t - 1].add_(a[t], alpha=ctx.step).add_(b[t], alpha=ctx.keep)
        grad_pull = states[0, :-1].flatten(0, 1).T @ adjoint[1, 1:].flatten(0, 1)
        return adjoint[:, 0], adjoint[1, 1:], grad_pull, None, None


def langevin_scan(
    start: Float[Tensor, "batch 2 hidden"],
    kicks: Float[Tensor, "batch steps hidden"],
    coupling: Float[Tensor, "hidden hidden"],
    step: float,
    keep: float,
) -> Float[Tensor, "2 batch time hidden"]:
    """Positions and velocities, one bin more than steps.

    Args:
        start: z and v of the first bin.
        kicks: Noise of each step, with its standard deviation.
        coupling: S; the force is -S z.
        step: h.
        keep: d, share of the velocity kept in a bin.
    """
    pull = -keep * step * coupling.T
    first = start.transpose(0, 1).to(pull.dtype)
    states: Tensor = _Scan.apply(first, kicks.transpose(0, 1).to(pull.dtype), pull, step, keep)
    return states.transpose(1, 2)
