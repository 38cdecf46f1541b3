r"""The bias field of a scan, from the scan alone: alternately sharpen the intensities and fit a smooth field.

    v = log y = log x + log b;          E[log x | v] from the histogram of v, whose peaks the field has blurred;
    log b <- low-order cosine waves fitted to v - E[log x | v]

Tissues have few intensities, so the histogram of log x has sharp peaks, and that of v is their blur by the values of log b.
A Wiener filter undoes a Gaussian of that width; the expectation under the sharpened histogram says where each voxel would be
without the field, and the smooth part of the difference is the field. The field is a product of few waves for each axis
(`pointwise.smooth_waves`), so it is positive, and its logarithm has mean 0 over the head.

References:
    Sled, Zijdenbos & Evans, "A nonparametric method for automatic correction of intensity nonuniformity in MRI data" (N3),
        1998, https://doi.org/10.1109/42.668698, eqs. 7 to 11.
    Tustison et al., "N4ITK: improved N3 bias correction", 2010, https://doi.org/10.1109/TMI.2010.2046908 (increments).
"""

import numpy as np

from radiata_core.errors import InputError

__all__ = ["estimate_bias"]

_BINS = 200
_WIDTH = 0.3
"""Full width at half maximum of the field's values in the logarithm. N3 takes 0.15; of fields of 19 % drawn on a real head
that left 10 %, and 0.3 left 3 % (beside what the scan had before)."""
_WIENER = 0.01
_MOST = 200_000
"""Voxels of the head that are looked at."""


def estimate_bias(array: np.ndarray, order: int = 3, iterations: int = 60) -> np.ndarray:
    """The field b > 0 of a scan, float32, of its shape; log b has mean 0 over the head.

    Args:
        array: (x, y) or (x, y, z), >= 0 in the head, finite.
        order: Largest sum of the waves' periods along the axes, >= 1.
        iterations: Of the alternation.

    Raises:
        InputError: the scan has too few bright voxels.
    """
    inside = np.argwhere(array > 0.5 * float(array.mean(dtype=np.float64)))
    if len(inside) < 500:
        raise InputError(f"expected a head of 500 voxels or more; got {len(inside)}. Is the scan empty?")
    inside = inside[:: max(1, len(inside) // _MOST)]
    values = np.log(array[tuple(inside.T)].astype(np.float64))
    kept = values > np.percentile(values, 2)
    inside, values = inside[kept], values[kept]
    powers = _powers(order, array.ndim)
    waves = np.ones((len(inside), len(powers)))
    for axis, n in enumerate(array.shape):
        waves *= np.cos(np.pi * powers[None, :, axis] * (inside[:, axis, None] + 0.5) / n)
    mean = waves.mean(0)
    waves -= mean
    gram = np.linalg.pinv(waves.T @ waves)
    coefficients = np.zeros(len(powers))
    for _ in range(iterations):
        corrected = values - waves @ coefficients
        step = gram @ (waves.T @ (corrected - _sharpened(corrected)))
        coefficients += step
        if np.abs(step).max() < 1e-4:
            break
    return np.exp(_field(coefficients, powers, array.shape) - mean @ coefficients).astype(np.float32)


def _powers(order: int, axes: int) -> np.ndarray:
    """Periods along each axis of the waves, all but the constant, (waves, axes)."""
    grid = np.stack(np.meshgrid(*[np.arange(order + 1)] * axes, indexing="ij"), -1).reshape(-1, axes)
    return grid[(grid.sum(1) >= 1) & (grid.sum(1) <= order)]


def _sharpened(values: np.ndarray) -> np.ndarray:
    """E[log x | v] of each value."""
    counts, edges = np.histogram(values, _BINS)
    centres, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    padded = 2 ** int(np.ceil(np.log2(2 * _BINS)))
    sigma = _WIDTH / 2.3548 / width
    at = np.minimum(np.arange(padded), padded - np.arange(padded))
    blur = np.fft.rfft(np.exp(-(at**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi)))
    wiener = blur.conj() / (np.abs(blur) ** 2 + _WIENER)
    sharp = np.clip(np.fft.irfft(np.fft.rfft(counts, padded) * wiener, padded), 0, None)
    sharp[_BINS:] = 0
    places = np.zeros(padded)
    places[:_BINS] = centres
    top = np.fft.irfft(np.fft.rfft(sharp * places) * blur, padded)[:_BINS]
    bottom = np.fft.irfft(np.fft.rfft(sharp) * blur, padded)[:_BINS]
    expected = np.where(bottom > 1e-9 * bottom.max(), top / np.maximum(bottom, 1e-30), centres)
    return np.interp(values, centres, expected)


def _field(coefficients: np.ndarray, powers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The sum of the waves on the grid, one small matrix an axis."""
    field = np.zeros((powers.max() + 1,) * len(shape))
    field[tuple(powers.T)] = coefficients
    for axis, n in enumerate(shape):
        waves = np.cos(np.pi * np.arange(field.shape[axis])[:, None] * (np.arange(n) + 0.5) / n)
        field = np.moveaxis(np.tensordot(field, waves, (axis, 0)), -1, axis)
    return field
