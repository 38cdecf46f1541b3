r"""Random accelerated scans: lines, points and spokes of k-space, seen by one coil or by several.

One coil is solved in closed form; several by at most ten conjugate gradients.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from radiata_core import kspace_masks
from radiata_core.fourier_sampling import FourierSampling, MultiCoilSampling, coil_sensitivities
from radiata_core.operators import LinearOperator
from radiata_core.random_operators import OperatorFamily, Range, chance, even, integer, stopped_early

__all__ = ["Coils", "KSpaceLines", "KSpacePoints", "KSpaceSpokes"]


@dataclass(frozen=True)
class KSpaceLines(OperatorFamily):
    """Lines of k-space, at random or evenly.

    Attributes:
        accelerations: Smallest and largest, > 1.
    """

    accelerations: Range = (2.0, 8.0)
    name: ClassVar[str] = "k-space lines"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        mask = _lines(shape[1:], even(*self.accelerations, generator), generator)
        return FourierSampling(mask.to(device), shape, real=True)


@dataclass(frozen=True)
class KSpacePoints(OperatorFamily):
    """Points of k-space in the plane of two phase encodes.

    Attributes:
        accelerations: Smallest and largest, > 1.
    """

    accelerations: Range = (2.0, 8.0)
    name: ClassVar[str] = "k-space points"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        space = shape[1:]
        left_out = integer(0, len(space) - 1, generator)
        axes = [a for a in range(len(space)) if len(space) == 2 or a != left_out]
        mask = kspace_masks.random_points(
            space,
            even(*self.accelerations, generator),
            generator,
            axes=(axes[0], axes[1]),
            middle=even(0.005, 0.04, generator),
            decay=even(1.0, 4.0, generator),
        )
        return FourierSampling(mask.to(device), shape, real=True)


@dataclass(frozen=True)
class KSpaceSpokes(OperatorFamily):
    """Spokes through the middle of k-space: a twelfth to a half as many as a line has voxels."""

    name: ClassVar[str] = "k-space spokes"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        longest = max(shape[-2:])
        spokes = integer(max(2, longest // 12), longest // 2, generator)
        first = even(0.0, 180.0, generator)
        mask = kspace_masks.radial_spokes(shape[1:], spokes, first=first, golden=chance(0.5, generator))
        return FourierSampling(mask.to(device), shape, real=True)


@dataclass(frozen=True)
class Coils(OperatorFamily):
    """Lines of k-space seen by several coils.

    Attributes:
        accelerations: Smallest and largest, > 1.
    """

    accelerations: Range = (2.0, 8.0)
    name: ClassVar[str] = "coils"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        mask = _lines(shape[1:], even(*self.accelerations, generator), generator)
        maps = coil_sensitivities(
            shape[1:],
            integer(4, 8, generator),
            distance=even(1.0, 1.6, generator),
            width=even(0.4, 0.8, generator),
        )
        maps = maps.to(torch.complex64).to(device)
        return stopped_early(MultiCoilSampling(mask.to(device), maps, shape, real=True), 1.0)


def _lines(space: tuple[int, ...], acceleration: float, generator: torch.Generator) -> Tensor:
    axis = integer(0, len(space) - 1, generator)
    middle = even(0.03, min(0.12, 0.9 / acceleration), generator)
    if chance(0.4, generator):
        offset = integer(0, space[axis] - 1, generator)
        return kspace_masks.equispaced_lines(space, acceleration, axis=axis, middle=middle, offset=offset)
    decay = even(0.0, 2.0, generator)
    return kspace_masks.random_lines(space, acceleration, generator, axis=axis, middle=middle, decay=decay)
