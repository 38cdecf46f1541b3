r"""Whole volumes in bounded memory: a local denoiser, block by block, with the values of the whole.

A convolutional network without attention and without norms over the grid (`nets.unet`, norm "channel") knows of a voxel
only what lies within its receptive field. So blocks that overlap by a *halo* on each side, of which the middles are kept,
give what the network gives for the whole grid: to rounding where the halo covers the receptive field, and as nearly as the
outermost weights are small where it does not. There are no seams to blend, and a voxel is computed about
(1 + 2 halo/tile)^n times.

    block = tile + 2 halo voxels;    starts are multiples of the network's own (pooling keeps its phase);
    blocks at the border of the grid end there, so that the network's padding is where it would be

Data steps stay on the whole grid (`operators`): they are cheap, and a measurement of k-space knows no blocks. Memory that
does not suffice halves the tile, says so, and goes on.

References:
    Ronneberger, Fischer & Brox, "U-Net", 2015, https://arxiv.org/abs/1505.04597, figure 2 (overlap and tile).
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.coefficients import Path
from radiata_core.errors import InputError
from radiata_core.flowmaps import euler_jump
from radiata_core.kernels import Kernel, kernel_of
from radiata_core.types import Batch, Time

__all__ = ["Block", "TiledDenoiser", "TiledFlowMap", "blocks_of_line"]

Block = tuple[slice, slice, slice]
"""Along one axis: the voxels of a block, those of its middle on the grid, and the same counted within the block."""


def blocks_of_line(length: int, tile: int, halo: int, multiple: int) -> tuple[Block, ...]:
    """Equal blocks that cover a line; their middles cut it without gap or overlap.

    Args:
        length: Of the line, a multiple of `multiple`.
        tile: Voxels that a block is good for, a multiple of `multiple`.
        halo: Overlap on each side, >= 0, a multiple of `multiple`.
        multiple: Starts are multiples of it.
    """
    size = min(length, tile + 2 * halo)
    rest = (length - size) // multiple
    steps = -(-rest * multiple // tile)
    starts = [0] if steps == 0 else [multiple * (i * rest // steps) for i in range(steps + 1)]
    # Neighbours overlap by two halos or more and are cut in the middle of that.
    cuts = [0, *[(a + size + b) // 2 for a, b in itertools.pairwise(starts)], length]
    return tuple(
        (slice(start, start + size), slice(low, high), slice(low - start, high - start))
        for start, (low, high) in zip(starts, itertools.pairwise(cuts), strict=True)
    )


class TiledDenoiser(nn.Module):
    """A local denoiser, evaluated in blocks: a denoiser of grids of any size.

    It holds no weights of its own and is not for files. The grid is continued by its mirror image to a multiple of the
    network's, and cut again. A volume may stay on the CPU while the network is on another device: blocks travel.
    Conditions on the grid of x, `(batch or 1, channel, *space)`, are cut like x.

    Args:
        denoiser: E[x_0 | x_t], local; with an attribute `network` whose `multiple` tells what grids it takes.
        tile: Voxels along each axis that a block is good for; rounded up to the multiple. 0: the whole grid.
        halo: Overlap on each side in voxels, >= 0; rounded up to the multiple.
        together: Blocks a call, >= 1: a convolution of one volume may be slower than half of one of two.
        empty: Blocks with no |x| above this number are taken to be 0 without a call; None: no block is. For states without
            noise only.
        say: Called with a line when memory did not suffice and the tile was halved; None: standard error.

    Raises:
        InputError: a number out of range.
    """

    def __init__(
        self,
        denoiser: Any,
        tile: int,
        halo: int,
        together: int = 2,
        empty: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        if tile < 0 or halo < 0 or together < 1 or (empty is not None and not empty >= 0):
            raise InputError(
                f"expected a tile, a halo and an empty level >= 0, and together >= 1; got {tile}, {halo}, {empty} and "
                f"{together}. A tile of 64 with a halo of 16 suits 4 GB."
            )
        self.denoiser = denoiser
        self.path: Path = denoiser.path
        self.multiple = int(getattr(getattr(denoiser, "network", None), "multiple", 1))
        self.tile, self.halo = _up(tile, self.multiple), _up(halo, self.multiple)
        self.together, self.empty = together, empty
        self.say = say

    @property
    def kernel(self) -> Kernel:
        """The law of the noise of the denoiser."""
        return kernel_of(self.denoiser)

    def forward(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[x_0 | x_t], (batch, channel, *space).

        Raises:
            InputError: memory does not suffice for the smallest tile.
        """
        space = tuple(x.shape[2:])
        wanted = [_up(n, self.multiple) for n in space]
        whole = _continued(x, wanted)
        given = {
            name: _continued(value, wanted) if _is_on(value, space) else value
            for name, value in conditions.items()
        }
        while True:
            try:
                found = self._in_blocks(whole, t, given)
                break
            except (MemoryError, RuntimeError) as error:
                if not _is_memory(error):
                    raise
            self._shrink(tuple(whole.shape[2:]))
        cut: tuple[Any, ...] = (..., *(slice(n) for n in space))
        return found[cut]

    def _in_blocks(self, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> Tensor:
        tile = self.tile or max(x.shape[2:])
        lines = [blocks_of_line(n, tile, self.halo, self.multiple) for n in x.shape[2:]]
        found = torch.zeros_like(x)
        places = [
            (row, corner)
            for corner in itertools.product(*lines)
            for row in range(len(x))
            if not self._is_empty(x[_at(row, corner, 0)])
        ]
        for start in range(0, len(places), self.together):
            some = places[start : start + self.together]
            blocks = torch.stack([x[_at(row, corner, 0)] for row, corner in some])
            values = self._called(blocks, t, some, x, conditions)
            for value, (row, corner) in zip(values, some, strict=True):
                found[_at(row, corner, 1)] = value[_at(0, corner, 2)[1:]].to(found)
        return found

    def _called(
        self,
        blocks: Tensor,
        t: Tensor,
        places: Sequence[tuple[int, Sequence[Block]]],
        x: Tensor,
        conditions: dict[str, Any],
    ) -> Tensor:
        device = next((p.device for p in self.parameters()), blocks.device)
        rows = [row for row, _ in places]
        of_rows = t if t.ndim == 0 or len(t) != len(x) else t[rows]

        def of_blocks(value: Any) -> Any:
            if _is_on(value, tuple(x.shape[2:])):
                parts = [value[_at(row if len(value) > 1 else 0, corner, 0)] for row, corner in places]
                return torch.stack(parts).to(device)
            is_batch = isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(x)
            return value[rows].to(device) if is_batch else value

        given = {name: of_blocks(value) for name, value in conditions.items()}
        values: Tensor = self.denoiser(blocks.to(device), of_rows, **given)
        return values

    def _is_empty(self, block: Tensor) -> bool:
        return self.empty is not None and float(block.abs().max()) <= self.empty

    def _shrink(self, space: Sequence[int]) -> None:
        """Fewer blocks a call, or a smaller tile, for this call and all that follow."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tile = min(self.tile or max(space), _up(max(space), self.multiple))
        if self.together > 1:
            self._one_at_a_time()
            return
        if tile > self.multiple:
            self.tile = _up(tile // 2, self.multiple)
            change = f"tiles of {self.tile} voxels in place of {tile}"
        else:
            raise InputError(
                f"expected memory for a block of {tile + 2 * self.halo} voxels along each axis; got less. "
                "Use a smaller halo, or a machine with more."
            )
        self._said(change)

    def _one_at_a_time(self) -> None:
        self.together = 1
        self._said("one block at a time")

    def _said(self, change: str) -> None:
        line = f"memory does not suffice: going on with {change}"
        if self.say is None:
            print(line, file=sys.stderr)
        else:
            self.say(line)


class TiledFlowMap(TiledDenoiser):
    """A local flow map, evaluated in blocks: jumps of grids of any size. Arguments as of `TiledDenoiser`."""

    def jump(self, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
        """The state at s, (batch, channel, *space), from the state at t > 0: one evaluation of every block."""
        return euler_jump(x, self(x, t, s=s, **conditions), t, s, self.path)


def _at(row: int, corner: Sequence[Block], which: int) -> tuple[Any, ...]:
    """Index of (row, all channels, one of the three slices along each axis)."""
    return (row, slice(None), *(block[which] for block in corner))


def _is_on(value: Any, space: tuple[int, ...]) -> bool:
    """Whether a condition lies on the grid."""
    return isinstance(value, Tensor) and value.ndim == len(space) + 2 and tuple(value.shape[2:]) == space


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _continued(x: Tensor, space: Sequence[int]) -> Tensor:
    """x with each axis of space continued at its high end by its mirror image."""
    for axis, wanted in enumerate(space, start=2):
        length = x.shape[axis]
        if wanted > length:
            at = torch.arange(wanted) % (2 * length)
            x = x.index_select(axis, torch.minimum(at, 2 * length - 1 - at).to(x.device))
    return x


def _is_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on any device."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
