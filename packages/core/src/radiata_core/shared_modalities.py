r"""One modality of an aggregated diffusion: the encoder that brings it into the latent, the head that reads it back.

    numbers = law.numbers(value)            what the value is, standardised             (`modality_laws`)
    E(x)    = encoder(numbers, grid)        its part of the latent, (batch, latent, *grid)
    said    = head(latent, features, size)  from the latent's posterior mean and the backbone's further channels

Encoders here are isometries: $E = \sqrt{\text{latent}/\text{channels}}\; Q\,n$ with orthonormal columns Q, so that unit mean
square in is unit mean square out and nothing is lost (with fewer latent channels than numbers, Q has orthonormal rows, and
the map is injective on classes only). `FieldEncoder` acts at every voxel; `VectorEncoder` paints what has no grid (a class,
volumes, an embedding) as a pattern of a few cells over the whole grid. With `learned=True` Q is trained and stays
orthonormal.

That is more than taste. A latent that is learned together with its diffusion *shrinks*: the noise term falls when E(X) does.
Holding its variance at 1 (`BatchNorm(affine=False)` behind a free encoder does) stops that, and then the noise term wants it
*constant along* all channels but one, since one number seen through many noisy channels is the easiest to denoise. Heads
work against both; an isometry forbids both. Encoders whose ranges are orthogonal make aggregation the same as concatenation
of channels, up to a rotation.

References:
    Chen et al., 2024, https://arxiv.org/abs/2407.17571 (an encoder and a decoder a modality; these here are ours).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.modality_laws import Law
from radiata_core.seeds import generator_of, seed_of
from radiata_core.specs import buildable

__all__ = ["FieldEncoder", "FieldHead", "PooledHead", "SharedModality", "VectorEncoder", "modalities_of"]

_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


class _Isometry(nn.Module):
    """(outputs, inputs) with orthonormal columns (rows, if there are fewer), times the factor that keeps the mean square."""

    source: Tensor

    def __init__(self, inputs: int, outputs: int, learned: bool, seed: int) -> None:
        super().__init__()
        self.wide = inputs > outputs
        shape = (inputs, outputs) if self.wide else (outputs, inputs)
        drawn = torch.randn(shape, generator=generator_of(seed, inputs, outputs), dtype=torch.float64)
        start = torch.linalg.qr(drawn)[0].float()
        if learned:
            self.source = nn.Parameter(start)
        else:
            self.register_buffer("source", start)
        self.factor = max(outputs / inputs, 1.0) ** 0.5

    def matrix(self) -> Tensor:
        """The factor included, (outputs, inputs)."""
        columns = self.source
        if isinstance(self.source, nn.Parameter):
            q, r = torch.linalg.qr(self.source)
            columns = q * r.diagonal().sign()  # the one factorisation that is continuous
        return self.factor * (columns.T if self.wide else columns)


@buildable("field-encoder")
class FieldEncoder(nn.Module):
    """(batch, channels, *grid) -> (batch, latent, *grid), the same isometry at every voxel.

    Args:
        channels: Numbers a voxel.
        latent: Channels of the latent.
        learned: Train the isometry.
        seed: Of its start.
    """

    def __init__(self, channels: int, latent: int, learned: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.options = {"channels": channels, "latent": latent, "learned": learned, "seed": seed}
        self.isometry = _Isometry(channels, latent, learned, seed)

    def forward(self, numbers: Tensor, grid: Sequence[int]) -> Tensor:
        return torch.einsum("lc,bc...->bl...", self.isometry.matrix().to(numbers), numbers)


@buildable("vector-encoder")
class VectorEncoder(nn.Module):
    """(batch, channels) -> (batch, latent, *grid): patterns of cells, enlarged to the grid without smoothing.

    Args:
        channels: Numbers of the vector.
        latent: Channels of the latent.
        dims: Axes of the grid.
        cells: Cells an axis; 1 paints constants.
        learned: Train the isometry.
        seed: Of its start.
    """

    def __init__(
        self, channels: int, latent: int, dims: int, cells: int = 2, learned: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.options = {
            "channels": channels,
            "latent": latent,
            "dims": dims,
            "cells": cells,
            "learned": learned,
            "seed": seed,
        }
        self.latent, self.cells = latent, (cells,) * dims
        self.isometry = _Isometry(channels, latent * cells**dims, learned, seed)

    def forward(self, numbers: Tensor, grid: Sequence[int]) -> Tensor:
        if len(grid) != len(self.cells):
            raise InputError(
                f"expected a grid of {len(self.cells)} axes; got {tuple(grid)}. Build the encoder for its dimension."
            )
        painted = numbers @ self.isometry.matrix().to(numbers).T
        return F.interpolate(painted.reshape(-1, self.latent, *self.cells), size=tuple(grid), mode="nearest")


class _Reading(nn.Module):
    """Linear, plus a small network that starts at zero."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.inner, self.outer = nn.Linear(inputs, width), nn.Linear(width, outputs)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h) + self.outer(F.silu(self.inner(h)))


