r"""Named numbers of a volume on which sets are compared: voxels, principal components, random filters, histograms.

A distance between sets of images means nothing without the name of its features. There is no trained 3-D feature
network that everyone agrees on, so each figure carries the full name of the map that made it, and no figure here is
comparable with an Inception distance of any paper. Every map takes one volume `(x, y, z)` at a time, so that a set of
full-size heads is streamed, never held.

References:
    K. Jarrett et al. (2009). What is the best multi-stage architecture for object recognition? ICCV (random filters
        are features).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from radiata_core.errors import InputError
from radiata_imaging.intensity import HistogramBins
from radiata_imaging.volume import times

__all__ = [
    "FeatureMap",
    "HistogramFeatures",
    "PCAFeatures",
    "PooledVoxels",
    "RandomConvFeatures",
    "Standardised",
    "extract",
]


@runtime_checkable
class FeatureMap(Protocol):
    """A name that says everything, and a function from a volume to a vector."""

    @property
    def name(self) -> str: ...

    def __call__(self, array: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class PooledVoxels:
    """The voxels themselves, averaged over cubes of the smallest edge that leaves at most `limit` of them."""

    shape: tuple[int, int, int]
    limit: int = 150_000
    factor: int = field(init=False)

    def __post_init__(self) -> None:
        factor = 1
        while np.prod([ceil(n / factor) for n in self.shape]) > self.limit:
            factor += 1
        object.__setattr__(self, "factor", factor)

    @property
    def name(self) -> str:
        return "voxels" if self.factor == 1 else f"voxels averaged over {self.factor}³"

    def volume(self, array: Float[np.ndarray, "x y z"]) -> np.ndarray:
        """The averaged volume, float32; a side that `factor` does not divide is padded with its edge."""
        if array.shape != self.shape:
            raise InputError(
                f"expected a volume of {self.shape}; got {array.shape}. Resample to one grid first."
            )
        k = self.factor
        if k == 1:
            return array.astype(np.float32, copy=False)
        array = np.pad(array, [(0, -n % k) for n in array.shape], mode="edge")
        a, b, c = (n // k for n in array.shape)
        return array.reshape(a, k, b, k, c, k).mean((1, 3, 5), dtype=np.float32)

    def __call__(self, array: Float[np.ndarray, "x y z"]) -> np.ndarray:
        return self.volume(array).ravel()


@dataclass(frozen=True)
class PCAFeatures:
    r"""Scores on the leading principal components of the training set, each with unit variance there.

    $z = \Lambda^{-1/2} V^T (x - \mu)$ with $\mu, V, \Lambda$ of `PooledVoxels` of the training volumes.
    """

    pooled: PooledVoxels
    mean: np.ndarray = field(repr=False)
    directions: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    fitted_on: int = 0

    @classmethod
    def fit(
        cls, rows: Float[np.ndarray, "n voxels"], pooled: PooledVoxels, components: int = 64
    ) -> "PCAFeatures":
        """Fit on pooled training voxels, one row a volume, through the n x n Gram matrix (n is far below the voxels).

        Raises:
            InputError: Fewer than three volumes.
        """
        if len(rows) < 3:
            raise InputError(
                f"expected three training volumes or more for principal components; got {len(rows)}"
            )
        mean = rows.mean(0)
        centred = rows - mean
        values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        keep = [
            i
            for i in np.argsort(-values)[: min(components, len(rows) - 1)]
            if values[i] > 1e-9 * values.max()
        ]
        root = np.sqrt(values[keep])
        directions = (centred.T @ (vectors[:, keep] / root).astype(np.float32)).T
        return cls(pooled, mean, directions, root / np.sqrt(len(rows) - 1), len(rows))

    @property
    def name(self) -> str:
        n = len(self.scale)
        return f"PCA-{n} of {self.pooled.name}, whitened, fitted on {self.fitted_on} training volumes"

    def project(self, rows: Float[np.ndarray, "n voxels"]) -> np.ndarray:
        """Scores of rows that are pooled already, `(n, components)` float64."""
        return ((rows - self.mean) @ self.directions.T).astype(np.float64) / self.scale

    def __call__(self, array: Float[np.ndarray, "x y z"]) -> np.ndarray:
        return self.project(self.pooled(array)[None])[0]


@dataclass(frozen=True)
class RandomConvFeatures:
    """Mean and spread of each channel of a frozen random convolutional network, and its last layer in octants.

    Three convolutions 3x3x3 with stride 2 and leaky ReLU, He-scaled normal weights from `seed`: sensitive to texture
    and local shape, free of any training set, the same on every machine.
    """

    seed: int = 0
    channels: tuple[int, ...] = (8, 16, 32)
    _weights: tuple[Tensor, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        sizes = (1, *self.channels)
        weights = tuple(
            torch.randn((out, into, 3, 3, 3), generator=generator) * (2.0 / (27 * into)) ** 0.5
            for into, out in pairwise(sizes)
        )
        object.__setattr__(self, "_weights", weights)

    @property
    def name(self) -> str:
        return f"random-conv-3d seed {self.seed}"

    @torch.no_grad()
    def __call__(self, array: Float[np.ndarray, "x y z"]) -> np.ndarray:
        least = 2 ** len(self.channels) + 1
        if min(array.shape) < least:
            raise InputError(
                f"expected volumes of {least} or more voxels an axis for the features of a network; got "
                f"{times(array.shape)}. Prepare heads on a finer grid."
            )
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None]
        values = []
        for weight in self._weights:
            padded = functional.pad(x, (1,) * 6, mode="replicate")
            x = functional.leaky_relu(functional.conv3d(padded, weight, stride=2), 0.2)
            values += [x.mean((2, 3, 4)).flatten(), x.flatten(2).std(-1).flatten()]
        values.append(functional.adaptive_avg_pool3d(x, 2).flatten())
        return torch.cat(values).double().numpy()


@dataclass(frozen=True)
class HistogramFeatures:
    """Square roots of the intensity histogram (Hellinger coordinates): blind to where a voxel stands."""

    bins: HistogramBins = field(default_factory=lambda: HistogramBins(number=64))

    @property
    def name(self) -> str:
        return f"intensity histogram, {self.bins.number} bins in [{self.bins.low:g}, {self.bins.high:g}]"

    def __call__(self, array: Float[np.ndarray, "x y z"]) -> np.ndarray:
        return np.sqrt(self.bins.fractions(array))


@dataclass(frozen=True)
class Standardised:
    """Centre and scale of each column, taken from the training set, so that no feature rules by its unit."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, rows: Float[np.ndarray, "n d"]) -> "Standardised":
        """Mean and sd; columns that never vary (below 1e-6 of the largest sd) keep the scale of the largest."""
        sd = rows.std(0)
        largest = sd.max() if sd.max() > 0 else 1.0
        return cls(rows.mean(0), np.where(sd > 1e-6 * largest, sd, largest))

    def __call__(self, rows: Float[np.ndarray, "n d"]) -> np.ndarray:
        return (rows - self.mean) / self.scale


def extract(volumes: Iterable[np.ndarray], maps: Sequence[FeatureMap]) -> list[np.ndarray]:
    """One matrix a feature map, `(volumes, features)`, reading each volume once and holding one at a time."""
    rows: list[list[np.ndarray]] = [[] for _ in maps]
    for array in volumes:
        for values, feature in zip(rows, maps, strict=True):
            values.append(feature(array))
    return [np.stack(values) for values in rows]
