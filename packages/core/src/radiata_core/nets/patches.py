"""Patches: an image as tokens and back, with any edge along each axis, and a stem whose patches overlap.

`fold` cuts an image into blocks and `unfold` puts blocks together: an invertible rearrangement, in the order of
`nets.unet.space_to_depth` (which it equals for cubes). Grids that a patch does not divide are continued by their last values
(`padded`), which the network then cuts off again; every token holds at least one real voxel.

A linear layer on a block knows nothing of the next, so borders of patches may show as seams. `ConvStem` embeds with three
strided convolutions in place of one layer: fields that overlap, cheap because the first is narrow.

References:
    Dosovitskiy et al., "An image is worth 16x16 words", 2021, https://arxiv.org/abs/2010.11929, section 3.1 (patches).
    Xiao et al., "Early convolutions help transformers see better", 2021, https://arxiv.org/abs/2106.14881 (strided stem).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CONVOLUTIONS", "ConvStem", "fold", "padded", "strides_of", "unfold"]

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


def padded(x: Float[Tensor, "batch channels *grid"], patch: Sequence[int]) -> Tensor:
    """x continued by its last values to a multiple of the patch along each axis."""
    for axis, edge in enumerate(patch, 2):
        size = x.shape[axis]
        if size % edge:  # by index: any dtype and rank, and its gradient is deterministic on every device
            wanted = torch.arange(-(-size // edge) * edge, device=x.device).clamp(max=size - 1)
            x = x.index_select(axis, wanted)
    return x


def fold(
    x: Float[Tensor, "batch channels *grid"], patch: Sequence[int]
) -> Float[Tensor, "batch tokens values"]:
    """Blocks of voxels as tokens, `(batch, tokens, channels * voxels of a patch)`, last axis fastest."""
    batch, channels, *grid = x.shape
    axes = len(grid)
    split = [n for size, edge in zip(grid, patch, strict=True) for n in (size // edge, edge)]
    order = [0, *[2 + 2 * a for a in range(axes)], 1, *[3 + 2 * a for a in range(axes)]]
    tokens = math.prod(split[::2])
    return x.reshape(batch, channels, *split).permute(order).reshape(batch, tokens, -1)


def unfold(
    tokens: Float[Tensor, "batch tokens values"], patch: Sequence[int], grid: Sequence[int]
) -> Float[Tensor, "batch channels *voxels"]:
    """The inverse of `fold`, for a `grid` of tokens."""
    axes, channels = len(grid), tokens.shape[-1] // math.prod(patch)
    order = [0, 1 + axes, *[n for a in range(axes) for n in (1 + a, 2 + axes + a)]]
    blocks = tokens.reshape(len(tokens), *grid, channels, *patch).permute(order)
    return blocks.reshape(len(tokens), channels, *[n * p for n, p in zip(grid, patch, strict=True)])


def strides_of(edge: int) -> tuple[int, int, int]:
    """Three strides whose product is the edge of a patch, largest first, as even as they can be: 16 is 4 * 2 * 2."""
    choices = [
        (a, b, edge // (a * b))
        for a in range(1, edge + 1)
        for b in range(1, a + 1)
        if edge % (a * b) == 0 and edge // (a * b) <= b
    ]
    return min(choices)


class ConvStem(nn.Module):
    """Three strided convolutions with overlapping fields, `(batch, channels, *voxels) -> (batch, tokens, width)`.

    Channels grow width/4, width/2, width. A kernel reaches one cell beyond its stride on both sides, so that a token's
    field lies around the middle of its patch, where its place is.

    Args:
        channels: Channels of the image.
        width: Channels of a token, a multiple of 4.
        patch: Voxels from token to token along each axis.
    """

    def __init__(self, channels: int, width: int, patch: Sequence[int]) -> None:
        super().__init__()
        sizes = (channels, width // 4, width // 2, width)
        steps = list(zip(*(strides_of(edge) for edge in patch), strict=True))
        self.layers = nn.ModuleList(
            CONVOLUTIONS[len(patch)](a, b, tuple(s + 2 for s in step), stride=step, padding=1)
            for a, b, step in zip(sizes[:-1], sizes[1:], steps, strict=True)
        )

    def forward(self, x: Tensor) -> Float[Tensor, "batch tokens width"]:
        for index, layer in enumerate(self.layers):
            x = layer(F.silu(x) if index else x)
        return x.flatten(2).transpose(1, 2)
