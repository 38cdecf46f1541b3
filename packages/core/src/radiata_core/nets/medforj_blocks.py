"""The pieces of MedForJ's network: residual blocks, attention, and the levels made of them.

Every attribute here is part of a tensor's name in the released weights; see `medforj.py` for the whole and the equations.
"""

import contextvars
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from radiata_core.nets.doubling import doubled_convolution
from radiata_core.nets.norm_silu import norm_silu

__all__ = [
    "Attention",
    "Conv",
    "Down",
    "Downsample",
    "Middle",
    "Recipe",
    "Residual",
    "Shifts",
    "Signal",
    "Up",
    "Upsample",
    "activated",
    "is_plain",
    "is_traced",
    "shift_of",
    "sinusoid",
]


def sinusoid(value: Float[Tensor, "batch"], width: int) -> Float[Tensor, "batch width"]:
    r"""Cosines and sines of `value` at `width`/2 frequencies from 1 down to about 1/10000, in float32.

    ω_j = 10000^(−j/h), h = ⌊width/2⌋; columns [cos(ω value), sin(ω value)], then 0 if `width` is odd.
    (Float32 throughout, because the released weights were trained with its rounding.)
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=value.device)
    angle = value.float()[:, None] * torch.exp(-math.log(10000) * steps / half)[None]
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, width % 2))


@dataclass(frozen=True)
class Recipe:
    """What all blocks of a network share: axes, normalisation, width of the embedding, form of attention."""

    dims: int
    groups: int
    eps: float
    embedding: int
    include_fc: bool
    combined: bool

    def norm(self, channels: int) -> nn.GroupNorm:
        """A new group normalisation of `channels`, which the number of groups must divide."""
        return nn.GroupNorm(self.groups, channels, eps=self.eps)


class Conv(nn.Module):
    """A convolution that keeps (or halves) the size; its child's name is part of the weights' names."""

    def __init__(self, dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.conv = kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Shifts:
    """What residual blocks add at a noise level, worked out before (`medforj_times`): rows of all blocks side by side.

    Args:
        rows: One row a sample, or a single row.
        places: Where each block's `time_emb_proj` has its numbers.
    """

    def __init__(self, rows: Float[Tensor, "*batch shift"], places: Mapping[nn.Module, slice]) -> None:
        self.rows, self.places = rows, places

    def __getitem__(self, row: int) -> "Shifts":
        return Shifts(self.rows[row], self.places)


Signal = Tensor | Shifts
"""What a block is told: SiLU of the embedded noise level (batch, width), or what the blocks would make of it."""


def shift_of(projection: nn.Module, signal: Signal) -> Float[Tensor, "*batch channels"]:
    """What a residual block adds to its channels."""
    told: Tensor = (
        signal.rows[..., signal.places[projection]] if isinstance(signal, Shifts) else projection(signal)
    )
    return told


class Downsample(nn.Module):
    """The grid halved by a convolution of stride 2: (batch, channels, *grid) → (batch, channels, *⌈grid/2⌉).

    The embedding of the noise level is taken, so that all ways of changing the grid are called alike, and not used.
    """

    def __init__(self, recipe: Recipe, channels: int) -> None:
        super().__init__()
        self.op = Conv(recipe.dims, channels, channels, stride=2)

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """The grid doubled: nearest neighbours, then a convolution; (batch, channels, *grid) → (batch, channels, *2 grid).

    Both at once (`doubling`), unless somebody watches or replaced the convolution.

    The embedding of the noise level is taken, so that all ways of changing the grid are called alike, and not used.
    """

    def __init__(self, recipe: Recipe, channels: int) -> None:
        super().__init__()
        self.postconv = Conv(recipe.dims, channels, channels)

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        if is_plain(self.postconv):
            return doubled_convolution(x, self.postconv.conv.weight, self.postconv.conv.bias)
        return self.postconv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Residual(nn.Module):
    """Residual block told the noise level; `resolution` "up" or "down" doubles or halves the grid."""

    def __init__(self, recipe: Recipe, inputs: int, outputs: int, resolution: str = "same") -> None:
        super().__init__()
        self.norm1 = recipe.norm(inputs)
        self.conv1 = Conv(recipe.dims, inputs, outputs)
        self.time_emb_proj = nn.Linear(recipe.embedding, outputs)
        self.norm2 = recipe.norm(outputs)
        self.conv2 = Conv(recipe.dims, outputs, outputs)
        same = inputs == outputs
        self.skip_connection = nn.Identity() if same else Conv(recipe.dims, inputs, outputs, kernel=1)
        self.resolution, self.dims = resolution, recipe.dims
        self.frugal = False  # with gradients: norm and SiLU as one operation, of the same numbers to rounding

    def resize(self, x: Tensor) -> Tensor:
        """`x` on the block's grid: doubled by nearest neighbours, halved by means over 2 voxels an axis, or as it is."""
        if self.resolution == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.resolution == "down":
            return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[self.dims - 1](x, 2)
        return x

    def forward(self, x: Tensor, signal: Signal) -> Tensor:
        h = self.conv1(self.resize(self._activated(self.norm1, x)))
        shift = shift_of(self.time_emb_proj, signal)
        h = h + shift.reshape(*shift.shape, *[1] * self.dims)
        return self.skip_connection(self.resize(x)) + self.conv2(self._activated(self.norm2, h))

    def _activated(self, norm: nn.Module, x: Tensor) -> Tensor:
        return activated(norm, x) if self.frugal else _silu(norm(x))


