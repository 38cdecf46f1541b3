r"""Random operators on the image itself: noise, larger voxels, thick slices, holes, blur.

All but a hole among larger voxels are solved in closed form. A hole is one of these, in equal parts but for the last two:
boxes, blobs (`masking.lesion`), a field of view, dropped slices or a corner cut off (`masking.defaced`, on any side).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from radiata_core.convolution import Boundary, gaussian_kernel
from radiata_core.downsampling import AveragePooling, Profile, box_average, thick_slices
from radiata_core.masking import Masking, defaced, dropped_slices, field_of_view, lesion
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity
from radiata_core.random_operators import (
    OperatorFamily,
    Range,
    chance,
    even,
    integer,
    stopped_early,
)
from radiata_core.separable import Separable, blur_matrix, gaussian_blur

__all__ = ["BlurredVoxels", "Blurring", "CoarseHoles", "CoarseVoxels", "Denoising", "Holes", "ThickSlices"]


@dataclass(frozen=True)
class Denoising(OperatorFamily):
    """The image itself, with noise that is worth removing."""

    noise: Range = (0.02, 0.25)
    name: ClassVar[str] = "denoising"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        return Identity(shape)


@dataclass(frozen=True)
class CoarseVoxels(OperatorFamily):
    """Means over larger voxels, whole-numbered in half of the draws.

    Attributes:
        factors: Smallest and largest edge, in voxels, >= 1.
    """

    factors: Range = (1.5, 4.0)
    name: ClassVar[str] = "coarse voxels"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        factor = even(*self.factors, generator)
        if chance(0.5, generator):
            factor = 2.0 + integer(0, 1, generator)
        return _coarser(shape, factor)


@dataclass(frozen=True)
class ThickSlices(OperatorFamily):
    """Thick slices across one axis, with overlap or gap, of a box or a bell.

    Attributes:
        spacings: Smallest and largest distance of slices, in voxels, > 1.
    """

    spacings: Range = (2.0, 5.0)
    name: ClassVar[str] = "thick slices"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        spacing = even(*self.spacings, generator)
        spacing = float(round(spacing)) if chance(0.7, generator) else spacing
        plain = chance(0.5, generator)
        thickness = spacing * (1.0 if plain else even(0.7, 1.4, generator))
        profile = Profile.BOX if chance(0.7, generator) else Profile.GAUSSIAN
        axis = -integer(1, len(shape) - 1, generator)
        return thick_slices(shape, axis, spacing, thickness, profile)


@dataclass(frozen=True)
class Holes(OperatorFamily):
    """Voxels that are missing: boxes, blobs, slices, what lies outside a field of view, a corner."""

    name: ClassVar[str] = "holes"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        return Masking(_observed(shape[1:], generator).to(device), shape)


@dataclass(frozen=True)
class Blurring(OperatorFamily):
    """A Gaussian blur, round in half of the draws.

    Attributes:
        sigmas: Smallest and largest standard deviation, in voxels, > 0.
    """

    sigmas: Range = (0.7, 3.0)
    name: ClassVar[str] = "blur"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        return gaussian_blur(_sigmas(shape, self.sigmas, generator), shape)


@dataclass(frozen=True)
class BlurredVoxels(OperatorFamily):
    """Blur, then means over coarser voxels: one matrix along each axis.

    Attributes:
        sigmas: Smallest and largest standard deviation of the blur, in voxels, > 0.
        factors: Smallest and largest edge of a voxel, >= 1.
    """

    sigmas: Range = (0.5, 1.5)
    factors: Range = (1.3, 3.0)
    name: ClassVar[str] = "blurred voxels"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        sigmas = _sigmas(shape, self.sigmas, generator)
        factor = even(*self.factors, generator)
        matrices = []
        for sigma, n in zip(sigmas, shape[1:], strict=True):
            blur = blur_matrix(gaussian_kernel([sigma]), n, Boundary.REFLECT)
            matrices.append(box_average(n, round(n / factor)) @ blur)
        return Separable(matrices, shape)


@dataclass(frozen=True)
class CoarseHoles(OperatorFamily):
    """Voxels twice as large along all axes, and a hole among them."""

    name: ClassVar[str] = "coarse holes"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        coarse = _coarser(shape, 2.0)
        mask = _observed(coarse.measurement_shape[1:], generator).to(device)
        return stopped_early(Masking(mask, coarse.measurement_shape) @ coarse, coarse.norm)


def _coarser(shape: tuple[int, ...], factor: float) -> LinearOperator:
    """Voxels `factor` times as large along all axes."""
    space = shape[1:]
    if factor == round(factor) and all(n % int(factor) == 0 for n in space):
        return AveragePooling([int(factor)] * len(space), shape)
    return Separable([box_average(n, round(n / factor)) for n in space], shape)


def _observed(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random mask, True where observed, that leaves out some and keeps some."""
    kind = integer(0, 5, generator)
    if kind <= 1:
        return _boxes(space, generator)
    if kind <= 3:
        radius = min(space) * even(0.06, 0.2, generator)
        return lesion(space, generator, radius, integer(1, 4, generator))
    if kind == 4 and chance(0.5, generator):
        axis = integer(0, len(space) - 1, generator)
        order = torch.randperm(space[axis], generator=generator).tolist()
        count = max(1, round(space[axis] * even(0.05, 0.4, generator)))
        return dropped_slices(space, axis, order[:count])
    if kind == 4:
        mask = defaced(space, 0, 1, share=even(0.2, 0.5, generator), slant=even(25.0, 65.0, generator))
        turned = torch.randperm(len(space), generator=generator).tolist()
        upside = [axis for axis in range(len(space)) if chance(0.5, generator)]
        if tuple(space[axis] for axis in turned) == space:
            mask = mask.permute(turned)
        return mask.flip(upside).contiguous()
    start = [round(n * even(0.0, 0.25, generator)) for n in space]
    stop = [n - max(1, round(n * even(0.0, 0.25, generator))) for n in space]
    return field_of_view(space, start, stop)


def _boxes(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    observed = torch.ones(space, dtype=torch.bool)
    for _ in range(integer(1, 3, generator)):
        edges = [max(1, round(n * even(0.08, 0.35, generator))) for n in space]
        starts = [integer(0, n - edge, generator) for n, edge in zip(space, edges, strict=True)]
        observed[tuple(slice(a, a + edge) for a, edge in zip(starts, edges, strict=True))] = False
    return observed


def _sigmas(shape: tuple[int, ...], limits: Range, generator: torch.Generator) -> list[float]:
    """Along each axis; a mirror image reaches no further than the image."""
    drawn = [even(*limits, generator) for _ in shape[1:]]
    drawn = [drawn[0]] * len(drawn) if chance(0.5, generator) else drawn
    return [min(sigma, n / 4 - 0.5) for sigma, n in zip(drawn, shape[1:], strict=True)]
