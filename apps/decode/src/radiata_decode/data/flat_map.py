r"""Responses as a picture of the cortex: (trial, voxel) → (trial, 1, y, x), the same canvas for every person.

Both hemispheres' flat maps lie side by side, cropped to the regions of interest and stretched to a square; the occipital
poles meet in the middle. A pixel is the weighted mean of the voxels nearest to it,

$$ I_p = \frac{\sum_{j \in N_k(p)} r_j\, d_{pj}^{-1}\, \bar x_j}{\sum_{j \in N_k(p)} r_j\, d_{pj}^{-1}},
   \qquad d_{pj} \le \text{reach}, $$

over the k nearest places j on the map, with $\bar x_j$ the mean of the voxels at that place (several depths of the
cortex) and r_j their reliability. So all of it is one sparse matrix with rows that sum to 1 inside of the mask and to 0
outside, made once a person. People have different voxels; what they have in common is the canvas: the anatomy does the
alignment, no parameter belongs to a person.

The way back, `sampled`, is bilinear interpolation at each voxel's place, from pixels of the mask alone.

References:
    J. Huo, Y. Wang, Y. Wang, X. Qian, C. Li, Y. Fu, J. Feng (2024). NeuroPictor: refining fMRI-to-image reconstruction via
    multi-individual pretraining and multi-level modulation. https://arxiv.org/abs/2403.18211 (the cortex as a picture).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from radiata_core.errors import InputError
from radiata_decode.data.cortical_positions import HEMISPHERES, FlatPositions

__all__ = ["Canvas", "CortexImage", "common_canvas", "cortex_image"]

NEAREST_MM = 0.05  # a pixel on a voxel is that voxel, not a division by zero


@dataclass(frozen=True)
class Canvas:
    """Which part of the flat maps a picture of the cortex shows.

    Attributes:
        boxes: Hemisphere → left, right, bottom, top of its part, mm of its flat map.
        size: Of the picture, (y, x) pixels; hemispheres share x.
    """

    boxes: Mapping[str, tuple[float, float, float, float]]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        parts = len(self.boxes)
        if not parts or set(self.boxes) - set(HEMISPHERES):
            raise InputError(f"expected boxes of left, right or both; got {', '.join(self.boxes) or 'none'}.")
        if min(self.size) < 8 or self.size[1] % parts:
            raise InputError(
                f"expected a picture of 8 pixels or more, an even number across; got {self.size}. 128 or 256 are usual."
            )
        for name, (left, right, bottom, top) in self.boxes.items():
            if not (right > left and top > bottom):
                raise InputError(f"expected a box with an extent for {name}; got {self.boxes[name]}.")

    def offset(self, hemisphere: str) -> int:
        """First column of a hemisphere."""
        return sorted(self.boxes).index(hemisphere) * self.width

    @property
    def width(self) -> int:
        """Columns of one hemisphere."""
        return self.size[1] // len(self.boxes)

    def pixels(self, hemisphere: str) -> np.ndarray:
        """Centres of the pixels of a hemisphere on its flat map, (y · width, 2) mm, row by row from the top."""
        left, right, bottom, top = self.boxes[hemisphere]
        x = left + (np.arange(self.width) + 0.5) * (right - left) / self.width
        y = top - (np.arange(self.size[0]) + 0.5) * (top - bottom) / self.size[0]
        return np.stack([part.reshape(-1) for part in np.meshgrid(x, y)], 1)

    def place(self, hemisphere: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column (fractions of a pixel, centres are whole numbers) of points of a flat map, mm."""
        left, right, bottom, top = self.boxes[hemisphere]
        row = (top - y) * self.size[0] / (top - bottom) - 0.5
        column = (x - left) * self.width / (right - left) - 0.5
        return row, column + self.offset(hemisphere)

    def card(self) -> dict[str, Any]:
        """As plain values, for the card of a model."""
        return {"boxes": {name: list(box) for name, box in self.boxes.items()}, "size": list(self.size)}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> "Canvas":
        """The inverse of `card`.

        Raises:
            InputError: not a canvas.
        """
        try:
            boxes = {
                str(k): (float(a), float(b), float(c), float(d)) for k, (a, b, c, d) in card["boxes"].items()
            }
            height, width = card["size"]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                "expected the boxes and the size of a canvas in the model's card; got something else."
            ) from None
        return cls(boxes, (int(height), int(width)))


