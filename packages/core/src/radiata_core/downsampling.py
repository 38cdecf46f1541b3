r"""Down-sampling: means over blocks of voxels, slices of any thickness and profile, factors that are not whole.

A scan of low resolution measures means: over voxels (`AveragePooling`, A A^T = I/k with k voxels a block) or over the
thickness of a slice, weighted by the profile of the pulse. Slices may be thicker than their spacing (they overlap) or
thinner (there is a gap), and neither need be a whole number of voxels. Each is a small matrix across one axis,
`slice_profile`, and `box_average` the one of equal parts; `separable.Separable` makes an operator of one for each axis, with
everything in closed form.

References:
    Greenspan, "Super-resolution in medical imaging", 2009, https://doi.org/10.1093/comjnl/bxm075 (slice profiles).
    Zhao et al., "Fast single image super-resolution using a new analytical solution for l2-l2 problems", 2016,
        https://doi.org/10.1109/TIP.2016.2567075 (closed forms, for kernels on a circle).
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import SpectralOperator
from radiata_core.separable import Separable
from radiata_core.types import Signal

__all__ = ["AveragePooling", "Profile", "box_average", "slice_profile", "thick_slices"]


class AveragePooling(SpectralOperator):
    """Means over blocks of voxels: isotropic (or any whole-numbered) down-sampling.

    A A^T = 1/k with k voxels a block, so f(A^T A) x = f(0) x + (f(1/k) - f(0)) k A^T A x.

    Args:
        factors: Voxels a block along each of the last axes, >= 1; they divide the shape.
        event_shape: Shape of one event, channels first.

    Raises:
        InputError: factors that do not divide the shape.
    """

    def __init__(self, factors: Sequence[int], event_shape: Sequence[int]) -> None:
        leading = len(event_shape) - len(factors)
        space = tuple(event_shape)[max(leading, 0) :]
        if leading < 0 or not factors or any(f < 1 or n % f for n, f in zip(space, factors, strict=True)):
            raise InputError(
                f"expected factors >= 1 that divide the last axes of {tuple(event_shape)}; got {tuple(factors)}. "
                "For others use Separable with box_average."
            )
        coarse = [n // f for n, f in zip(space, factors, strict=True)]
        super().__init__(event_shape, (*tuple(event_shape)[:leading], *coarse))
        self.factors, self.voxels = tuple(factors), math.prod(factors)
        self._blocks = [n for pair in zip(coarse, factors, strict=True) for n in pair]

    def _forward(self, x: Tensor) -> Tensor:
        leading = x.shape[: x.ndim - len(self.factors)]
        inside = tuple(range(-2 * len(self.factors) + 1, 0, 2))
        return x.reshape(*leading, *self._blocks).mean(inside)

    def _adjoint(self, y: Tensor) -> Tensor:
        for axis, factor in enumerate(self.factors, start=-len(self.factors)):
            y = y.repeat_interleave(factor, axis) if factor > 1 else y
        return y / self.voxels

    def spectral(self, function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
        zero = torch.zeros((1,) * x.ndim, dtype=x.dtype.to_real(), device=x.device)
        rest, mean = function(zero), function(zero + self.largest)
        if self.voxels == 1:
            return mean * x
        return rest * x + (mean - rest) * self.voxels * self._normal(x)

    @property
    def largest(self) -> float:
        return 1 / self.voxels


class Profile(StrEnum):
    """How a slice weighs what lies across it."""

    BOX = "box"
    GAUSSIAN = "gaussian"
    """Its thickness is the full width at half maximum."""


def box_average(voxels: int, measured: int) -> Tensor:
    """Means over `measured` equal parts of a line, (measured, voxels), float64: any factor voxels / measured >= 1.

    Voxels on the border of two parts count by their share; rows sum to 1.

    Raises:
        InputError: not 1 <= measured <= voxels.
    """
    if not 1 <= measured <= voxels:
        raise InputError(
            f"expected 1 to {voxels} parts; got {measured}. Down-sampling makes fewer, not more."
        )
    edges = torch.arange(measured + 1, dtype=torch.float64) * voxels / measured
    return _shares(voxels, edges[:-1], edges[1:])


def slice_profile(
    voxels: int,
    spacing: float | int,
    thickness: float | int,
    profile: Profile = Profile.BOX,
    slices: int | None = None,
) -> Tensor:
    """The matrix of slices across an axis, (slices, voxels), float64; rows sum to 1.

    Slice i lies around (i + 1/2) spacing - offset, the stack in the middle of the axis. Where a slice reaches beyond the
    grid, what lies inside counts for all.

    Args:
        voxels: Along the axis.
        spacing: From slice to slice, in voxels, > 0; need not be whole.
        thickness: Of a slice, in voxels, > 0: larger than the spacing they overlap, smaller there is a gap.
        profile: How it weighs.
        slices: Their number; None: as many as fit, at least 1.

    Raises:
        InputError: spacing, thickness or number out of range.
    """
    if not (spacing > 0 and thickness > 0 and math.isfinite(spacing + thickness)):
        raise InputError(
            f"expected a spacing and a thickness > 0; got {spacing} and {thickness}. In voxels: mm / mm a voxel."
        )
    slices = max(1, math.floor(voxels / spacing + 1e-9)) if slices is None else slices
    centres = voxels / 2 + (torch.arange(slices, dtype=torch.float64) - (slices - 1) / 2) * spacing
    if slices < 1 or float(centres[0]) < 0 or float(centres[-1]) > voxels:
        raise InputError(
            f"expected slices whose centres lie on the {voxels} voxels; got {slices} at a spacing of {spacing}. "
            "Take fewer."
        )
    if profile == Profile.BOX:
        return _shares(voxels, centres - thickness / 2, centres + thickness / 2)
    at = torch.arange(voxels, dtype=torch.float64) + 0.5
    sigma = thickness / (2 * math.sqrt(2 * math.log(2)))
    weights = torch.softmax(-((at - centres[:, None]) ** 2) / (2 * sigma**2), 1)
    return weights


def thick_slices(
    event_shape: Sequence[int],
    axis: int,
    spacing: float | int,
    thickness: float | int | None = None,
    profile: Profile = Profile.BOX,
) -> Separable:
    """Slices across one axis: blur by their profile, then stride.

    Args:
        event_shape: Shape of one event, channels first.
        axis: Across which, counted from the end: -1, -2, -3.
        spacing: From slice to slice, in voxels, > 0.
        thickness: In voxels; None: the spacing, without gap or overlap.
        profile: How a slice weighs.

    Raises:
        InputError: the axis is not one of space, or a number is out of range.
    """
    if not -len(event_shape) < axis < 0:
        raise InputError(
            f"expected an axis from the end, {1 - len(event_shape)} to -1; got {axis}. Channels stay."
        )
    matrix = slice_profile(event_shape[axis], spacing, spacing if thickness is None else thickness, profile)
    return Separable([matrix, *[None] * (-axis - 1)], event_shape)


def _shares(voxels: int, starts: Tensor, ends: Tensor) -> Tensor:
    """The share of each voxel in each interval, rows of sum 1."""
    at = torch.arange(voxels, dtype=torch.float64)
    overlap = (torch.minimum(ends[:, None], at + 1) - torch.maximum(starts[:, None], at)).clamp_min(0)
    return overlap / overlap.sum(1, keepdim=True)
