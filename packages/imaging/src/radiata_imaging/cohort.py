r"""A cohort with exact ground truth: whole-head label maps in, T1-like heads with recorded covariates out.

One head is made in this order, each random quantity drawn from a generator of its own seed:

    label map -> affine -> stationary velocity field (Jacobian > 0 checked) -> T1-like intensities on a grid twice as fine
    -> average (partial volume) -> bias field -> Rician noise -> percentiles to [-1, 1]

At 1 mm the label map is no finer than the head. There intensities are drawn in the label map's own space, blurred by the
point spread of a scanner (`CohortSpec.psf`) and pulled back by trilinear interpolation, so that the borders of tissues are
partial volumes and not stairs; and the warp, whose shortest length is 30 mm, is made on a grid of 4 mm.

The velocity field is the sum of a random smooth part and of three anatomical parts with known amplitude: the brain grows
inside its skull, the ventricles grow outward, the cortex thins from the pial side. Their amplitudes are recorded together
with what the warped label map *measures* (millilitres a region), which is what a model should be conditioned on.

The heads are synthetic renderings. Warped copies of a person are not new people: a cohort of sixteen label maps holds
sixteen anatomies however many heads are drawn, and it is split by person.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from radiata_core.errors import InputError
from radiata_imaging.contrast import bias_field, intensities_of, point_spread, rician
from radiata_imaging.deformation import (
    exponential,
    jacobian_determinant,
    random_velocity,
    sample_field,
    sample_volume,
    upsampled_planes,
)
from radiata_imaging.intensity import percentiles

__all__ = ["COVARIATES", "REGIONS", "Anatomy", "CohortSpec", "RenderedHead", "region_volumes", "render_head"]

_WARP_MM = 4.0
"""Spacing of the grid of deformations, whose shortest length is far above it."""

_CEREBRAL_WHITE = (2, 41)
_CORTEX = (3, 42)
_VENTRICLES = (4, 5, 14, 15, 43, 44, 72)
_BRAIN = (
    2,
    3,
    7,
    8,
    10,
    11,
    12,
    13,
    16,
    17,
    18,
    26,
    28,
    41,
    42,
    46,
    47,
    49,
    50,
    51,
    52,
    53,
    54,
    58,
    60,
    85,
    25,
    57,
)

REGIONS: dict[str, tuple[int, ...]] = {
    "brain": _BRAIN,
    "cerebral white matter": _CEREBRAL_WHITE,
    "cerebral cortex": _CORTEX,
    "ventricles": _VENTRICLES,
    "cerebellum": (7, 8, 46, 47),
    "brain stem": (16,),
    "thalamus": (10, 49),
    "caudate and putamen": (11, 12, 50, 51),
    "hippocampus and amygdala": (17, 18, 53, 54),
    "extra-cerebral csf": (24,),
    "skull": (515, 516),
}
"""Named regions and the FreeSurfer / SynthSeg codes that make them up."""

COVARIATES: tuple[str, ...] = (
    "head_scale",
    "brain_scale",
    "ventricle_growth",
    "cortical_thinning",
    "brain_ml",
    "ventricles_ml",
    "cortex_ml",
)
"""What is recorded with each head: four amplitudes of the deformation, three measured volumes."""


@dataclass(frozen=True)
class CohortSpec:
    """How heads are drawn. Lengths in mm, angles in degrees, ranges uniform.

    Attributes:
        spacing: Output voxel, isotropic.
        shape: Output voxels; the default is MedForJ's 192 x 224 x 192 mm field of view at 4 mm.
        supersample: Sub-voxels an axis that are averaged into one output voxel, where `psf` is 0.
        rotation: Largest rotation about each axis.
        translation: Largest shift along each axis.
        head_scale: Isotropic scale of the whole head.
        brain_scale: Log growth of the brain inside the head.
        ventricle_growth: Outward velocity at the ventricular wall, mm.
        cortical_thinning: Velocity at the surfaces of the cerebrum, pial and ventricular, into the tissue, mm.
        warp_amplitude: Sd of the random velocity, mm.
        warp_length: Its correlation length, mm.
        bias: Sd of the log bias field.
        noise: Rician sd as a fraction of the white-matter mean.
        percentiles: Intensities that become -1 and 1.
        psf: Sd of the blur in the label map's space, mm, for output as fine as the label map; 0 averages sub-voxels.
    """

    spacing: float = 4.0
    shape: tuple[int, int, int] = (48, 56, 48)
    supersample: int = 2
    rotation: float = 5.0
    translation: float = 4.0
    head_scale: tuple[float, float] = (0.93, 1.07)
    brain_scale: tuple[float, float] = (-0.04, 0.04)
    ventricle_growth: tuple[float, float] = (-1.5, 5.0)
    cortical_thinning: tuple[float, float] = (0.0, 1.2)
    warp_amplitude: float = 2.5
    warp_length: float = 30.0
    bias: tuple[float, float] = (0.02, 0.12)
    noise: tuple[float, float] = (0.005, 0.025)
    percentiles: tuple[float, float] = (0.1, 99.9)
    psf: float = 0.0

    @classmethod
    def of_spacing(cls, spacing: float) -> "CohortSpec":
        """MedForJ's field of view, 192 x 224 x 192 mm, at a spacing; at 1.5 mm and below with the point spread of 0.6 mm."""
        x, y, z = (round(n / spacing) for n in (192, 224, 192))
        return cls(spacing=spacing, shape=(x, y, z), psf=0.6 if spacing <= 1.5 else 0.0)

    @property
    def of_warp(self) -> "CohortSpec":
        """The grid of the deformation: 4 mm over the same field of view, or this grid where it is no finer than that."""
        coarse = tuple(max(8, round(n * self.spacing / _WARP_MM)) for n in self.shape)
        spacings = {n * self.spacing / c for n, c in zip(self.shape, coarse, strict=True)}
        if self.spacing >= _WARP_MM or len(spacings) > 1:
            return self
        x, y, z = coarse
        return dataclasses.replace(self, spacing=spacings.pop(), shape=(x, y, z))

    def __post_init__(self) -> None:
        if self.spacing <= 0 or min(self.shape) < 8 or self.supersample < 1:
            raise InputError(
                f"expected spacing > 0, at least 8 voxels an axis and supersample >= 1; got spacing {self.spacing}, "
                f"shape {self.shape}, supersample {self.supersample}"
            )


