r"""A volume as the eye wants it: axes closest to right, anterior, superior, whatever the file's order was.

Only permutation and flips, so every value is one of the file's. For an oblique grid the letters name the nearest
anatomical direction and the millimetres are those of the slice's centre.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from radiata_core.errors import InputError

__all__ = ["Canonical", "canonical", "pooled"]


@dataclass(frozen=True)
class Canonical:
    """A volume whose axes run towards R, A, S.

    Attributes:
        array: `(x, y, z)`, increasing towards right, anterior, superior.
        affine: Voxel to world, mm.
        oblique: Degrees between the grid and the anatomical axes, the largest of the three.
    """

    array: np.ndarray
    affine: np.ndarray
    oblique: float

    @property
    def spacing(self) -> np.ndarray:
        """Voxel edges along x, y, z, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def position(self, axis: int, index: int) -> float:
        """World coordinate (mm, along R, A or S) of the centre of a slice."""
        centre = (np.array(self.array.shape) - 1) / 2.0
        centre[axis] = index
        return float(self.affine[axis, :3] @ centre + self.affine[axis, 3])


def canonical(array: NDArray, affine: Float[np.ndarray, "4 4"]) -> Canonical:
    """The volume with its axes permuted and flipped to the nearest RAS order; the world stays where it is.

    Raises:
        InputError: Not a 3-D array, or an affine that turns no axis into a direction.
    """
    if array.ndim != 3:
        raise InputError(f"expected a 3-D volume to show; got an array of shape {array.shape}")
    turn = nib.orientations.io_orientation(affine)
    if np.isnan(turn).any() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError("expected an affine with three directions; got a singular one. Repair the header.")
    turned = nib.orientations.apply_orientation(array, turn)
    to_world = affine @ nib.orientations.inv_ornt_aff(turn, array.shape)
    cosines = np.diag(to_world[:3, :3]) / np.linalg.norm(to_world[:3, :3], axis=0)
    return Canonical(turned, to_world, float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))))


def pooled(volume: Canonical, limit: int) -> Canonical:
    """The volume averaged over cubes until at most `limit` voxels are left; itself where it is small enough."""
    k = 1
    while np.prod([n // k for n in volume.array.shape]) > limit:
        k += 1
    if k == 1:
        return volume
    a, b, c = (n // k for n in volume.array.shape)
    array = volume.array[: a * k, : b * k, : c * k].reshape(a, k, b, k, c, k).mean((1, 3, 5))
    affine = volume.affine.copy()
    affine[:3, :3] *= k
    affine[:3, 3] += volume.affine[:3, :3] @ np.full(3, (k - 1) / 2.0)
    return Canonical(array, affine, volume.oblique)
