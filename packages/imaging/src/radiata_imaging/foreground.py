"""Where the head is, from the intensities alone.

Air and head differ by brightness once noise is averaged away, so everything happens on a 4 mm copy (64 voxels of
1 mm averaged: the noise floor of a magnitude image becomes a constant there). Otsu's threshold parts the histogram,
the head is everything above

    τ = m_air + ⅓ (m_head − m_air),

with the class means m; a constant noise floor shifts τ along with it. Gaps are closed and holes filled (sinuses, dark
skull), opening cuts threads of ghosting, and the largest component is the head.

The centre of the crop must not depend on how much neck was scanned. So it hangs from the top of the head: 88 mm below
the vertex (for an object shorter than a head, its middle), and in the middle of the head's extent in the slab between
vertex and that level, where neither nose nor chin is. On six label maps of whole heads this lay within 11 mm of the
middle of the brain's bounding box along every axis (on average +6 mm to the front, +1 mm up).

References:
    Otsu (1979), A threshold selection method from gray-level histograms, IEEE TSMC 9, eqs. 12–15.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from radiata_imaging.orientation import reorient, resample
from radiata_imaging.volume import Volume

__all__ = ["Head", "find_head", "otsu"]

_COARSE = 4.0  # mm
_SLICE_AREA = 600.0  # mm² of head that make a slice part of it: a nose tip or a vitamin capsule is less
_BINS = 256


@dataclass(frozen=True, eq=False)
class Head:
    """The head of a volume.

    Attributes:
        mask: Head or not, on a 4 mm grid in LPS order, bool (x, y, z).
        affine: Of that grid, (4, 4).
        centre: World position (mm, RAS) around which a field of view is laid, (3,).
        fraction: Share of the field of view that is head, 0..1.
    """

    mask: np.ndarray
    affine: np.ndarray
    centre: np.ndarray
    fraction: float


def otsu(values: np.ndarray) -> tuple[float, float, float]:
    """Threshold, mean below and mean above that maximise the variance between two classes, w₀ w₁ (m₁ − m₀)².

    Args:
        values: Any shape, finite, not constant.
    """
    counts, edges = np.histogram(values, bins=_BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts).astype(np.float64)
    moment = np.cumsum(counts * centres)
    rest = weight[-1] - weight
    valid = (weight > 0) & (rest > 0)
    low = np.divide(moment, weight, where=valid, out=np.zeros_like(moment))
    high = np.divide(moment[-1] - moment, rest, where=valid, out=np.zeros_like(moment))
    between = np.where(valid, weight * rest * (high - low) ** 2, -1)
    best = int(between.argmax())
    return float(edges[best + 1]), float(low[best]), float(high[best])


def find_head(volume: Volume, depth: float = 88.0) -> Head:
    """The head and the point around which to crop it.

    Args:
        volume: A T1 head (or a brain alone) in any orientation.
        depth: Distance in mm from the vertex down to the centre of the crop.
    """
    from scipy import ndimage

    coarse = resample(reorient(volume, "LPS"), _COARSE, outside=float(volume.array.min()))
    values = np.clip(coarse.array, None, np.percentile(coarse.array, 99))
    if values.max() == values.min():  # a few bright voxels in nothing
        values = coarse.array
    _, air, tissue = otsu(values)
    mask = values > air + (tissue - air) / 3
    closed = ndimage.binary_closing(np.pad(mask, 2), iterations=2)[2:-2, 2:-2, 2:-2]
    filled = _filled(closed)  # before opening, which would take a thin scalp off its dark skull
    opened = ndimage.binary_opening(filled, iterations=1)
    labels, count = ndimage.label(opened if opened.any() else filled)
    if count > 1:
        labels = labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())
    mask = ndimage.binary_dilation(
        labels > 0, iterations=1, mask=filled
    )  # what opening shaved off the head itself
    return Head(mask, coarse.affine, _centre(mask, coarse.affine, depth), float(mask.mean()))


def _filled(mask: np.ndarray) -> np.ndarray:
    """Holes filled in each axial slice (the neck leaves the field of view open below), then in 3-D."""
    from scipy import ndimage

    within = np.zeros((3, 3, 3), bool)
    within[:, :, 1] = ndimage.generate_binary_structure(2, 1)
    return ndimage.binary_fill_holes(ndimage.binary_fill_holes(mask, within))


def _centre(mask: np.ndarray, affine: np.ndarray, depth: float) -> np.ndarray:
    needed = _SLICE_AREA / _COARSE**2
    area = mask.sum(axis=(0, 1))
    levels = np.flatnonzero(area >= min(needed, area.max()))
    top, bottom = int(levels.max()), int(levels.min())
    height = (top - bottom + 1) * _COARSE
    below = (
        depth if bottom == 0 else min(depth, height / 2)
    )  # at the lower edge of the image the head goes on
    level = top + 0.5 - below / _COARSE
    slab = mask[:, :, max(0, int(np.floor(level))) : top + 1]
    middle = [_middle(slab.any(axis=(1, 2))), _middle(slab.any(axis=(0, 2))), level]
    return (affine @ np.array([*middle, 1.0]))[:3]


def _middle(occupied: Any) -> float:
    indices = np.flatnonzero(occupied)
    return (int(indices.min()) + int(indices.max())) / 2
