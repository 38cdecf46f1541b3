r"""What was measured of a head, from options to an operator on the scan's own grid.

    y = A x + noise,        x on a `frames.Frame`

Each task is a frozen dataclass in the units of a scanner - millimetres, slices, percent - and answers:

    image_frame(frame)       the frame of the image to restore, from that of the scan (finer for `sr`, else the same)
    for_scan(frame)          the same task, where the scan itself is the measurement
    operator(frame, seed)    A on the frame of the image; the seed draws holes, fields, masks and motion that are simulated
    measured(array, A)       y from a scan that is the measurement
    describe()               plain values for sidecars and files

Here are noise, blur, bias fields and holes; `thick_slices` has super-resolution, `raw_data` what is measured in k-space or
by projection, `degradation_chains` several in a row, and how all are read from a file.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.masking import Masking, dropped_slices, lesion
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity, Multiplication, bias_field
from radiata_core.seeds import generator_of
from radiata_core.separable import gaussian_blur
from radiata_medical.data.frames import AxisName, Frame, axis_number, edges_of

__all__ = ["Bias", "Blur", "Degradation", "Hole", "Noise", "event"]

_FWHM = 2.354820045030949
"""Full width at half maximum of a Gaussian, in standard deviations."""


class Degradation:
    """What a task has in common; see the module."""

    task: ClassVar[str] = ""

    def image_frame(self, frame: Frame) -> Frame:
        """The frame of the image to restore, from that of the scan."""
        return frame

    def for_scan(self, frame: Frame) -> "Degradation":
        """The same, once the frame of the scan that is the measurement is known."""
        return self

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """A for images on this frame.

        Args:
            frame: Of the image to restore.
            seed: Of what is drawn at random.

        Raises:
            InputError: options that do not fit the frame.
        """
        raise NotImplementedError

    def measured(self, array: np.ndarray, operator: LinearOperator) -> Tensor:
        """y, (1, *measurement), from a scan that is the measurement.

        Args:
            array: The scan on its own frame, in units of the prior.
            operator: A.

        Raises:
            InputError: an image is no measurement of this kind.
        """
        return event(array)

    def full_scale(self, clean: Tensor) -> float:
        """What 100 % of noise is, in units of the measurement: white, unless the measurement has other units."""
        return 1.0

    def describe(self) -> dict[str, Any]:
        """Plain values: the task and its options."""
        plain = {
            option.name: getattr(self, option.name)
            for option in dataclasses.fields(self)  # type: ignore[arg-type]
            if option.metadata.get("described", True)
        }
        return {"task": self.task, **plain}


@dataclass(frozen=True)
class Noise(Degradation):
    """Noise alone: denoising."""

    task: ClassVar[str] = "denoise"

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """The identity."""
        return Identity(frame.event_shape)


@dataclass(frozen=True)
class Blur(Degradation):
    """Gaussian blur.

    Attributes:
        fwhm: Full width at half maximum in mm, one number or one an axis, >= 0, one of them > 0.

    Raises:
        InputError: no width.
    """

    fwhm: tuple[float, ...] = (2.0,)

    task: ClassVar[str] = "deblur"

    def __post_init__(self) -> None:
        if not all(0 <= width < np.inf for width in self.fwhm) or not any(self.fwhm):
            raise InputError(
                f"expected --fwhm > 0 in mm; got {' '.join(map(str, self.fwhm))}. 2 is a mild blur."
            )

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """A small matrix along each axis, with mirrored edges."""
        widths = edges_of(self.fwhm, frame, "--fwhm")
        sigmas = [width / _FWHM / edge for width, edge in zip(widths, frame.spacing, strict=True)]
        return gaussian_blur(sigmas, frame.event_shape)


@dataclass(frozen=True, eq=False)
class Bias(Degradation):
    """A smooth field that multiplies the image.

    Attributes:
        field_file: Name of the file that holds it; empty: simulated, or estimated from the scan.
        strength: Of a simulated field: standard deviation of its logarithm.
        order: Of its waves.
        known: The field on the frame of the image, > 0; comes from the file or from an estimate.

    Raises:
        InputError: strength or order out of range.
    """

    field_file: str = ""
    strength: float = 0.2
    order: int = 3
    known: np.ndarray | None = field(default=None, repr=False, metadata={"described": False})

    task: ClassVar[str] = "bias"

    def __post_init__(self) -> None:
        if not (0 < self.strength < 2 and 1 <= self.order <= 8):
            raise InputError(
                f"expected a field of strength in (0, 2) and order 1 to 8; got {self.strength} and {self.order}. "
                "0.2 and 3 are usual."
            )

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """The field, as a multiplication.

        Raises:
            InputError: the field has another shape, or is not positive.
        """
        if self.known is None:
            return Multiplication(
                bias_field(frame.shape, generator_of(seed, 12), self.strength, self.order), frame.event_shape
            )
        if self.known.shape != frame.shape or not (np.isfinite(self.known) & (self.known > 0)).all():
            raise InputError(
                f"expected a field > 0 on the scan's {frame.shape} voxels; got {self.known.shape}, from "
                f"{self.known.min():g}. Resample it."
            )
        return Multiplication(torch.from_numpy(np.asarray(self.known, np.float32)), frame.event_shape)


@dataclass(frozen=True, eq=False)
class Hole(Degradation):
    """Voxels that are missing or wrong: a lesion, slices that were lost.

    Attributes:
        mask: Name of the file that marks them.
        dilate: Margin around the mask in mm.
        slices: Indices of lost slices.
        axis: Across which.
        radius: Of a simulated lesion in mm; 0: none.
        missing: The mask on the frame of the image, bool; comes from the file.

    Raises:
        InputError: a number is negative.
    """

    mask: str = ""
    dilate: float = 0.0
    slices: tuple[int, ...] = ()
    axis: AxisName = "k"
    radius: float = 0.0
    missing: np.ndarray | None = field(default=None, repr=False, metadata={"described": False})

    task: ClassVar[str] = "inpaint"

    def __post_init__(self) -> None:
        if not (self.dilate >= 0 and self.radius >= 0):
            raise InputError(
                f"expected a margin and a radius >= 0 mm; got {self.dilate} and {self.radius}. In millimetres."
            )
        if not (self.mask or self.missing is not None or self.slices or self.radius):
            raise InputError("expected what is missing; got nothing. Give --mask FILE, --slices or --radius.")

    def observed(self, frame: Frame, seed: int = 0) -> Tensor:
        """True where the image was observed, bool, of the frame's shape.

        Raises:
            InputError: the mask is of another shape, or covers everything.
        """
        seen = torch.ones(frame.shape, dtype=torch.bool)
        if self.missing is not None:
            if self.missing.shape != frame.shape:
                raise InputError(
                    f"expected a mask of the scan's {frame.shape} voxels; got {self.missing.shape}. Resample it."
                )
            seen &= torch.from_numpy(~_dilated(self.missing, self.dilate, frame.spacing))
        if self.slices:
            seen &= dropped_slices(frame.shape, axis_number(self.axis, frame), self.slices)
        if self.radius:
            radius = self.radius / float(np.prod(frame.spacing)) ** (1 / len(frame.shape))
            seen &= lesion(frame.shape, generator_of(seed, 11), radius)
        if not bool(seen.any()):
            raise InputError("expected some voxels to stay; got a mask over the whole scan. Reduce it.")
        return seen

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """The observed voxels."""
        return Masking(self.observed(frame, seed), frame.event_shape)

    def measured(self, array: np.ndarray, operator: LinearOperator) -> Tensor:
        """The scan where it was observed."""
        return operator(event(array))


def event(array: np.ndarray) -> Tensor:
    """An image as operators see it, (1, 1, *space), float32."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None]


def _dilated(mask: np.ndarray, margin: float, spacing: Sequence[float]) -> np.ndarray:
    """The mask and all within `margin` mm of it."""
    if margin == 0:
        return mask.astype(bool)
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask.astype(bool), sampling=spacing) <= margin)
