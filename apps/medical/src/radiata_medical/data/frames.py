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
        names: Which axes of the file they are; two of "ijk" for a slice.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    codes: str
    names: str = "ijk"

    @classmethod
    def of(cls, volume: Volume, across: int | None = None) -> "Frame":
        """That of a volume, or of its slices across an axis.

        Args:
            volume: Any.
            across: 0, 1 or 2; the axis is left out.
        """
        kept = [axis for axis in range(3) if axis != across]
        return cls(
            tuple(volume.shape[axis] for axis in kept),
            tuple(volume.spacing[axis] for axis in kept),
            "".join(volume.axcodes[axis] for axis in kept),
            "".join("ijk"[axis] for axis in kept),
        )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Of an image as operators and networks see it, one channel first."""
        return (1, *self.shape)


def axis_number(axis: AxisName, frame: Frame) -> int:
    """Which axis of the frame is i, j or k.

    Raises:
        InputError: the image has no such axis.
    """
    if axis not in frame.names[: len(frame.shape)]:
        names = ", ".join(frame.names[: len(frame.shape)])
        raise InputError(f"expected an axis of the image, {names}; got {axis}. A slice has two axes.")
    return frame.names.index(axis)


def edges_of(numbers: Sequence[float], frame: Frame, option: str) -> tuple[float, ...]:
    """One number for each axis of the frame: the same for all, or of three those of its own axes.

    Raises:
        InputError: neither one, nor one for each axis.
    """
    if len(numbers) == 1:
        return (float(numbers[0]),) * len(frame.shape)
    if len(numbers) == 3 and len(frame.shape) == 2:
        numbers = [numbers["ijk".index(name)] for name in frame.names]
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
