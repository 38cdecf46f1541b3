r"""How close is a restored image to the true one? Errors, structure, edges, and a distance in features of one's choice.

With the restored image x, the reference y, the voxels M that count and the data range L (the span of intensities that
matters, in units of the file):

$$ \mathrm{PSNR} = 20 \log_{10} \frac{L}{\mathrm{RMSE}}, \qquad \mathrm{NRMSE} = \frac{\|x - y\|_M}{\|y\|_M}, \qquad
   \mathrm{HFEN} = \frac{\|\mathrm{LoG}(x) - \mathrm{LoG}(y)\|_M}{\|\mathrm{LoG}(y)\|_M} $$

LoG is the Laplacian of a Gaussian of 1.5 voxels on 15 taps, made to sum to zero: a constant shift is no high-frequency
error. SSIM is MONAI's to rounding, averaged over M; the 11-tap Gaussian window is applied axis by axis, which takes a
tenth of the time of MONAI's full kernel on a volume, and only windows that lie inside the image count.

PSNR rewards a mean of all plausible images, and so blur; HFEN and SSIM see blur; none of them sees whether detail was
measured or invented. Air counts unless a mask is given, and lifts PSNR and SSIM.

References:
    Z. Wang et al. (2004). Image quality assessment: from error visibility to structural similarity. IEEE TIP 13(4), eq. 13.
    S. Ravishankar, Y. Bresler (2011). MR image reconstruction from highly undersampled k-space data by dictionary
        learning. IEEE TMI 30(5), section IV-A (HFEN).
    R. Zhang et al. (2018). The unreasonable effectiveness of deep features as a perceptual metric. arXiv:1801.03924.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.ndimage import correlate1d, gaussian_filter

from radiata_core.errors import InputError
from radiata_imaging.volume import times

__all__ = [
    "Encoder",
    "ImageQuality",
    "hfen",
    "image_quality",
    "laplacian_of_gaussian",
    "perceptual_distance",
    "ssim_map",
]

WINDOW = 5
"""Voxels that SSIM's window reaches on each side."""
_WINDOW_SD, _LOG_SD, _LOG_RADIUS = 1.5, 1.5, 7


