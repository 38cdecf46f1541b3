r"""Simulated lesions with known extent: real shapes put elsewhere, or random blobs, and what they do to an image.

    shape -> turned, mirrored, scaled -> centre drawn in the tissue it may start in -> the N likeliest voxels there

The lesion is the N voxels with the largest value of the (blurred, turned, scaled) shape among those that may be lesioned:
its volume is exactly the one asked for, wherever it is put, and it stays inside the brain. Partial volume is a blur of the
edge that keeps the sum of fractions. A voxel of fraction f becomes

    x + f (m (1 + texture) - x),        m the lesion's mean in this contrast,

and with a mass effect the tissue around is first pushed away from it.

Real lesions have graded borders, and change tissue beyond them; scores on simulated ones are an upper estimate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radiata_core.errors import InputError
from radiata_medical.data.contrasts import CONTRASTS

__all__ = [
    "Lesion",
    "LesionSpec",
    "blob_shape",
    "largest_sections",
    "lesion_mean",
    "placed_lesion",
    "read_shapes",
    "simulate_lesion",
]


@dataclass(frozen=True)
class LesionSpec:
    """How lesions are drawn; pairs are ranges.

    Attributes:
        voxels: Range of the volume in voxels (pixels of a slice), drawn evenly in its logarithm, >= 1.
        edge: Sd of the blur of the edge, voxels.
        texture: Sd of the lesion's intensity about its mean, as a part of it.
        mass_effect: Largest displacement of the tissue around, voxels; 0 for none.
        severity: Range of the part of the way from tissue to lesion mean, 0 to 1.

    Raises:
        InputError: a range that is none.
    """

    voxels: tuple[float, float] = (30.0, 1000.0)
    edge: float = 0.6
    texture: float = 0.08
    mass_effect: float = 0.0
    severity: tuple[float, float] = (0.6, 1.0)

    def __post_init__(self) -> None:
        if not 1 <= self.voxels[0] <= self.voxels[1]:
            raise InputError(f"expected a range of voxels from 1 on; got {self.voxels}. Give (30, 1000).")
        if not 0 < self.severity[0] <= self.severity[1] <= 1:
            raise InputError(f"expected a range of severity in (0, 1]; got {self.severity}. Give (0.6, 1).")
        if min(self.edge, self.texture, self.mass_effect) < 0:
            raise InputError("expected edge, texture and mass effect >= 0; got a negative one. 0 is none.")


@dataclass(frozen=True, eq=False)
class Lesion:
    """An image with a lesion.

    Attributes:
        image: With the lesion, float32, of the shape of the image.
        mask: Where it is, bool: exactly the volume drawn.
        fraction: Part of each voxel that is lesion, in [0, 1].
    """

    image: np.ndarray
    mask: np.ndarray
    fraction: np.ndarray


def read_shapes(folder: Path | str, pattern: str = "*", limit: int | None = None) -> tuple[np.ndarray, ...]:
    """Masks of real lesions in a folder, each cropped to its box, bool, voxels of 1 mm and axes towards L, P, S.

    Args:
        folder: Of NIfTI masks.
        pattern: Of the names of files that are masks, such as `Subject_*`.
        limit: Files read, in the order of their names; None for all.

    Raises:
        InputError: no folder, no mask in it, or an empty or graded one.
    """
    from radiata_imaging.interpolation import Interpolation
    from radiata_imaging.nifti import SUFFIXES, read_volume
    from radiata_imaging.orientation import reorient, resample

    folder = Path(folder)
    files = sorted(path for path in folder.glob(pattern) if path.name.lower().endswith(SUFFIXES))
    if not files:
        raise InputError(f"expected a folder with masks of lesions; got none in {folder}. Check the path.")
    shapes = []
    for path in files[:limit]:
        volume = read_volume(path, allow_constant=True)
        values = np.unique(volume.array)
        if len(values) > 2 or values[0] != 0 or values[-1] <= 0:
            raise InputError(
                f"expected a mask of 0 and one other value; got {len(values)} values, {values[0]:g} to {values[-1]:g}, in "
                f"{path}. Leave the file out, or threshold it."
            )
        inside = resample(reorient(volume), 1.0, interpolation=Interpolation.NEAREST).array > 0
        places = np.argwhere(inside)
        low, high = places.min(0), places.max(0) + 1
        shapes.append(inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    return tuple(shapes)


def largest_sections(shapes: Sequence[np.ndarray], axis: int = 2) -> tuple[np.ndarray, ...]:
    """The slice of the largest area across an axis of each shape (x, y, z): shapes for slices."""
    moved = [np.moveaxis(shape, axis, 0) for shape in shapes]
    return tuple(shape[int(shape.sum((1, 2)).argmax())] for shape in moved)


def blob_shape(rng: np.random.Generator, dims: int = 3, size: int = 24) -> np.ndarray:
    """A random connected-looking blob as a graded shape in [0, 1], `dims` axes of `size`: a ball times smooth noise."""
    from scipy.ndimage import gaussian_filter

    axes = np.meshgrid(*[np.linspace(-1, 1, size)] * dims, indexing="ij")
    ball = np.exp(-2.5 * sum(axis**2 for axis in axes))
    rough = gaussian_filter(rng.standard_normal((size,) * dims), size / 8)
    field = ball * np.exp(0.8 * rough / rough.std())
    return (field / field.max()).astype(np.float32)


def placed_lesion(
    shape: np.ndarray,
    starts: np.ndarray,
    allowed: np.ndarray,
    voxels: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Where a lesion of a shape is, bool, with exactly `voxels` voxels (all that is allowed where that is less).

    Args:
        shape: Bool or graded in [0, 1]; as many axes as the image.
        starts: Voxels the lesion's middle may lie in (white matter), bool.
        allowed: Voxels that may be lesioned (brain), bool, of the shape of `starts`.
        voxels: Volume, >= 1.
        rng: Turns, mirrors, and draws the middle.

    Raises:
        InputError: another number of axes, an empty shape, or nowhere to put it.
    """
    from scipy.ndimage import affine_transform, gaussian_filter

    if shape.ndim != starts.ndim or starts.shape != allowed.shape or not shape.any():
        raise InputError(
            f"expected a lesion of {starts.ndim} axes and two masks of one shape; got {shape.shape}, {starts.shape} and "
            f"{allowed.shape}. Take a slice of the lesion."
        )
    places = np.argwhere(starts & allowed)
    if not len(places):
        raise InputError("expected voxels in which a lesion may start; got none. Check the segmentation.")
    centre = places[rng.integers(len(places))]
    graded = shape.astype(np.float32)
    size = float((graded > 0.5 * graded.max()).sum())
    zoom = (voxels / size) ** (1 / shape.ndim)  # image voxels a voxel of the shape
    soft = gaussian_filter(np.pad(graded, 2), 0.5 + 0.5 / zoom)
    turn = _rotation(rng, shape.ndim) / zoom
    middle = np.array([np.average(axis, weights=soft) for axis in np.indices(soft.shape)])
    values = affine_transform(soft, turn, middle - turn @ centre, allowed.shape, order=1)
    distance = sum((axis - c) ** 2 for axis, c in zip(np.indices(allowed.shape), centre, strict=True))
    values = values - 1e-6 * distance / distance.max()  # beyond the shape the nearest voxels come first
    values[~allowed] = -np.inf
    count = min(int(voxels), int(allowed.sum()))
    chosen = np.argpartition(-values, count - 1, axis=None)[:count]
    mask = np.zeros(allowed.shape, bool)
    mask.flat[chosen] = True
    return mask


