r"""How close is a decoded picture to the one that was seen? Pixel correlation and SSIM, as published and as they should be.

    PixCorr   Pearson's correlation of all RGB values of the two pictures
    ssim      structural similarity of the grey pictures, in two dimensions, 11-tap Gaussian windows of 1.5 pixels
    ssim_legacy   the mean over *columns* of one-dimensional SSIM

The last is what one and the same line of code computed in the years of the older papers: scikit-image took the last axis
of a grey picture for its channels. On the same pair it is higher, by .1 and more; both are always reported, by name.

A preset is the sizes at which a paper measured (in a high-resolution copy smooth pictures resemble one another more):

    brain-diffuser   the decoded picture to the size of the truth files, 425 pixels, bicubic
    mindeye          both to 256 pixels, then to 425, bilinear
    radiata          at the size of the truth, whatever it is; a decoded picture of another size is resized to it

A picture of one colour correlates with nothing: NaN, which tables count and leave out. SSIM alone proves nothing either:
a blurred mean of all pictures has a high one. Controls belong beside every number here (`controls`).

References:
    Z. Wang et al. (2004). Image quality assessment: from error visibility to structural similarity. IEEE TIP 13(4), eq. 13.
    F. Ozcelik, R. VanRullen (2023). Natural scene reconstruction from fMRI signals using generative latent diffusion
    (Brain-Diffuser). https://arxiv.org/abs/2303.05334, quantitative results.
    P. Scotti et al. (2024). MindEye2. https://arxiv.org/abs/2403.11207 (the second preset, from its code).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = [
    "PRESETS",
    "ImageScores",
    "MetricPreset",
    "check_pairs",
    "image_scores",
    "pixcorr",
    "resized",
    "ssim",
]

SD = 1.5  # pixels, of the Gaussian windows
WINDOW = 11  # pixels: 3.5 standard deviations to each side
BLOCK = 16  # pictures at a time: 425 × 425 × 3 floats are 2 MB


@dataclass(frozen=True)
class MetricPreset:
    """Sizes at which a paper measured.

    Attributes:
        name: Of the preset.
        size: Side of both pictures when they are compared, pixels; None: that of the truth.
        first: Side that both get before, pixels; None: no such step.
        interpolation: bicubic or bilinear.
        inputs: Network → side of its input in that paper, pixels (`extractors`).
    """

    name: str
    size: int | None
    first: int | None
    interpolation: str
    inputs: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def pairs(self, truth: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Both pictures at the size of comparison, (n, 3, y, x) in [0, 1]."""
        first = self.first and (self.first, self.first)
        if first:
            truth, predicted = (resized(images, first, self.interpolation) for images in (truth, predicted))
        size = (self.size, self.size) if self.size else (truth.shape[2], truth.shape[3])
        return resized(truth, size, self.interpolation), resized(predicted, size, self.interpolation)


_BRAIN_DIFFUSER = {"alexnet": 224, "inception": 224, "clip": 224, "efficientnet": 224, "swav": 224}
_MINDEYE = {"alexnet": 256, "inception": 342, "clip": 224, "efficientnet": 255, "swav": 224}
PRESETS: Mapping[str, MetricPreset] = {
    "brain-diffuser": MetricPreset("brain-diffuser", 425, None, "bicubic", MappingProxyType(_BRAIN_DIFFUSER)),
    "mindeye": MetricPreset("mindeye", 425, 256, "bilinear", MappingProxyType(_MINDEYE)),
    "radiata": MetricPreset("radiata", None, None, "bicubic"),
}


@dataclass(frozen=True)
class ImageScores:
    """One value a picture.

    Attributes:
        pixcorr: (n,), -1 to 1; NaN where a picture has one value only.
        ssim: (n,), two-dimensional.
        ssim_legacy: (n,), mean over columns.
    """

    pixcorr: np.ndarray
    ssim: np.ndarray
    ssim_legacy: np.ndarray


def resized(images: Tensor, size: tuple[int, int], interpolation: str = "bicubic") -> Tensor:
    """Pictures of another size, antialiased where they shrink, clipped to [0, 1]; the same ones if it is theirs.

    Args:
        images: (n, 3, y, x).
        size: (y, x), pixels.
        interpolation: bicubic or bilinear.
    """
    if tuple(images.shape[2:]) == tuple(size) or not len(images):
        return images
    made = torch.nn.functional.interpolate(
        images, size, mode=interpolation, align_corners=False, antialias=True
    )
    return made.clamp(0, 1)


