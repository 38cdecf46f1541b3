r"""Joint attention: two kinds of tokens, each with weights of its own, that meet inside the attention only.

Image patches x and context tokens c (words, labels, another modality) live in different spaces, so each gets its own norms,
projections and MLP; the softmax runs over both, and information flows both ways:

$$q, k, v = [\,W^x_{qkv}\, m^x(x);\; W^c_{qkv}\, m^c(c)\,], \qquad
  A = \mathrm{softmax}\!\Big(\frac{\hat q \hat k^\top}{\sqrt d}\Big)\, v, \qquad
  \hat q = g_q \odot \frac{q}{\mathrm{rms}(q)},\;\; \hat k = g_k \odot \frac{k}{\mathrm{rms}(k)}$$

Each stream is modulated by the embedding e of noise level and covariates (Peebles & Xie 2023, "adaLN-zero"): with
$(b_1, s_1, a_1, b_2, s_2, a_2) = W\,\mathrm{silu}(e)$,

$$m(x) = (1 + s_1)\,\mathrm{LN}(x) + b_1, \qquad x \leftarrow x + a_1 W_o A, \qquad
  x \leftarrow x + a_2\, \mathrm{MLP}\big((1 + s_2)\,\mathrm{LN}(x) + b_2\big).$$

Three facts, which are the tests:

- W starts at zero: a new block is the identity, however deep the stack.
- |logit| <= sqrt(d) max|g_q| max|g_k| whatever the input (`JointBlock.logit_bound`): without the norms of q and k the
  logits of large networks grow until training in bfloat16 diverges.
- With equal weights in both streams it does not matter which tokens are called image and which context.

The last block of a network only reads the context (`ends_context`): what it would write, nobody reads.

A third of a block's weights are W. With `shared` (PixArt's adaLN-single) one W serves all blocks, which add a table of their
own: e is then the 6 * width numbers that W made of the embedding. Positions (`nets.rotary`) turn the q and k of the image
tokens after their norms, which keeps the bound; context tokens have no place and do not turn. Whatever computes the softmax
(`attend`) may be replaced, by windows for instance.

References:
    Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis", 2024,
        https://arxiv.org/abs/2403.03206, section 4, figure 2 and section 5.3.2 (norms of q and k).
    Peebles & Xie, "Scalable diffusion models with transformers", 2023, https://arxiv.org/abs/2212.09748, section 3.2.
    Chen et al., "PixArt-alpha", 2023, https://arxiv.org/abs/2310.00426 (adaLN-single).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.nets.rotary import Rotation, rotated

__all__ = ["Attend", "JointBlock", "Stream", "attend_all", "modulated"]

Tokens = Float[Tensor, "batch tokens width"]
Embedding = Float[Tensor, "batch embedding"]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""`attend(q, k, v, given)`: image tokens first, then context tokens, of which those `given` are there (None for all)."""


def attend_all(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch heads keys head"],
    v: Float[Tensor, "batch heads keys head"],
    given: Bool[Tensor, "batch context"] | None = None,
) -> Float[Tensor, "batch heads queries head"]:
    """Softmax attention of everything with everything that is there."""
    mask = (
        None if given is None else F.pad(given, (k.shape[2] - given.shape[1], 0), value=True)[:, None, None]
    )
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def modulated(
    tokens: Tokens, shift: Float[Tensor, "batch width"], scale: Float[Tensor, "batch width"]
) -> Tokens:
    """(1 + scale) LN(tokens) + shift, `(batch, tokens, width)`; the layer norm has no weights of its own."""
    normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


def _normed(part: Tensor, norm: nn.RMSNorm) -> Tensor:
    # The scale in the dtype of what it scales: under autocast a mixed pair has no fused kernel.
    return F.rms_norm(part, part.shape[-1:], norm.weight.to(part.dtype), norm.eps)


