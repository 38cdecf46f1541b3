r"""A bidirectional GRU layer whose two directions run side by side, differentiated by hand.

$$r = \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}),\quad z = \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}),\quad
  n = \tanh(W_{in} x + b_{in} + r\,g),\quad g = W_{hn} h + b_{hn}, \qquad h' = n + z\,(h - n)$$

The numbers are those of `torch.nn.GRU`, whose parameters it takes. Its own loop on a CPU records some twenty operations a
bin and direction; here one product of both directions and a few small operations are done forwards, and backwards, with
a = dL/dh',

$$\delta_n = a\,(1 - z)(1 - n^2),\quad \delta_z = a\,(h - n)\,z(1 - z),\quad \delta_r = \delta_n\,g\,r(1 - r),\qquad
  \frac{dL}{dh} = a\,z + (\delta_r, \delta_z, \delta_n r)\,W_h,$$

and the gradients of all weights are one product each at the end. On a GPU the fused kernel of `torch.nn.GRU` is
better, and is what `bidirectional_gru` calls there.

References:
    Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, https://arxiv.org/abs/1406.1078.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["bidirectional_gru"]


class _Scan(torch.autograd.Function):
    """Direction first: inputs (2, time, batch, 3 H) of r, z, n; weights (2, H, 3 H) and biases (2, 1, 3 H) of g, r, z.

    The orders differ so that the gradients of both are neighbouring columns of one buffer, g, r, z, n.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        size = weight.shape[1]
        _, steps, rows, _ = inputs.shape
        gates = inputs.new_empty(2, steps, rows, 3 * size)  # g, r, z
        new = inputs.new_empty(2, steps, rows, size)
        states = inputs.new_zeros(2, steps + 1, rows, size)
        h = states.unbind(1)
        for t, (x, both, n) in enumerate(zip(inputs.unbind(1), gates.unbind(1), new.unbind(1), strict=True)):
            torch.baddbmm(bias, h[t], weight, out=both)
            both[..., size:].add_(x[..., : 2 * size]).sigmoid_()
            torch.addcmul(x[..., 2 * size :], both[..., size : 2 * size], both[..., :size], out=n)
            n.tanh_()
            torch.lerp(n, h[t], both[..., 2 * size :], out=h[t + 1])
        ctx.save_for_backward(gates, new, states, weight)
        return states[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates, new, states, weight = ctx.saved_tensors
        size = weight.shape[1]
        found = gates.new_empty(*gates.shape[:3], 4 * size)  # of g, r, z, n before their functions
        back = weight.transpose(1, 2)
        a, work = torch.zeros_like(states[:, 0]), torch.empty_like(states[:, 0])
        every = (part.unbind(1) for part in (grads[0], gates, new, states[:, :-1], found))
        for grad, both, n, before, out in reversed(list(zip(*every, strict=True))):
            g, r, z = both.split(size, 2)
            of_g, of_r, of_z, of_n = out.split(size, 2)
            a.add_(grad)
            torch.sub(a, torch.mul(a, z, out=work), out=of_n)  # a (1 - z)
            torch.sub(before, n, out=of_z).mul_(work)  # a z (h - n), and (1 - z) below
            of_n.addcmul_(of_n, n.square(), value=-1)
            of_z.addcmul_(of_z, z, value=-1)
            torch.mul(of_n, r, out=of_g)
            torch.mul(of_g, g, out=of_r)
            of_r.addcmul_(of_r, r, value=-1)
            torch.baddbmm(work, out[..., : 3 * size], back, out=a)
        before, after = states[:, :-1].flatten(1, 2), found[..., : 3 * size].flatten(1, 2)
        return found[..., size:], before.transpose(1, 2) @ after, after.sum(1, keepdim=True)


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
    weights, size = dict(layer.named_parameters()), layer.hidden_size
    of_input, input_bias, of_state, state_bias = (
        torch.stack([weights[f"{name}_{way}"] for way in ("l0", "l0_reverse")])
        for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
    )
    first = x.transpose(0, 1)
    both = torch.stack([first, first.flip(0)]).flatten(1, 2)
    projected = torch.baddbmm(input_bias[:, None], both, of_input.transpose(1, 2))
    inputs = projected.unflatten(1, first.shape[:2])
    weight, bias = of_state.roll(size, 1).transpose(1, 2), state_bias.roll(size, 1)[:, None]
    states = _Scan.apply(inputs, weight, bias)
    return torch.cat([states[0], states[1].flip(0)], 2).transpose(0, 1)
