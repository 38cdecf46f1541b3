r"""Masks: the voxels that were measured, and what makes a part of an image go missing.

    A x = (x_i : m_i = 1),      A A^T = I,      prox: z_i = (y_i + rho x_i)/(1 + rho) where measured, x_i elsewhere

A measurement holds the observed voxels only, (channel, observed): as many numbers as there are data, so that a noise of
sigma leaves a residual of sigma sqrt(observed). `adjoint` puts it back on the grid with zeros elsewhere, `observe` takes
the observed voxels of any grid.

True means observed. `lesion` leaves ellipsoids out, `field_of_view` keeps a box, `dropped_slices` loses some slices, and
`defaced` loses what lies beyond a slanted plane, as a defacing program does.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import SpectralOperator
from radiata_core.types import Measurement, Signal

__all__ = ["Masking", "defaced", "dropped_slices", "field_of_view", "lesion"]

Mask = Bool[Tensor, "*space"]


class Masking(SpectralOperator):
    """The observed voxels of an image, (channel, observed), in the order of the grid.

    Args:
        mask: True where observed, over the last axes of the event, the same for all channels; at least one is observed.
        event_shape: Shape of one event, channels first.

    Raises:
        InputError: the mask is of another shape or type, or observes nothing.
    """

    def __init__(self, mask: Tensor, event_shape: Sequence[int]) -> None:
        leading = len(event_shape) - mask.ndim
        if leading < 0 or mask.ndim == 0 or tuple(mask.shape) != tuple(event_shape)[leading:]:
            raise InputError(
                f"expected a mask of the last axes of {tuple(event_shape)}; got {tuple(mask.shape)}. "
                "Resample it to the grid of the image."
            )
        if mask.dtype != torch.bool:
            raise InputError(f"expected a mask of True and False; got {mask.dtype}. Use mask > 0.")
        if not bool(mask.any()):
            raise InputError(
                "expected a mask that observes something; got an empty one. True means observed."
            )
        self.mask, self.indices = mask, mask.flatten().nonzero()[:, 0]
        super().__init__(event_shape, (*tuple(event_shape)[:leading], len(self.indices)), mask.device)

    def observe(self, grid: Signal) -> Measurement:
        """The observed voxels, (batch, channel, observed), of values on the grid, (batch, channel, *space)."""
        return self(grid)

    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(x.ndim - self.mask.ndim).index_select(-1, self.indices.to(x.device))

    def _adjoint(self, y: Tensor) -> Tensor:
        empty = y.new_zeros(*y.shape[:-1], self.mask.numel())
        return empty.index_copy(-1, self.indices.to(y.device), y).reshape(len(y), *self.event_shape)

    def spectral(self, function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
        observed = self.mask.to(x.device, x.dtype.to_real())
        return function(observed.reshape((1,) * (x.ndim - observed.ndim) + observed.shape)) * x

    @property
    def largest(self) -> float:
        return 1.0


def lesion(shape: Sequence[int], generator: torch.Generator, radius: float | int, count: int = 1) -> Mask:
    """All but `count` ellipsoids, which may overlap, each with its centre in the inner half of the grid.

    Args:
        shape: Of the grid.
        generator: Of centres, and of half-axes between 0.7 and 1.3 times the radius.
        radius: In voxels, > 0.
        count: >= 1.

    Raises:
        InputError: radius or count out of range.
    """
    if not (radius > 0 and count >= 1):
        raise InputError(f"expected a radius > 0 and a count >= 1; got {radius} and {count}. In voxels.")
    sizes = torch.tensor(tuple(shape), dtype=torch.float64)
    places = _places(shape)
    observed = torch.ones(tuple(shape), dtype=torch.bool)
    for _ in range(count):
        drawn = torch.rand(2, len(sizes), generator=generator, dtype=torch.float64, device=generator.device)
        centre = ((0.25 + 0.5 * drawn[0].cpu()) * (sizes - 1)).round()
        axes = radius * (0.7 + 0.6 * drawn[1].cpu())
        observed &= (((places - centre) / axes).square().sum(-1)) > 1
    return observed


def field_of_view(shape: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> Mask:
    """A box, start <= i < stop along each axis.

    Raises:
        InputError: the box is empty or leaves the grid.
    """
    lengths = len(shape), len(start), len(stop)
    if len(set(lengths)) > 1 or any(not 0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
        raise InputError(
            f"expected 0 <= start < stop <= {tuple(shape)} along each axis; got {tuple(start)} and {tuple(stop)}. "
            "Cut the box to the grid."
        )
    observed = torch.zeros(tuple(shape), dtype=torch.bool)
    observed[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return observed


def dropped_slices(shape: Sequence[int], axis: int, dropped: Sequence[int]) -> Mask:
    """All but some slices across an axis.

    Args:
        shape: Of the grid.
        axis: Across which.
        dropped: Their indices.

    Raises:
        InputError: axis or slices outside the grid.
    """
    if not -len(shape) <= axis < len(shape) or any(not 0 <= i < shape[axis] for i in dropped):
        raise InputError(
            f"expected an axis and slices of a grid {tuple(shape)}; got axis {axis} and {tuple(dropped)}."
            " Count from 0."
        )
    observed = torch.ones(tuple(shape), dtype=torch.bool)
    observed.movedim(axis, 0)[list(dropped)] = False
    return observed


def defaced(
    shape: Sequence[int],
    first: int,
    second: int,
    *,
    share: float | int = 0.35,
    slant: float | int = 45.0,
) -> Mask:
    """All but a corner, cut off by a slanted plane: the face, where the two axes point away from it.

    On the house's LPS grids anterior is the low end of axis 1 and inferior the low end of axis 2: `defaced(shape, 1, 2)`.

    Args:
        shape: Of the grid, two or more axes.
        first: Axis at whose low end the corner is.
        second: The other such axis.
        share: How far the plane reaches along the first axis where it meets the low end of the second, in (0, 1).
        slant: Angle of the plane to the first axis in degrees, in (0, 90).

    Raises:
        InputError: axes, share or slant out of range.
    """
    axes = {first % len(shape), second % len(shape)} if shape else set()
    if len(axes) < 2 or not (0 < share < 1 and 0 < slant < 90):
        raise InputError(
            f"expected two different axes, a share in (0, 1) and a slant in (0, 90) degrees; got {first}, {second}, "
            f"{share} and {slant}. Anterior and inferior are 1 and 2 on an LPS grid."
        )
    places = _places(shape)
    along, up = places[..., first], places[..., second]
    return along + up / math.tan(math.radians(slant)) >= share * shape[first]


def _places(shape: Sequence[int]) -> Tensor:
    """Index of every voxel, (*shape, axes), float64."""
    ranges = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*ranges, indexing="ij"), -1)
