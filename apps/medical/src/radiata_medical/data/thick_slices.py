"""Super-resolution: voxels larger than wanted, along one axis (thick slices) or several, on exactly the same field of view.

    y = S H x:      each measured voxel is a mean of the image across its own thickness, weighted by the profile of the slice

The scan is the measurement, and the image has the spacing that is wanted; or the scan is the image, and a coarser
measurement is simulated from it. n' of the finer voxels lie on n of the coarser ones whatever n'/n is (`frames`).
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from radiata_core.downsampling import Profile, slice_profile
from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator
from radiata_core.separable import Separable
from radiata_medical.data.degradations import Degradation
from radiata_medical.data.frames import AxisName, Frame, axis_number, edges_of

__all__ = ["ThickSlices"]


@dataclass(frozen=True)
class ThickSlices(Degradation):
    """Voxels larger than wanted, along one axis (thick slices) or several.

    Attributes:
        spacing: Edges in mm wanted, one number or one an axis. Where the scan is as fine, it stays.
        measured_spacing: Edges in mm of a simulated measurement, one number or one an axis; empty: the scan is the
            measurement.
        axis: Across which slices are simulated thick; empty: `measured_spacing` holds along all.
        thickness: Of a slice in mm; 0: the distance of slices.
        profile: How a slice weighs what lies across it.
        scan_shape: Voxels of the scan that is the measurement; `for_scan` fills it in.

    Raises:
        InputError: a number that is not positive.
    """

    spacing: tuple[float, ...] = (1.0,)
    measured_spacing: tuple[float, ...] = ()
    axis: AxisName | Literal[""] = ""
    thickness: float = 0.0
    profile: Literal["box", "gaussian"] = "box"
    scan_shape: tuple[int, ...] = field(default=(), metadata={"described": False})

    task: ClassVar[str] = "sr"

    def __post_init__(self) -> None:
        for name, edges in (("--spacing", self.spacing), ("--measured-spacing", self.measured_spacing)):
            if not all(0 < edge < np.inf for edge in edges):
                raise InputError(
                    f"expected {name} > 0 in mm; got {' '.join(map(str, edges))}. Give voxel edges."
                )
        if not self.thickness >= 0:
            raise InputError(
                f"expected a slice thickness >= 0 mm; got {self.thickness}. 0 takes the spacing."
            )

    def image_frame(self, frame: Frame) -> Frame:
        """Finer along each axis that is coarser than wanted, on the same field of view.

        Raises:
            InputError: the scan is as fine as wanted along every axis.
        """
        if self.measured_spacing:
            return frame
        wanted = edges_of(self.spacing, frame, "--spacing")
        shape = [
            max(n, round(n * edge / target))
            for n, edge, target in zip(frame.shape, frame.spacing, wanted, strict=True)
        ]
        if tuple(shape) == frame.shape:
            raise InputError(
                f"expected a spacing finer than the scan's {' '.join(f'{e:g}' for e in frame.spacing)} mm; got "
                f"{' '.join(f'{e:g}' for e in wanted)}. Ask for a smaller --spacing, or add --simulate."
            )
        edges = [n * edge / m for n, edge, m in zip(frame.shape, frame.spacing, shape, strict=True)]
        return replace(frame, shape=tuple(shape), spacing=tuple(edges))

    def coarse_shape(self, frame: Frame) -> tuple[int, ...]:
        """Voxels of a simulated measurement along each axis of the image's frame.

        Raises:
            InputError: it would be as fine as the image.
        """
        edges = edges_of(self.measured_spacing, frame, "--measured-spacing")
        axes = range(len(frame.shape)) if self.axis == "" else [axis_number(self.axis, frame)]
        shape = list(frame.shape)
        for axis in axes:
            shape[axis] = min(shape[axis], max(1, round(shape[axis] * frame.spacing[axis] / edges[axis])))
        if tuple(shape) == frame.shape:
            raise InputError(
                f"expected a --measured-spacing coarser than the scan's {' '.join(f'{e:g}' for e in frame.spacing)} mm; "
                f"got {' '.join(f'{e:g}' for e in edges)}. Simulate thicker slices."
            )
        return tuple(shape)

    def for_scan(self, frame: Frame) -> "ThickSlices":
        """With the scan's voxels as those of the measurement."""
        return self if self.measured_spacing else replace(self, scan_shape=frame.shape)

    def operator(self, frame: Frame, seed: int = 0) -> LinearOperator:
        """A matrix along each axis that is coarser in the measurement.

        Raises:
            InputError: a scan is the measurement, and `for_scan` was not asked.
        """
        if not (self.measured_spacing or self.scan_shape):
            raise InputError("expected the frame of the scan; got none. Call for_scan first, or simulate.")
        coarse = self.coarse_shape(frame) if self.measured_spacing else self.scan_shape
        matrices = []
        for n, m, edge in zip(frame.shape, coarse, frame.spacing, strict=True):
            step = n / m
            thick = self.thickness / edge if self.thickness else step
            matrices.append(None if m == n else slice_profile(n, step, thick, Profile(self.profile), m))
        return Separable(matrices, frame.event_shape)