class Heads(nn.Module):
    """Multi-head self-attention over (batch, voxel, channel)."""

    def __init__(self, recipe: Recipe, channels: int, head: int) -> None:
        super().__init__()
        self.heads, self.combined = channels // head, recipe.combined
        if recipe.combined:
            self.qkv = nn.Linear(channels, 3 * channels)
        else:
            self.to_q = nn.Linear(channels, channels)
            self.to_k = nn.Linear(channels, channels)
            self.to_v = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels) if recipe.include_fc else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        three = self._three(x)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in three)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _three(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values, by one product where nobody watches the three layers."""
        if self.combined:
            return self.qkv(x).chunk(3, dim=2)
        layers = (self.to_q, self.to_k, self.to_v)
        if not all(is_plain(layer) for layer in layers):
            return [layer(x) for layer in layers]
        weight = torch.cat([layer.weight for layer in layers])
        return F.linear(x, weight, torch.cat([layer.bias for layer in layers])).chunk(3, dim=2)


class Attention(nn.Module):
    """Every voxel attends to every voxel: x + Heads(GroupNorm(x)), of the shape of `x` (batch, channels, *grid).

    Memory is linear in the number of voxels where torch has a fused kernel and quadratic where it has none, so
    it belongs on coarse grids. `head` is the width of one head; it must divide `channels`.
    """

    def __init__(self, recipe: Recipe, channels: int, head: int) -> None:
        super().__init__()
        self.norm = recipe.norm(channels)
        self.attn = Heads(recipe, channels, head)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return self.attn(tokens).transpose(1, 2).reshape(x.shape) + x


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention where `head` is given."""

    def __init__(self, recipe: Recipe, sizes: Sequence[tuple[int, int]], head: int | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(recipe, *size) for size in sizes)
        self.attentions = nn.ModuleList(Attention(recipe, out, head) for _, out in sizes if head is not None)
        self.checkpointing = False

    def block(self, index: int, parts: Sequence[Tensor], signal: Signal) -> Tensor:
        """Maps (batch, channels, *grid), joined, after residual block `index` and its attention, if the level has it."""
        h = _computed(self.resnets[index], parts, signal, self.checkpointing)
        return self.attentions[index](h) if len(self.attentions) else h


class Down(Level):
    """Leaves every result on the stack of skips for the way up."""

    def __init__(self, *args: Any, change: nn.Module | None) -> None:
        super().__init__(*args)
        self.downsampler = change

    def forward(self, h: Tensor, signal: Signal, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.resnets)):
            h = self.block(index, (h,), signal)
            skips.append(h)
        if self.downsampler is not None:
            h = self.downsampler(h, signal)
            skips.append(h)
        return h


