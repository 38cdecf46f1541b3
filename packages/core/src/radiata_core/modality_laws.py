r"""What a head says of its modality: the laws p(x_i | z_t) of the multi-modal bound, and how values become numbers.

| law | value of a row | said | -log p, a place |
|---|---|---|---|
| `RealLaw` | field or vector | mean | $\tfrac12 (x - m)^2/s^2 + \log s\sqrt{2\pi}$ |
| `ClassLaw` | class indices | K logits | cross-entropy |
| `MaskLaw` | 0 and 1 | logits | binary cross-entropy, and the soft Dice loss if asked for |
| `CountLaw` | 0, 1, 2, … | log rates | $r - n\log r + \log n!$ (Poisson) |
| `DirectionLaw` | embedding, its length is no matter | direction | $-\kappa \cos(m, x)$ + constant (von Mises–Fisher) |

`surprise` is the mean over places (voxels, numbers) of -log p in nats, so that an image does not outvote a label by its
number of voxels; the sum over places is the bound proper. `numbers` is what an encoder sees, in about unit mean square:
classes as centred indicators, counts as square roots. `known` tells rows that have the modality: NaN, or a negative class,
says that it is missing.

References:
    Chen et al., 2024, https://arxiv.org/abs/2407.17571 (a log-likelihood a modality).
    Banerjee et al., "Clustering on the unit hypersphere using von Mises-Fisher distributions", 2005 (the cosine).
    Milletari et al., "V-Net", 2016, https://arxiv.org/abs/1606.04797 (the Dice term).
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.multitask_elbo import cross_entropy
from radiata_core.specs import buildable
from radiata_core.types import Row

__all__ = ["ClassLaw", "CountLaw", "DirectionLaw", "Law", "MaskLaw", "RealLaw"]


@runtime_checkable
class Law(Protocol):
    """The law of one modality given what its head says, (batch, outputs, *places)."""

    @property
    def channels(self) -> int:
        """Numbers a place that the encoder sees."""
        ...

    @property
    def outputs(self) -> int:
        """Numbers a place that the head says."""
        ...

    def numbers(self, value: Tensor) -> Tensor:
        """The value as (batch, channels, *places), about 1 in root mean square; zeros where not known."""
        ...

    def known(self, value: Tensor) -> Tensor:
        """Whether a row has the modality, bool, (batch,)."""
        ...

    def surprise(self, said: Tensor, value: Tensor) -> Row:
        """Mean over places of -log p(value | said), nats; anything finite for rows that are not known."""
        ...

    def guess(self, said: Tensor) -> Tensor:
        """The mean, or the likeliest class: a value."""
        ...


def _all_finite(value: Tensor) -> Tensor:
    return torch.isfinite(value).flatten(1).all(1)


def _clean(value: Tensor) -> Tensor:
    """In float32 or finer, zeros where not finite."""
    return torch.nan_to_num(value.to(torch.promote_types(value.dtype, torch.float32)), 0.0, 0.0, 0.0)


def _places(values: Tensor) -> Row:
    return values.flatten(1).mean(1)


@buildable("real-law")
@dataclass(frozen=True)
class RealLaw:
    """N(m, sd²) at every place: images, fields, embeddings, volumes.

    Attributes:
        channels: Of the field; for a vector (batch, K) it is K.
        mean: Of the data, in its units.
        rms: Standard deviation of the data about `mean`, > 0; values enter standardised.
        sd: Of the law, > 0, in units of the data.
    """

    channels: int = 1
    mean: float = 0.0
    rms: float = 1.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        if not (self.rms > 0 and self.sd > 0 and self.channels >= 1):
            raise InputError(
                f"expected channels >= 1, rms > 0 and sd > 0; got {self.channels}, {self.rms} and {self.sd}. "
                "Measure the spread on training data."
            )

    @property
    def outputs(self) -> int:
        return self.channels

    def numbers(self, value: Tensor) -> Tensor:
        known = self.known(value).reshape(-1, *[1] * (value.ndim - 1))
        return (_clean(value) - self.mean) / self.rms * known

    def known(self, value: Tensor) -> Tensor:
        return _all_finite(value)

    def surprise(self, said: Tensor, value: Tensor) -> Row:
        error = (_clean(value) - self.guess(said)) / self.sd
        return _places(0.5 * error.square() + math.log(self.sd * math.sqrt(2 * math.pi)))

    def guess(self, said: Tensor) -> Tensor:
        """mean + rms said: a head speaks in standardised numbers."""
        return self.mean + self.rms * said


@buildable("class-law")
@dataclass(frozen=True)
class ClassLaw:
    """One of K classes, of an image (batch,) or of every voxel (batch, *grid); negative where not known.

    Attributes:
        classes: K >= 2.
    """

    classes: int

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise InputError(f"expected at least 2 classes; got {self.classes}. Background is one of them.")

    @property
    def channels(self) -> int:
        return self.classes

    @property
    def outputs(self) -> int:
        return self.classes

    def numbers(self, value: Tensor) -> Tensor:
        """(onehot - 1/K) K / sqrt(K - 1), whose mean square is 1; zeros where not known.

        Raises:
            InputError: a class of K or more.
        """
        index = value.round().long() if value.is_floating_point() else value.long()
        if index.numel() and int(index.max()) >= self.classes:
            raise InputError(
                f"expected classes 0 … {self.classes - 1}; got {int(index.max())}. Give ClassLaw more classes."
            )
        onehot = F.one_hot(index.clamp_min(0), self.classes).movedim(-1, 1).to(torch.float32)
        centred = (onehot - 1 / self.classes) * self.classes / math.sqrt(self.classes - 1)
        return centred * (index >= 0).unsqueeze(1)

    def known(self, value: Tensor) -> Tensor:
        return (value >= 0).reshape(len(value), -1).any(1)

    def surprise(self, said: Tensor, value: Tensor) -> Row:
        """Over the voxels that are known."""
        logits = said.to(torch.promote_types(said.dtype, torch.float32)).log_softmax(1)
        index = torch.nan_to_num(value.double(), -1.0).reshape(len(value), -1)
        return cross_entropy(logits.flatten(2) if logits.ndim > 2 else logits[:, :, None], index)

    def guess(self, said: Tensor) -> Tensor:
        """The likeliest class, (batch, *grid)."""
        return said.argmax(1)


@buildable("mask-law")
@dataclass(frozen=True)
class MaskLaw:
    """Bernoulli at every voxel, (batch, channels, *grid) of 0 and 1.

    Attributes:
        channels: Masks, which may overlap.
        dice: Weight of the soft Dice loss, >= 0. Its minimiser is not the posterior: 0 for probabilities to believe.
    """

    channels: int = 1
    dice: float = 0.0

    def __post_init__(self) -> None:
        if self.channels < 1 or self.dice < 0:
            raise InputError(
                f"expected channels >= 1 and dice >= 0; got {self.channels} and {self.dice}. 1 and 0 are usual."
            )

    @property
    def outputs(self) -> int:
        return self.channels

    def numbers(self, value: Tensor) -> Tensor:
        known = self.known(value).reshape(-1, *[1] * (value.ndim - 1))
        return (2 * _clean(value) - 1) * known

    def known(self, value: Tensor) -> Tensor:
        return _all_finite(value)

    def surprise(self, said: Tensor, value: Tensor) -> Row:
        truth = _clean(value)
        said = said.to(truth)
        found = _places(F.binary_cross_entropy_with_logits(said, truth, reduction="none"))
        if not self.dice:
            return found
        p, y = said.sigmoid().flatten(2), truth.flatten(2)
        overlap = (2 * (p * y).sum(2) + 1e-6) / (p.sum(2) + y.sum(2) + 1e-6)
        return found + self.dice * (1 - overlap).mean(1)

    def guess(self, said: Tensor) -> Tensor:
        """1 where p > 1/2."""
        return (said > 0).to(said)


@buildable("count-law")
@dataclass(frozen=True)
class CountLaw:
    """Poisson counts, the rate said as its logarithm: spikes, photons, lesions.

    Attributes:
        channels: Counts a place.
        rate: A typical count, > 0, which the square roots are standardised by.
    """

    channels: int = 1
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.channels < 1 or not 0 < self.rate < math.inf:
            raise InputError(
                f"expected channels >= 1 and rate > 0; got {self.channels} and {self.rate}. Use the mean count."
            )

    @property
    def outputs(self) -> int:
        return self.channels

    def numbers(self, value: Tensor) -> Tensor:
        """2 (sqrt(n) - sqrt(rate)): Anscombe's variance of about 1."""
        known = self.known(value).reshape(-1, *[1] * (value.ndim - 1))
        return 2 * (_clean(value).clamp_min(0).sqrt() - math.sqrt(self.rate)) * known

    def known(self, value: Tensor) -> Tensor:
        return _all_finite(value)

    def surprise(self, said: Tensor, value: Tensor) -> Row:
        count = _clean(value)
        log_rate = said.to(count) + math.log(self.rate)
        return _places(log_rate.exp() - count * log_rate + torch.lgamma(count + 1))

    def guess(self, said: Tensor) -> Tensor:
        """The rate: exp(said) times `rate`."""
        return self.rate * said.exp()


