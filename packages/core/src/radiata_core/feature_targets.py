"""What a denoiser is aligned to: maps of features of the clean image, from any frozen network.

An encoder is anything with `channels`, `stride` (voxels a cell, along each axis) and a call

    encoder(x) -> (batch, channels, *cells)        x (batch, channel, *grid) as the denoiser knows it, no gradient

`tapped_features` makes one of any module and the name of a layer in it: a segmenter of your own, a pretrained classifier,
another denoiser. `Slicewise` lets an encoder of pictures see volumes. `radiata_imaging.feature_encoders` has those of files:
MeshNet's, exported programs, models of transformers.

Dense encoders (segmenters) are good targets; a classifier's deep layers know little of places.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.handles import first_of, on_cells
from radiata_core.sites import some_of

__all__ = ["Features", "Slicewise", "TappedFeatures", "tapped_features"]


@runtime_checkable
class Features(Protocol):
    """An encoder by what it answers. A property `fingerprint` (`feature_cache`) names its weights.

    Attributes:
        channels: Features of a cell.
        stride: Voxels of a cell along each axis.
    """

    @property
    def channels(self) -> int: ...

    @property
    def stride(self) -> tuple[int, ...]:
        """Voxels of a cell along each axis."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, *cells)` of images `(batch, channel, *grid)`, without a gradient."""
        ...


@dataclass(frozen=True, eq=False)
class TappedFeatures:
    """What a layer of a module answers, in evaluation mode.

    Attributes:
        module: Called with the image alone; its own mode (training or not) is as before after each call.
        layer: Name of the module inside it; "" for its output.
        channels: Features of a cell.
        stride: Voxels of a cell along each axis.
        prepare: From the image as the denoiser knows it to what the module wants; None for the same.
        name: Further words for its fingerprint, where the module's weights do not say all.
    """

    module: nn.Module
    layer: str
    channels: int
    stride: tuple[int, ...]
    prepare: Callable[[Tensor], Tensor] | None = None
    name: str = ""

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return _folded(_read(self.module, self.layer, x, self.prepare), x, self.stride)


def tapped_features(
    module: nn.Module,
    layer: str,
    example: Tensor,
    *,
    stride: tuple[int, ...] | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> TappedFeatures:
    """A layer of any module as an encoder; one call on `example` finds its channels and stride.

    Args:
        module: Anything that takes an image.
        layer: Name of a module inside it, whose output is maps `(batch, channels, *cells)` or tokens `(batch, tokens,
            channels)`, those of the grid last (after a class token).
        example: An image `(1, channel, *grid)`, on the module's device; edges that the network divides evenly.
        stride: Voxels a token along each axis; needed for tokens only.
        prepare: From the image as the denoiser knows it to what the module wants, such as other intensities.

    Raises:
        InputError: no such layer, tokens without a stride, or an output that is neither maps nor tokens.
    """
    values = _read(module, layer, example, prepare)
    if stride is None and values.ndim != example.ndim:
        raise InputError(
            f"expected maps (batch, channels, {example.ndim - 2} axes); got {tuple(values.shape)}. "
            "Give stride= if these are tokens, or choose another layer."
        )
    grid = example.shape[2:]
    found = stride or tuple(round(n / cells) for n, cells in zip(grid, values.shape[2:], strict=True))
    maps = _folded(values, example, found)
    return TappedFeatures(module, layer, maps.shape[1], found, prepare)


def _read(module: nn.Module, layer: str, x: Tensor, prepare: Callable[[Tensor], Tensor] | None) -> Tensor:
    modules = dict(module.named_modules())
    if layer not in modules:
        raise InputError(f"expected a layer of the encoder; got {layer!r}. It has {some_of(modules)}.")
    held: list[Any] = []
    hook = modules[layer].register_forward_hook(lambda _, __, output: held.append(output))
    try:
        with torch.no_grad(), _evaluating(module):
            module(x if prepare is None else prepare(x))
    finally:
        hook.remove()
    if not held:
        raise InputError(
            f"expected layer {layer!r} to run; the encoder did not use it. Choose another layer."
        )
    return first_of(held[-1]).detach()


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in was:
            part.training = training


def _folded(values: Tensor, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Maps as they are; tokens on their grid, the last ones if there are more."""
    if values.ndim == x.ndim and values.ndim != 3:
        return values
    cells = tuple(math.ceil(n / s) for n, s in zip(x.shape[2:], stride, strict=True))
    if values.ndim == 3 and x.ndim == 3 and values.shape[2] == cells[0]:
        return values
    number = math.prod(cells)
    if values.ndim != 3 or values.shape[1] < number:
        raise InputError(
            f"expected maps, or at least {number} tokens (batch, tokens, channels); got {tuple(values.shape)}. "
            "Check the layer and its stride."
        )
    return on_cells(values[:, values.shape[1] - number :], cells)


@dataclass(frozen=True, eq=False)
class Slicewise:
    """An encoder of pictures on volumes: every slice along an axis by itself, stacked, averaged over `pool` slices.

    Attributes:
        encoder: Features of pictures `(batch, channel, row, column)`.
        axis: Which axis of the volume is cut, 0, 1 or 2.
        pool: Slices of a cell, >= 1; the last cell may have fewer.
        colours: Channels the encoder wants of a volume with one, which is repeated.
        chunk: Slices encoded at once, >= 1.

    Raises:
        InputError: an axis or a number out of range.
    """

    encoder: Features
    axis: int = 2
    pool: int = 1
    colours: int = 1
    chunk: int = 16

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2) or min(self.pool, self.colours, self.chunk) < 1:
            raise InputError(
                f"expected axis 0, 1 or 2, and pool, colours and chunk >= 1; got {self.axis}, {self.pool}, {self.colours}, "
                f"{self.chunk}. Axis 2 is axial for heads."
            )

    @property
    def channels(self) -> int:
        return self.encoder.channels

    @property
    def stride(self) -> tuple[int, ...]:
        within = list(self.encoder.stride)
        within.insert(self.axis, self.pool)
        return tuple(within)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 5:
            raise InputError(f"expected volumes (batch, channel, x, y, z); got {tuple(x.shape)}.")
        slices = x.movedim(2 + self.axis, 1)  # (batch, slice, channel, row, column)
        pictures = slices.flatten(0, 1)
        if self.colours > 1 and pictures.shape[1] == 1:
            pictures = pictures.expand(-1, self.colours, -1, -1)
        maps = torch.cat([self.encoder(part) for part in pictures.split(self.chunk)])
        stacked = maps.unflatten(0, slices.shape[:2]).movedim(1, 2 + self.axis)
        if self.pool == 1:
            return stacked
        edges = [1, 1, 1]
        edges[self.axis] = self.pool
        return F.avg_pool3d(stacked, tuple(edges), ceil_mode=True)
