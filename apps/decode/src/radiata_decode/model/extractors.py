r"""Features in which decoded and true pictures are compared, each behind one call: pictures in, (n, feature) out.

    pixels         the values themselves on a small grid
    pca            coordinates in the principal components of training pictures
    gabor          energies of edges, $\sqrt{e^2 + o^2}$ of quadrature pairs, 3 wavelengths × 4 orientations × 8² places
    efficientnet   last layer of EfficientNet-Lite0: objects, offline (`efficientnet_lite`)
    alexnet, clip, dino, swav, inception   where the user has their files (`extractor_networks`)

Low-level features (pixels, gabor) ask whether the picture has the right light in the right place, high-level ones whether
it shows the right thing. A decoder that only names a category does well in one and not in the other: report both.

References:
    J. Daugman (1985). Uncertainty relation for resolution in space, spatial frequency, and orientation. JOSA A 2(7).
    K. Kay et al. (2008). Identifying natural images from human brain activity. Nature 452 (Gabor energies as features).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.efficientnet_lite import EfficientNetLite0, efficientnet_lite0
from radiata_decode.model.image_scores import resized

__all__ = [
    "EfficientNetFeatures",
    "FeatureExtractor",
    "GaborFeatures",
    "PcaFeatures",
    "PixelFeatures",
    "extracted",
]

BATCH = 32
LUMINANCE = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709


@runtime_checkable
class FeatureExtractor(Protocol):
    """A name for the table and a function from pictures (n, 3, y, x) in [0, 1] to features (n, feature) float32."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: Tensor) -> np.ndarray: ...


def extracted(extractor: FeatureExtractor, images: Tensor, batch: int = BATCH) -> np.ndarray:
    """Features of all pictures, a batch at a time, (n, feature) float32.

    Raises:
        InputError: no pictures, or features that are not one row a picture.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise InputError(f"expected pictures (n, 3, y, x) in [0, 1]; got {tuple(images.shape)}.")
    with torch.no_grad():
        rows = [extractor(images[start : start + batch].float()) for start in range(0, len(images), batch)]
    found = np.concatenate(rows).astype(np.float32)
    if found.shape[0] != len(images) or found.ndim != 2:
        raise InputError(f"expected one row of features a picture from {extractor.name}; got {found.shape}.")
    return found


@dataclass(frozen=True)
class PixelFeatures:
    """RGB values on a grid of `side` × `side`.

    Attributes:
        side: Of the grid, pixels; pictures are resized to it.
    """

    side: int = 32

    @property
    def name(self) -> str:
        return "pixels"

    def __call__(self, images: Tensor) -> np.ndarray:
        return resized(images, (self.side, self.side)).flatten(1).cpu().numpy()


@dataclass(frozen=True)
class PcaFeatures:
    """Coordinates of pictures in the principal components of others.

    Attributes:
        mean: (feature,), of the pictures it was fitted on.
        components: (component, feature), orthonormal rows.
        side: Of the grid the pictures are resized to.
    """

    mean: np.ndarray
    components: np.ndarray
    side: int

    @property
    def name(self) -> str:
        return "pca"

    def __call__(self, images: Tensor) -> np.ndarray:
        flat = resized(images, (self.side, self.side)).flatten(1).cpu().numpy()
        return (flat - self.mean) @ self.components.T

    @classmethod
    def fit(cls, training: Tensor, components: int = 100, side: int = 32) -> "PcaFeatures":
        """Fitted on training pictures, (n, 3, y, x).

        Raises:
            InputError: fewer pictures than components.
        """
        flat = resized(training, (side, side)).flatten(1).double().cpu().numpy()
        if not 1 <= components <= min(len(flat) - 1, flat.shape[1]):
            raise InputError(
                f"expected 1 to {min(len(flat) - 1, flat.shape[1])} components of {len(flat)} pictures; got {components}."
            )
        mean = flat.mean(0)
        _, _, rows = np.linalg.svd(flat - mean, full_matrices=False)
        return cls(mean.astype(np.float32), rows[:components].astype(np.float32), side)


@dataclass(frozen=True)
class GaborFeatures:
    """Local edge energies of the luminance.

    Attributes:
        side: Grid that the pictures are resized to, pixels.
        wavelengths: Of the filters, pixels of that grid; each has a Gaussian envelope of half its wavelength (sd).
        orientations: Evenly spaced from 0 to below 180 degrees.
        places: Energies are averaged over a grid of places × places.
    """

    side: int = 64
    wavelengths: tuple[float, ...] = (4.0, 8.0, 16.0)
    orientations: int = 4
    places: int = 8

    @property
    def name(self) -> str:
        return "gabor"

    def __call__(self, images: Tensor) -> np.ndarray:
        weights = torch.tensor(LUMINANCE, dtype=images.dtype, device=images.device)
        grey = torch.einsum("nchw,c->nhw", resized(images, (self.side, self.side)), weights)[:, None]
        found = []
        for wavelength in self.wavelengths:
            even, odd = (bank.to(grey) for bank in gabor_bank(wavelength, self.orientations))
            reach = even.shape[-1] // 2
            padded = torch.nn.functional.pad(grey, (reach,) * 4, mode="replicate")
            energy = (
                torch.nn.functional.conv2d(padded, even) ** 2 + torch.nn.functional.conv2d(padded, odd) ** 2
            )
            found.append(torch.nn.functional.adaptive_avg_pool2d(energy.sqrt(), self.places).flatten(1))
        return torch.cat(found, 1).cpu().numpy()


def gabor_bank(wavelength: float, orientations: int) -> tuple[Tensor, Tensor]:
    """Even and odd filters, (orientation, 1, y, x) each, without response to a constant.

    Args:
        wavelength: Pixels, > 0.
        orientations: How many, of the gratings' normal, counted from the x axis.
    """
    sd = wavelength / 2
    reach = math.ceil(3 * sd)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * sd**2))
    even, odd = [], []
    for number in range(orientations):
        angle = math.pi * number / orientations
        phase = 2 * math.pi / wavelength * (x * math.cos(angle) + y * math.sin(angle))
        cosine = envelope * torch.cos(phase)
        even.append(cosine - envelope * cosine.sum() / envelope.sum())
        odd.append(envelope * torch.sin(phase))
    scale = float(envelope.sum())
    return torch.stack(even)[:, None] / scale, torch.stack(odd)[:, None] / scale


@dataclass(frozen=True)
class EfficientNetFeatures:
    """Average-pooled last layer of EfficientNet-Lite0, 1280 features of what a picture shows.

    Attributes:
        network: With its weights.
        side: Of the network's input, pixels.
    """

    network: EfficientNetLite0
    side: int = 224

    @property
    def name(self) -> str:
        return "efficientnet-lite0"

    def __call__(self, images: Tensor) -> np.ndarray:
        device = next(self.network.parameters()).device
        with torch.no_grad():
            return self.network.features(resized(images.to(device), (self.side, self.side))).cpu().numpy()

    @classmethod
    def from_package(cls, path: Path | None = None) -> "EfficientNetFeatures":
        """With the weights of the optional package; see `efficientnet_lite.efficientnet_lite0`."""
        return cls(efficientnet_lite0(path))
