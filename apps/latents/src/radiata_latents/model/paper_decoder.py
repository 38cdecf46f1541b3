r"""The released read-out: one post-norm attention layer over all bins, without positions and without a mask.

$$y = \mathrm{LN}(x + D[W_o\,\mathrm{attn}(x)]), \quad o = \mathrm{LN}(y + D[W_2 D[\mathrm{relu}(W_1 y)]]),
  \quad \log r = W o + b,$$

x the features (z, v, h) of every bin, D dropout (also of the attention weights). It cannot know the order of bins, but it
sees later ones: all that is not causal in the model enters here. Dropout factors are given, not drawn, so a row of the
result depends on its own generator only, and the reference can be asked the same question.

T-Fixup scales the weights of W_1, W_2 and W_o by 0.67 N^(-1/4); the release takes N = 3.

References:
    Vaswani et al., "Attention is all you need", 2017, https://arxiv.org/abs/1706.03762, eq. 1.
    Huang et al., "Improving transformer optimization through better initialization", 2020,
        https://proceedings.mlr.press/v119/huang20f.html (T-Fixup).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HEADS", "TFIXUP", "DecoderDropout", "PaperDecoder"]

HEADS = 2
TFIXUP = 0.67 * 3**-0.25


@dataclass(frozen=True, eq=False)
class DecoderDropout:
    """Factors 0 or 1 / (1 - p) of the four places where units are dropped."""

    attention: Float[Tensor, "batch heads time time"]
    mixed: Float[Tensor, "batch time features"]
    inner: Float[Tensor, "batch time inner"]
    outer: Float[Tensor, "batch time features"]


class PaperDecoder(nn.Module):
    """Log-rates from features.

    Args:
        features: Width of the input, 3 H.
        neurons: Outputs.
        inner: Width of the feed-forward part.
        tfixup: Scale three maps at the start.
    """

    def __init__(self, features: int, neurons: int, inner: int = 512, tfixup: bool = True) -> None:
        super().__init__()
        self.mix = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.inner = nn.Linear(features, inner)
        self.outer = nn.Linear(inner, features)
        self.norm_mixed, self.norm_outer = nn.LayerNorm(features), nn.LayerNorm(features)
        self.readout = nn.Linear(features, neurons)
        nn.init.xavier_uniform_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)
        nn.init.zeros_(self.out.bias)
        if tfixup:
            with torch.no_grad():
                for layer in (self.out, self.inner, self.outer):
                    layer.weight.mul_(TFIXUP)

    def forward(
        self, x: Float[Tensor, "batch time features"], dropout: DecoderDropout | None = None
    ) -> Float[Tensor, "batch time neuron"]:
        """Log of expected counts a bin; None drops nothing."""
        mixed = self.out(self._attend(x, dropout))
        y = self.norm_mixed(x + (mixed if dropout is None else mixed * dropout.mixed))
        inner = torch.relu(self.inner(y))
        outer = self.outer(inner if dropout is None else inner * dropout.inner)
        return self.readout(self.norm_outer(y + (outer if dropout is None else outer * dropout.outer)))

    def _attend(self, x: Tensor, dropout: DecoderDropout | None) -> Tensor:
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in self.mix(x).chunk(3, 2))
        if dropout is None:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), 3)
            mixed = (weights * dropout.attention) @ v
        return mixed.transpose(1, 2).flatten(2)