class Up(Level):
    """Takes one skip off the stack for every block, so that its memory is free as soon as it was used."""

    def __init__(self, *args: Any, change: nn.Module | None) -> None:
        super().__init__(*args)
        self.upsampler = change

    def forward(self, h: Tensor, signal: Signal, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.resnets)):
            h = self.block(index, (h, skips.pop()), signal)
        return h if self.upsampler is None else self.upsampler(h, signal)


class Middle(nn.Module):
    """The coarsest grid: residual block, attention, residual block; the shape stays."""

    def __init__(self, recipe: Recipe, channels: int, head: int) -> None:
        super().__init__()
        self.resnet_1 = Residual(recipe, channels, channels)
        self.attention = Attention(recipe, channels, head)
        self.resnet_2 = Residual(recipe, channels, channels)
        self.checkpointing = False

    def forward(self, h: Tensor, signal: Signal) -> Tensor:
        h = _computed(self.resnet_1, (h,), signal, self.checkpointing)
        return _computed(self.resnet_2, (self.attention(h),), signal, self.checkpointing)


def activated(norm: nn.Module, x: Tensor) -> Tensor:
    """SiLU(norm(x)) that keeps x alone for its gradient, where nobody watches."""
    own = isinstance(norm, nn.GroupNorm) and is_plain(norm) and not is_traced(x)
    return norm_silu(x, norm) if own and torch.is_grad_enabled() else _silu(norm(x))  # type: ignore[arg-type]


def is_traced(x: Tensor) -> bool:
    """Whether a compiler, autocast or a functional transform wants the modules called as they are written."""
    traced = (
        torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type) or torch.jit.is_tracing()
    )
    return traced or torch._C._functorch.maybe_current_level() is not None


def is_plain(module: nn.Module) -> bool:
    """Whether a module and its children are this library's or torch's own, and unchanged.

    There are no hooks, parametrisations or new `forward`: only then may what they compute be computed in another way.
    """
    return all(
        type(part).__module__.startswith(_OWN)
        and not (
            part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        )
        and "forward" not in part.__dict__
        for part in module.modules()
    )


_OWN = ("radiata_core.nets.medforj", "torch.nn.modules.")


ROW = 8 * 2**20
"""Bytes of a row's map from which rows are computed again one by one: large enough for any device to be busy with one."""


def _computed(block: nn.Module, parts: Sequence[Tensor], signal: Signal, again: bool) -> Tensor:
    """`block` of the joined maps; `again`: computed a second time in the backward pass, nothing of it kept for it.

    Where maps are large and nobody watches, one row after the other: its gradient then needs the memory of one row.
    """

    def run(signal: Signal, *parts: Tensor) -> Tensor:
        made: Tensor = block(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], signal)
        return made

    if not (again and torch.is_grad_enabled()):
        return run(signal, *parts)
    now = contextvars.copy_context()  # what a handle's hooks know of this call, for the second time

    def twice(*tensors: Any) -> Tensor:
        made: Tensor = checkpoint(
            lambda *given: now.run(run, *given), *tensors, use_reentrant=False, preserve_rng_state=False
        )
        return made

    row = max(part[0].numel() * part.element_size() for part in parts)
    if len(parts[0]) == 1 or row < ROW or isinstance(signal, Shifts) or not is_plain(block):
        return twice(signal, *parts)
    rows = zip(*(tensor.split(1) for tensor in (signal, *parts)), strict=True)
    return torch.cat([twice(*tensors) for tensors in rows])


def _silu(fresh: Tensor) -> Tensor:
    """SiLU of a tensor nobody else holds: in place where no gradient needs the old values."""
    return F.silu(fresh, inplace=not torch.is_grad_enabled())
