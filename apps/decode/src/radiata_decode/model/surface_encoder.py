r"""Tokens of a picture of the cortex: a vision transformer that knows where each patch lies.

    (n, 1, y, x) → patches of 16 × 16 pixels → linear + fixed positions → CLS and patch tokens → blocks → (n, 1 + p, width)

Positions are not learned: a patch at (row, column) gets sines and cosines of both, half of the channels each,

$$ \sin(\omega_k\, r),\ \cos(\omega_k\, r), \qquad \omega_k = 10^{-4k/(d/4)}, $$

since place on the canvas *is* anatomy, the same for every person, and must mean the same before and after refining. Nothing
in the network belongs to a person.

References:
    A. Dosovitskiy et al. (2021). An image is worth 16x16 words. https://arxiv.org/abs/2010.11929 (blocks, CLS).
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (patches of 16 on 256 × 256, width 1024).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["SIZES", "SurfaceEncoder", "TransformerBlock", "grid_positions"]

SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"width": 96, "depth": 3, "heads": 4},
    "small": {"width": 256, "depth": 6, "heads": 8},
    "base": {"width": 512, "depth": 12, "heads": 8},
    "paper": {"width": 1024, "depth": 24, "heads": 16},
}
"""Sizes by name. The width of `paper` is published; its depth and heads, which are not, are those of ViT-L."""


def grid_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed positions of the patches, row by row, (p, width).

    Raises:
        InputError: a width that does not divide by 4.
    """
    if width % 4:
        raise InputError(f"expected a width that divides by 4; got {width}.")
    omega = 10.0 ** (-4.0 * torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in grid], indexing="ij")
    parts = [axis.reshape(-1, 1) * omega for axis in (rows, columns)]
    return torch.cat([wave for part in parts for wave in (part.sin(), part.cos())], 1).float()


class TransformerBlock(nn.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, width: int, heads: int, ratio: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, token, width)."""
        batch, count, width = x.shape
        q, k, v = (
            part.reshape(batch, count, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, width)
        x = x + F.dropout(self.out(mixed), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


@buildable("surface-encoder")
class SurfaceEncoder(nn.Module):
    """Tokens `(n, 1 + p, width)` of pictures of the cortex `(n, 1, y, x)`; the first is CLS.

    Args:
        size: Of the picture, (y, x) pixels.
        patch: Side of the patches, pixels.
        width: Of the tokens, divides by 4 and by the heads.
        depth: Blocks.
        heads: Of the attention.
        dropout: Of attention and mlp outputs in training, in [0, 1).

    Raises:
        InputError: sizes that do not divide.
    """

    positions: Tensor

    def __init__(
        self,
        size: tuple[int, int] = (128, 128),
        patch: int = 16,
        width: int = 96,
        depth: int = 3,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        size = (int(size[0]), int(size[1]))
        if size[0] % patch or size[1] % patch or width % heads:
            raise InputError(
                f"expected a picture that divides by patches of {patch} and a width that divides by {heads} heads; got "
                f"{size[0]}x{size[1]} and {width}. 128 or 256 pixels are usual."
            )
        self.options = {
            "size": size,
            "patch": patch,
            "width": width,
            "depth": depth,
            "heads": heads,
            "dropout": dropout,
        }
        self.size, self.patch, self.width = size, patch, width
        self.grid = (size[0] // patch, size[1] // patch)
        self.register_buffer("positions", grid_positions(self.grid, width), persistent=False)
        self.embed = nn.Linear(patch * patch, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def tokens(self) -> int:
        """1 + p."""
        return 1 + self.grid[0] * self.grid[1]

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of pictures.

        Raises:
            InputError: pictures of another size.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (1, *self.size):
            raise InputError(
                f"expected pictures of the cortex (n, 1, {self.size[0]}, {self.size[1]}); got {tuple(images.shape)}. "
                "Use the canvas that the model was trained on."
            )
        patches = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        tokens = self.embed(patches) + self.positions
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)
