"""A volume is an array, the affine that says where each voxel is, and the unit of length. Nothing else.

Voxel index (i, j, k) lies in the world (RAS, mm: +x right, +y anterior, +z superior) at

    [x, y, z, 1]ᵀ = A [i, j, k, 1]ᵀ,        spacing_a = ‖A[:3, a]‖.

A `Volume` is made once, where a file is read, and is checked there: three axes, finite intensities, an affine
that can be inverted. Everything behind the border may rely on it. Read next: `nifti` (files), `orientation`
(axes and grids), `preprocess` (a head on the grid a network wants).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from radiata_core.errors import InputError

__all__ = ["Volume", "axis_codes", "centred_affine", "check_affine", "spacing_of", "times"]

_SPACING_RANGE = (1e-3, 1e3)  # mm; outside it a header is in metres, in micrometres, or broken


def times(numbers: Sequence[float | int] | np.ndarray) -> str:
    """`192×224×192`: how shapes and spacings are written in messages and tables."""
    return "×".join(f"{number:g}" for number in np.asarray(numbers).tolist())


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Voxel edge lengths (3,) in the unit of the affine."""
    return np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)


def axis_codes(affine: np.ndarray) -> str:
    """Direction in which each index grows, by the nearest axis: `LPS` = towards left, posterior, superior."""
    return "".join(nib.aff2axcodes(np.asarray(affine)))


def check_affine(affine: np.ndarray, source: str = "the affine") -> np.ndarray:
    """The affine as float64 (4, 4), once it is known to be finite, invertible and of a plausible spacing.

    Raises:
        InputError: wrong shape, NaN or Inf, last row other than 0 0 0 1, singular, or voxels outside 1 µm – 1
            m.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise InputError(
            f"expected a 4×4 affine; got shape {matrix.shape} from {source}. Give a homogeneous matrix."
        )
    if not np.isfinite(matrix).all():
        raise InputError(f"expected a finite affine; got NaN or Inf from {source}. Repair the header.")
    if not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise InputError(
            f"expected a last affine row 0 0 0 1; got {matrix[3].tolist()} from {source}. Repair the header."
        )
    spacing = spacing_of(matrix)
    volume = abs(np.linalg.det(matrix[:3, :3]))
    if spacing.min() <= 0 or volume <= 1e-3 * spacing.prod():
        raise InputError(
            f"expected an affine with three independent axes; got a singular one (determinant {volume:.3g}) "
            "from "
            f"{source}. Repair the header's sform/qform."
        )
    if spacing.min() < _SPACING_RANGE[0] or spacing.max() > _SPACING_RANGE[1]:
        raise InputError(
            f"expected voxels of {_SPACING_RANGE[0]:g}–{_SPACING_RANGE[1]:g} mm; got "
            f"{times(spacing.round(6))} from "
            f"{source}. Check the unit in the header."
        )
    return matrix


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities on a regular grid in the world.

    Attributes:
        array: Intensities, float32 (x, y, z), finite.
        affine: Voxel index to world (RAS), float64 (4, 4), invertible.
        unit: Unit of length of the world; millimetres everywhere in Radiata.

    Raises:
        InputError: the array is not 3-D or not finite, or the affine cannot be used.
    """

    array: np.ndarray
    affine: np.ndarray
    unit: str = "mm"

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        if array.ndim != 3 or 0 in array.shape:
            raise InputError(
                f"expected one 3-D volume; got an array of shape {times(array.shape)}. Give one volume of "
                "the series."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(np.float32, copy=False)
        finite = np.isfinite(array)
        if not finite.all():
            nan = int(np.isnan(array).sum())
            raise InputError(
                f"expected finite float32 intensities; got {nan} NaN and {int((~finite).sum()) - nan} "
                "infinite voxels. "
                "Replace them before use."
            )
        if self.unit != "mm":
            raise InputError(
                f"expected a volume in mm; got unit {self.unit!r}. Convert the affine to millimetres."
            )
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", check_affine(self.affine))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        x, y, z = self.array.shape
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm."""
        x, y, z = spacing_of(self.affine).tolist()
        return x, y, z

    @property
    def axcodes(self) -> str:
        """Direction in which each index grows, such as `LPS`."""
        return axis_codes(self.affine)


def centred_affine(
    shape: Sequence[int], spacing: float | Sequence[float] = 1.0, axcodes: str = "LPS"
) -> np.ndarray:
    """Affine (4, 4) whose world origin is the middle of the grid, so that viewers open on the head.

    With R the signed permutation of `axcodes` and s the spacing, A = [R diag(s), −R diag(s)(n − 1)/2].

    Args:
        shape: Voxels along each axis, (3,).
        spacing: Voxel edge in mm, one number or three.
        axcodes: Direction in which each index grows; three different axes out of L/R, P/A, S/I.

    Raises:
        InputError: the codes do not name three different axes.
    """
    codes = tuple(axcodes.upper())
    if len(codes) != 3 or {frozenset("LR"), frozenset("AP"), frozenset("IS")} != {
        pair for pair in map(frozenset, ("LR", "AP", "IS")) for code in codes if code in pair
    }:
        raise InputError(
            f"expected three anatomical axes such as LPS or RAS; got {axcodes!r}. Name each axis once."
        )
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, sign) in enumerate(nib.orientations.axcodes2ornt(codes)):
        affine[int(axis), index] = sign
    affine[:3, :3] *= np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape, dtype=np.float64) - 1) / 2)
    return check_affine(affine) + 0.0  # + 0.0 turns −0 into 0
