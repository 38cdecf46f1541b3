r"""Labels as numbers a diffusion can work on: classes as a field of ±1, or as signed distances to their surfaces.

    codes 0 2 3 41 …   →  classes 0 … K - 1        `group_codes`, by a table
    classes            →  field (K, *grid) of ±1   `field_of_classes`;  back by the largest channel
    field f            →  probabilities            p = (1 + f) / 2: E[f] = 2 p - 1 for the posterior mean of a field
    classes            →  signed distances / 5 mm  `distance_field`: positive inside, clipped to ±1, 0 on the surface

A distance field says where a surface runs *between* voxels. The line from a voxel to the nearest voxel of the other side
crosses m faces of voxels (the sum of its steps along the axes), the last about 1 - 1/(2 m) of the way: the distance of the
voxel centres is shortened by that factor. For planes along the axes this is exact, for any spacing; on spheres the error is
0.2 voxels (root mean square), against 0.5 without it.

References:
    Bogensperger et al., "Score-based generative models for medical image segmentation using signed distance functions",
        2023, https://arxiv.org/abs/2303.05966 (segmentation by diffusion of signed distances).
"""

from collections.abc import Sequence

import numpy as np

from radiata_core.errors import InputError

__all__ = [
    "CLIP_MM",
    "classes_of_field",
    "codes_of_classes",
    "distance_field",
    "distances_of_field",
    "field_of_classes",
    "group_codes",
    "probabilities_of_distances",
    "probabilities_of_field",
    "signed_distance",
]

CLIP_MM = 5.0
"""Distance at which a signed-distance field ends, mm: further away it says nothing of the surface."""


def group_codes(codes: np.ndarray, groups: Sequence[Sequence[int]], other: int | None = None) -> np.ndarray:
    """Class of every voxel, uint8: class k has the codes groups[k].

    Args:
        codes: Structure codes >= 0, any shape, integers.
        groups: Codes of each class, in the order of the classes.
        other: Class of a code in no group; None: such a code is an error.

    Raises:
        InputError: not whole codes >= 0, more than 256 classes, a code in two groups, or in none without `other`.
    """
    if not np.issubdtype(codes.dtype, np.integer) or (codes.size and int(codes.min()) < 0):
        raise InputError(f"expected whole codes >= 0; got {codes.dtype}. Give a segmentation, not an image.")
    named = [code for group in groups for code in group]
    if len(set(named)) != len(named) or not 2 <= len(groups) <= 256:
        raise InputError(
            f"expected 2 to 256 groups without a code in common; got {len(groups)} groups of {len(named)} codes. "
            "Name each code once."
        )
    largest = int(codes.max(initial=0))
    table = np.full(max([largest, *named]) + 1, -1, np.int64)
    for index, group in enumerate(groups):
        table[list(group)] = index
    present = np.flatnonzero(np.bincount(codes.ravel(), minlength=1)[: largest + 1])
    unknown = present[table[present] < 0]
    if unknown.size and other is None:
        raise InputError(
            f"expected codes of the groups; got {unknown[0]}, which is in none. Add it to one, or name a class for the rest."
        )
    table[table < 0] = 0 if other is None else other
    return table.astype(np.uint8)[codes]


def codes_of_classes(classes: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    """Code of every voxel, int16: codes[k] for class k.

    Raises:
        InputError: a class without a code.
    """
    largest = int(classes.max(initial=0))
    if largest >= len(codes):
        raise InputError(
            f"expected classes below {len(codes)}, one code each; got {largest}. Give a code a class."
        )
    return np.asarray(codes, np.int16)[classes]


def field_of_classes(classes: np.ndarray, count: int) -> np.ndarray:
    """Field (count, *grid), float32: 1 in the class of a voxel, -1 in the others.

    Raises:
        InputError: a class outside 0 … count - 1.
    """
    if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) < count:
        raise InputError(
            f"expected classes 0 … {count - 1}; got {int(classes.min())} … {int(classes.max())}. Group the codes first."
        )
    return np.where(np.arange(count).reshape(-1, *[1] * classes.ndim) == classes, 1.0, -1.0).astype(
        np.float32
    )


def classes_of_field(field: np.ndarray) -> np.ndarray:
    """Class of every voxel, uint8: the largest of the channels (count, *grid), of a field of classes or of distances."""
    return field.argmax(0).astype(np.uint8)


def probabilities_of_field(field: np.ndarray) -> np.ndarray:
    """(1 + f)/2, not below 0, summing to 1 over the channels (count, *grid)."""
    p = np.clip((1 + field) / 2, 0, 1).astype(np.float32)
    total = p.sum(0, keepdims=True)
    return np.where(total > 0, p / np.maximum(total, 1e-6), np.float32(1 / len(p))).astype(np.float32)


def signed_distance(inside: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance to the surface of a region, mm, float32: positive inside, negative outside, infinite without a surface.

    Args:
        inside: Boolean, any number of axes.
        spacing: Edge lengths of a voxel, mm, one an axis.
    """
    from scipy.ndimage import distance_transform_edt

    if inside.all() or not inside.any():
        return np.full(inside.shape, np.inf if inside.any() else -np.inf, np.float32)
    own = np.indices(inside.shape, dtype=np.int32)
    signed = np.zeros(inside.shape, np.float32)
    for region, sign in ((inside, 1.0), (~inside, -1.0)):
        distance, nearest = distance_transform_edt(region, sampling=tuple(spacing), return_indices=True)
        faces = np.abs(nearest - own).sum(0)
        signed += (sign * distance * (1 - 0.5 / np.maximum(faces, 1)) * region).astype(np.float32)
    return signed


def distance_field(
    classes: np.ndarray, count: int, spacing: Sequence[float], clip: float = CLIP_MM
) -> np.ndarray:
    """Signed distance of every voxel to the surface of every class over `clip`, clipped to ±1; (count, *grid), float32.

    Args:
        classes: Class of every voxel.
        count: Number of classes; one that is absent is -1 everywhere.
        spacing: Edge lengths of a voxel, mm, one an axis.
        clip: mm, > 0.

    Raises:
        InputError: a spacing or clip that is not positive, or not one spacing an axis.
    """
    if len(spacing) != classes.ndim or min(*spacing, clip) <= 0:
        raise InputError(
            f"expected {classes.ndim} spacings and a clip > 0 mm; got {tuple(spacing)} and {clip}. Check the header."
        )
    fields = [signed_distance(classes == index, spacing) / clip for index in range(count)]
    return np.clip(np.stack(fields), -1, 1).astype(np.float32)


def distances_of_field(field: np.ndarray, clip: float = CLIP_MM) -> np.ndarray:
    """Signed distances in mm, up to ±clip, of a field from `distance_field`."""
    return clip * np.clip(field, -1, 1)


def probabilities_of_distances(field: np.ndarray, clip: float = CLIP_MM, width: float = 0.5) -> np.ndarray:
    """Probabilities (count, *grid), float32, if surfaces are known to `width` mm: softmax of distance / width."""
    logits = distances_of_field(field, clip) / width
    p = np.exp(logits - logits.max(0, keepdims=True))
    return (p / p.sum(0, keepdims=True)).astype(np.float32)
