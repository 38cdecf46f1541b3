r"""A head on the grid a network wants, and the way back.

The preprocessing of MedForJ (Remedios et al., 2025), published as prose and never as one specification, is one frozen
dataclass here:

1. **axes**: indices grow towards L, P, S (what ITK's from-convention calls "RAI"); permutations and flips only;
2. **grid**: isotropic voxels (1 mm), parallel to the scanner's axes: cubic where voxels get smaller, averaged where
   they get larger (`interpolation`), so that 4 mm on 48×56×48 is the same field of view seen by larger voxels;
3. **field of view**: 192×224×192 mm around the head (`foreground`), cropped, and padded with background, −1;
4. **intensity**: with q_lo, q_hi the 0.1 and 99.9 percentiles of the *input voxels inside that field of view*,

       v = clip(2 (x − q_lo)/(q_hi − q_lo) − 1, −1, 1).

   Input voxels, so that one scan has one scale at every resolution; inside the field of view, so that the scale does
   not depend on how much air was scanned around it.

Where source voxels have the wanted spacing (within 0.1 %) the grid snaps to them and nothing is interpolated. Axes
coarser than the grid are interpolated too; no head mask enters the intensities; the noise of the background stays.

`Prepared.record` is plain JSON and enough for `restore_to_input` to put any output on the grid and scale of the input.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_core.specs import buildable
from radiata_imaging.foreground import find_head
from radiata_imaging.intensity import percentiles
from radiata_imaging.interpolation import Axis, Interpolation, apply_axes
from radiata_imaging.orientation import reorient
from radiata_imaging.volume import Volume, centred_affine, times

__all__ = ["Prepared", "PreprocessSpec", "Record", "canonical_affine", "prepare_volume", "restore_to_input"]

_SAME_SPACING = 1e-3
BACKGROUND = -1.0


@buildable("preprocess")
@dataclass(frozen=True)
class PreprocessSpec:
    """How a head becomes an array. The default is MedForJ's 1 mm grid.

    Attributes:
        axcodes: Direction in which the indices grow.
        spacing: Isotropic voxel edge in mm.
        shape: Voxels along each axis.
        percentiles: Lower and upper percentile that become −1 and 1.
        around_head: Lay the field of view around the head; False takes the middle of the input's grid.
        depth: Distance in mm from the top of the head down to the middle of the field of view.
    """

    axcodes: str = "LPS"
    spacing: float = 1.0
    shape: tuple[int, int, int] = (192, 224, 192)
    percentiles: tuple[float, float] = (0.1, 99.9)
    around_head: bool = True
    depth: float = 88.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "percentiles", tuple(float(p) for p in self.percentiles))
        object.__setattr__(self, "axcodes", self.axcodes.upper())
        if not (np.isfinite(self.spacing) and self.spacing > 0):
            raise InputError(f"expected a spacing in mm above 0; got {self.spacing}. MedForJ's is 1.")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(
                f"expected three positive numbers of voxels; got {self.shape}. MedForJ's are 192 224 192."
            )
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise InputError(
                f"expected percentiles 0 ≤ low < high ≤ 100; got {self.percentiles}. MedForJ's: 0.1 99.9."
            )
        centred_affine(self.shape, self.spacing, self.axcodes)

    @property
    def field_of_view(self) -> tuple[float, float, float]:
        """Edge lengths of the field of view in mm."""
        x, y, z = (self.spacing * n for n in self.shape)
        return x, y, z


@dataclass(frozen=True)
class Record:
    """What was done to one input, as plain numbers: enough to go back.

    Attributes:
        input_shape: Grid of the input file.
        input_affine: Its affine, four rows of four.
        axcodes: Axes of the prepared array.
        oriented_shape: Grid of the input after reorientation.
        oriented_affine: Its affine.
        shape: Grid of the prepared array.
        start: Oriented input voxel at which prepared voxel 0 lies, per axis.
        step: Oriented input voxels per prepared voxel, per axis.
        low: Input intensity that became −1.
        high: Input intensity that became 1.
        head_fraction: Share of the input's field of view that is head; NaN-free, −1 where it was not sought.
    """

    input_shape: tuple[int, ...]
    input_affine: tuple[tuple[float, ...], ...]
    axcodes: str
    oriented_shape: tuple[int, ...]
    oriented_affine: tuple[tuple[float, ...], ...]
    shape: tuple[int, ...]
    start: tuple[float, ...]
    step: tuple[float, ...]
    low: float
    high: float
    head_fraction: float = -1.0

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-able dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Record":
        """The record a dictionary (from JSON) describes.

        Raises:
            InputError: keys are missing or unknown.
        """

        def frozen(value: Any) -> Any:
            return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value

        try:
            return cls(**{key: frozen(value) for key, value in values.items()})
        except TypeError as error:
            raise InputError(
                f"expected a preprocessing record; got {error}. It is from another version."
            ) from None

    @property
    def affine(self) -> np.ndarray:
        """Affine of the prepared grid, (4, 4): where its voxels lie in the input's world."""
        change = np.diag([*self.step, 1.0])
        change[:3, 3] = self.start
        return np.asarray(self.oriented_affine) @ change

    @property
    def axes(self) -> list[Axis]:
        """The prepared axes in voxels of the oriented input."""
        return [
            Axis(n, m, start, step)
            for n, m, start, step in zip(self.oriented_shape, self.shape, self.start, self.step, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A head a network can take.

    Attributes:
        array: float32 (x, y, z) in [−1, 1]; background and padding −1.
        record: The way back.
    """

    array: np.ndarray
    record: Record

    @property
    def affine(self) -> np.ndarray:
        """Affine of the prepared grid in the input's world, (4, 4)."""
        return self.record.affine


def canonical_affine(spec: PreprocessSpec) -> np.ndarray:
    """Affine of the specification's grid, the world's origin in its middle: where a generated head is put."""
    return centred_affine(spec.shape, spec.spacing, spec.axcodes)


def prepare_volume(
    volume: Volume, spec: PreprocessSpec | None = None, *, device: torch.device | str = "cpu"
) -> Prepared:
    """The head of `volume` on the grid and scale of `spec`, with the record that undoes it.

    Args:
        volume: A T1 head in any orientation and spacing; not constant inside the field of view.
        spec: Grid, field of view and percentiles; the default is MedForJ's.
        device: Where the resampling is computed.

    Raises:
        InputError: the field of view holds a single intensity.
    """
    spec = spec or PreprocessSpec()
    oriented = reorient(volume, spec.axcodes)
    step = np.asarray(spec.spacing) / np.asarray(oriented.spacing)
    step = np.where(np.abs(step - 1) < _SAME_SPACING, 1.0, step)
    fraction = -1.0
    if spec.around_head:
        head = find_head(volume, spec.depth)
        fraction = head.fraction
        middle = np.linalg.solve(oriented.affine, [*head.centre, 1.0])[:3]
    else:
        middle = (np.asarray(oriented.shape) - 1) / 2
    start = middle - step * (np.asarray(spec.shape) - 1) / 2
    start = np.where(step == 1, np.floor(start + 0.5), start)
    low, high = _range(oriented.array, start, step, spec)
    record = Record(
        input_shape=volume.shape,
        input_affine=_rows(volume.affine),
        axcodes=spec.axcodes,
        oriented_shape=oriented.shape,
        oriented_affine=_rows(oriented.affine),
        shape=spec.shape,
        start=tuple(start.tolist()),
        step=tuple(step.tolist()),
        low=low,
        high=high,
        head_fraction=fraction,
    )
    # Minus low: what lies outside the field of view is background.
    values = torch.from_numpy(oriented.array - np.float32(low)).to(device)
    values = apply_axes(values, record.axes).contiguous()
    values.mul_(2 / (high - low)).sub_(1).clamp_(-1, 1)
    return Prepared(values.cpu().numpy(), record)


def _range(
    array: np.ndarray, start: np.ndarray, step: np.ndarray, spec: PreprocessSpec
) -> tuple[float, float]:
    first = np.rint(start - (step - 1) / 2).astype(int)
    last = np.rint(start + step * (np.asarray(spec.shape) - 0.5) - 0.5).astype(int) + 1
    box = tuple(
        slice(max(a, 0), min(b, n))
        for a, b, n in zip(first.tolist(), last.tolist(), array.shape, strict=True)
    )
    inside = array[box]
    if inside.size == 0:
        raise InputError(
            f"expected a head inside the field of view; got a volume of {times(array.shape)} voxels beside "
            "it. "
            "Check orientation and spacing in the header."
        )
    low, high = percentiles(inside, spec.percentiles)
    if high <= low:
        low, high = float(inside.min()), float(inside.max())
    if not high > low:
        raise InputError(
            f"expected an image inside the field of view; got the constant {low:g}. Check that the file "
            "shows a head."
        )
    return low, high


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def restore_to_input(
    array: np.ndarray, record: Record, *, interpolation: Interpolation = Interpolation.CUBIC
) -> Volume:
    """An array on the prepared grid, put back on the grid, orientation and intensity scale of the input.

    Input voxels outside the prepared field of view get the background, `record.low`. The scale is
    x = low + (v + 1)(high − low)/2; what preparation clipped stays clipped.

    Args:
        array: (x, y, z) on the prepared grid, in [−1, 1] (values beyond are scaled alike).
        record: `Prepared.record` of the input.
        interpolation: NEAREST for label maps; their values are not rescaled then.

    Raises:
        InputError: the array has another shape than the record.
    """
    if tuple(array.shape) != tuple(record.shape):
        raise InputError(
            f"expected an array of {times(record.shape)}; got {times(array.shape)}. Use the record of the "
            "same input."
        )
    labels = interpolation is Interpolation.NEAREST
    values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    back = apply_axes(
        values if labels else values + 1, [axis.inverse for axis in record.axes], interpolation
    ).numpy()
    if not labels:
        back = np.float32(record.low) + back * np.float32((record.high - record.low) / 2)
    oriented = Volume(back, np.asarray(record.oriented_affine))
    axcodes = Volume(np.zeros((1, 1, 1), np.float32), np.asarray(record.input_affine)).axcodes
    return Volume(reorient(oriented, axcodes).array, np.asarray(record.input_affine))
