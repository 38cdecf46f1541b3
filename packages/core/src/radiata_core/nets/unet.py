r"""A small n-dimensional U-Net for denoising: space-to-depth stem, adaptive group norm, additive skips, positions.

Reading order: `UNet.forward` first, then `Residual`, then `Attention`.

Four choices make it cheap at the finest grid without a latent space. The stem folds every patch^n block of voxels into
channels (an invertible rearrangement, so nothing is encoded away). Skips are added, not concatenated. The finest level
has residual blocks only on the way up. And every coarser level carries a learned position embedding, so that a network
for one field of view knows where it is; leave `shape` out for a network that must work on any grid.

Noise level and covariates enter through one embedding e and modulate each block, h <- (1 + s(e)) GN(h) + b(e), with the
output layer and the last convolution of each block started at zero (Peebles & Xie 2023, "adaLN-zero").
A covariate that is NaN is *not given*: its value is replaced by zero and a flag says so, which is what classifier-free
guidance needs (Ho & Salimans 2022).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["ChannelNorm", "UNet", "depth_to_space", "space_to_depth"]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """Fold each patch^n block into channels: `(b, c, n1, ..)` -> `(b, c patch^n, n1/patch, ..)`."""
    if patch == 1:
        return x
    dims = x.ndim - 2
    batch, channels, *grid = x.shape
    split = [n for size in grid for n in (size // patch, patch)]
    order = [0, 1, *[3 + 2 * i for i in range(dims)], *[2 + 2 * i for i in range(dims)]]
    folded = x.reshape(batch, channels, *split).permute(order)
    return folded.reshape(batch, channels * patch**dims, *[size // patch for size in grid])


def depth_to_space(x: Tensor, patch: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    if patch == 1:
        return x
    dims = x.ndim - 2
    batch, channels, *grid = x.shape
    channels //= patch**dims
    order = [0, 1, *[n for i in range(dims) for n in (2 + dims + i, 2 + i)]]
    unfolded = x.reshape(batch, channels, *[patch] * dims, *grid).permute(order)
    return unfolded.reshape(batch, channels, *[size * patch for size in grid])


def _on_grid(positions: Tensor, grid: Sequence[int]) -> Tensor:
    """Learned positions, interpolated where the grid is another one of the same field of view."""
    if positions.shape[2:] == tuple(grid):
        return positions
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    return F.interpolate(positions, tuple(grid), mode=mode)


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ChannelNorm(nn.Module):
    """h over its root mean square across channels, voxel by voxel, times a learned scale: no voxel knows of another.

    Group norm makes every voxel depend on the whole grid, so that a block of a volume is not what the volume is there. With
    this norm, and without attention, a U-Net is local: blocks with a halo give the values of the whole.
    """

    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None

    def forward(self, h: Tensor) -> Tensor:
        scale = (h.square().mean(1, keepdim=True) + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight.reshape(-1, *[1] * (h.ndim - 2))
        return h * scale


def _norm(kind: str, channels: int, affine: bool = True) -> nn.Module:
    if kind == "channel":
        return ChannelNorm(channels, affine)
    return nn.GroupNorm(max(g for g in (8, 4, 2, 1) if channels % g == 0), channels, affine=affine)


class Residual(nn.Module):
    """h + conv(silu(modulated norm(conv(silu(norm(h))))))."""

    def __init__(self, channels: int, embedding: int, dims: int, norm: str = "group") -> None:
        super().__init__()
        self.norm1 = _norm(norm, channels)
        self.conv1 = _CONV[dims](channels, channels, 3, padding=1)
        self.norm2 = _norm(norm, channels, affine=False)
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.conv2 = _zero(_CONV[dims](channels, channels, 3, padding=1))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.modulation(e).reshape(len(h), -1, *[1] * (h.ndim - 2)).chunk(2, 1)
        inner = self.norm2(self.conv1(F.silu(self.norm1(h))))
        return h + self.conv2(F.silu(torch.addcmul(shift, inner, 1.0 + scale)))


class Attention(nn.Module):
    """h + softmax attention over all voxels of the level, heads of `head` channels, q and k normalised."""

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head)
        self.norm = nn.GroupNorm(max(g for g in (8, 4, 2, 1) if channels % g == 0), channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = _zero(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        batch, count, channels = tokens.shape
        q, k, v = (
            part.reshape(batch, count, self.heads, -1).transpose(1, 2)
            for part in self.qkv(tokens).chunk(3, -1)
        )
        q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, channels)
        return h + self.out(mixed).transpose(1, 2).reshape(h.shape)


class Level(nn.Module):
    """The blocks of one resolution, on the way down or up."""

    def __init__(
        self, channels: int, blocks: int, attention: bool, embedding: int, dims: int, norm: str
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(channels, embedding, dims, norm) for _ in range(blocks))
        self.attention = nn.ModuleList(Attention(channels) for _ in range(blocks if attention else 0))

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            h = block(h, e)
            if self.attention:
                h = self.attention[index](h)
        return h


@buildable("unet")
class UNet(nn.Module):
    """Denoising network `(x, noise_level, covariates) -> ` tensor of `out_channels` on the grid of x.

    Args:
        dims: Spatial dimensions, 1, 2 or 3.
        in_channels: Channels of x.
        out_channels: Channels of the output.
        patch: Edge of the blocks folded into channels; every grid axis must divide by patch * 2^(levels - 1).
        channels: Channels a level, finest first.
        down_blocks: Residual blocks a level on the way down.
        up_blocks: The same on the way up.
        attention: Whether a level attends, a boolean a level.
        covariates: Number of covariates K; 0 for none.
        embedding: Width of the conditioning embedding.
        frequencies: Fourier features of the noise level.
        shape: The grid, for learned positions; None for any grid and no positions. Where `any_multiple` is set (by
            `finer_voxels.finer`) a multiple of it is finer voxels of the same field of view, with positions interpolated.
        destination: Whether the network is a flow map and takes a second noise level, that of the destination. Its
            embedding starts at zero: weights of a denoiser start a flow map.
        norm: "group", or "channel" for a network without attention that is local (`ChannelNorm`).
    """

    octaves: Tensor

    def __init__(
        self,
        *,
        dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        patch: int = 2,
        channels: Sequence[int] = (32, 64, 128),
        down_blocks: Sequence[int] = (0, 2, 2),
        up_blocks: Sequence[int] = (1, 2, 2),
        attention: Sequence[bool] = (False, False, True),
        covariates: int = 0,
        embedding: int = 256,
        frequencies: int = 64,
        shape: Sequence[int] | None = None,
        destination: bool = False,
        norm: str = "group",
    ) -> None:
        super().__init__()
        if norm not in ("group", "channel"):
            raise InputError(f"expected norm group or channel; got {norm!r}. Use one of them.")
        self.options: dict[str, Any] = {
            "dims": dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "patch": patch,
            "channels": tuple(channels),
            "down_blocks": tuple(down_blocks),
            "up_blocks": tuple(up_blocks),
            "attention": tuple(attention),
            "covariates": covariates,
            "embedding": embedding,
            "frequencies": frequencies,
            "shape": None if shape is None else tuple(shape),
            "destination": destination,
            **(
                {"norm": norm} if norm != "group" else {}
            ),  # cards written before there was a choice stay as they are
        }
        levels = len(channels)
        if not len(down_blocks) == len(up_blocks) == len(attention) == levels:
            raise InputError(
                f"expected one entry a level in channels, down_blocks, up_blocks and attention; got {levels}, "
                f"{len(down_blocks)}, {len(up_blocks)}, {len(attention)}"
            )
        self.multiple, self.any_multiple = patch * 2 ** (levels - 1), False
        conv = _CONV[dims]
        self.patch, self.covariates = patch, covariates
        self.register_buffer("octaves", torch.linspace(-2.5, 1.5, frequencies // 2).exp(), persistent=False)
        self.embed_noise = nn.Linear(frequencies, embedding)
        self.embed_destination = _zero(nn.Linear(frequencies, embedding)) if destination else None
        self.embed_covariates = nn.Linear(2 * covariates, embedding) if covariates else None
        self.embed = nn.Sequential(nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.stem = conv(in_channels * patch**dims, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            Level(c, n, a, embedding, dims, norm)
            for c, n, a in zip(channels, down_blocks, attention, strict=True)
        )
        self.up = nn.ModuleList(
            Level(c, n, a, embedding, dims, norm)
            for c, n, a in zip(channels, up_blocks, attention, strict=True)
        )
        pairs = list(itertools.pairwise(channels))
        self.shrink = nn.ModuleList(conv(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.grow = nn.ModuleList(conv(coarse, fine, 1) for fine, coarse in pairs)
        self.positions = nn.ParameterList()
        if shape is not None:
            self._check(tuple(shape))
            grids = [[n // patch // 2**level for n in shape] for level in range(levels)]
            self.positions.extend(
                nn.Parameter(torch.zeros(1, c, *grid))
                for c, grid in zip(channels[1:], grids[1:], strict=True)
            )
        self.head_norm = _norm(norm, channels[0])
        self.head = _zero(conv(channels[0], out_channels * patch**dims, 3, padding=1))

    def _check(self, grid: tuple[int, ...]) -> None:
        if any(n % self.multiple for n in grid):
            raise InputError(
                f"expected grid axes that divide by {self.multiple}; got {'x'.join(map(str, grid))}. "
                "Pad the volume or use fewer levels."
            )
        wanted = self.options["shape"]
        if wanted is None or grid == wanted:
            return
        if (
            not self.any_multiple
            or len(grid) != len(wanted)
            or any(n % w for n, w in zip(grid, wanted, strict=True))
        ):
            raise InputError(
                f"expected a grid of {'x'.join(map(str, wanted))} (the network knows its positions); got "
                f"{'x'.join(map(str, grid))}. Prepare the data with that shape, or build the network without `shape`."
            )

    def _waves(self, noise_level: Tensor) -> Tensor:
        phase = noise_level.to(self.octaves).reshape(-1, 1) * self.octaves
        return torch.cat([phase.sin(), phase.cos()], -1)

    def _embedding(
        self, noise_level: Tensor, covariates: Tensor | None, batch: int, target_level: Tensor | None
    ) -> Tensor:
        e = self.embed_noise(self._waves(noise_level)).expand(batch, -1)
        if self.embed_destination is not None:
            e = e + self.embed_destination(self._waves(noise_level if target_level is None else target_level))
        if self.embed_covariates is None:
            return self.embed(e)
        if covariates is None:
            covariates = e.new_full((batch, self.covariates), torch.nan)
        missing = covariates.isnan()
        known = torch.cat([covariates.masked_fill(missing, 0.0), missing.to(e.dtype)], -1)
        return self.embed(e + self.embed_covariates(known.to(e.dtype)))

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        covariates: Tensor | None = None,
        target_level: Tensor | None = None,
    ) -> Tensor:
        """Output `(batch, out_channels, *grid)`.

        Args:
            x: `(batch, in_channels, *grid)`.
            noise_level: Scalar or `(batch,)`; the denoiser gives the log-SNR.
            covariates: `(batch, K)`, standardised; NaN where not given. None for none.
            target_level: Scalar or `(batch,)`; the log-SNR of a flow map's destination, None for the level itself.
        """
        self._check(tuple(x.shape[2:]))
        e = self._embedding(noise_level, covariates, len(x), target_level)
        h = self.stem(space_to_depth(x, self.patch))
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
                if len(self.positions):
                    h = h + _on_grid(self.positions[level - 1], h.shape[2:])
            h = blocks(h, e)
            skips.append(h)
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                h = F.interpolate(self.grow[level](h), scale_factor=2.0, mode="nearest") + skips[level]
            h = self.up[level](h, e)
        return depth_to_space(self.head(F.silu(self.head_norm(h))), self.patch)