@dataclass(frozen=True)
class RenderedHead:
    """One head: `image` in [-1, 1] float32, its `labels` on the super-sampled grid, covariates and ml a region."""

    image: np.ndarray
    labels: np.ndarray
    covariates: dict[str, float]
    volumes: dict[str, float]
    smallest_jacobian: float


@dataclass
class Anatomy:
    """One person's label map, LPS, isotropic, with the three anatomical velocity fields made once.

    Attributes:
        labels: Integer codes `(x, y, z)`, array axes along +L, +P, +S.
        spacing: Voxel edge, mm.
        name: The person.
        centre: Voxel that becomes the centre of the field of view: that of the brain's bounding box.
    """

    labels: np.ndarray
    spacing: float
    name: str
    centre: np.ndarray = field(init=False)
    _fields: dict[tuple, np.ndarray] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or not np.issubdtype(self.labels.dtype, np.integer):
            raise InputError(
                f"expected a 3-D integer label map for {self.name}; got {self.labels.ndim}-D {self.labels.dtype}. "
                "Give a segmentation, not an image."
            )
        inside = np.argwhere(np.isin(self.labels, _BRAIN))
        if len(inside) == 0:
            raise InputError(
                f"expected FreeSurfer brain codes (2, 3, 41, 42, ...) in the label map of {self.name}; got "
                f"{np.unique(self.labels)[:8].tolist()}. Use a SynthSeg or FreeSurfer segmentation."
            )
        self.centre = (inside.min(0) + inside.max(0)) / 2.0

    def at_grid(self, mask: np.ndarray, spec: CohortSpec) -> np.ndarray:
        """`mask` averaged onto the output grid of `spec`, float32 (field of view centred on the brain)."""
        positions = _positions(spec.shape, spec.spacing)
        index = positions / self.spacing + self.centre.reshape(3, 1, 1, 1).astype(np.float32)
        smooth = gaussian_filter(mask.astype(np.float32), 0.5 * spec.spacing / self.spacing)
        return sample_field(torch.from_numpy(smooth)[None], torch.from_numpy(index))[0].numpy()

    def velocities(self, spec: CohortSpec) -> np.ndarray:
        """Unit anatomical velocities `(3 fields, 3 components, x, y, z)` mm: brain, ventricles, cortex; outward > 0."""
        key = (spec.spacing, spec.shape)
        if key not in self._fields:
            sigma = 1.0 / spec.spacing
            brain = gaussian_filter(self.at_grid(np.isin(self.labels, _BRAIN), spec), 8.0 * sigma)
            growth = _positions(spec.shape, spec.spacing) * np.clip(brain, 0.0, 1.0)
            ventricles = self.at_grid(np.isin(self.labels, _VENTRICLES), spec)
            cortex = self.at_grid(np.isin(self.labels, _CORTEX + _CEREBRAL_WHITE), spec)
            outward = [_outward(mask, width * sigma) for mask, width in ((ventricles, 5.0), (cortex, 2.5))]
            self._fields[key] = np.stack([growth, *outward]).astype(np.float32)
        return self._fields[key]


