r"""Measurements that are no images: k-space, by one coil or several, of a head at rest or not; projections.

They are simulated from an image (`--simulate`); real k-space comes from files (`kspace_files`). Images are real: magnitudes.

| task | y | options |
|---|---|---|
| `kspace` | M F (S_c x) | acceleration, pattern of the mask, coils |
| `motion` | sum over shots of P_s E_s F R_s x | shots, how far the head moves |
| `ct` | line integrals of axial planes | views, their range |
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling, MultiCoilSampling, coil_sensitivities
from radiata_core.kspace_masks import equispaced_lines, radial_spokes, random_lines, random_points
from radiata_core.operators import LinearOperator
from radiata_core.projection import ParallelBeam, view_angles
from radiata_core.rigid_motion import Motion, MovingSampling, random_motion, shots_of_lines
from radiata_core.seeds import generator_of
from radiata_medical.data.degradations import Degradation
from radiata_medical.data.frames import AxisName, Frame, axis_number

__all__ = ["KSpace", "Moved", "Views"]

Pattern = Literal["auto", "lines", "equispaced", "points", "spokes"]


_ITERATIONS = 25
"""Of conjugate gradients, at most: a data step starts near its end, and faint directions are the prior's to fill."""


class _RawData(Degradation):
    """No image is such a measurement."""

    def measured(self, array: np.ndarray, operator: LinearOperator) -> Tensor:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"expected raw data for {self.task}; got an image. Add --simulate to simulate it"
            + (", or give k-space (.npy, .h5)." if self.task == "kspace" else ".")
        )


@dataclass(frozen=True)
class KSpace(_RawData):
    """Under-sampled k-space.

    Attributes:
        acceleration: Voxels of k-space over samples, > 1.
        pattern: Random lines, equispaced lines, random points in a plane of two phase encodes, or spokes; auto: points of
            volumes, whose scans encode two axes by phase, and lines of slices.
        axis: The phase-encode axis of lines, the first of points.
        middle: Share of lines (points) measured without gaps around the zero frequency; 0: the pattern's own.
        coils: Simulated ones; 1: a single coil of even sensitivity.

    Raises:
        InputError: a number out of range.
    """

    acceleration: float = 4.0
    pattern: Pattern = "auto"
    axis: AxisName = "j"
    middle: float = 0.0
    coils: int = 1

    task: ClassVar[str] = "kspace"

    def __post_init__(self) -> None:
        if not 1 < self.acceleration < np.inf:
            raise InputError(
                f"expected an acceleration > 1; got {self.acceleration:g}. At 1 all of k-space is measured and there is "
                "nothing to restore; 4 is usual."
            )
        if self.coils < 1 or not 0 <= self.middle < 1:
            raise InputError(
                f"expected coils >= 1 and a middle in [0, 1); got {self.coils} and {self.middle}. 8 and 0.08 are usual."
            )

    def mask(self, frame: Frame, seed: int = 0) -> Tensor:
        """True where k-space is measured, zero frequency in the middle, of the frame's shape."""
        axis = axis_number(self.axis, frame)
        generator = generator_of(seed, 13)
        lines = self.middle or min(0.08, 0.5 / self.acceleration)
        flat = len(frame.shape) == 2
        pattern = self.pattern if self.pattern != "auto" else "lines" if flat else "points"
        if pattern == "lines":
            return random_lines(frame.shape, self.acceleration, generator, axis=axis, middle=lines)
        if pattern == "equispaced":
            return equispaced_lines(frame.shape, self.acceleration, axis=axis, middle=lines)
        if pattern == "points":
            axes = axis, (axis + 1) % len(frame.shape)
            middle = self.middle or min(0.02, 0.5 / self.acceleration)
            return random_points(frame.shape, self.acceleration, generator, axes=axes, middle=middle)
        return _spokes(frame, self.acceleration)

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """Samples of the k-space of a real image."""
        mask = self.mask(frame, seed)
        if self.coils == 1:
            return FourierSampling(mask, frame.event_shape, real=True)
        maps = coil_sensitivities(frame.shape, self.coils).to(torch.complex64)
        return MultiCoilSampling(mask, maps, frame.event_shape, real=True)


@dataclass(frozen=True)
class Moved(_RawData):
    """K-space of a head that moved between shots, by a known motion.

    Attributes:
        shots: Their number, each at rest.
        shift: Standard deviation of the position along each axis, mm.
        turn: Standard deviation of each angle, degrees.
        axis: The phase-encode axis.

    Raises:
        InputError: a number out of range.
    """

    shots: int = 8
    shift: float = 2.0
    turn: float = 2.0
    axis: AxisName = "j"

    task: ClassVar[str] = "motion"

    def __post_init__(self) -> None:
        if self.shots < 2 or not (self.shift >= 0 and self.turn >= 0):
            raise InputError(
                f"expected two shots or more, shift and turn >= 0; got {self.shots}, {self.shift} and {self.turn}. "
                "In mm and degrees."
            )

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """Lines of k-space, each seen where the head was."""
        axes = len(frame.shape)
        drawn = random_motion(self.shots, axes, generator_of(seed, 14), shift=1.0, turn=self.turn)
        edges = torch.tensor(frame.spacing, dtype=torch.float64)
        axis = axis_number(self.axis, frame)
        shots = shots_of_lines(frame.shape[axis], self.shots)
        motion = Motion(drawn.shifts * self.shift / edges, drawn.turns)
        operator = MovingSampling(motion, shots, frame.event_shape, axis=axis - axes, real=True)
        operator.iterations = _ITERATIONS
        return operator


@dataclass(frozen=True)
class Views(_RawData):
    """Projections of the axial planes, parallel beams.

    Attributes:
        views: Their number.
        span: Range of their angles in degrees; below 180 it is limited.

    Raises:
        InputError: a number out of range.
    """

    views: int = 60
    span: float = 180.0

    task: ClassVar[str] = "ct"

    def __post_init__(self) -> None:
        if self.views < 1 or not 0 < self.span <= 360:
            raise InputError(
                f"expected a view or more over (0, 360] degrees; got {self.views} over {self.span}. 60 over 180 are sparse."
            )

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """Line integrals across the axis that runs from foot to head."""
        axes = tuple(i - len(frame.shape) for i, code in enumerate(frame.codes) if code not in "SI")
        if len(axes) != 2:
            axes = (-2, -1)
        return ParallelBeam(
            view_angles(self.views, span=self.span), frame.event_shape, axes=(axes[0], axes[1])
        )

    def full_scale(self, clean: Tensor) -> float:
        """The longest line integral."""
        return float(clean.abs().max())


def _spokes(frame: Frame, acceleration: float) -> Tensor:
    """As many spokes as measure 1/R of the plane, or one more."""
    points = frame.shape[-2] * frame.shape[-1]
    low, high = 1, 4 * max(frame.shape[-2:])
    while low < high:
        middle = (low + high) // 2
        if radial_spokes(frame.shape[-2:], middle).sum() * acceleration >= points:
            high = middle
        else:
            low = middle + 1
    return radial_spokes(frame.shape, low)
