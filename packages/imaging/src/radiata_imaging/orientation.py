"""The same volume on other axes or another grid, each voxel's place in the world kept.

`reorient` permutes and flips axes: intensities are untouched and the affine follows, A' = A T with T the signed
permutation of indices. `resample` makes new intensities: where source and target axes are parallel by the separable
operators of `interpolation`, otherwise (a turned grid) by the same anti-alias smoothing and scipy's cubic spline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_imaging.interpolation import Axis, Interpolation, apply_axes, gaussian_matrix
from radiata_imaging.volume import Volume, centred_affine, check_affine

__all__ = ["Grid", "reorient", "resample"]

_PARALLEL = 1e-6  # off-diagonal voxels per voxel below which axes count as parallel
_ORDER = {Interpolation.NEAREST: 0, Interpolation.LINEAR: 1, Interpolation.CUBIC: 3}


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels are, without their values.

    Attributes:
        shape: Voxels along each axis.
        affine: Voxel index to world (RAS, mm), float64 (4, 4).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", check_affine(self.affine))


def reorient(volume: Volume, axcodes: str = "LPS") -> Volume:
    """The volume with index axes that grow towards `axcodes`; no interpolation, every world position kept.

    Args:
        volume: Any orientation; oblique grids keep their angle and take the nearest codes.
        axcodes: Such as `LPS` (MedForJ's "RAI", in ITK's from-convention) or `RAS`.

    Raises:
        InputError: the codes do not name three different axes.
    """
    centred_affine((1, 1, 1), 1.0, axcodes)  # checks the codes
    if volume.axcodes == axcodes.upper():
        return volume
    source = nib.orientations.io_orientation(volume.affine)
    target = nib.orientations.axcodes2ornt(tuple(axcodes.upper()))
    change = nib.orientations.ornt_transform(source, target)
    array = nib.orientations.apply_orientation(volume.array, change)
    return Volume(array, volume.affine @ nib.orientations.inv_ornt_aff(change, volume.shape))


def resample(
    volume: Volume,
    grid: Grid | float | Sequence[float],
    *,
    interpolation: Interpolation = Interpolation.CUBIC,
    antialias: bool = True,
    outside: float = 0.0,
) -> Volume:
    """The volume on another grid; an anti-alias Gaussian comes first along axes that get coarser.

    A spacing in place of a grid keeps axes and the middle of the field of view, and covers it: n' = ceil(n s
    / s').

    Args:
        volume: The source.
        grid: Target grid, or voxel edge(s) in mm.
        interpolation: NEAREST for label maps (which are then never smoothed).
        antialias: Leave it on when intensities are to be averages over the larger voxels.
        outside: Intensity of target voxels outside the source's field of view.

    Raises:
        InputError: a spacing that is not positive.
    """
    target = grid if isinstance(grid, Grid) else _covering(volume, grid)
    relative = np.linalg.solve(volume.affine, target.affine)
    steps = np.diag(relative)[:3]
    if np.abs(relative[:3, :3] - np.diag(steps)).max() < _PARALLEL and np.abs(steps).min() > 0:
        axes = [
            Axis(n, m, float(start), _snapped(float(step)))
            for n, m, start, step in zip(volume.shape, target.shape, relative[:3, 3], steps, strict=True)
        ]
        values = torch.from_numpy(volume.array - np.float32(outside))
        array = apply_axes(values, axes, interpolation, antialias=antialias).numpy() + np.float32(outside)
        return Volume(array, target.affine)
    return Volume(_turned(volume, target, relative, interpolation, antialias, outside), target.affine)


def _snapped(step: float) -> float:
    return float(round(step)) if abs(step - round(step)) < 1e-9 and round(step) else step


def _covering(volume: Volume, spacing: float | Sequence[float]) -> Grid:
    target = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
    if not (np.isfinite(target).all() and target.min() > 0):
        raise InputError(f"expected a positive spacing in mm; got {spacing}. Give one number or three.")
    step = target / np.asarray(volume.spacing)
    shape = np.ceil(np.asarray(volume.shape) / step - 1e-6).astype(int)
    change = np.diag([*step, 1.0])
    change[:3, 3] = (np.asarray(volume.shape) - 1) / 2 - step * (shape - 1) / 2
    x, y, z = shape.tolist()
    return Grid((x, y, z), volume.affine @ change)


def _turned(
    volume: Volume, target: Grid, relative: np.ndarray, kind: Interpolation, antialias: bool, outside: float
) -> np.ndarray:
    """A rotated grid: smoothing along the source axes by the target's reach along each, then a spline."""
    from scipy.ndimage import affine_transform

    array = volume.array
    if antialias and kind is not Interpolation.NEAREST:
        reach = np.linalg.norm(
            relative[:3, :3], axis=1
        )  # source voxels a target voxel spans, per source axis
        for axis, (size, step) in enumerate(zip(array.shape, reach, strict=True)):
            if step > 1 + 1e-6:
                matrix = gaussian_matrix(size, float(np.sqrt((step**2 - 1) / 12))).astype(np.float32)
                array = np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)
    return affine_transform(
        array,
        relative[:3, :3],
        relative[:3, 3],
        target.shape,
        order=_ORDER[kind],
        mode="constant",
        cval=outside,
    )
