"""The grid that an operator works on: voxels, their edges in millimetres, which way they run; of a volume or of a slice.

Axes are i, j, k, as in BIDS: those of the array. A finer grid lies exactly on the field of view of the coarser one:

    n voxels of edge s  ->  n' of edge s n/n',      voxel j' lies at (j' + 1/2) n/n' - 1/2 of the old axis,

so that both begin and end at the same planes and overlay in a viewer, whatever the ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.orientation import Grid
from radiata_imaging.volume import Volume

__all__ = ["AxisName", "Frame", "axis_number", "edges_of", "finer_grid"]

AxisName = Literal["i", "j", "k"]


@dataclass(frozen=True)
class Frame:
    """The grid of an image of two or three axes.

    Attributes:
        shape: Voxels along each axis.
        spacing: Their edges in mm.
        codes: Direction in which each index grows, such as "LPS"; two letters for a slice.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    codes: str

    @classmethod
    def of(cls, volume: Volume) -> "Frame":
        """That of a volume; axes of one voxel are left out, so a single slice has two."""
        kept = [axis for axis, n in enumerate(volume.shape) if n > 1]
        return cls(
            tuple(volume.shape[axis] for axis in kept),
            tuple(volume.spacing[axis] for axis in kept),
            "".join(volume.axcodes[axis] for axis in kept),
        )

    def without(self, axis: int) -> "Frame":
        """That of a slice across an axis."""
        kept = [i for i in range(len(self.shape)) if i != axis]
        return Frame(
            tuple(self.shape[i] for i in kept),
            tuple(self.spacing[i] for i in kept),
            "".join(self.codes[i] for i in kept),
        )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Of an image as operators and networks see it, one channel first."""
        return (1, *self.shape)


def axis_number(axis: AxisName, frame: Frame) -> int:
    """0, 1 or 2 for i, j, k.

    Raises:
        InputError: the image has no such axis.
    """
    number = "ijk".index(axis)
    if number >= len(frame.shape):
        raise InputError(f"expected an axis of the image, i or j; got {axis}. A slice has two axes.")
    return number


def edges_of(numbers: Sequence[float], frame: Frame, option: str) -> tuple[float, ...]:
    """One number for each axis of the frame; a slice of a volume takes those of its plane."""
    if len(numbers) == 1:
        return (float(numbers[0]),) * len(frame.shape)
    if len(numbers) != len(frame.shape):
        raise InputError(
            f"expected {option} as one number or {len(frame.shape)}; got {len(numbers)}. One for each axis of the image."
        )
    return tuple(float(number) for number in numbers)


def finer_grid(volume: Volume, shape: Sequence[int]) -> Grid:
    """The grid of `shape` voxels on the field of view of a volume: its first and last faces are the volume's.

    Voxel j' of the new axis lies at (j' + 1/2) n/n' - 1/2 of the old one.
    """
    ratio = np.asarray(volume.shape, float) / np.asarray(shape, float)
    change = np.diag([*ratio, 1.0])
    change[:3, 3] = ratio / 2 - 0.5
    x, y, z = (int(n) for n in shape)
    return Grid((x, y, z), volume.affine @ change)