def lesion_mean(contrast: str, white_matter: float) -> float:
    """Mean intensity of a white matter lesion in a scan of a named contrast, in units of its white matter's mean.

    Args:
        contrast: "t1", "t2", "flair" or "pd".
        white_matter: Mean of normal white matter, in the units wanted.

    Raises:
        InputError: a contrast without a table.
    """
    table: Mapping[str, float] | None = CONTRASTS.get(contrast)
    if table is None:
        known = ", ".join(name for name, means in CONTRASTS.items() if means is not None)
        raise InputError(f"expected a contrast out of {known}; got {contrast!r}. Name the lesion's mean.")
    return white_matter * table["white matter lesion"] / table["cerebral white matter"]


def simulate_lesion(
    image: np.ndarray,
    starts: np.ndarray,
    allowed: np.ndarray,
    shapes: Sequence[np.ndarray],
    mean: float,
    spec: LesionSpec,
    rng: np.random.Generator,
) -> Lesion:
    """An image with one lesion.

    Args:
        image: Any units.
        starts: As `placed_lesion`.
        allowed: As `placed_lesion`.
        shapes: One is drawn; empty for a random blob.
        mean: Intensity of the lesion, in the units of the image.
        spec: How it is drawn.
        rng: Source of the draw.

    Raises:
        InputError: as `placed_lesion`.
    """
    from scipy.ndimage import gaussian_filter

    low, high = np.log(spec.voxels)
    voxels = round(float(np.exp(rng.uniform(low, high))))
    shape = shapes[int(rng.integers(len(shapes)))] if len(shapes) else blob_shape(rng, image.ndim)
    mask = placed_lesion(shape, starts, allowed, voxels, rng)
    severity = rng.uniform(*spec.severity)
    fraction = gaussian_filter(mask.astype(np.float32), spec.edge) if spec.edge else mask.astype(np.float32)
    fraction = np.clip(fraction, 0.0, 1.0)
    background = _pushed(image, mask, spec.mass_effect) if spec.mass_effect else image
    rough = gaussian_filter(rng.standard_normal(image.shape), 1.0)
    lesion = mean * (1 + spec.texture * rough / rough.std())
    changed = background + severity * fraction * (lesion - background)
    return Lesion(changed.astype(np.float32), mask, fraction)


def _pushed(image: np.ndarray, mask: np.ndarray, largest: float) -> np.ndarray:
    """Tissue displaced away from the lesion by up to `largest` voxels, falling off over the lesion's own size."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    reach = max(2.0, 0.5 * float(mask.sum()) ** (1 / mask.ndim))
    hill = gaussian_filter(mask.astype(np.float64), reach)
    slope = np.stack(np.gradient(hill))
    steepest = np.sqrt((slope**2).sum(0)).max()
    # The value here comes from nearer to the lesion: uphill.
    return map_coordinates(
        image, np.indices(image.shape) + largest * slope / steepest, order=1, mode="nearest"
    )


def _rotation(rng: np.random.Generator, dims: int) -> np.ndarray:
    """An even draw among rotations and mirrored rotations, (dims, dims)."""
    q, r = np.linalg.qr(rng.standard_normal((dims, dims)))
    return q * np.sign(np.diag(r))