@buildable("field-head")
class FieldHead(nn.Module):
    """What is said at every voxel, from the latent and the features of that voxel, (batch, outputs, *grid).

    Args:
        latent: Channels of the latent.
        features: Further channels of the backbone; 0 for none.
        outputs: Numbers a voxel to say.
        width: Of the hidden layer.
    """

    def __init__(self, latent: int, features: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.options = {"latent": latent, "features": features, "outputs": outputs, "width": width}
        self.reading = _Reading(latent + features, outputs, width)

    def forward(self, latent: Tensor, features: Tensor) -> Tensor:
        return self.reading(torch.cat([latent, features], 1).movedim(1, -1)).movedim(-1, 1)


@buildable("pooled-head")
class PooledHead(nn.Module):
    """What is said of the whole sample, from means over cells of the grid, (batch, outputs).

    Args:
        latent: Channels of the latent.
        features: Further channels of the backbone; 0 for none.
        outputs: Numbers to say.
        dims: Axes of the grid.
        cells: Cells an axis.
        width: Of the hidden layer.
    """

    def __init__(
        self, latent: int, features: int, outputs: int, dims: int, cells: int = 2, width: int = 64
    ) -> None:
        super().__init__()
        self.options = {
            "latent": latent,
            "features": features,
            "outputs": outputs,
            "dims": dims,
            "cells": cells,
            "width": width,
        }
        self.cells = (cells,) * dims
        self.reading = _Reading((latent + features) * cells**dims, outputs, width)

    def forward(self, latent: Tensor, features: Tensor) -> Tensor:
        means = _POOL[len(self.cells)](torch.cat([latent, features], 1), self.cells)  # type: ignore[arg-type]
        return self.reading(means.flatten(1))


@buildable("shared-modality")
class SharedModality(nn.Module):
    """Law, encoder and head of one modality.

    Args:
        law: What a value is, and what the head's words mean.
        encoder: `(numbers, grid) -> (batch, latent, *grid)`.
        head: `(latent, features) -> said`.
        weight: w of the aggregate; 0 leaves the modality to its head alone.
        share: Factor of its term in the bound, >= 0.

    Raises:
        InputError: a negative share.
    """

    def __init__(
        self, law: Law, encoder: nn.Module, head: nn.Module, weight: float = 1.0, share: float = 1.0
    ) -> None:
        super().__init__()
        if share < 0:
            raise InputError(f"expected a share >= 0; got {share}. 0 leaves the head untrained.")
        self.law, self.encoder, self.head, self.weight, self.share = law, encoder, head, weight, share

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild this modality."""
        return {name: getattr(self, name) for name in ("law", "encoder", "head", "weight", "share")}


def modalities_of(
    laws: Mapping[str, Law],
    *,
    dims: int,
    latent: int,
    features: int,
    vectors: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    learned: bool = False,
    cells: int = 2,
    width: int = 64,
    seed: int = 0,
) -> dict[str, SharedModality]:
    """A modality for each law, with isometric encoders and small heads; a function of the seed.

    Args:
        laws: By name; the first is the one a data set calls "image".
        dims: Axes of the grid.
        latent: Channels of the latent.
        features: Channels that the backbone says beyond the latent.
        vectors: Names of those without a grid.
        weights: w by name; those not named have 1. All are then divided by the root of their sum of squares, so that the
            aggregate has about unit mean square.
        learned: Train the encoders, which stay isometries.
        cells: Cells an axis of what has no grid.
        width: Of the heads' hidden layers.
        seed: Of encoders and heads.

    Raises:
        InputError: no law, or a name that none has.
    """
    named = [*vectors, *(weights or {})]
    unknown = [name for name in named if name not in laws]
    if not laws or unknown:
        raise InputError(
            f"expected names out of {', '.join(laws) or '(none)'}; got {unknown[0] if unknown else 'no law'!r}. "
            "Give each modality a law."
        )
    chosen = {name: float((weights or {}).get(name, 1.0)) for name in laws}
    total = sum(w * w for w in chosen.values()) ** 0.5
    if total == 0:
        raise InputError("expected a weight that is not 0; got zeros alone. Something must be diffused.")
    made = {}
    with torch.random.fork_rng(devices=[]):
        for number, (name, law) in enumerate(laws.items()):
            torch.manual_seed(seed_of(seed, number))
            start = seed_of(seed, number) % 2**31
            encoder: nn.Module
            head: nn.Module
            if name in vectors:
                encoder = VectorEncoder(law.channels, latent, dims, cells, learned, start)
                head = PooledHead(latent, features, law.outputs, dims, cells, width)
            else:
                encoder = FieldEncoder(law.channels, latent, learned, start)
                head = FieldHead(latent, features, law.outputs, width)
            made[name] = SharedModality(law, encoder, head, chosen[name] / total)
    return made