@runtime_checkable
class Encoder(Protocol):
    """A name that says everything and a function from an image to an array of features; any `features.FeatureMap` is one."""

    @property
    def name(self) -> str: ...

    def __call__(self, array: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class ImageQuality:
    """Scores of one image.

    Attributes:
        psnr: Decibel; inf for equal images.
        ssim: In [-1, 1]; NaN where an axis is shorter than the window of 11 voxels or no window lies in the mask.
        hfen: Error of edges over the edges of the reference, >= 0; NaN for a reference without edges.
        nrmse: Error over the reference, >= 0; NaN for a reference of zeros.
        mae: Mean absolute error, units of the file.
        rmse: Root mean square error, units of the file.
        perceptual: Relative distance in the features of the encoder, >= 0; NaN without one.
        data_range: L, units of the file.
        voxels: How many count.
    """

    psnr: float
    ssim: float
    hfen: float
    nrmse: float
    mae: float
    rmse: float
    perceptual: float
    data_range: float
    voxels: int


def image_quality(
    restored: np.ndarray,
    reference: np.ndarray,
    *,
    data_range: float | int,
    mask: np.ndarray | None = None,
    encoder: Encoder | None = None,
) -> ImageQuality:
    """All scores of a restored image or volume.

    Args:
        restored: x, (x, y) or (x, y, z).
        reference: y, the same shape and units.
        data_range: L, units of the file, > 0.
        mask: M, booleans of the same shape; None: every voxel.
        encoder: Of the perceptual distance, which looks at the whole image; None leaves it out.

    Raises:
        InputError: shapes that differ, another number of axes, a data range <= 0, an empty mask.
    """
    _check(restored, reference, data_range, mask)
    kept = np.ones(reference.shape, bool) if mask is None else mask.astype(bool)
    x, y = restored.astype(np.float64), reference.astype(np.float64)
    error = (x - y)[kept]
    rmse = float(np.sqrt(np.mean(error**2)))
    size = float(np.sqrt(np.mean(y[kept] ** 2)))
    return ImageQuality(
        psnr=float(20 * np.log10(data_range / rmse)) if rmse > 0 else float("inf"),
        ssim=_mean_ssim(x, y, data_range, kept),
        hfen=hfen(x, y, kept),
        nrmse=rmse / size if size > 0 else float("nan"),
        mae=float(np.abs(error).mean()),
        rmse=rmse,
        perceptual=float("nan") if encoder is None else perceptual_distance(encoder, restored, reference),
        data_range=float(data_range),
        voxels=int(kept.sum()),
    )


def _check(x: np.ndarray, y: np.ndarray, data_range: float | int, mask: np.ndarray | None) -> None:
    if x.shape != y.shape or y.ndim not in (2, 3):
        raise InputError(
            f"expected two images or volumes of one shape; got {times(x.shape)} and {times(y.shape)}. "
            "Resample one to the grid of the other."
        )
    if not (np.isfinite(data_range) and data_range > 0):
        raise InputError(f"expected a data range > 0; got {data_range}. Give the span of the intensities.")
    if mask is not None and (mask.shape != y.shape or not mask.any()):
        raise InputError(
            f"expected a mask of shape {times(y.shape)} with voxels in it; got {times(mask.shape)} with "
            f"{int(np.count_nonzero(mask))}. Draw it on the grid of the reference."
        )


def ssim_map(x: np.ndarray, y: np.ndarray, data_range: float | int) -> np.ndarray:
    """Structural similarity at each position whose window lies inside: every axis is 10 shorter.

    Raises:
        InputError: an axis shorter than 11.
    """
    if min(x.shape) <= 2 * WINDOW:
        raise InputError(f"expected {2 * WINDOW + 1} or more voxels an axis for SSIM; got {times(x.shape)}.")
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    covariance = _windowed(x * y) - mean_x * mean_y
    variances = _windowed(x * x) - mean_x**2 + _windowed(y * y) - mean_y**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _windowed(x: np.ndarray) -> np.ndarray:
    return _inner(gaussian_filter(x, _WINDOW_SD, radius=WINDOW))


def _inner(x: np.ndarray) -> np.ndarray:
    return x[(slice(WINDOW, -WINDOW),) * x.ndim]


def _mean_ssim(x: np.ndarray, y: np.ndarray, data_range: float | int, kept: np.ndarray) -> float:
    if min(x.shape) <= 2 * WINDOW or not (inner := _inner(kept)).any():
        return float("nan")
    return float(ssim_map(x, y, data_range)[inner].mean())


def laplacian_of_gaussian(x: np.ndarray) -> np.ndarray:
    """LoG(x), standard deviation 1.5 voxels; the sum of second derivatives along the axes, edges repeated outside."""
    at = np.arange(-_LOG_RADIUS, _LOG_RADIUS + 1, dtype=np.float64)
    smooth = np.exp(-(at**2) / (2 * _LOG_SD**2))
    smooth /= smooth.sum()
    second = smooth * (at**2 / _LOG_SD**4 - 1 / _LOG_SD**2)
    second -= smooth * second.sum()  # truncation leaves a rest, which would answer to a constant
    found = np.zeros(x.shape, dtype=np.float64)
    for axis in range(x.ndim):
        part = x.astype(np.float64, copy=False)
        for other in range(x.ndim):
            part = correlate1d(part, second if other == axis else smooth, axis=other, mode="nearest")
        found += part
    return found


def hfen(x: np.ndarray, y: np.ndarray, kept: np.ndarray | None = None) -> float:
    """High-frequency error norm of x against the reference y, over the voxels kept; NaN for a reference without edges."""
    kept = np.ones(y.shape, bool) if kept is None else kept
    edges = np.linalg.norm(laplacian_of_gaussian(y)[kept])
    scale = np.abs(y).max() * np.sqrt(kept.sum())
    if edges <= 1e-12 * scale:
        return float("nan")
    return float(np.linalg.norm(laplacian_of_gaussian(x - y)[kept]) / edges)


def perceptual_distance(encoder: Encoder, x: np.ndarray, y: np.ndarray) -> float:
    """‖f(x) − f(y)‖/‖f(y)‖ in the features f of an encoder; 0 for equal images, NaN where f(y) is zero."""
    of_x, of_y = (np.asarray(encoder(one), dtype=np.float64).ravel() for one in (x, y))
    size = np.linalg.norm(of_y)
    return float(np.linalg.norm(of_x - of_y) / size) if size > 0 else float("nan")
