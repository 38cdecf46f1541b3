r"""Are the grey values right? Histograms on fixed edges, the Wasserstein-1 distance between them, the mean (DC).

$$ W_1(p, q) = \int |F_p(v) - F_q(v)|\, dv $$

in units of the intensity. The mean of a whole volume (its "DC" mode) gets figures of its own: a schedule that does not
end in pure noise, $\bar\alpha_T > 0$, shows the network the mean of each head in training and not in sampling; samples
then come out with a shifted mean and too little spread of it, which no per-volume min-max export can show.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from radiata_core.errors import InputError

__all__ = ["HistogramBins", "histogram_distance", "percentiles", "wasserstein_1"]

_SAMPLE = 2**16
"""Voxels that say where the tails of an image's intensities begin."""


@dataclass(frozen=True)
class HistogramBins:
    """Equal bins of one intensity scale.

    Attributes:
        low: Lower edge, in units of the volume.
        high: Upper edge; values outside are counted in the end bins.
        number: Bins.
    """

    low: float = -1.0
    high: float = 1.0
    number: int = 128

    def __post_init__(self) -> None:
        if not self.high > self.low or self.number < 2:
            raise InputError(f"expected low < high and two bins; got {self.low}, {self.high}, {self.number}")

    @property
    def width(self) -> float:
        """Of one bin, in units of the volume."""
        return (self.high - self.low) / self.number

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin, `(number,)`."""
        return self.low + (np.arange(self.number) + 0.5) * self.width

    def fractions(self, array: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "bins"]:
        """Fraction of the voxels in each bin; sums to one."""
        index = np.clip(((array - self.low) / self.width).astype(np.int32), 0, self.number - 1)
        return np.bincount(index.ravel(), minlength=self.number) / array.size


def histogram_distance(p: Float[np.ndarray, "bins"], q: Float[np.ndarray, "bins"], width: float) -> float:
    """Wasserstein-1 distance between two histograms on the same bins, in units of `width`."""
    return float(np.abs(np.cumsum(p - q)[:-1]).sum() * width)


def wasserstein_1(x: Float[np.ndarray, "n *columns"], y: Float[np.ndarray, "m *columns"]) -> np.ndarray:
    r"""Wasserstein-1 distance between two samples of numbers, for each column.

    $\int_0^1 |F_x^{-1}(u) - F_y^{-1}(u)|\, du$, exact for samples of different sizes: both quantile functions are
    steps, so the integral is a sum over the merged steps.
    """
    n, m = len(x), len(y)
    steps = np.unique(
        np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n])
    )  # exact, in units of 1/(n m)
    width = np.diff(steps, prepend=0) / (n * m)
    at_x, at_y = (steps - 1) // m, (steps - 1) // n
    gap = np.abs(np.sort(x, axis=0)[at_x] - np.sort(y, axis=0)[at_y])
    return np.tensordot(width, gap, axes=(0, 0))


def percentiles(array: Float[np.ndarray, "*shape"], levels: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles of an image of floats, equal to `numpy.percentile`'s; five times as fast in the tails.

    A sample of a large image says from which intensity on a tail holds the percentile, and only the tail is sorted; where
    the sample was wrong about it, everything is.

    Args:
        array: The image, finite, not empty.
        levels: In percent, 0 to 100.
    """
    upright = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)
    flat = array[upright].ravel(order="K")  # a turned image is not copied to be counted
    sample = np.sort(flat[:: max(1, flat.size // _SAMPLE)])
    low, high = (_quantile(flat, sample, level / 100.0) for level in levels)
    return low, high


def _quantile(flat: np.ndarray, sample: np.ndarray, q: float) -> float:
    """Linear between the values of ranks k and k + 1, k = floor((n - 1) q), rounded as numpy rounds it."""
    rank = (flat.size - 1) * q
    k = int(rank)
    weight, reach = rank - k, int(len(sample) * (2.0 * min(q, 1.0 - q) + 1e-3))
    tail, skipped = flat, 0
    if reach < len(sample) // 4:
        few = flat[flat <= sample[reach]] if q < 0.5 else flat[flat >= sample[-1 - reach]]
        before = 0 if q < 0.5 else flat.size - few.size
        if before <= k < before + few.size - 1:
            tail, skipped = few, before
    places = (k - skipped, min(k - skipped + 1, tail.size - 1))
    a, b = (float(v) for v in np.partition(tail, places)[list(places)])
    step = float(flat.dtype.type(b) - flat.dtype.type(a))
    return a + step * weight if weight < 0.5 else b - step * (1.0 - weight)
