r"""A bidirectional GRU layer whose two directions run side by side, differentiated by hand.

$$r = \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}),\quad z = \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}),\quad
  n = \tanh(W_{in} x + b_{in} + r\,g),\quad g = W_{hn} h + b_{hn}, \qquad h' = n + z\,(h - n)$$

The numbers are those of `torch.nn.GRU`, whose parameters it takes. Its own loop on a CPU records some twenty operations a
bin and direction; here one product of both directions and a few small operations are done forwards, and backwards, with
a = dL/dh',

$$\delta_n = a\,(1 - z)(1 - n^2),\quad \delta_z = a\,(h - n)\,z(1 - z),\quad \delta_r = \delta_n\,g\,r(1 - r),\qquad
  \frac{dL}{dh} = a\,z + (\delta_r, \delta_z, \delta_n r)\,W_h,$$

where everything that does not depend on a is computed for all bins at once. On a GPU the fused kernel of `torch.nn.GRU` is
better, and is what `bidirectional_gru` calls there.

References:
    Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, https://arxiv.org/abs/1406.1078 (the unit).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["bidirectional_gru"]


class _Scan(torch.autograd.Function):
    """Time first, then direction: inputs (time, 2, batch, 3 H), weights (2, H, 3 H), biases (2, 1, 3 H)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        size = weight.shape[1]
        steps, _, rows, _ = inputs.shape
        gates = inputs.new_empty(steps, 2, rows, 3 * size)  # r, z, g
        new = inputs.new_empty(steps, 2, rows, size)
        states = inputs.new_zeros(steps + 1, 2, rows, size)
        h = states.unbind(0)
        for t, (x, both, n) in enumerate(zip(inputs.unbind(0), gates.unbind(0), new.unbind(0), strict=True)):
            torch.baddbmm(bias, h[t], weight, out=both)
            both[..., : 2 * size].add_(x[..., : 2 * size]).sigmoid_()
            torch.addcmul(x[..., 2 * size :], both[..., :size], both[..., 2 * size :], out=n)
            n.tanh_()
            torch.lerp(n, h[t], both[..., size : 2 * size], out=h[t + 1])
        ctx.save_for_backward(gates, new, states, weight)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates, new, states, weight = ctx.saved_tensors
        size = weight.shape[1]
        r, z, g = gates.split(size, 3)
        of_new = (1 - z) * (1 - new * new)
        of_keep = (states[:-1] - new) * z * (1 - z)
        of_reset = g * r * (1 - r)
        inner = torch.empty_like(gates)  # of r, z before the sigmoid, and of g
        outer = torch.empty_like(new)  # of n before the tangent
        back = weight.transpose(1, 2)
        a = torch.zeros_like(states[0])
        parts = zip(
            *(part.unbind(0) for part in (grads[0], of_new, of_keep, of_reset, r, z, inner, outer)),
            strict=True,
        )
        for grad, to_new, to_keep, to_reset, reset, keep, both, n in reversed(list(parts)):
            a.add_(grad)
            torch.mul(a, to_new, out=n)
            torch.mul(n, to_reset, out=both[..., :size])
            torch.mul(a, to_keep, out=both[..., size : 2 * size])
            torch.mul(n, reset, out=both[..., 2 * size :])
            a.mul_(keep).baddbmm_(both, back)
        of_inputs = torch.cat([inner[..., : 2 * size], outer], 3)
        before, after = states[:-1].transpose(0, 1).flatten(1, 2), inner.transpose(0, 1).flatten(1, 2)
        return of_inputs, before.transpose(1, 2) @ after, after.sum(1, keepdim=True)


def bidirectional_gru(
    layer: nn.GRU, x: Float[Tensor, "batch time feature"]
) -> Float[Tensor, "batch time hidden"]:
    """Hidden states of both directions side by side, what `layer(x)[0]` is.

    Args:
        layer: One bidirectional layer with biases, `batch_first`.
        x: Its input.
    """
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return layer(x)[0]
    weights = dict(layer.named_parameters())
    ways = ("l0", "l0_reverse")
    of_input = torch.cat([weights[f"weight_ih_{way}"] for way in ways])
    biases = torch.cat([weights[f"bias_ih_{way}"] for way in ways])
    projected = nn.functional.linear(x.transpose(0, 1), of_input, biases).chunk(2, 2)
    inputs = torch.stack([projected[0], projected[1].flip(0)], 1)
    weight = torch.stack([weights[f"weight_hh_{way}"].T for way in ways])
    bias = torch.stack([weights[f"bias_hh_{way}"] for way in ways])[:, None]
    states = _Scan.apply(inputs, weight, bias)
    return torch.cat([states[:, 0], states[:, 1].flip(0)], 2).transpose(0, 1)
