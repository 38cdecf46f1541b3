r"""Dense predictions of a whole volume from windows, in slabs: the channels of the whole volume are never held.

A network with K classes makes K numbers a voxel; for a head at 1 mm and 35 classes they are 1.2 GB, and as much again to
average overlapping windows. Here windows are taken slab by slab along the longest axis. Their weighted sum is kept for one
slab, K x (window) x (cross-section); planes that no later window touches leave at once, so that the receiver can reduce them
to labels, and the rest is shifted on.

The windows stand on a grid, so their weights factorise, and each axis is made to sum to one by itself:

    w_i(x) = g(x - c_i) / sum_j g(x - c_j),      W = w_i(x) w_j(y) w_k(z),

with g a Gaussian of an eighth of the window, cut to zero over a halo beside every face that is not a face of the volume.
A *local* network, whose values depend on no voxel further than the halo, therefore gives the values of the whole volume, and
no division follows. Windows begin at multiples of the network's coarsest voxel, since it is equivariant under those shifts.

References:
    Isensee et al., "nnU-Net", Nature Methods 2021, https://doi.org/10.1038/s41592-020-01008-z (Gaussian weights of windows).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["Slab", "WindowGrid", "padded_shape", "stream_windows"]

_SPREAD = 0.125  # of the window, as in nnU-Net
_FLOOR = 1e-3  # of the Gaussian: no voxel is decided by numbers that round to nothing


@dataclass(frozen=True, eq=False)
class Slab:
    """Planes of the volume that are finished.

    Attributes:
        axis: Across which they were cut.
        start: The first plane.
        values: (channels, *slab), the length along `axis` being the number of planes.
    """

    axis: int
    start: int
    values: Tensor

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where they lie in the volume."""
        sides = [slice(0, n) for n in self.values.shape[1:]]
        sides[self.axis] = slice(self.start, self.start + self.values.shape[1 + self.axis])
        return sides[0], sides[1], sides[2]


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of a volume stand.

    Attributes:
        shape: Voxels of the volume; each axis divides by `multiple`.
        size: Longest edges of a window. They are cut to the shortest that need no more windows.
        multiple: Windows begin and end at multiples of it.
        halo: Voxels beside a window's inner faces that are not used.

    Raises:
        InputError: axes that do not divide, or windows no larger than their halos.
    """

    shape: tuple[int, int, int]
    size: tuple[int, int, int]
    multiple: int = 16
    halo: int = 8

    def __post_init__(self) -> None:
        if any(n % self.multiple or s % self.multiple for n, s in zip(self.shape, self.size, strict=True)):
            raise InputError(
                f"expected axes and windows that divide by {self.multiple}; got {self.shape} and {self.size}. Pad them."
            )
        for n, s in zip(self.shape, self.size, strict=True):
            if s < n and s - 2 * self.halo < self.multiple:
                raise InputError(
                    f"expected windows longer than two halos of {self.halo} and {self.multiple} more; got {s}. Enlarge them."
                )
        snug = tuple(self._snug(n, min(s, n)) for n, s in zip(self.shape, self.size, strict=True))
        object.__setattr__(self, "size", snug)

    def _step(self, size: int) -> int:
        return (size - 2 * self.halo) // self.multiple * self.multiple

    def _snug(self, length: int, size: int) -> int:
        """The shortest edge with which as many windows still cover the length."""
        if size == length:
            return size
        more = -(-(length - size) // self._step(size))  # windows after the first
        shorter = range(self.multiple, size, self.multiple)
        fits = (s for s in shorter if self._step(s) > 0 and s + more * self._step(s) >= length)
        return next(fits, size)

    def starts(self, axis: int) -> list[int]:
        """First voxels of the windows along an axis."""
        length, size = self.shape[axis], self.size[axis]
        if size == length:
            return [0]
        return [*range(0, length - size, self._step(size)), length - size]

    def weights(self, axis: int) -> Tensor:
        """Weight of each window along an axis, (windows, size); the windows over a voxel sum to one."""
        size, starts = self.size[axis], self.starts(axis)
        places = torch.arange(size, dtype=torch.float64)
        bell = torch.exp(-0.5 * ((places - (size - 1) / 2) / (_SPREAD * size)).square()).clamp_min(_FLOOR)
        rows = bell.repeat(len(starts), 1)
        rows[1:, : self.halo] = 0.0
        rows[:-1, size - self.halo :] = 0.0
        total = torch.zeros(self.shape[axis], dtype=torch.float64)
        for start, row in zip(starts, rows, strict=True):
            total[start : start + size] += row
        for start, row in zip(starts, rows, strict=True):
            row /= total[start : start + size]
        return rows.float()

    @property
    def count(self) -> int:
        """Windows in all."""
        return len(self.starts(0)) * len(self.starts(1)) * len(self.starts(2))


def stream_windows(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    grid: WindowGrid,
    channels: int,
    *,
    report: Callable[[], object] | None = None,
) -> Iterator[Slab]:
    """Slabs of the weighted sum of `predict(window)`, in order, each once; read a slab before asking for the next.

    Args:
        predict: Of a window `(*size)` of the image, `(channels, *size)` on any device; a new tensor, which is overwritten.
        image: `(x, y, z)`.
        grid: Of the image's shape.
        channels: What `predict` gives.
        report: Called after each window.
    """
    axis = max(range(3), key=lambda a: grid.shape[a])
    first, second = (a for a in range(3) if a != axis)
    weights = [grid.weights(a) for a in range(3)]
    starts = [grid.starts(a) for a in range(3)]
    depth = grid.size[axis]
    extent = list(grid.shape)
    extent[axis] = depth
    held: Tensor | None = None
    for number, start in enumerate(starts[axis]):
        for one, start_one in enumerate(starts[first]):
            for two, start_two in enumerate(starts[second]):
                at = {axis: start, first: start_one, second: start_two}
                box = tuple(slice(at[a], at[a] + grid.size[a]) for a in range(3))
                values = predict(image[box])
                for a, row in ((axis, number), (first, one), (second, two)):
                    shape = [1, 1, 1, 1]
                    shape[1 + a] = grid.size[a]
                    values = values.mul_(weights[a][row].to(values).reshape(shape))
                if held is None:
                    held = values.new_zeros((channels, *extent))
                place = (slice(None), *(slice(0, depth) if a == axis else box[a] for a in range(3)))
                held[place] += values
                del values
                if report is not None:
                    report()
        assert held is not None
        last = number + 1 == len(starts[axis])
        done = depth if last else starts[axis][number + 1] - start
        yield Slab(axis, start, held.narrow(1 + axis, 0, done))
        if not last:
            _shift(held, 1 + axis, done)


def _shift(held: Tensor, axis: int, count: int) -> None:
    """Move the planes behind the first `count` to the front and clear the rest, in pieces that do not overlap."""
    depth = held.shape[axis]
    for start in range(count, depth, count):
        length = min(count, depth - start)
        held.narrow(axis, start - count, length).copy_(held.narrow(axis, start, length))
    held.narrow(axis, depth - count, count).zero_()


def padded_shape(shape: Sequence[int], multiple: int) -> tuple[int, int, int]:
    """The smallest shape whose axes divide by `multiple` and hold `shape`."""
    x, y, z = (-(-int(n) // multiple) * multiple for n in shape)
    return x, y, z
