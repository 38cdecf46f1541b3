r"""What the coils saw: their sensitivities and the phase of the image, from the fully sampled middle of k-space; the noise.

    m_c = F^H w K_c,        S_c = m_c / sqrt(sum over c of |m_c|^2)

The middle, under a Hann window w, gives a blurred image a coil. Divided by their root sum of squares these are smooth
sensitivities with sum |S_c|^2 = 1, and they hold the phase of the image as well, since it is smooth: with them the image
that is left is real and not negative, up to what of the phase is not smooth. So a prior of magnitudes meets complex data:

    y_c = M F (S_c x),      x real,

the composition of phase, coils, Fourier transform and mask in one operator. Maps from a file have a phase of their own; the
image's is then taken from the blurred image, angle(sum of S_c^* m_c), and multiplied to them.

Noise is read off the outermost samples, where there is least signal; it is an upper bound.

References:
    Uecker et al., "ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI", 2014,
        https://doi.org/10.1002/mrm.24751 (better maps where the coils' fields change fast; read them from a file).
    Roemer et al., "The NMR phased array", 1990, https://doi.org/10.1002/mrm.1910160203 (root sum of squares).
"""

import numpy as np

from radiata_core.errors import InputError
from radiata_medical.data.kspace_files import KSpaceData

__all__ = ["kspace_noise", "sensitivities_of"]

_MAD = 0.6744897501960817
_OUTER = 0.1
"""Share of the samples, the outermost, that noise is read off."""
_SMALLEST = 6
"""Lines of the middle along each axis that maps need."""


def sensitivities_of(data: KSpaceData) -> np.ndarray:
    """Sensitivities with the phase of the image, complex64 (coil, *space), sum |S_c|^2 = 1.

    Raises:
        InputError: the middle of k-space is not fully sampled.
    """
    blurred = _blurred(data)
    if data.sensitivities is None:
        maps = blurred
    else:
        phase = np.angle((data.sensitivities.conj() * blurred).sum(0))
        maps = data.sensitivities * np.exp(1j * phase)
    power = np.sqrt((np.abs(maps) ** 2).sum(0))
    flat = np.full_like(maps, 1 / np.sqrt(len(maps)))
    return np.where(power > 1e-12 * power.max(), maps / np.maximum(power, 1e-30), flat).astype(np.complex64)


def kspace_noise(data: KSpaceData) -> float:
    """Standard deviation of real and imaginary parts of k-space, from its outermost samples: an upper bound."""
    lines = [(np.arange(n) - n // 2) / (n / 2) for n in data.mask.shape]
    radius = np.sqrt(sum(line**2 for line in np.meshgrid(*lines, indexing="ij")))[data.mask]
    outer = radius >= np.quantile(radius, 1 - _OUTER)
    samples = data.kspace[:, data.mask][:, outer]
    return float(np.median(np.abs(np.concatenate([samples.real, samples.imag]))) / _MAD)


def _blurred(data: KSpaceData) -> np.ndarray:
    """Coil images of the fully sampled middle under a Hann window, (coil, *space)."""
    box = _middle(data.mask)
    kspace = np.zeros_like(data.kspace)
    kspace[(slice(None), *box)] = data.kspace[(slice(None), *box)]
    for axis, (n, part) in enumerate(zip(data.mask.shape, box, strict=True), start=1):
        reach = (part.stop - part.start) / 2 + 1
        k = np.arange(n) - (part.start + part.stop - 1) / 2
        window = np.where(np.abs(k) < reach, np.cos(np.pi * k / (2 * reach)) ** 2, 0)
        kspace = kspace * window.reshape([n if i == axis else 1 for i in range(kspace.ndim)])
    axes = tuple(range(1, kspace.ndim))
    return np.fft.ifftn(np.fft.ifftshift(kspace, axes=axes), axes=axes, norm="ortho")


def _middle(mask: np.ndarray) -> tuple[slice, ...]:
    """The largest box around the zero frequency that is fully sampled, grown along every axis in turn."""
    reach = [0] * mask.ndim
    growing = set(range(mask.ndim))

    def box() -> tuple[slice, ...]:
        return tuple(
            slice(max(n // 2 - r, 0), min(n // 2 + r + 1, n)) for n, r in zip(mask.shape, reach, strict=True)
        )

    while growing:
        for axis in sorted(growing):
            reach[axis] += 1
            if reach[axis] > mask.shape[axis] // 2 or not mask[box()].all():
                reach[axis] -= 1
                growing.discard(axis)
    found = box()
    if not mask[found].all() or min(part.stop - part.start for part in found) < min(_SMALLEST, *mask.shape):
        raise InputError(
            f"expected the middle {_SMALLEST} or more lines of k-space along each axis to be measured, for the coils; got "
            f"{'×'.join(str(part.stop - part.start) for part in found)}. Give --sensitivities."
        )
    return found
