r"""What a generated or translated image is to have: log-probabilities of clean images that steer a prior.

A guide is a function of clean images, `(batch, 1, *grid) -> (batch,)`, in nats, differentiable; the larger the better.
Every one is made of a *segmenter*, any function from images to logits of classes, or of the image alone:

| guide | log p |
|---|---|
| `TissueMapGuide` | sum over voxels of log p(wanted class) |
| `VolumeGuide` | -(V - wanted)^2 / (2 sd^2), V = sum of p(class) times the voxel's volume, in ml |
| `EdgeMapGuide` | -sum (\|grad x\| - wanted)^2 / (2 sd^2) |
| `Guides` | a weighted sum |

`SkippedGradient(denoiser, guide, spread)` of the core makes a prior with any of them a guided prior, which every sampler
takes; its answer is D + r^2 grad guide(D). A guide that has to be right at high noise too is trained as `NoiseExperts`.

A sum over voxels is the log-probability of independent voxels, which they are not: `tempering` divides it by the number of
voxels that say the same thing.

References:
    Go et al. 2023, https://arxiv.org/abs/2212.05973 (guides that are plugged in).
    Patel et al. 2024, https://arxiv.org/abs/2412.00100 (the gradient of the network skipped).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.noise_experts import log_probability_of
from radiata_core.types import Batch, Row

__all__ = [
    "EdgeMapGuide",
    "Guide",
    "Guides",
    "IntensityClassifier",
    "TissueMapGuide",
    "VolumeGuide",
    "gradient_magnitude",
]

Guide = Callable[[Tensor], Tensor]
Segmenter = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class IntensityClassifier:
    """A segmenter in closed form: classes with a mean and one spread, logits -(x - m_k)^2 / (2 sd^2) + log prior_k.

    Attributes:
        means: Of each class, (classes,), in units of the prior.
        sd: Spread within a class, > 0, in the same units.
        shares: Prior probability of each class, (classes,), > 0; None for all alike.
    """

    means: Tensor
    sd: float
    shares: Tensor | None = None

    def __call__(self, x0: Batch) -> Tensor:
        """Logits (batch, classes, *grid) of images (batch, 1, *grid)."""
        shape = (1, -1, *[1] * (x0.ndim - 2))
        logits = -(x0 - self.means.to(x0).reshape(shape)).square() / (2 * self.sd**2)
        return logits if self.shares is None else logits + self.shares.to(x0).log().reshape(shape)


@dataclass(frozen=True, eq=False)
class TissueMapGuide:
    """Keep this map of classes.

    Attributes:
        segmenter: Images to logits.
        target: Class of every voxel, int64 (batch or 1, *grid); negative where anything will do.
        tempering: Voxels that count as one, >= 1.
    """

    segmenter: Segmenter
    target: Tensor
    tempering: float = 1.0

    def __call__(self, x0: Batch) -> Row:
        return log_probability_of(self.segmenter(x0), self.target) / self.tempering


@dataclass(frozen=True, eq=False)
class VolumeGuide:
    """Make the volume of some classes so many ml.

    Attributes:
        segmenter: Images to logits.
        channels: Classes that count, such as the ventricles'.
        millilitres: Volume wanted within the image, >= 0: of a slice, its area times its thickness.
        voxel_ml: Volume of a voxel in ml, > 0.
        sd: How exactly, in ml, > 0.

    Raises:
        InputError: no class, or a number out of range.
    """

    segmenter: Segmenter
    channels: Sequence[int]
    millilitres: float
    voxel_ml: float
    sd: float = 1.0

    def __post_init__(self) -> None:
        numbers = (self.millilitres, self.voxel_ml, self.sd)
        if (
            not self.channels
            or not all(map(math.isfinite, numbers))
            or min(numbers[1:]) <= 0
            or numbers[0] < 0
        ):
            raise InputError(
                f"expected classes, a volume >= 0 ml, a voxel and an sd > 0 ml; got {tuple(self.channels)} and {numbers}."
            )

    def volume(self, x0: Batch) -> Row:
        """Millilitres of the classes in each image, by their probabilities."""
        p = self.segmenter(x0).softmax(1)[:, list(self.channels)]
        return p.flatten(1).sum(1) * self.voxel_ml

    def __call__(self, x0: Batch) -> Row:
        return -((self.volume(x0) - self.millilitres) / self.sd).square() / 2


@dataclass(frozen=True, eq=False)
class EdgeMapGuide:
    """Keep these edges, wherever they are bright or dark.

    Attributes:
        target: Magnitude of the gradient wanted, (batch or 1, 1, *grid), units of the prior a voxel (`gradient_magnitude`).
        sd: How exactly, in the same units, > 0.
        tempering: Voxels that count as one, >= 1.
    """

    target: Tensor
    sd: float = 0.05
    tempering: float = 1.0

    def __call__(self, x0: Batch) -> Row:
        error = (gradient_magnitude(x0) - self.target.to(x0)) / self.sd
        return -error.square().flatten(1).sum(1) / (2 * self.tempering)


@dataclass(frozen=True, eq=False)
class Guides:
    """A weighted sum of guides.

    Attributes:
        parts: Guides.
        weights: One each; None for all 1.
    """

    parts: Sequence[Guide]
    weights: Sequence[float] | None = None

    def __call__(self, x0: Batch) -> Row:
        weights = self.weights or [1.0] * len(self.parts)
        return torch.stack([w * part(x0) for w, part in zip(weights, self.parts, strict=True)]).sum(0)


def gradient_magnitude(image: Batch, softness: float = 1e-3) -> Batch:
    """sqrt(|grad x|^2 + softness^2) by central differences, one-sided at the border, units of the image a voxel.

    Args:
        image: (batch, channel, *grid).
        softness: Keeps it differentiable in flat regions.
    """
    axes = [axis for axis in range(2, image.ndim) if image.shape[axis] > 1]
    squares = [torch.gradient(image, dim=axis)[0].square() for axis in axes]
    return (torch.stack(squares).sum(0) + softness**2).sqrt()
