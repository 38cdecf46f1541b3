r"""MM-DiT: the transformer of Stable Diffusion 3, for traces, images and volumes.

Reading order: `MMDiT.forward`, then `joint_attention`, then `position_grid`.

A block of patch^n voxels is a token. Tokens get sinusoidal positions, go through `depth` blocks of joint attention with the
context tokens, and a last modulated linear layer writes patches again:

    x -> patches -> + positions -> [ JointBlock(tokens, context, e) ] * depth -> linear -> x

SD3's rule of scale is one number: depth d, d heads of width 64, MLPs four times as wide (d = 38 has 8 billion weights).

Noise level and covariates enter through e. Context and covariates that are NaN are *not given*: a context token with a NaN
is seen by nobody, so samples with contexts of different lengths share a batch, a dropped text encoder is a row of NaN, and
`Guided` needs no null token. Without any context the network is a DiT.

**Positions.** Networks of this kind are trained at one resolution and used at others and at other aspect ratios. For a
token grid of $n$ cells against a reference of $n_0$, the coordinate of cell i along an axis is

$$p_i = \Big(i - \frac{n - s\,n_0}{2}\Big)\frac1s, \qquad s = \Big(\prod\frac{n}{n_0}\Big)^{1/dims}$$

so that a larger image of the same shape is *interpolated* (the reference's span of coordinates, more finely sampled), and
one of the same area but another aspect ratio is *extended* on one axis and centre-cropped on the other. Frequencies are
embedded after that, never interpolated themselves.

References:
    Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis", 2024,
        https://arxiv.org/abs/2403.03206, section 4, figure 2 and section 5.3.2 (positions for varying aspect ratios).
    Vaswani et al., "Attention is all you need", 2017, https://arxiv.org/abs/1706.03762, section 3.5.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.nets.conditioning import Conditioned, words_of
from radiata_core.nets.joint_attention import JointBlock, modulated
from radiata_core.nets.unet import depth_to_space, space_to_depth
from radiata_core.specs import buildable

__all__ = ["MMDiT", "position_grid", "sinusoids"]


def position_grid(
    grid: Sequence[int], reference: Sequence[int] | None = None
) -> Float[Tensor, "tokens axes"]:
    """Coordinates of the cells of a token grid in cells of the reference grid, float64, last axis fastest.

    Args:
        grid: Tokens along each axis, >= 1.
        reference: Tokens along each axis of the grid that has the coordinates 0, 1, 2, …; None for `grid` itself.

    Raises:
        InputError: the two have different numbers of axes, or an axis is empty.

    References:
        Esser et al. 2024, section 5.3.2 (there for reference grids of 16 x 16 tokens).
    """
    base = tuple(grid) if reference is None else tuple(reference)
    if len(base) != len(grid) or min(*grid, *base) < 1:
        raise InputError(
            f"expected as many axes >= 1 in grid and reference; got {tuple(grid)} and {base}. Give one size an axis."
        )
    scale = (math.prod(grid) / math.prod(base)) ** (1 / len(base))
    axes = [
        (torch.arange(n, dtype=torch.float64) - 0.5 * (n - scale * n0)) / scale
        for n, n0 in zip(grid, base, strict=True)
    ]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], -1)


def sinusoids(positions: Float[Tensor, "tokens axes"], width: int) -> Float[Tensor, "tokens width"]:
    """Sines and cosines of every coordinate at frequencies 1 … 1/10000, the width shared evenly by the axes.

    Args:
        positions: Coordinates in cells, `(tokens, axes)`.
        width: Channels; what does not divide by 2 * axes is filled with zeros.

    References:
        Vaswani et al. 2017, section 3.5.
    """
    count = width // (2 * positions.shape[-1])
    rates = 10_000.0 ** (-torch.arange(count, dtype=torch.float64) / max(count, 1))
    phase = positions.double()[..., None] * rates.to(positions.device)
    waves = torch.cat([phase.sin(), phase.cos()], -1).flatten(1)
    return F.pad(waves, (0, width - waves.shape[1]))


@buildable("mmdit")
class MMDiT(Conditioned):
    """Denoising network `(x, noise_level, context, covariates) ->` tensor of `out_channels` on the grid of x.

    Args:
        dims: Spatial dimensions, 1, 2 or 3.
        in_channels: Channels of x.
        out_channels: Channels of the output.
        patch: Edge of the blocks that become tokens; every grid axis must divide by it.
        depth: Number of blocks.
        heads: Heads of the attention, SD3: = depth.
        head: Width of a head, SD3: 64.
        mlp_ratio: Width of the MLPs over that of the tokens.
        context: Features of a context token; 0 for a network without context.
        covariates: Number of covariates K; 0 for none.
        frequencies: Fourier features of the noise level.
        shape: The grid of voxels whose tokens have the positions 0, 1, 2, …; other grids are interpolated, extended and
            cropped against it. None: every grid is its own reference.
        destination: Whether the network is a flow map and takes the noise level of the destination. Its embedding starts at
            zero: weights of a denoiser start a flow map.

    Raises:
        InputError: dims is not 1, 2 or 3, or a number is out of range.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        patch: int = 2,
        depth: int = 4,
        heads: int = 4,
        head: int = 32,
        mlp_ratio: int = 4,
        context: int = 0,
        covariates: int = 0,
        frequencies: int = 64,
        shape: Sequence[int] | None = None,
        destination: bool = False,
    ) -> None:
        super().__init__(heads * head, frequencies, covariates, destination)
        self.options: dict[str, Any] = {
            "dims": dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "patch": patch,
            "depth": depth,
            "heads": heads,
            "head": head,
            "mlp_ratio": mlp_ratio,
            "context": context,
            "covariates": covariates,
            "frequencies": frequencies,
            "shape": None if shape is None else tuple(shape),
            "destination": destination,
        }
        if dims not in (1, 2, 3) or min(patch, depth, in_channels, out_channels, frequencies // 2) < 1:
            raise InputError(
                f"expected dims 1, 2 or 3, patch, depth, channels >= 1, frequencies >= 2; got dims {dims}, patch {patch}, "
                f"depth {depth}, channels {in_channels} and {out_channels}, frequencies {frequencies}."
                " Start from the defaults."
            )
        self.dims, self.patch, self.width = dims, patch, heads * head
        self.reference = None if shape is None else self._tokens(tuple(shape))
        self._placed: dict[tuple[object, ...], Tensor] = {}
        width = self.width
        self.embed_patch = nn.Linear(in_channels * patch**dims, width)
        self.embed_context = nn.Linear(context, width) if context else None
        self.blocks = nn.ModuleList(
            JointBlock(heads, head, width, mlp_ratio, index == depth - 1, bool(context))
            for index in range(depth)
        )
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, out_channels * patch**dims)
        for layer in (self.embed_destination, self.modulation, self.head):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def _tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The grid of tokens of a grid of voxels."""
        if len(grid) != self.dims or any(n % self.patch or n < 1 for n in grid):
            raise InputError(
                f"expected {self.dims} grid axes that divide by {self.patch}; got {'x'.join(map(str, grid))}. "
                "Pad the data or use another patch."
            )
        return tuple(n // self.patch for n in grid)

    def _positions(self, grid: tuple[int, ...], like: Tensor) -> Tensor:
        key = (grid, like.device, like.dtype)
        if key not in self._placed:  # the last grid only: made once, an accelerator is not kept waiting
            self._placed = {key: sinusoids(position_grid(grid, self.reference), self.width).to(like)}
        return self._placed[key]

    def forward(
        self,
        x: Float[Tensor, "batch channels *grid"],
        noise_level: Float[Tensor, "*levels"],
        covariates: Float[Tensor, "batch covariates"] | None = None,
        context: Float[Tensor, "batch words features"] | None = None,
        target_level: Float[Tensor, "*levels"] | None = None,
    ) -> Float[Tensor, "batch out *grid"]:
        """Output `(batch, out_channels, *grid)`.

        Args:
            x: `(batch, in_channels, *grid)`.
            noise_level: Scalar or `(batch,)`; the denoiser gives the log-SNR.
            covariates: `(batch, K)`, standardised; NaN where not given. None for none.
            context: `(batch, words, features)`; a word with a NaN is not there. None for none.
            target_level: Scalar or `(batch,)`; the log-SNR of a flow map's destination, None for the level itself.

        Raises:
            InputError: a grid axis that does not divide by the patch, or context the network was not built for.
        """
        grid = self._tokens(tuple(x.shape[2:]))
        e = self._embedding(noise_level, covariates, target_level, len(x))
        tokens = self.embed_patch(space_to_depth(x, self.patch).flatten(2).transpose(1, 2))
        tokens = tokens + self._positions(grid, tokens)
        words, given = words_of(context, self.embed_context, tokens)
        for block in self.blocks:
            tokens, words = block(tokens, words, e, given)
        shift, scale = self.modulation(F.silu(e)).chunk(2, -1)
        patches = self.head(modulated(tokens, shift, scale)).transpose(1, 2).unflatten(2, grid)
        return depth_to_space(patches, self.patch)
