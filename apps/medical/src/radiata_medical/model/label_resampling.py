r"""Labels on another grid of parallel axes: each class's share of a voxel is interpolated, and the largest wins.

Nearest-neighbour lookup makes stairs where grids differ, and takes what happens to lie in the middle of a thick slice. Here

    q_c(x) = sum_i w_i(x) p_i [c_i = c],      label(x) = argmax_c q_c(x),

with c_i the winning class of source voxel i, p_i its probability, and w the linear interpolation along each axis, after the
anti-aliasing Gaussian where voxels get larger (`radiata_imaging.interpolation`): a doubtful voxel has less to say than a
sure one. Classes are taken one at a time, each within its bounding box, so that no volume of all classes is made. Where the
target's voxels are the source's, the labels are the same numbers.
"""

from collections.abc import Sequence

import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_imaging.interpolation import Axis, Interpolation, apply_axes
from radiata_imaging.orientation import Grid

__all__ = ["labels_on", "parallel_axes", "values_on"]

_PARALLEL = 1e-6


def parallel_axes(source: Grid, target: Grid) -> tuple[Axis, Axis, Axis]:
    """The three axes of `target` in voxels of `source`.

    Raises:
        InputError: the axes of the two grids are not parallel.
    """
    relative = np.linalg.solve(source.affine, target.affine)
    steps = np.diag(relative)[:3]
    if np.abs(relative[:3, :3] - np.diag(steps)).max() > _PARALLEL or np.abs(steps).min() <= 0:
        raise InputError("expected grids with parallel axes; got turned ones. Reorient or resample first.")
    x, y, z = (
        Axis(n, m, float(start), _snapped(float(step)))
        for n, m, start, step in zip(source.shape, target.shape, relative[:3, 3], steps, strict=True)
    )
    return x, y, z


def values_on(values: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """A map `(x, y, z)` on the target grid, float32, linear between voxels, averaged over larger ones."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return apply_axes(tensor, axes, Interpolation.LINEAR).numpy()


def labels_on(labels: np.ndarray, confidence: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """Labels on the target grid, of the dtype of `labels`; 0 outside the source's field of view.

    Args:
        labels: Winning class of each voxel `(x, y, z)`, integers >= 0.
        confidence: Its probability, (0, 1].
        axes: Of the target in voxels of the source (`parallel_axes`).
    """
    if all(axis.is_crop for axis in axes):
        exact = apply_axes(torch.from_numpy(labels.astype(np.float32)), axes, Interpolation.NEAREST)
        return exact.numpy().astype(labels.dtype)
    target = tuple(axis.target for axis in axes)
    best = np.zeros(target, np.float32)
    found = np.zeros(target, labels.dtype)
    for code in np.unique(labels).tolist():
        here = labels == code
        inside, outside, parts = [], [], []
        for number, axis in enumerate(axes):
            occupied = np.flatnonzero(here.any(tuple(a for a in range(3) if a != number)))
            part, low, first = _part(axis, int(occupied[0]), int(occupied[-1]))
            inside.append(slice(low, low + part.source))
            outside.append(slice(first, first + part.target))
            parts.append(part)
        if any(part.target < 1 for part in parts):
            continue
        box, place = tuple(inside), tuple(outside)
        share = values_on(np.where(here[box], confidence[box], 0), parts)
        wins = share > best[place]
        best[place][wins] = share[wins]
        found[place][wins] = code
    return found


def _part(axis: Axis, low: int, high: int) -> tuple[Axis, int, int]:
    """The part of an axis that source voxels low … high reach: itself, its first source voxel, its first target voxel."""
    reach = 2 + (int(np.ceil(4 * np.sqrt((axis.step**2 - 1) / 12))) if abs(axis.step) > 1 else 0)
    start, stop = max(low - reach, 0), min(high + reach + 1, axis.source)
    positions = axis.start + axis.step * np.arange(axis.target)
    touched = np.flatnonzero((positions > start - 0.5 - 1e-6) & (positions < stop - 0.5 + 1e-6))
    if not touched.size:
        return Axis(stop - start, 0, 0.0, axis.step), start, 0
    first = int(touched[0])
    begin = axis.start + axis.step * first - start
    return Axis(stop - start, len(touched), begin, axis.step), start, first


def _snapped(step: float) -> float:
    return float(round(step)) if abs(step - round(step)) < 1e-9 and round(step) else step
