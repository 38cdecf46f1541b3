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

from collections.abc import Sequence

import torch

from radiata_core.errors import InputError
from radiata_core.image_families import (
    BlurredVoxels,
    Blurring,
    CoarseHoles,
    CoarseVoxels,
    Denoising,
    Holes,
    ThickSlices,
)
from radiata_core.kspace_families import Coils, KSpaceLines, KSpacePoints, KSpaceSpokes
from radiata_core.random_operators import DrawnOperator, OperatorFamily, even

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
    chosen = int((even(0.0, 1.0, generator) >= ends).sum().clamp_max(len(families) - 1))
    return families[chosen].draw(event_shape, generator, device)