def common_canvas(
    people: list[FlatPositions], size: int | tuple[int, int] = 128, *, margin_mm: float = 4.0
) -> Canvas:
    """The canvas that shows all voxels of all people.

    Args:
        people: Places of their voxels; leave out voxels of regions that are of no interest.
        size: Side, or (y, x), pixels.
        margin_mm: Left free around them.

    Raises:
        InputError: no voxel.
    """
    boxes = {}
    for index, name in enumerate(HEMISPHERES):
        x = np.concatenate([p.x[p.kept & (p.hemisphere == index)] for p in people] or [np.empty(0)])
        y = np.concatenate([p.y[p.kept & (p.hemisphere == index)] for p in people] or [np.empty(0)])
        if len(x):
            low_x, low_y, margin = float(x.min()), float(y.min()), float(margin_mm)
            boxes[name] = (low_x - margin, float(x.max()) + margin, low_y - margin, float(y.max()) + margin)
    if not boxes:
        raise InputError("expected voxels on the flat map; got none.")
    return Canvas(boxes, (size, size) if isinstance(size, int) else size)


@dataclass(frozen=True)
class CortexImage:
    """What turns one person's responses into pictures of the cortex, and back.

    Attributes:
        canvas: Shared by all people.
        weights: (pixel, voxel), rows sum to 1 inside the mask, 0 outside.
        sampling: (voxel, pixel), rows sum to 1 for voxels on the canvas, 0 for others.
        mask: Pixels that show cortex with voxels, (y, x) bool.
    """

    canvas: Canvas
    weights: csr_matrix
    sampling: csr_matrix
    mask: np.ndarray

    def images(self, responses: np.ndarray) -> np.ndarray:
        """Pictures (trial, 1, y, x) float32 of responses (trial, voxel); 0 outside of the mask.

        Raises:
            InputError: another number of voxels, or values that are not finite.
        """
        values = np.asarray(responses, np.float32)
        if values.ndim != 2 or values.shape[1] != self.weights.shape[1]:
            raise InputError(
                f"expected responses (trial, {self.weights.shape[1]} voxels); got {values.shape}. Use the voxels that the "
                "canvas was made with."
            )
        if not np.isfinite(values).all():
            raise InputError("expected finite responses; got NaN or infinity. Mask those voxels first.")
        return np.asarray((self.weights @ values.T).T, np.float32).reshape(-1, 1, *self.canvas.size)

    def sampled(self, images: np.ndarray) -> np.ndarray:
        """Responses (trial, voxel) float32 of pictures (trial, 1, y, x); 0 for voxels that are not on the canvas.

        Raises:
            InputError: pictures of another size.
        """
        values = np.asarray(images, np.float32)
        if values.ndim != 4 or values.shape[1:] != (1, *self.canvas.size):
            raise InputError(f"expected pictures (trial, 1, {self.canvas.size}); got {values.shape}.")
        return np.asarray((self.sampling @ values.reshape(len(values), -1).T).T, np.float32)