class Stream(nn.Module):
    """The weights of one kind of tokens: modulation, q, k, v with their norms, output and MLP.

    Args:
        heads: Number of heads.
        head: Width of a head d; the tokens have heads * head channels.
        embedding: Width of the embedding e.
        mlp_ratio: Width of the MLP over that of the tokens.
        ends: Whether the tokens are only read: keys and values, but no queries, no output and no MLP.
        shared: Whether e is the modulation of all blocks, `(batch, 6 * width)`, to which a table is added here.
    """

    def __init__(
        self,
        heads: int,
        head: int,
        embedding: int,
        mlp_ratio: int = 4,
        ends: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        width = heads * head
        self.heads, self.ends = heads, ends
        count = (2 if ends else 6) * width
        if shared:
            self.table = nn.Parameter(torch.zeros(count))
        else:
            self.modulation = nn.Linear(embedding, count)
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
        self.shared = shared
        self.qkv = nn.Linear(width, (2 if ends else 3) * width)
        self.norm_k = nn.RMSNorm(head, eps=1e-6)
        if not ends:
            self.norm_q = nn.RMSNorm(head, eps=1e-6)
            self.out = nn.Linear(width, width)
            self.mlp = nn.Sequential(
                nn.Linear(width, mlp_ratio * width),
                nn.GELU(approximate="tanh"),
                nn.Linear(mlp_ratio * width, width),
            )

    def read(self, tokens: Tokens, e: Embedding) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """q (none where the stream ends), k and v, `(batch, heads, tokens, head)`; and the modulation left for `write`."""
        m = e[:, : len(self.table)] + self.table if self.shared else self.modulation(F.silu(e))
        shift, scale, *rest = m.chunk(2 if self.ends else 6, -1)
        projected = self.qkv(modulated(tokens, shift, scale)).chunk(2 if self.ends else 3, -1)
        *q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected)
        return [*(_normed(part, self.norm_q) for part in q), _normed(k, self.norm_k), v], tuple(rest)

    def write(
        self,
        tokens: Tokens,
        mixed: Float[Tensor, "batch heads tokens head"],
        modulation: tuple[Tensor, ...],
    ) -> Tokens:
        """The tokens after attention and MLP. A stream that ends has no such weights."""
        gate, shift, scale, gate_mlp = modulation
        tokens = torch.addcmul(tokens, gate[:, None], self.out(mixed.transpose(1, 2).flatten(2)))
        return torch.addcmul(tokens, gate_mlp[:, None], self.mlp(modulated(tokens, shift, scale)))


class JointBlock(nn.Module):
    """One MM-DiT block: `(x, context, e) -> (x, context)`.

    Args:
        heads: Number of heads.
        head: Width of a head; 64 in SD3, whose width is 64 * depth.
        embedding: Width of the embedding e.
        mlp_ratio: Width of the MLPs over that of the tokens.
        ends_context: Last block of a network: the context is read, not written.
        has_context: False makes a block of one stream (DiT), for networks without context.
        shared: e is a modulation that all blocks share; this one adds a table.
    """

    def __init__(
        self,
        heads: int,
        head: int,
        embedding: int,
        mlp_ratio: int = 4,
        ends_context: bool = False,
        has_context: bool = True,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if min(heads, head, embedding, mlp_ratio) < 1:
            raise InputError(
                f"expected heads, head, embedding and mlp_ratio >= 1; got {heads}, {head}, {embedding}, {mlp_ratio}. "
                "SD3 has depth heads of width 64."
            )
        self.image = Stream(heads, head, embedding, mlp_ratio, shared=shared)
        self.context = (
            Stream(heads, head, embedding, mlp_ratio, ends_context, shared) if has_context else None
        )

    @property
    def logit_bound(self) -> float:
        """Largest possible |logit|, sqrt(d) max|g_q| max|g_k| over both streams: what the norms of q and k guarantee."""
        streams = [self.image] if self.context is None else [self.image, self.context]
        q = max(float(s.norm_q.weight.detach().abs().max()) for s in streams if not s.ends)
        k = max(float(s.norm_k.weight.detach().abs().max()) for s in streams)
        return math.sqrt(self.image.norm_k.weight.numel()) * q * k

    def forward(
        self,
        x: Float[Tensor, "batch image width"],
        context: Float[Tensor, "batch context width"] | None,
        e: Embedding,
        given: Bool[Tensor, "batch context"] | None = None,
        rotation: Rotation | None = None,
        attend: Attend = attend_all,
    ) -> tuple[Float[Tensor, "batch image width"], Float[Tensor, "batch context width"] | None]:
        """Image and context tokens after the block.

        Args:
            x: Image tokens `(batch, image, width)`.
            context: Context tokens `(batch, context, width)`; None for none.
            e: Embedding of noise level and covariates `(batch, embedding)`; with `shared` their modulation.
            given: Which context tokens are there, `(batch, context)`; nobody attends to the others. None for all.
            rotation: Places of the image tokens; None for none.
            attend: What computes the softmax.

        Raises:
            InputError: context for a block without that stream.
        """
        if context is not None and self.context is None:
            raise InputError(
                "expected no context tokens: this block has one stream; got some. Build with has_context."
            )
        (q, k, v), rest = self.image.read(x, e)
        if rotation is not None:
            q, k = rotated(q, rotation), rotated(k, rotation)
        if context is None or self.context is None:
            return self.image.write(x, attend(q, k, v, None), rest), None
        (*asked, k_context, v_context), rest_context = self.context.read(context, e)
        q, k, v = torch.cat([q, *asked], 2), torch.cat([k, k_context], 2), torch.cat([v, v_context], 2)
        mixed = attend(q, k, v, given)
        x_after = self.image.write(x, mixed[:, :, : x.shape[1]], rest)
        if self.context.ends:
            return x_after, context
        return x_after, self.context.write(context, mixed[:, :, x.shape[1] :], rest_context)
