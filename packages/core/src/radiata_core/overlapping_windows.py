r"""A larger field of view than was trained: overlapping windows that are told where they are, averaged at every step.

A network trained on crops knows a window, not the volume. Windows that overlap are denoised by themselves and their
posterior means averaged, with weights w that fall towards the edges of a window,

$$\hat x_0(x_t)[i] = \sum_b w_b[i]\,\hat x_0^b(x_t|_b)[i], \qquad \sum_b w_b[i] = 1,$$

at *every* evaluation, so that neighbours agree on what they share before there is any detail (MultiDiffusion; the average
is the least-squares reconciliation of the windows' wishes). The result is a denoiser: solvers, guidance and data steps go on
as before.

Windows that do not know where they are all draw the object that the network has seen most: a row of hearts. So the crops of
the training are told their place, in *channels of absolute coordinates*, and so are the windows:

    x, y, z in mm  ->  `coordinates_of(grid, spacing, origin)`  ->  `WithCoordinates(network)` joins them to its input
    training       ->  crops of x_0 and of the same coordinates;   sampling ->  `OverlappingDenoiser(..., coordinates=...)`

Beside it: `tiling.TiledDenoiser` is exact for networks that are local (halo >= receptive field), and cuts without blending;
here a network may be as global within its window as it likes, and joined windows are an approximation, whose error at a
voxel is the weighted mean of what each window does not see. `finer_voxels` is for more voxels, not for more of the body.

Noise, too, belongs to a place: `noise_of_box` draws any box of an endless grid, the same numbers for a voxel wherever the
box begins and however large it is. So a volume can be drawn again with more around it.

References:
    Bar-Tal et al., "MultiDiffusion: fusing diffusion paths for controlled image generation", 2023,
        https://arxiv.org/abs/2302.08113, section on fusing by least squares (closed form: the weighted average).
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_core.specs import buildable
from radiata_core.tiling import Block, TiledDenoiser, _at
from radiata_core.types import Batch, Time

__all__ = [
    "JoinedInput",
    "OverlappingDenoiser",
    "WithCoordinates",
    "coordinates_of",
    "noise_of_box",
    "weights_of_line",
]


def coordinates_of(
    grid: Sequence[int], spacing: float | Sequence[float] = 1.0, origin: float | Sequence[float] = 0.0
) -> Float[Tensor, "1 axes *grid"]:
    """Places of the voxels of a grid, one channel an axis.

    Args:
        grid: Voxels along each axis, >= 1.
        spacing: Distance of voxels in mm, > 0; one or one an axis. In units in which places are of order 1, for a network.
        origin: Place of the first voxel in the same unit.

    Raises:
        InputError: not one number an axis.
    """
    steps, starts = ((v,) * len(grid) if isinstance(v, int | float) else tuple(v) for v in (spacing, origin))
    if not len(grid) == len(steps) == len(starts) or min(grid, default=0) < 1 or min(steps, default=0) <= 0:
        raise InputError(
            f"expected sizes >= 1 and spacings > 0, one an axis; got {tuple(grid)}, {spacing} and {origin}. Give as many."
        )
    lines = [start + step * torch.arange(n) for n, step, start in zip(grid, steps, starts, strict=True)]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).float()[None]


class JoinedInput(nn.Module):
    """A network that is given a condition as further channels of its input.

    Args:
        network: Any network `(x, noise_level, ...)` with as many further input channels as the condition has.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.options = {"network": network}
        self.network = network

    @property
    def multiple(self) -> int:
        """What the axes of its grid divide by."""
        return int(getattr(self.network, "multiple", 1))


@buildable("with-coordinates")
class WithCoordinates(JoinedInput):
    """A network whose last input channels are places, given as the condition `coordinates`.

    Args:
        network: Any network `(x, noise_level, ...)` with as many further input channels as there are axes.
    """

    def forward(
        self, x: Tensor, noise_level: Tensor, *more: Any, coordinates: Tensor, **conditions: Any
    ) -> Any:
        """What the network says of x, `(batch, channel, *grid)`, at `coordinates`, `(batch or 1, axes, *grid)`."""
        places = coordinates.to(x).expand(len(x), *coordinates.shape[1:])
        return self.network(torch.cat([x, places], 1), noise_level, *more, **conditions)