def cortex_image(
    positions: FlatPositions,
    canvas: Canvas,
    *,
    reliability: np.ndarray | None = None,
    neighbours: int = 3,
    reach_mm: float = 6.0,
) -> CortexImage:
    """The two sparse matrices of a person.

    Args:
        positions: Of the voxels.
        canvas: What to show.
        reliability: Weight of each voxel, (voxel,), >= 0; those with 0 are not shown. None: all the same.
        neighbours: Places that a pixel is a mean of, >= 1.
        reach_mm: Farthest place that a pixel may show, mm.

    Raises:
        InputError: weights that do not fit, numbers out of range, or no voxel on the canvas.
    """
    count = len(positions.x)
    trust = np.ones(count) if reliability is None else np.asarray(reliability, np.float64)
    if trust.shape != (count,) or not np.isfinite(trust).all() or (trust < 0).any():
        raise InputError(f"expected a weight >= 0 for each of {count} voxels; got {trust.shape}.")
    if neighbours < 1 or not reach_mm > 0:
        raise InputError(f"expected neighbours >= 1 and a reach > 0; got {neighbours} and {reach_mm}.")
    pixels = canvas.size[0] * canvas.size[1]
    weights = csr_matrix((pixels, count), dtype=np.float32)
    for name in canvas.boxes:
        here = positions.kept & (positions.hemisphere == HEMISPHERES.index(name)) & (trust > 0)
        if here.any():
            weights = weights + _raster(
                canvas, name, positions, np.flatnonzero(here), trust, neighbours, reach_mm
            )
    mask = (np.asarray(weights.sum(1)).reshape(canvas.size) > 0.5).astype(bool)
    if not mask.any():
        raise InputError("expected voxels within the canvas; got none. Is the canvas of another region?")
    return CortexImage(canvas, weights.tocsr(), _sampling(canvas, positions, mask), mask)


def _raster(
    canvas: Canvas,
    name: str,
    positions: FlatPositions,
    voxels: np.ndarray,
    trust: np.ndarray,
    neighbours: int,
    reach_mm: float,
) -> csr_matrix:
    """(pixel, voxel) of one hemisphere."""
    from scipy.spatial import cKDTree

    points = np.stack([positions.x[voxels], positions.y[voxels]], 1).round(3)
    places, member = np.unique(points, axis=0, return_inverse=True)
    member = member.reshape(-1)
    total = np.bincount(member, trust[voxels])
    means = csr_matrix(
        (trust[voxels] / total[member], (member, voxels)), shape=(len(places), len(positions.x))
    )
    number = min(neighbours, len(places))
    distance, near = cKDTree(places).query(canvas.pixels(name), k=number, distance_upper_bound=reach_mm)
    distance, near = distance.reshape(-1, number), near.reshape(-1, number)
    pixel, rank = np.nonzero(np.isfinite(distance))
    column = near[pixel, rank]
    share = total[column] / np.bincount(member)[column] / np.maximum(distance[pixel, rank], NEAREST_MM)
    share = share / np.bincount(pixel, share, minlength=len(distance))[pixel]
    row, across = np.divmod(pixel, canvas.width)
    flat = row * canvas.size[1] + across + canvas.offset(name)
    kernel = csr_matrix((share, (flat, column)), shape=(canvas.size[0] * canvas.size[1], len(places)))
    return (kernel @ means).astype(np.float32)


def _sampling(canvas: Canvas, positions: FlatPositions, mask: np.ndarray) -> csr_matrix:
    """(voxel, pixel): bilinear, pixels outside of the mask left out and the rest scaled up."""
    rows, columns, shares = [], [], []
    for name in canvas.boxes:
        voxels = np.flatnonzero(positions.kept & (positions.hemisphere == HEMISPHERES.index(name)))
        row, column = canvas.place(name, positions.x[voxels], positions.y[voxels])
        first = canvas.offset(name)
        for down in (0, 1):
            for right in (0, 1):
                y, x = np.floor(row).astype(int) + down, np.floor(column).astype(int) + right
                share = (1 - np.abs(row - y)) * (1 - np.abs(column - x))
                inside = (
                    (y >= 0) & (y < canvas.size[0]) & (x >= first) & (x < first + canvas.width) & (share > 0)
                )
                inside[inside] &= mask[y[inside], x[inside]]
                rows.append(voxels[inside])
                columns.append(y[inside] * canvas.size[1] + x[inside])
                shares.append(share[inside])
    row_index, share = np.concatenate(rows), np.concatenate(shares)
    share = share / np.bincount(row_index, share, minlength=len(positions.x))[row_index]
    shape = (len(positions.x), mask.size)
    return csr_matrix((share, (row_index, np.concatenate(columns))), shape=shape, dtype=np.float32)
