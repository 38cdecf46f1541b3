r"""Random operators: the degradations that a restorer of anything linear is trained on.

A restorer that is to serve every operator (`unrolled`) must not see the one it is tested on only. A *family* draws an
operator and the standard deviation of its noise, for an event of any size, from a generator alone:

| family | what is random | solved |
|---|---|---|
| `Denoising` | the noise, 0.02 to 0.25 | closed form |
| `CoarseVoxels` | the factor, 1.5 to 4, the same along all axes | closed form |
| `ThickSlices` | axis, spacing 2 to 5, overlap or gap, profile | closed form |
| `Holes` | boxes, blobs, dropped slices, field of view, a corner cut off | closed form |
| `KSpaceLines`, `KSpacePoints`, `KSpaceSpokes` | acceleration 2 to 8, axis, middle, density | closed form |
| `Blurring` | standard deviation 0.7 to 3 along each axis | closed form |
| `BlurredVoxels` | blur, then coarser voxels | closed form |
| `CoarseHoles` | coarser voxels with a hole | conjugate gradients (two eigenvalues: exact in two) |
| `Coils` | 4 to 8 coils, lines of k-space | conjugate gradients, at most 10 |

A training step differentiates through several data steps, so what has a closed form is preferred, and what has none stops
early. Images are real with one channel or more, in two or three dimensions, of data of order 1 (intensity over white).
Operators are put on the device of the images where they hold whole grids; small matrices follow when they are used.

References:
    Iglesias et al., "Joint super-resolution and synthesis of 1 mm isotropic MP-RAGE volumes from clinical MRI exams", 2021,
        https://doi.org/10.1016/j.neuroimage.2021.118206 (random acquisitions as training data).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from radiata_core import kspace_masks
from radiata_core.convolution import Boundary, gaussian_kernel
from radiata_core.downsampling import AveragePooling, Profile, box_average, thick_slices
from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling, MultiCoilSampling, coil_sensitivities
from radiata_core.masking import Masking, defaced, dropped_slices, field_of_view, lesion
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity
from radiata_core.separable import Separable, blur_matrix, gaussian_blur

__all__ = [
    "BlurredVoxels",
    "Blurring",
    "CoarseHoles",
    "CoarseVoxels",
    "Coils",
    "Denoising",
    "DrawnOperator",
    "Holes",
    "KSpaceLines",
    "KSpacePoints",
    "KSpaceSpokes",
    "OperatorFamily",
    "ThickSlices",
    "draw_problem",
    "standard_families",
]

_LEAST = 16
_EARLY = 10


@dataclass(frozen=True, eq=False)
class DrawnOperator:
    """An operator and its noise.

    Attributes:
        family: Name of the family it is of.
        operator: A, on real events.
        noise_sd: Standard deviation of the noise of every number of A x, in units of A x, > 0.
    """

    family: str
    operator: LinearOperator
    noise_sd: float


@dataclass(frozen=True)
class OperatorFamily(ABC):
    """A law of operators.

    Attributes:
        weight: How often it is drawn, relative to others, > 0.
        noise: Smallest and largest standard deviation of the noise, drawn evenly in the logarithm, > 0.
        name: In reports.
    """

    weight: float = 1.0
    noise: tuple[float, float] = (0.005, 0.1)
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if not (0 < self.weight < math.inf and 0 < self.noise[0] <= self.noise[1] < math.inf):
            raise InputError(
                f"expected a weight > 0 and noise with 0 < least <= largest; got {self.weight} and {self.noise}. "
                "Leave a family out instead of giving it no weight."
            )

    def draw(
        self, event_shape: Sequence[int], generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> DrawnOperator:
        """An operator for events of this shape, a function of the generator alone.

        Args:
            event_shape: (channel, *space), two or three axes of space of 16 voxels or more.
            generator: On the CPU.
            device: Where masks and maps are put.

        Raises:
            InputError: a shape of another kind.
        """
        shape = tuple(event_shape)
        if len(shape) not in (3, 4) or min(shape[1:]) < _LEAST:
            raise InputError(
                f"expected events (channel, *space) with 2 or 3 axes of at least {_LEAST} voxels; got {shape}. "
                "Take larger blocks."
            )
        operator = self._operator(shape, generator, torch.device(device))
        return DrawnOperator(self.name, operator, _even_in_log(*self.noise, generator))

    @abstractmethod
    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        """A random operator for a checked shape."""


@dataclass(frozen=True)
class Denoising(OperatorFamily):
    """The image itself, with noise that is worth removing."""

    noise: tuple[float, float] = (0.02, 0.25)
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

    factors: tuple[float, float] = (1.5, 4.0)
    name: ClassVar[str] = "coarse voxels"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        factor = _even(*self.factors, generator)
        if _chance(0.5, generator):
            factor = 2.0 + _integer(0, 1, generator)
        return _coarser(shape, factor)


@dataclass(frozen=True)
class ThickSlices(OperatorFamily):
    """Thick slices across one axis, with overlap or gap, of a box or a bell.

    Attributes:
        spacings: Smallest and largest distance of slices, in voxels, > 1.
    """

    spacings: tuple[float, float] = (2.0, 5.0)
    name: ClassVar[str] = "thick slices"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        spacing = _even(*self.spacings, generator)
        spacing = float(round(spacing)) if _chance(0.7, generator) else spacing
        plain = _chance(0.5, generator)
        thickness = spacing * (1.0 if plain else _even(0.7, 1.4, generator))
        profile = Profile.BOX if _chance(0.7, generator) else Profile.GAUSSIAN
        axis = -_integer(1, len(shape) - 1, generator)
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
class KSpaceLines(OperatorFamily):
    """Lines of k-space, at random or evenly.

    Attributes:
        accelerations: Smallest and largest, > 1.
    """

    accelerations: tuple[float, float] = (2.0, 8.0)
    name: ClassVar[str] = "k-space lines"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        mask = _lines(shape[1:], _even(*self.accelerations, generator), generator)
        return FourierSampling(mask.to(device), shape, real=True)


@dataclass(frozen=True)
class KSpacePoints(OperatorFamily):
    """Points of k-space in the plane of two phase encodes.

    Attributes:
        accelerations: Smallest and largest, > 1.
    """

    accelerations: tuple[float, float] = (2.0, 8.0)
    name: ClassVar[str] = "k-space points"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        space = shape[1:]
        left_out = _integer(0, len(space) - 1, generator)
        axes = [a for a in range(len(space)) if len(space) == 2 or a != left_out]
        mask = kspace_masks.random_points(
            space,
            _even(*self.accelerations, generator),
            generator,
            axes=(axes[0], axes[1]),
            middle=_even(0.005, 0.04, generator),
            decay=_even(1.0, 4.0, generator),
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
        spokes = _integer(max(2, longest // 12), longest // 2, generator)
        first = _even(0.0, 180.0, generator)
        mask = kspace_masks.radial_spokes(shape[1:], spokes, first=first, golden=_chance(0.5, generator))
        return FourierSampling(mask.to(device), shape, real=True)


@dataclass(frozen=True)
class Blurring(OperatorFamily):
    """A Gaussian blur, round in half of the draws.

    Attributes:
        sigmas: Smallest and largest standard deviation, in voxels, > 0.
    """

    sigmas: tuple[float, float] = (0.7, 3.0)
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

    sigmas: tuple[float, float] = (0.5, 1.5)
    factors: tuple[float, float] = (1.3, 3.0)
    name: ClassVar[str] = "blurred voxels"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        sigmas = _sigmas(shape, self.sigmas, generator)
        factor = _even(*self.factors, generator)
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
        return _stopped_early(Masking(mask, coarse.measurement_shape) @ coarse, coarse.norm)


@dataclass(frozen=True)
class Coils(OperatorFamily):
    """Lines of k-space seen by several coils.

    Attributes:
        accelerations: Smallest and largest, > 1.
    """

    accelerations: tuple[float, float] = (2.0, 8.0)
    name: ClassVar[str] = "coils"

    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        mask = _lines(shape[1:], _even(*self.accelerations, generator), generator)
        maps = coil_sensitivities(
            shape[1:],
            _integer(4, 8, generator),
            distance=_even(1.0, 1.6, generator),
            width=_even(0.4, 0.8, generator),
        )
        maps = maps.to(torch.complex64).to(device)
        return _stopped_early(MultiCoilSampling(mask.to(device), maps, shape, real=True), 1.0)


def standard_families(dims: int) -> tuple[OperatorFamily, ...]:
    """The families of the table, with the weights a restorer is trained with.

    Args:
        dims: Axes of space, 2 or 3.

    Raises:
        InputError: another number.
    """
    if dims not in (2, 3):
        raise InputError(f"expected 2 or 3 axes of space; got {dims}. Traces have no k-space.")
    solid = dims == 3
    return (
        Denoising(weight=2.0),
        CoarseVoxels(weight=2.0),
        ThickSlices(weight=3.0 if solid else 1.5),
        Holes(weight=3.0),
        KSpaceLines(weight=3.0),
        KSpacePoints(weight=1.5 if solid else 0.5),
        KSpaceSpokes(weight=1.0),
        Blurring(weight=1.5),
        BlurredVoxels(weight=1.0),
        CoarseHoles(weight=0.5),
        Coils(weight=0.5),
    )


def draw_problem(
    families: Sequence[OperatorFamily],
    event_shape: Sequence[int],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> DrawnOperator:
    """An operator of one of the families, chosen by their weights.

    Args:
        families: One or more.
        event_shape: (channel, *space).
        generator: On the CPU; the draw is a function of it alone.
        device: Where masks and maps are put.

    Raises:
        InputError: no family, or a shape they do not take.
    """
    if not families:
        raise InputError("expected a family of operators or more; got none. Use standard_families(2).")
    weights = torch.tensor([family.weight for family in families], dtype=torch.float64)
    ends = weights.cumsum(0) / weights.sum()
    chosen = int((_even(0.0, 1.0, generator) >= ends).sum().clamp_max(len(families) - 1))
    return families[chosen].draw(event_shape, generator, device)


def _coarser(shape: tuple[int, ...], factor: float) -> LinearOperator:
    """Voxels `factor` times as large along all axes."""
    space = shape[1:]
    if factor == round(factor) and all(n % int(factor) == 0 for n in space):
        return AveragePooling([int(factor)] * len(space), shape)
    return Separable([box_average(n, round(n / factor)) for n in space], shape)


def _observed(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random mask, True where observed, that leaves out some and keeps some."""
    kind = _integer(0, 5, generator)
    if kind <= 1:
        return _boxes(space, generator)
    if kind <= 3:
        radius = min(space) * _even(0.06, 0.2, generator)
        return lesion(space, generator, radius, _integer(1, 4, generator))
    if kind == 4 and _chance(0.5, generator):
        axis = _integer(0, len(space) - 1, generator)
        order = torch.randperm(space[axis], generator=generator).tolist()
        count = max(1, round(space[axis] * _even(0.05, 0.4, generator)))
        return dropped_slices(space, axis, order[:count])
    if kind == 4:
        mask = defaced(space, 0, 1, share=_even(0.2, 0.5, generator), slant=_even(25, 65, generator))
        turned = torch.randperm(len(space), generator=generator).tolist()
        upside = [axis for axis in range(len(space)) if _chance(0.5, generator)]
        if tuple(space[axis] for axis in turned) == space:
            mask = mask.permute(turned)
        return mask.flip(upside).contiguous()
    start = [round(n * _even(0.0, 0.25, generator)) for n in space]
    stop = [n - max(1, round(n * _even(0.0, 0.25, generator))) for n in space]
    return field_of_view(space, start, stop)