def weights_of_line(length: int, window: int, overlap: int, multiple: int = 1) -> list[tuple[slice, Tensor]]:
    """Equal windows that cover a line, with the weights of their voxels, float64, which sum to 1 at every voxel.

    A weight rises in proportion over the overlap, is level in the middle, and does not fall towards an end of the line.

    Args:
        length: Of the line, a multiple of `multiple`.
        window: Voxels of a window, a multiple of `multiple`; one that is not shorter than the line is the line.
        overlap: Least overlap of neighbours, 0 <= overlap <= window - multiple.
        multiple: Windows begin at multiples of it.
    """
    size = min(window, length)
    rest, most = (length - size) // multiple, max((window - overlap) // multiple, 1)
    count = math.ceil(rest / most)
    starts = [multiple * (i * rest // count) for i in range(count + 1)] if count else [0]
    rise = ((torch.arange(size, dtype=torch.float64) + 0.5) / max(overlap, 0.5)).clamp(max=1.0)
    level = torch.ones_like(rise)
    total, found = torch.zeros(length, dtype=torch.float64), []
    for start in starts:
        ends = (rise if start else level, rise.flip(0) if start + size < length else level)
        weight, where = torch.minimum(*ends), slice(start, start + size)
        total[where] += weight
        found.append((where, weight))
    return [(where, weight / total[where]) for where, weight in found]


class OverlappingDenoiser(TiledDenoiser):
    """A denoiser of windows as one of a larger field of view; it holds no weights of its own and is not for files.

    Conditions on the grid of x, `(batch or 1, channel, *space)`, such as coordinates, are cut like x. A grid that one window
    covers is the denoiser's own answer, to the bit. Memory is that of x and of `together` windows; memory that does not
    suffice leads to one window a call, and never to smaller windows, which would be another denoiser.

    Args:
        denoiser: E[x_0 | x_t] on windows.
        window: Voxels of a window along each axis, the grid of the training; a multiple of the network's.
        overlap: Least overlap of neighbours in voxels, from 0 to the window less the network's multiple; a half is usual.
        together: Windows a call, >= 1.
        coordinates: Places on the whole grid, `(1, axes, *space)`, given to the denoiser as `coordinates`; None for none.

    Raises:
        InputError: a number out of range; in a call, coordinates of another grid.
    """

    def __init__(
        self, denoiser: Any, window: int, overlap: int, together: int = 2, coordinates: Tensor | None = None
    ) -> None:
        super().__init__(denoiser, 0, 0, max(together, 1))
        if window < 1 or window % self.multiple or not 0 <= overlap <= window - self.multiple or together < 1:
            raise InputError(
                f"expected windows of a multiple of {self.multiple} voxels, an overlap from 0 to {self.multiple} less, and "
                f"together >= 1; got {window}, {overlap} and {together}. Use the grid of the training and half of it."
            )
        self.window, self.overlap = window, overlap
        self.coordinates = coordinates

    def forward(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[x_0 | x_t], (batch, channel, *space).

        Raises:
            InputError: coordinates of another grid, or memory does not suffice for one window.
        """
        if self.coordinates is not None:
            if self.coordinates.shape[2:] != x.shape[2:]:
                raise InputError(
                    f"expected coordinates of the grid {tuple(x.shape[2:])}; got {tuple(self.coordinates.shape[2:])}. "
                    "Make them with coordinates_of(grid, spacing, origin)."
                )
            conditions = {"coordinates": self.coordinates} | conditions
        return super().forward(x, t, **conditions)

    def _in_blocks(self, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> Tensor:
        space = tuple(x.shape[2:])
        if all(n <= self.window for n in space):
            return self._called(x, t, [(row, _whole(space)) for row in range(len(x))], x, conditions)
        lines = [weights_of_line(n, self.window, self.overlap, self.multiple) for n in space]
        corners = list(itertools.product(*lines))
        turns = [(row, corner) for corner in corners for row in range(len(x))]
        found = torch.zeros_like(x)
        for start in range(0, len(turns), self.together):
            some = turns[start : start + self.together]
            places = [(row, tuple((where, where, where) for where, _ in corner)) for row, corner in some]
            blocks = torch.stack([x[_at(row, corner, 0)] for row, corner in places])
            values = self._called(blocks, t, places, x, conditions)
            for value, (row, block), (_, corner) in zip(values, places, some, strict=True):
                weight = functools.reduce(lambda w, line: w[..., None] * line[1], corner, torch.ones(()))
                found[_at(row, block, 1)] += weight.to(found) * value.to(found)
        return found

    def _shrink(self, space: Sequence[int]) -> None:
        if self.together == 1:
            raise InputError(
                f"expected memory for one window of {self.window} voxels along each axis; got less. Use a machine with more."
            )
        self._one_at_a_time()


def _whole(space: Sequence[int]) -> tuple[Block, ...]:
    return tuple((slice(0, n), slice(0, n), slice(0, n)) for n in space)


def noise_of_box(
    seeds: Sequence[int],
    origin: Sequence[int],
    shape: Sequence[int],
    channels: int = 1,
    cell: int = 16,
    key: int = 0,
) -> Float[Tensor, "batch channels *shape"]:
    """Standard normal noise of a box of an endless grid: what a voxel gets depends on its seed and its place alone.

    Args:
        seeds: One a row.
        origin: Index of the first voxel of the box, of any sign.
        shape: Voxels of the box, >= 1.
        channels: Channels, >= 1.
        cell: Edge of the cells that are drawn whole, >= 1; another cell is other noise.
        key: What the noise is for, where a seed serves several.

    Raises:
        InputError: no seed, or sizes that do not agree.
    """
    if not seeds or len(origin) != len(shape) or min(*shape, channels, cell) < 1:
        raise InputError(
            f"expected seeds, one origin an axis and sizes >= 1; got {len(seeds)} seeds, {tuple(origin)}, {tuple(shape)}, "
            f"{channels} channels and cells of {cell}. Give as many."
        )
    noise = torch.empty(len(seeds), channels, *shape)
    spans = [
        range(low // cell, (low + size - 1) // cell + 1) for low, size in zip(origin, shape, strict=True)
    ]
    for row, place in itertools.product(range(len(seeds)), itertools.product(*spans)):
        number = generator_of(seeds[row], key, *place)
        drawn = torch.randn(channels, *[cell] * len(shape), generator=number)
        into: list[Any] = [row, slice(None)]
        out: list[Any] = [slice(None)]
        for low, size, index in zip(origin, shape, place, strict=True):
            first, last = max(index * cell, low), min((index + 1) * cell, low + size)
            into.append(slice(first - low, last - low))
            out.append(slice(first - index * cell, last - index * cell))
        noise[tuple(into)] = drawn[tuple(out)]
    return noise
