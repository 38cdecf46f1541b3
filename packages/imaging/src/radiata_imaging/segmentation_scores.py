"""How well does a segmentation agree with a reference? Overlap, surfaces in millimetres, volumes, by structure or group.

    Dice          2|P ∩ R|/(|P| + |R|)
    surface Dice  share of both surfaces that is within a tolerance (mm) of the other
    HD95          the larger of the 95th percentiles of the distances from one surface to the other, mm
    ASSD          mean distance from either surface to the other, mm
    volume        ml, and its signed error

Surfaces and their distances come from MONAI: a surface is the voxels that one erosion takes away, the distance is
between voxel centres with the spacing in mm. A structure is cut out of the volume first, so that 35 of them cost little
more than their own size.

Absent in both, a structure has no score: every figure but the volumes is NaN. Absent in one of them, Dice and surface
Dice are 0 and the distances infinite: a mean over cases must say how many those were.

References:
    S. Nikolov et al. (2021). Clinically applicable segmentation of head and neck anatomy. JMIR 23(7) (surface Dice).
    L. Maier-Hein et al. (2024). Metrics reloaded. Nature Methods 21.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.volume import times

__all__ = ["StructureScores", "score_labels", "score_masks"]


@dataclass(frozen=True)
class StructureScores:
    """Agreement in one structure.

    Attributes:
        dice: In [0, 1]; NaN if it is in neither map.
        surface_dice: In [0, 1]; NaN if it is in neither map.
        hd95_mm: >= 0; inf if it is in one map only, NaN if in neither.
        assd_mm: As hd95_mm.
        volume_ml: In the segmentation.
        reference_ml: In the reference.
        volume_error_ml: Segmentation minus reference.
    """

    dice: float
    surface_dice: float
    hd95_mm: float
    assd_mm: float
    volume_ml: float
    reference_ml: float
    volume_error_ml: float


def score_labels(
    predicted: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float | int],
    groups: Mapping[str, Sequence[int]],
    tolerance: float | int = 1.0,
) -> dict[str, StructureScores]:
    """Scores by name of a structure or group.

    Args:
        predicted: Integer codes, (x, y) or (x, y, z).
        reference: Integer codes of the same shape.
        spacing: Voxel edges in mm, one an axis.
        groups: Name to the codes that make it up; one code for a structure.
        tolerance: Of the surface Dice, mm, >= 0.

    Raises:
        InputError: shapes that differ, no whole codes, or another number of axes.
    """
    for name, codes in (("the segmentation", predicted), ("the reference", reference)):
        if not np.issubdtype(codes.dtype, np.integer):
            raise InputError(f"expected whole codes in {name}; got {codes.dtype}. Give a label map.")
    if predicted.shape != reference.shape or min(predicted.min(), reference.min()) < 0:
        raise InputError(
            f"expected codes >= 0 on one grid; got {times(predicted.shape)} from {predicted.min()} and "
            f"{times(reference.shape)} from {reference.min()}. Resample one to the grid of the other."
        )
    labelled = (predicted > 0) | (reference > 0)
    box = _box(labelled) if labelled.any() else ()
    p, r = predicted[box], reference[box]
    size = int(max(p.max(), r.max(), *(max(group) for group in groups.values()))) + 1
    found = {}
    for name, group in groups.items():
        member = np.zeros(size, bool)  # a table is a tenth of the time of np.isin
        member[list(group)] = True
        found[name] = score_masks(member[p], member[r], spacing, tolerance)
    return found


def score_masks(
    predicted: np.ndarray, reference: np.ndarray, spacing: Sequence[float | int], tolerance: float | int = 1.0
) -> StructureScores:
    """Scores of one binary mask against another; arguments as in `score_labels`.

    Raises:
        InputError: shapes that differ, or a negative tolerance.
    """
    if predicted.shape != reference.shape or predicted.ndim not in (2, 3) or len(spacing) != predicted.ndim:
        raise InputError(
            f"expected two masks of one shape, with a spacing for each axis; got {times(predicted.shape)}, "
            f"{times(reference.shape)} and {len(spacing)} edges. Resample one to the grid of the other."
        )
    if not tolerance >= 0:
        raise InputError(
            f"expected a tolerance >= 0 mm; got {tolerance}. Give the surface error that is fine."
        )
    ml = float(np.prod(np.asarray(spacing, dtype=np.float64))) / 1000.0
    p, r = int(predicted.sum()), int(reference.sum())
    volumes = (p * ml, r * ml, (p - r) * ml)
    if not p and not r:
        none = float("nan")
        return StructureScores(none, none, none, none, *volumes)
    if not p or not r:
        return StructureScores(0.0, 0.0, float("inf"), float("inf"), *volumes)
    dice = 2 * int((predicted & reference).sum()) / (p + r)
    there, back = _surface_distances(predicted, reference, spacing)
    both = np.concatenate([there, back])
    return StructureScores(
        dice,
        float((both <= tolerance + 1e-6).mean()),
        float(max(np.percentile(there, 95), np.percentile(back, 95))),
        float(both.mean()),
        *volumes,
    )


def _surface_distances(
    predicted: np.ndarray, reference: np.ndarray, spacing: Sequence[float | int]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (mm) of each surface voxel of one mask to the surface of the other, and back."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    box = _box(predicted | reference)
    ours, theirs = get_mask_edges(predicted[box], reference[box])
    there, back = (
        np.asarray(get_surface_distance(*pair, spacing=[float(edge) for edge in spacing]), dtype=np.float64)
        for pair in ((ours, theirs), (theirs, ours))
    )
    return there, back


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(line[0]), int(line[-1]) + 1))
    return tuple(box)
