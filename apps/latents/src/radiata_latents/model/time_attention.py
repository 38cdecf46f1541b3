r"""One layer of attention over the bins of a trial, whose weight falls with their distance.

$$\mathrm{softmax}_s\big(q_t \cdot k_s / \sqrt d - a\,|t - s|\big)$$

with a slope a > 0 learned for each head, so no positions are needed and any length will do. It begins as zero: added to the
features that it reads, a new layer is the identity.

References:
    Press, Smith & Lewis, "Train short, test long: attention with linear biases", 2022, https://arxiv.org/abs/2108.12409.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TimeAttention"]


class TimeAttention(nn.Module):
    """What to add to features, (batch, time, features) both.

    Args:
        features: Their number.
        width: Of queries, keys and values together, over all heads.
        heads: How many.
    """

    def __init__(self, features: int, width: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(features)
        self.mix = nn.Linear(features, 3 * width)
        self.out = nn.Linear(width, features)
        self.decay = nn.Parameter(torch.linspace(-3.0, -1.0, heads))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The mixture, like x."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.mix(self.norm(x)).chunk(3, 2)
        )
        bins = torch.arange(x.shape[1], device=x.device)
        apart = (bins[:, None] - bins).abs().to(x.dtype)
        bias = -torch.exp(self.decay)[:, None, None] * apart
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).flatten(2))