def _axes(shape: tuple[int, ...], spacing: float) -> list[np.ndarray]:
    """Millimetres from the centre of the field of view along each axis, float32."""
    return [(np.arange(n, dtype=np.float32) - (n - 1) / 2.0) * spacing for n in shape]


def _positions(shape: tuple[int, ...], spacing: float) -> np.ndarray:
    """The same at every voxel, `(3, x, y, z)`."""
    return np.stack(np.meshgrid(*_axes(shape, spacing), indexing="ij"))


def _outward(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Minus the gradient of the smoothed mask, its largest vector scaled to length 1."""
    gradient = -np.stack(np.gradient(gaussian_filter(mask, sigma)))
    return gradient / max(float(np.linalg.norm(gradient, axis=0).max()), 1e-6)


def _affine(rng: np.random.Generator, spec: CohortSpec, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Pull-back matrix and shift (mm): output position -> position in the undeformed head."""
    angles = np.deg2rad(rng.uniform(-spec.rotation, spec.rotation, 3))
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [(1, 2), (0, 2), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation / scale, rng.uniform(-spec.translation, spec.translation, 3)


def region_volumes(labels: np.ndarray, voxel_ml: float) -> dict[str, float]:
    """Millilitres of each of `REGIONS` in a label array whose voxels hold `voxel_ml` ml."""
    size = int(labels.max()) + 1
    counts = np.sum([np.bincount(plane.ravel(), minlength=size) for plane in labels], axis=0)
    return {
        name: float(sum(counts[code] for code in codes if code < len(counts)) * voxel_ml)
        for name, codes in REGIONS.items()
    }


def render_head(anatomy: Anatomy, spec: CohortSpec, rng: np.random.Generator) -> RenderedHead:
    """One T1-like head of this anatomy.

    The pull-back of labels is L'(p) = L(A exp(-v)(p)); the amplitudes are multiplied by 0.8 until the Jacobian of exp(-v) is
    positive everywhere, and the amplitudes *used* are the ones recorded.

    Args:
        anatomy: The person.
        spec: How to draw.
        rng: Generator of this head alone.
    """
    head_scale = rng.uniform(*spec.head_scale)
    amplitudes = np.array(
        [
            rng.uniform(*spec.brain_scale),
            rng.uniform(*spec.ventricle_growth),
            -rng.uniform(*spec.cortical_thinning),
        ]
    )
    matrix, shift = _affine(rng, spec, head_scale)
    grid = spec.of_warp
    wobble = random_velocity(
        grid.shape, grid.spacing, amplitude=spec.warp_amplitude, length=spec.warp_length, rng=rng
    )
    unit = anatomy.velocities(grid)
    for _ in range(20):
        velocity = torch.from_numpy(-(wobble + np.tensordot(amplitudes.astype(np.float32), unit, 1)))
        displacement = exponential(velocity, grid.spacing)
        smallest = float(jacobian_determinant(displacement, grid.spacing).min())
        if smallest > 0.05:
            break
        wobble, amplitudes = 0.8 * wobble, 0.8 * amplitudes
    if spec.psf > 0:
        image, labels, edge = *_blurred(anatomy, spec, displacement, matrix, shift, rng), spec.spacing
    else:
        image, labels = _averaged(anatomy, spec, displacement, matrix, shift, rng)
        edge = spec.spacing / spec.supersample
    image = _scanner(image, spec, rng)
    volumes = region_volumes(labels, edge**3 / 1000.0)
    covariates = {
        "head_scale": float(head_scale),
        "brain_scale": float(amplitudes[0]),
        "ventricle_growth": float(amplitudes[1]),
        "cortical_thinning": float(-amplitudes[2]),
        "brain_ml": volumes["brain"],
        "ventricles_ml": volumes["ventricles"],
        "cortex_ml": volumes["cerebral cortex"],
    }
    return RenderedHead(image, labels, covariates, volumes, smallest)


def _averaged(
    anatomy: Anatomy,
    spec: CohortSpec,
    displacement: torch.Tensor,
    matrix: np.ndarray,
    shift: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Intensities on the output grid, and labels on the sub-voxels whose intensities were averaged."""
    n, (x, y, z) = spec.supersample, spec.shape
    fine = (x * n, y * n, z * n)
    axes = _axes(fine, spec.spacing / n)
    positions = np.stack(np.broadcast_arrays(np.float32(0), axes[1][:, None], axes[2]))
    turn, sizes = matrix.astype(np.float32), np.array(anatomy.labels.shape)[:, None]
    moved, middle = (v.astype(np.float32)[:, None] for v in (shift, anatomy.centre))
    labels = np.empty(fine, anatomy.labels.dtype)
    for plane, bent in enumerate(upsampled_planes(displacement, fine)):
        positions[0] = axes[0][plane]
        source = turn @ (positions + bent.numpy()).reshape(3, -1) + moved
        index = np.rint(source / anatomy.spacing + middle).astype(np.int32)
        inside = np.all((index >= 0) & (index < sizes), axis=0)
        index *= inside  # outside takes voxel 0, and is set to background below
        labels[plane] = (anatomy.labels[index[0], index[1], index[2]] * inside).reshape(fine[1:])
    blocks = intensities_of(labels, rng).reshape(x, n, y, n, z, n)
    return blocks.mean((1, 3, 5), dtype=np.float32), labels


def _blurred(
    anatomy: Anatomy,
    spec: CohortSpec,
    displacement: torch.Tensor,
    matrix: np.ndarray,
    shift: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Intensities and labels on the output grid: drawn and blurred where the label map lies, and pulled back.

    One voxel's margin of background around the label map stands for everything outside it. Planes of the output are made
    one at a time, which the processor's cache holds.
    """
    turn = torch.from_numpy((matrix / anatomy.spacing).astype(np.float32))
    bent = torch.einsum("ij,jxyz->ixyz", turn, displacement)
    x, y, z = (torch.from_numpy(axis) for axis in _axes(spec.shape, spec.spacing))
    middle = torch.from_numpy((shift / anatomy.spacing + anatomy.centre + 1.0).astype(np.float32))
    flat = turn[:, 1, None, None] * y[:, None] + turn[:, 2, None, None] * z + middle.view(3, 1, 1)

    def places() -> Iterator[torch.Tensor]:
        """Where in the label map and its margin the planes of the output lie, `(3, y, z)` voxels."""
        for plane, offset in zip(upsampled_planes(bent, spec.shape), x, strict=True):
            yield plane.add_(flat).add_((turn[:, 0] * offset).view(3, 1, 1))

    # Only the part of the label map that is seen is drawn, with two voxels around it for the blur.
    lines = (place.flatten(1).numpy() for place in places())
    ends = np.array([(line.min(1), line.max(1)) for line in lines])
    sizes = np.array(anatomy.labels.shape) + 2
    low = np.clip(ends[:, 0].min(0).astype(int) - 3, 0, sizes - 2)
    high = np.maximum(np.clip(ends[:, 1].max(0).astype(int) + 5, 2, sizes), low + 2)
    codes = _with_margin(anatomy.labels, low, high)
    drawn = torch.from_numpy(point_spread(intensities_of(codes, rng), spec.psf / anatomy.spacing))
    image, labels = np.empty(spec.shape, np.float32), np.empty(spec.shape, codes.dtype)
    flat -= torch.from_numpy(low.astype(np.float32)).view(3, 1, 1)
    for row, place in enumerate(places()):
        image[row] = sample_volume(drawn, place).numpy()
        index = torch.zeros(spec.shape[1:], dtype=torch.int32)
        for line, n in zip(place, codes.shape, strict=True):
            index.mul_(n).add_(line.round_().clamp_(0, n - 1).to(torch.int32))
        codes.ravel().take(index.numpy(), out=labels[row], mode="clip")
    return image, labels


def _with_margin(labels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Voxels from `low` to below `high` of the label map with one voxel of background around it."""
    box = np.zeros(high - low, labels.dtype)
    first, last = np.maximum(low - 1, 0), np.minimum(high - 1, labels.shape)
    place = tuple(slice(a, b) for a, b in zip(first - low + 1, last - low + 1, strict=True))
    box[place] = labels[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    return box


def _scanner(image: np.ndarray, spec: CohortSpec, rng: np.random.Generator) -> np.ndarray:
    """Bias, noise, percentiles to [-1, 1]."""
    image *= bias_field(image.shape, rng, strength=rng.uniform(*spec.bias))
    image = rician(image, rng.uniform(*spec.noise) * 160.0, rng)
    low, high = percentiles(image, spec.percentiles)
    for plane in image:
        scaled = 2.0 * (plane.astype(np.float64) - low) / max(high - low, 1e-6) - 1.0
        plane[...] = np.clip(scaled, -1.0, 1.0, out=scaled)
    return image
