r"""T1-like intensities of a label map, and what a scanner does to them.

Each tissue class c has a mean mu_c and a texture sd s_c; a rendering draws mu_c once and then every (super-sampled) voxel
from N(mu_c, s_c^2). Averaging to the output grid gives partial volumes; a smooth positive bias field multiplies; Rician
noise is the modulus of a complex signal with independent Gaussian errors,

    m = sqrt((b s + n_1)^2 + n_2^2),    n_i ~ N(0, sigma^2).

The class table is the T1 prior published with SynthSeg (arbitrary units, white matter near 160) with the grey levels
recalibrated: rendered as published, cortex / white matter is near 0.60, while two real MPRAGE heads measured 0.78.

References:
    Billot et al., "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution", Med. Image Anal. 2023.
    Gudbjartsson & Patz, "The Rician distribution of noisy MRI data", MRM 1995, eq. 1.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import idctn

__all__ = ["T1_CLASSES", "TissueClass", "bias_field", "intensities_of", "point_spread", "rician"]

_PIECE = 2**15
"""Voxels worked on together, few enough for the processor's cache; the draws are those of one call."""


@dataclass(frozen=True)
class TissueClass:
    """One class of the rendering.

    Attributes:
        labels: FreeSurfer / SynthSeg codes that belong to the class.
        mean: Mean intensity, arbitrary units.
        spread: Sd of the class mean between renderings, same units.
        texture: Sd within one rendering, same units.
    """

    labels: tuple[int, ...]
    mean: float
    spread: float
    texture: float


T1_CLASSES: dict[str, TissueClass] = {
    "background": TissueClass((0,), 5.0, 1.0, 2.0),
    "cerebrospinal fluid": TissueClass((4, 5, 14, 15, 24, 43, 44, 72), 44.0, 4.0, 8.0),
    "cerebral white matter": TissueClass((2, 41, 85), 160.0, 4.0, 8.0),
    "cerebral cortex": TissueClass((3, 42, 17, 18, 53, 54, 25, 57), 121.0, 4.0, 8.0),
    "cerebellar white matter": TissueClass((7, 46), 150.0, 4.0, 8.0),
    "cerebellar cortex": TissueClass((8, 47), 112.0, 4.0, 9.0),
    "thalamus": TissueClass((10, 49), 138.0, 4.0, 8.0),
    "caudate and putamen": TissueClass((11, 12, 26, 50, 51, 58), 127.0, 4.0, 7.0),
    "pallidum": TissueClass((13, 52), 150.0, 4.0, 6.0),
    "brain stem": TissueClass((16, 28, 60), 148.0, 4.0, 8.0),
    "vessels and plexus": TissueClass((30, 31, 62, 63, 136, 137, 163, 164), 110.0, 8.0, 15.0),
    "eye, lens and nerve": TissueClass((502, 508, 530), 95.0, 8.0, 16.0),
    "vitreous": TissueClass((506,), 30.0, 4.0, 8.0),
    "soft tissue": TissueClass((507,), 94.0, 8.0, 14.0),
    "eye muscle": TissueClass((509,), 80.0, 8.0, 18.0),
    "fat and skin": TissueClass((511,), 165.0, 12.0, 22.0),
    "air cavity wall": TissueClass((512,), 68.0, 8.0, 18.0),
    "dura and sinus": TissueClass((514,), 48.0, 6.0, 12.0),
    "compact bone": TissueClass((515,), 28.0, 4.0, 10.0),
    "marrow": TissueClass((516,), 110.0, 10.0, 22.0),
}


def intensities_of(
    labels: np.ndarray, rng: np.random.Generator, classes: dict[str, TissueClass] = T1_CLASSES
) -> np.ndarray:
    """One T1-like drawing of `labels`, float32, same shape, arbitrary units >= 0. Unlisted codes take soft tissue's law."""
    size = max(int(labels.max()) + 1, 1 + max(max(c.labels) for c in classes.values()))
    fallback = classes.get("soft tissue", next(iter(classes.values())))
    mean = np.full(size, fallback.mean, np.float32)
    texture = np.full(size, fallback.texture, np.float32)
    for tissue in classes.values():
        drawn = tissue.mean + tissue.spread * rng.standard_normal()
        codes = [code for code in tissue.labels if code < size]
        mean[codes], texture[codes] = drawn, tissue.texture
    flat, out = labels.ravel(), np.empty(labels.size, np.float32)
    for first in range(0, len(flat), _PIECE):
        part, piece = flat[first : first + _PIECE], out[first : first + _PIECE]
        rng.standard_normal(out=piece, dtype=np.float32)
        piece *= texture[part]
        piece += mean[part]
        np.maximum(piece, 0.0, out=piece)
    return out.reshape(labels.shape)


def point_spread(image: np.ndarray, sd: float) -> np.ndarray:
    """The image `(x, y, z)` blurred in place by a discrete Gaussian; air beyond its edges is zero.

    Along each axis as many steps of (w, 1 - 2 w, w) as keep w at 0.2 or so; each has variance 2 w, and all sd^2 exactly.

    Args:
        image: float32 or float64.
        sd: In voxels, >= 0.
    """
    steps = max(1, round(sd**2 / 0.4))
    w = sd**2 / (2 * steps)
    for _ in range(steps):
        before: np.ndarray | float = 0.0
        for row, plane in enumerate(image):  # a plane and its neighbours stay in the processor's cache
            for lines in (plane, plane.T):
                share = w * lines
                lines *= 1 - 2 * w
                lines[1:] += share[:-1]
                lines[:-1] += share[1:]
            share = w * plane
            plane *= 1 - 2 * w
            plane += before
            if row:
                image[row - 1] += share
            before = share
    return image


def bias_field(
    shape: tuple[int, ...], rng: np.random.Generator, *, strength: float, order: int = 3
) -> np.ndarray:
    """A smooth positive field with mean log 0: exp of a random low-order cosine series, float32.

    Args:
        shape: Output shape.
        rng: Source of the coefficients.
        strength: Sd of the log field over space, e.g. 0.1 for a 10 % inhomogeneity.
        order: Cosines per axis (the constant term is left out).
    """
    spectrum = np.zeros(shape, np.float32)
    kept = tuple(slice(0, order) for _ in shape)
    coefficients = rng.standard_normal((order,) * len(shape)).astype(np.float32)
    coefficients.flat[0] = 0.0
    spectrum[kept] = coefficients
    log_field = idctn(spectrum, norm="ortho", overwrite_x=True)
    log_field *= strength / max(float(log_field.std()), 1e-12)
    return np.exp(log_field, out=log_field)


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of `signal` + complex Gaussian noise of sd `sigma` (same units) a channel, float32."""
    real, imaginary = (rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2))
    real *= sigma
    real += signal
    imaginary *= sigma
    return np.hypot(real, imaginary, out=real)
