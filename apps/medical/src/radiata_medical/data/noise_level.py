r"""How noisy a scan is, from the scan alone.

The finest diagonal Haar coefficients of an image, differences along every axis at once,

    d = 2^(-n/2) sum over the corners of a 2 x ... x 2 block of (-1)^(sum of the corner's indices) y,

hold almost no anatomy: an edge along any axis cancels. Noise of standard deviation sigma gives d the same sigma, so

    sigma = median |d| / 0.6745,

where the median does not mind the few blocks that anatomy does reach. Only blocks inside the head count: the air of a
magnitude image has less noise (0.65 sigma), and air that a program has set to 0 has none. Noise that was smoothed or
interpolated is underestimated: give its level then.

References:
    Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994, https://doi.org/10.1093/biomet/81.3.425,
        section 5.
    Gudbjartsson & Patz, "The Rician distribution of noisy MRI data", 1995, https://doi.org/10.1002/mrm.1910340618 (air).
"""

import itertools

import numpy as np

from radiata_core.errors import InputError

__all__ = ["estimate_noise"]

_MAD = 0.6744897501960817
"""Median of |z| for a standard normal z."""
_FEWEST = 32
"""Blocks that a median needs."""


def estimate_noise(array: np.ndarray) -> float:
    """Standard deviation of white noise in a scan, in its units, >= 0.

    Args:
        array: (x, y) or (x, y, z), finite; axes of one voxel are left out.

    Raises:
        InputError: too few voxels inside the head.
    """
    values = np.squeeze(np.asarray(array, dtype=np.float32))
    if values.ndim == 0:
        raise InputError("expected an image; got one voxel. Give the noise: --noise.")
    even = values[tuple(slice(0, n - n % 2) for n in values.shape)]
    corners = list(itertools.product((0, 1), repeat=even.ndim))
    parts = [even[tuple(slice(start, None, 2) for start in corner)] for corner in corners]
    signs = [(-1.0) ** sum(corner) for corner in corners]
    detail = np.add.reduce([sign * part for sign, part in zip(signs, parts, strict=True)]) / 2 ** (
        even.ndim / 2
    )
    inside = np.minimum.reduce(parts) > values.mean(dtype=np.float64)
    if int(inside.sum()) < _FEWEST:
        raise InputError(
            f"expected at least {_FEWEST} blocks of voxels inside the head to estimate its noise; got {int(inside.sum())}. "
            "Give the noise: --noise."
        )
    return float(np.median(np.abs(detail[inside])) / _MAD)