@buildable("direction-law")
@dataclass(frozen=True)
class DirectionLaw:
    """Von Mises–Fisher on the sphere: an embedding whose direction alone matters, as CLIP's.

    Attributes:
        channels: Length of the embedding, >= 2.
        concentration: kappa > 0.
    """

    channels: int
    concentration: float = 1.0

    def __post_init__(self) -> None:
        if self.channels < 2 or not 0 < self.concentration < math.inf:
            raise InputError(
                f"expected at least 2 channels and concentration > 0; got {self.channels} and {self.concentration}."
                " For one number use RealLaw."
            )

    @property
    def outputs(self) -> int:
        return self.channels

    def numbers(self, value: Tensor) -> Tensor:
        """sqrt(channels) times the unit vector."""
        return math.sqrt(self.channels) * F.normalize(_clean(value), dim=1)

    def known(self, value: Tensor) -> Tensor:
        return _all_finite(value)

    def surprise(self, said: Tensor, value: Tensor) -> Row:
        """-kappa cos, without the normalising constant, which does not depend on what is said."""
        truth = _clean(value)
        return -self.concentration * _places(F.cosine_similarity(said.to(truth), truth, dim=1)[:, None])

    def guess(self, said: Tensor) -> Tensor:
        """The unit vector."""
        return F.normalize(said, dim=1)