def check_pairs(truth: Tensor, predicted: Tensor) -> None:
    """Nothing, if both are pictures, as many of each.

    Raises:
        InputError: another shape or number, values outside [0, 1], none at all.
    """
    for name, images in (("true", truth), ("decoded", predicted)):
        if images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise InputError(f"expected {name} pictures (n, 3, y, x); got {tuple(images.shape)}.")
        if not bool(torch.isfinite(images).all()) or images.min() < -1e-4 or images.max() > 1 + 1e-4:
            raise InputError(
                f"expected {name} pictures in [0, 1]; got {float(images.min()):g} to {float(images.max()):g}. "
                "Divide by 255, or clip."
            )
    if len(truth) != len(predicted):
        raise InputError(
            f"expected as many decoded pictures as true ones; got {len(predicted)} and {len(truth)}."
        )


def image_scores(truth: Tensor, predicted: Tensor, preset: MetricPreset = PRESETS["radiata"]) -> ImageScores:
    """PixCorr and both kinds of SSIM of each pair.

    Args:
        truth: (n, 3, y, x) in [0, 1].
        predicted: (n, 3, y, x) in [0, 1], of any size.
        preset: Sizes of the comparison.

    Raises:
        InputError: see `check_pairs`; pictures below 11 pixels.
    """
    check_pairs(truth, predicted)
    columns: list[tuple[np.ndarray, ...]] = []
    for a, b in _blocks(truth, predicted, preset):
        columns.append((pixcorr(a, b), ssim(a, b), ssim(a, b, legacy=True)))
    return ImageScores(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def pixcorr(truth: Tensor, predicted: Tensor) -> np.ndarray:
    """Pearson's correlation over all values of each pair, (n,); NaN for a picture of one value.

    Args:
        truth: (n, ...).
        predicted: Of the same shape.
    """
    a, b = (images.double().flatten(1) for images in (truth, predicted))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms = a.norm(dim=1) * b.norm(dim=1)
    flat = (a.abs().amax(1) < 1e-6) | (b.abs().amax(1) < 1e-6)
    return torch.where(flat, torch.nan, (a * b).sum(1) / norms).numpy()


def ssim(truth: Tensor, predicted: Tensor, *, legacy: bool = False) -> np.ndarray:
    """Structural similarity of the grey pictures, (n,).

    Args:
        truth: (n, 3, y, x) in [0, 1].
        predicted: The same.
        legacy: Mean over columns of one-dimensional SSIM.

    Raises:
        InputError: pictures below 11 pixels.
    """
    from skimage.metrics import structural_similarity

    if min(truth.shape[2:]) < WINDOW:
        raise InputError(
            f"expected pictures of at least {WINDOW} pixels for SSIM; got {tuple(truth.shape[2:])}."
        )
    pairs = zip(_grey(truth), _grey(predicted), strict=True)
    if legacy:
        return np.array([_column_ssim(a, b) for a, b in pairs], dtype=np.float64)
    options = {"gaussian_weights": True, "sigma": SD, "use_sample_covariance": False, "data_range": 1.0}
    return np.array([structural_similarity(a, b, **options) for a, b in pairs], dtype=np.float64)


def _column_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """`structural_similarity(a, b, channel_axis=-1, ...)` of grey pictures, all columns at once: an eighth of the time."""
    from scipy.ndimage import gaussian_filter1d

    def local(values: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(values, SD, axis=0, truncate=3.5)

    x, y = local(a), local(b)
    spread = local(a * a) - x * x + local(b * b) - y * y
    common = local(a * b) - x * y
    c1, c2 = 0.01**2, 0.03**2  # (K L)² with the paper's K and L = 1
    ssim_map = (2 * x * y + c1) * (2 * common + c2) / ((x * x + y * y + c1) * (spread + c2))
    edge = WINDOW // 2  # windows that reach beyond the picture do not count
    return float(ssim_map[edge:-edge].mean())


def _grey(images: Tensor) -> np.ndarray:
    """Luminance with the weights of scikit-image's rgb2gray (ITU-R BT.709)."""
    weights = torch.tensor([0.2125, 0.7154, 0.0721], dtype=torch.float64)
    return torch.einsum("nchw,c->nhw", images.double().cpu(), weights).numpy()


def _blocks(truth: Tensor, predicted: Tensor, preset: MetricPreset) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(truth), BLOCK):
        here = slice(start, start + BLOCK)
        yield preset.pairs(truth[here].float().cpu(), predicted[here].float().cpu())
