"""One linear scale of intensities for all scans: white is the brightest common tissue, background stays where it is.

    value = intensity / white

Scanners give arbitrary units. A prior needs one, and a measurement operator needs the scale to be *linear without an
offset*: A(c x) = c A(x) for every operator, so a scan can be scaled, restored and scaled back, and its noise with it. White
is the 99th percentile of the voxels brighter than the mean voxel: those are head, wherever the border between air and head
lies and however much air there is, and a handful of bright vessels or fat does not move it.

Background is 0, most tissue in [0, 1.2], and the root mean square of a head near 0.45.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from radiata_core.errors import InputError

__all__ = ["WHITE_RULE", "IntensityScale"]

WHITE_RULE = "99th percentile of the voxels brighter than the mean voxel"
"""How white is found, in words: what a prior's metadata says it was trained with."""

_PERCENTILE = 99.0


@dataclass(frozen=True)
class IntensityScale:
    """Intensities of a file and values of a prior, to and fro.

    Attributes:
        white: Intensity, in units of the file, whose value is 1; > 0.

    Raises:
        InputError: white is not a positive number.
    """

    white: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.white) and self.white > 0):
            raise InputError(
                f"expected a white > 0; got {self.white:g}. Is the scan empty, or all of it negative?"
            )

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        """The scale of a scan, from all of its voxels.

        Args:
            array: Intensities in units of the file, any shape, finite.

        Raises:
            InputError: no voxel is brighter than the mean, or white is not positive.
        """
        values = np.asarray(array, dtype=np.float32).ravel()
        bright = values[values > values.mean(dtype=np.float64)]
        if bright.size == 0:
            raise InputError(
                "expected a scan with bright and dark voxels; got one intensity everywhere. Export it again."
            )
        return cls(float(np.percentile(bright, _PERCENTILE)))

    def to_prior(self, array: np.ndarray) -> np.ndarray:
        """Values of the prior, float32: intensity / white."""
        return (np.asarray(array) / self.white).astype(np.float32)

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Intensities of the file, float32: value x white."""
        return (np.asarray(array) * self.white).astype(np.float32)
