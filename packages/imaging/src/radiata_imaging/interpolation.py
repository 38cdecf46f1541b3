r"""Resampling along one axis at a time, as a small matrix.

Grids whose axes are parallel differ along each axis by a start and a step (in source voxels): target voxel j lies at
p_j = start + step·j. Interpolation is then three small matrices W, one an axis, and the resampled volume is

    y[a, b, c] = Σ_ijk  W₀[a, i] W₁[b, j] W₂[c, k] x[i, j, k],

which makes cropping, padding, smoothing and interpolation three matrix products (on any device).

* Keys' cubic convolution (a = −½): reproduces quadratics, and samples themselves where p_j is an integer.
* Where the step is larger than one voxel, a Gaussian first removes what the coarser grid cannot show. A source voxel
  averages over a box of width 1, a target voxel over a box of width `step`; their variances differ by

      σ² = (step² − 1)/12        (in source voxels),

  which is the Gaussian's. It vanishes at step 1, and at larger steps acts like the average over the larger voxel
  without the box's side lobes.
* Rows outside the source's field of view (beyond half a voxel from its outermost centres) are zero: the caller
  decides what lies there.

References:
    Keys (1981), Cubic convolution interpolation for digital image processing, IEEE TASSP 29, eqs. 4 and 15.
    Cardoso et al. (2015), Scale factor point spread function matching, MICCAI (which matches the full width at half
    maximum; here it is the second moment, so that integer steps agree with voxel averages).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch

__all__ = ["Axis", "Interpolation", "apply_axes", "gaussian_matrix"]

_WHOLE = 1e-6  # positions this close to a voxel centre are the voxel


class Interpolation(Enum):
    """How a value between voxels is made. Labels take NEAREST; it never smooths."""

    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"


@dataclass(frozen=True)
class Axis:
    """One axis of the target grid in voxels of the source grid: p_j = start + step·j for j < target.

    Attributes:
        source: Voxels of the source along this axis.
        target: Voxels of the target.
        start: Position of target voxel 0.
        step: Distance of target voxels; negative runs backwards.
    """

    source: int
    target: int
    start: float
    step: float

    @property
    def inverse(self) -> "Axis":
        """The way back: source voxels in voxels of the target."""
        return Axis(self.target, self.source, -self.start / self.step, 1 / self.step)

    @property
    def is_crop(self) -> bool:
        """Whether target voxels are source voxels, so that nothing is interpolated."""
        return self.step == 1 and abs(self.start - round(self.start)) < _WHOLE

    def matrix(
        self, interpolation: Interpolation = Interpolation.CUBIC, *, antialias: bool = True
    ) -> np.ndarray:
        """The operator of this axis, float64 (target, source); rows inside the field of view sum to one."""
        positions = self.start + self.step * np.arange(self.target)
        positions = np.where(np.abs(positions - np.rint(positions)) < _WHOLE, np.rint(positions), positions)
        inside = (positions >= -0.5 - _WHOLE) & (positions <= self.source - 0.5 + _WHOLE)
        matrix = np.zeros((self.target, self.source))
        rows = np.flatnonzero(inside)
        if interpolation is Interpolation.NEAREST:
            nearest = np.clip(np.floor(positions[rows] + 0.5).astype(int), 0, self.source - 1)
            matrix[rows, nearest] = 1
            return matrix
        floor = np.floor(positions[rows]).astype(int)
        for tap in range(-1, 3):
            weight = _KERNELS[interpolation](np.abs(positions[rows] - (floor + tap)))
            np.add.at(matrix, (rows, np.clip(floor + tap, 0, self.source - 1)), weight)
        if antialias and abs(self.step) > 1:
            matrix = matrix @ gaussian_matrix(self.source, np.sqrt((self.step**2 - 1) / 12))
        return matrix


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - distance, 0, None)


def _cubic(distance: np.ndarray) -> np.ndarray:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


_KERNELS = {Interpolation.LINEAR: _linear, Interpolation.CUBIC: _cubic}


def gaussian_matrix(size: int, sigma: float) -> np.ndarray:
    """Gaussian smoothing along an axis, float64 (size, size), edges repeated, rows summing to one.

    Args:
        size: Voxels along the axis.
        sigma: Standard deviation in voxels, > 0.
    """
    reach = max(1, int(np.ceil(4 * sigma)))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    rows = np.repeat(np.arange(size), len(offsets))
    columns = np.clip(np.arange(size)[:, None] + offsets, 0, size - 1).ravel()
    np.add.at(matrix, (rows, columns), np.tile(weights, size))
    return matrix


def apply_axes(
    array: torch.Tensor,
    axes: Sequence[Axis],
    interpolation: Interpolation = Interpolation.CUBIC,
    *,
    antialias: bool = True,
) -> torch.Tensor:
    """The array (x, y, z) on the target grid; zero outside the source's field of view.

    Args:
        array: Floating point, (x, y, z), on the device where the work is to be done.
        axes: One `Axis` for each of the three.
        interpolation: Kernel for positions between voxels.
        antialias: Smooth before a coarser grid (never for NEAREST).
    """
    upside_down = array.permute(2, 1, 0)  # as NIfTI lies in memory
    if upside_down.is_contiguous() and not array.is_contiguous():
        turned = apply_axes(upside_down, axes[::-1], interpolation, antialias=antialias)
        return turned.permute(2, 1, 0).contiguous()
    for place, axis in enumerate(axes):
        if axis.is_crop:
            array = _crop(array, axis, place)
            continue
        matrix = torch.as_tensor(axis.matrix(interpolation, antialias=antialias)).to(array)
        if place == 0:  # products that move no axis, so that no pass copies the volume
            array = (matrix @ array.flatten(1)).unflatten(1, array.shape[1:])
        else:
            array = matrix @ array if place == 1 else array @ matrix.T
    return array


def _crop(array: torch.Tensor, axis: Axis, place: int) -> torch.Tensor:
    start = round(axis.start)
    low, high = max(start, 0), min(start + axis.target, axis.source)
    inside = array.narrow(place, min(low, axis.source), max(high - low, 0))
    if (low, high) == (start, start + axis.target):
        return inside
    shape = list(array.shape)
    shape[place] = axis.target
    out = array.new_zeros(shape)
    if high > low:
        out.narrow(place, low - start, high - low).copy_(inside)
    return out