def _boxes(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    observed = torch.ones(space, dtype=torch.bool)
    for _ in range(_integer(1, 3, generator)):
        edges = [max(1, round(n * _even(0.08, 0.35, generator))) for n in space]
        starts = [_integer(0, n - edge, generator) for n, edge in zip(space, edges, strict=True)]
        observed[tuple(slice(a, a + edge) for a, edge in zip(starts, edges, strict=True))] = False
    return observed


def _lines(space: tuple[int, ...], acceleration: float, generator: torch.Generator) -> Tensor:
    axis = _integer(0, len(space) - 1, generator)
    middle = _even(0.03, min(0.12, 0.9 / acceleration), generator)
    if _chance(0.4, generator):
        offset = _integer(0, space[axis] - 1, generator)
        return kspace_masks.equispaced_lines(space, acceleration, axis=axis, middle=middle, offset=offset)
    decay = _even(0.0, 2.0, generator)
    return kspace_masks.random_lines(space, acceleration, generator, axis=axis, middle=middle, decay=decay)


def _sigmas(shape: tuple[int, ...], limits: tuple[float, float], generator: torch.Generator) -> list[float]:
    """Along each axis; a mirror image reaches no further than the image."""
    drawn = [_even(*limits, generator) for _ in shape[1:]]
    drawn = [drawn[0]] * len(drawn) if _chance(0.5, generator) else drawn
    return [min(sigma, n / 4 - 0.5) for sigma, n in zip(drawn, shape[1:], strict=True)]


def _stopped_early(operator: LinearOperator, bound: float) -> LinearOperator:
    """With few conjugate gradients, and a known bound in the place of the norm, which would take as many again."""
    operator.iterations = _EARLY
    operator.__dict__["norm"] = float(bound)
    return operator


def _even(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _even_in_log(low: float, high: float, generator: torch.Generator) -> float:
    return math.exp(_even(math.log(low), math.log(high), generator))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """low <= i <= high."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return _even(0.0, 1.0, generator) < probability
