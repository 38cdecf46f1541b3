r"""How much detail, at which scale: the radially averaged power spectrum of a volume and the ratio of two sets.

$$ P(f) = \Big\langle |\hat x(k)|^2 / N \Big\rangle_{|k| \in \mathrm{shell}(f)}, \qquad
   \hat x(k) = \sum_r x(r)\, e^{-2\pi i k \cdot r} $$

so that white noise of variance $s^2$ has $P = s^2$ at every frequency and $\sum_f n_f P(f) / N = \mathrm{mean}(x^2)$
(Parseval). Frequencies are in cycles/mm and a shell is one wavelength of the longest side wide; shell 0 holds the mean
alone. Shells beyond the coarsest axis' Nyquist frequency lie in the corners of k-space and are kept for Parseval, not
for figures.

Generators that blur lose power at the right end; first-order samplers with few steps do the same (under-dispersion of fine
content), and patchwork networks add peaks at the frequency of their strides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy import fft

from radiata_core.errors import InputError

__all__ = ["RadialBins", "SpectrumRatio", "log_power", "spectrum_ratio"]


@dataclass(frozen=True)
class RadialBins:
    """Shells of k-space for volumes of one shape; made once, used for every volume.

    Attributes:
        shape: Voxels along x, y, z.
        spacing: Voxel edges, mm.
        frequency: Mean |f| of each shell, cycles/mm, `(shells,)`.
        count: Modes in each shell, `(shells,)`; they sum to the number of voxels.
        nyquist: Of the coarsest axis, cycles/mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    frequency: np.ndarray = field(init=False, repr=False)
    count: np.ndarray = field(init=False, repr=False)
    nyquist: float = field(init=False)
    _shell: np.ndarray = field(init=False, repr=False)
    _weight: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.shape) < 2 or min(self.spacing) <= 0:
            raise InputError(
                f"expected two voxels an axis and a spacing > 0 mm; got {self.shape} at {self.spacing} mm. "
                "Check the header."
            )
        nx, ny, nz = self.shape
        axes = (
            fft.fftfreq(nx, self.spacing[0])[:, None, None],
            fft.fftfreq(ny, self.spacing[1])[None, :, None],
            fft.rfftfreq(nz, self.spacing[2])[None, None, :],
        )
        radius = np.sqrt(axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2)
        width = 1.0 / max(n * s for n, s in zip(self.shape, self.spacing, strict=True))
        shell = np.rint(radius / width).astype(np.intp).ravel()
        # The half spectrum stands for the whole: interior planes of the last axis count twice.
        twice = np.full(nz // 2 + 1, 2.0)
        twice[0] = 1.0
        if nz % 2 == 0:
            twice[-1] = 1.0
        weight = np.broadcast_to(twice, radius.shape).ravel()
        count = np.bincount(shell, weight)
        filled = count > 0
        number = np.cumsum(filled) - 1
        object.__setattr__(self, "_shell", number[shell])
        object.__setattr__(self, "_weight", weight)
        object.__setattr__(self, "count", count[filled])
        object.__setattr__(
            self, "frequency", np.bincount(shell, weight * radius.ravel())[filled] / count[filled]
        )
        object.__setattr__(self, "nyquist", 0.5 / max(self.spacing))

    @property
    def shown(self) -> np.ndarray:
        """True for shells between the mean (excluded) and the Nyquist frequency of the coarsest axis."""
        return (self.frequency > 0) & (self.frequency <= self.nyquist)

    def power(self, array: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "shells"]:
        """Radial power spectrum of one volume, in squared units of the volume.

        Raises:
            InputError: A volume of another shape.
        """
        if array.shape != self.shape:
            raise InputError(
                f"expected a volume of {self.shape}; got {array.shape}. Resample to one grid first."
            )
        spectrum = fft.rfftn(array.astype(np.float32, copy=False))
        squared = (spectrum.real**2 + spectrum.imag**2).ravel().astype(np.float64)
        return np.bincount(self._shell, self._weight * squared) / self.count / array.size


def log_power(power: np.ndarray, floor: float = 1e-12) -> np.ndarray:
    """Decibels, `10 log10(P)`, with a floor so that an empty volume stays finite."""
    return 10.0 * np.log10(np.maximum(power, floor))


@dataclass(frozen=True)
class SpectrumRatio:
    """Synthetic over real power, in dB, per shell.

    Attributes:
        frequency: Cycles/mm, `(shells,)`.
        decibels: Mean log power of the first set minus that of the second.
        low: 2.5 % of the bootstrap over people.
        high: 97.5 %.
        rms: Root mean square of `decibels`, one number for the table.
        rms_interval: Its 95 % bootstrap interval.
    """

    frequency: np.ndarray
    decibels: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rms: float
    rms_interval: tuple[float, float]


def spectrum_ratio(
    x: Float[np.ndarray, "n shells"],
    y: Float[np.ndarray, "m shells"],
    frequency: Float[np.ndarray, "shells"],
    rng: np.random.Generator,
    bootstraps: int = 500,
) -> SpectrumRatio:
    """Difference of mean log spectra of two sets of units, with intervals.

    Args:
        x: Spectra of the first set in dB (`log_power`), one row a unit (person).
        y: Spectra of the second set.
        frequency: Cycles/mm.
        rng: Draws the bootstrap.
        bootstraps: Draws.
    """
    difference = x.mean(0) - y.mean(0)
    drawn = _resampled_means(x, rng, bootstraps) - _resampled_means(y, rng, bootstraps)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    rms = np.sqrt((drawn**2).mean(1))
    bounds: Sequence[float] = np.percentile(rms, [2.5, 97.5])
    return SpectrumRatio(
        frequency,
        difference,
        low,
        high,
        float(np.sqrt((difference**2).mean())),
        (float(bounds[0]), float(bounds[1])),
    )


def _resampled_means(rows: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    return rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), draws) @ rows / len(rows)
