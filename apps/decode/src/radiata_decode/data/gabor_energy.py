r"""What a simulated visual cortex sees of a picture: 18 maps of oriented energy, luminance and colour.

A pair of Gabor filters in quadrature – the real and imaginary part of

$$ g_k(u) = e^{-|u|^2 / 2\sigma_k^2} \big(e^{2\pi i f_k \cdot u} - c_k\big) $$

with $\sigma_k = \lambda_k/2$, $|f_k| = 1/\lambda_k$ and $c_k$ such that the filter has no mean – gives the local
energy $E_k = |g_k * L|^2$ of the luminance L. It tells how much contrast of wavelength λ and orientation θ there is,
wherever its phase: the model of a complex cell. Three wavelengths (1/8, 1/4 and 1/2 of the picture's width) by four
orientations are 12 maps; luminance above and below mid-grey, red against green and blue against yellow, each as two
half-wave rectified maps, are 6 more. All maps are >= 0, as firing rates are.

The filters are products in the frequency domain; pictures are mirrored beyond their border first, so that opposite
borders do not meet. All lengths are fractions of the picture's width: 32 and 64 pixels give the same energies
of what both resolve.

References:
    E. Adelson, J. Bergen (1985). Spatiotemporal energy models for the perception of motion. JOSA A 2 (quadrature pairs).
    K. Kay, T. Naselaris, R. Prenger, J. Gallant (2008). Identifying natural images from human brain activity. Nature 452
    (Gabor energies as a model of voxels).
"""

import math
from functools import cache

import torch
from torch.nn.functional import pad

from radiata_core.errors import InputError

__all__ = [
    "MAPS",
    "ORIENTATIONS",
    "WAVELENGTHS",
    "gabor_energy",
    "gabor_spectra",
    "luminance",
    "picture_maps",
]

WAVELENGTHS = (1 / 8, 1 / 4, 1 / 2)
ORIENTATIONS = (0.0, 45.0, 90.0, 135.0)
MAPS = (
    *(f"gabor wavelength {w:g} orientation {o:g}" for w in WAVELENGTHS for o in ORIENTATIONS),
    "on",
    "off",
    "red",
    "green",
    "blue",
    "yellow",
)
LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709
LEAST_SIZE = 8


def luminance(images: torch.Tensor) -> torch.Tensor:
    """Luminance (n, y, x) of RGB pictures (n, 3, y, x) in [0, 1]."""
    weights = torch.tensor(LUMINANCE, dtype=images.dtype, device=images.device)
    return torch.einsum("ncyx,c->nyx", images, weights)


@cache
def gabor_spectra(size: int, wavelengths: tuple[float, ...] = WAVELENGTHS) -> tuple[torch.Tensor, int]:
    """Spectra of the filters on the mirrored grid, (filter, y, x) float32, and how wide the mirrored border is.

    A filter of orientation θ answers to gratings whose bars run along θ, counterclockwise from horizontal; its wave
    vector (sin θ, cos θ)/λ, x to the right and y downward, is perpendicular to them.
    """
    border = size // 2
    grid = torch.fft.fftfreq(size + 2 * border, dtype=torch.float64) * size  # cycles a picture's width
    fy, fx = torch.meshgrid(grid, grid, indexing="ij")
    spectra = []
    for wavelength in wavelengths:
        for orientation in ORIENTATIONS:
            theta = math.radians(orientation)
            x0, y0 = math.sin(theta) / wavelength, math.cos(theta) / wavelength
            sigma = wavelength / 2
            bell = torch.exp(-2 * (math.pi * sigma) ** 2 * ((fx - x0) ** 2 + (fy - y0) ** 2))
            constant = math.exp(-2 * (math.pi * sigma / wavelength) ** 2)
            spectra.append(
                bell - constant * torch.exp(-2 * (math.pi * sigma) ** 2 * (fx**2 + fy**2))
            )  # no answer to a mean
    return torch.stack(spectra).to(torch.float32), border


def gabor_energy(planes: torch.Tensor, wavelengths: tuple[float, ...] = WAVELENGTHS) -> torch.Tensor:
    """Energies (n, filter, y, x) of planes (n, y, x), wavelengths outer, orientations inner.

    A grating of amplitude a (a·cos) at a filter's own wavelength and orientation has energy a²/4 everywhere away
    from the border.
    """
    size = planes.shape[-1]
    spectra, border = gabor_spectra(size, wavelengths)
    mirrored = pad(planes.unsqueeze(1), (border,) * 4, mode="reflect").squeeze(1)
    responses = torch.fft.ifft2(torch.fft.fft2(mirrored).unsqueeze(1) * spectra.to(planes.device))
    inside = responses[..., border : border + size, border : border + size]
    return inside.real.square() + inside.imag.square()


def picture_maps(images: torch.Tensor, chunk: int = 64) -> torch.Tensor:
    """The 18 maps of pictures, (n, 18, y, x) float32, >= 0, in the order of `MAPS`.

    Args:
        images: (n, 3, y, x) float32 RGB in [0, 1], square, at least 8 pixels wide.
        chunk: Pictures at a time: memory, not results.

    Raises:
        InputError: pictures of another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise InputError(f"expected square RGB pictures (n, 3, y, x); got {tuple(images.shape)}. Crop them.")
    if images.shape[-1] < LEAST_SIZE:
        raise InputError(f"expected pictures of at least {LEAST_SIZE} pixels; got {images.shape[-1]}.")
    maps = torch.empty((len(images), len(MAPS), *images.shape[2:]), dtype=torch.float32, device=images.device)
    gabors = len(MAPS) - 6
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk].to(torch.float32)
        grey = luminance(part)
        maps[start : start + chunk, :gabors] = gabor_energy(grey)
        red, green, blue = part.unbind(1)
        axes = (grey - 0.5, red - green, blue - (red + green) / 2)
        for place, axis in enumerate(axes):
            maps[start : start + chunk, gabors + 2 * place] = axis.clamp_min(0)
            maps[start : start + chunk, gabors + 2 * place + 1] = (-axis).clamp_min(0)
    return maps
