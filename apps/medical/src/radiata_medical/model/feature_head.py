r"""Segmentation from few labels: a small head on the frozen features of a prior that has seen many unlabelled scans.

    maps h_1, h_2, ... of the denoiser at several noise levels   (`radiata_core.denoiser_features`), and the image
    s = sum_i up(W_i norm(h_i))         a 1x1 convolution of all maps on the grid: upsampling and W_i commute
    logits = conv(silu(conv(silu(s))))  two 3x3 convolutions and a 1x1

Several heads that differ in their first weights and in the order of what they see make an ensemble; where they disagree, the
Jensen-Shannon divergence says so,

    JSD = H(mean_m p_m) - mean_m H(p_m)      in [0, log m], nats.

Features of the training slices are computed once and kept in half precision (with `copies` moved and bent versions of each);
nothing else of the prior is needed to train. A model file holds the heads and how their features are made; its metadata name
the prior by SHA-256.

References:
    Baranchuk et al., "Label-efficient semantic segmentation with diffusion models", 2022,
        https://arxiv.org/abs/2112.03126, section 3 (pixel classifiers on features, an ensemble of ten, divergence).
    Lin, "Divergence measures based on the Shannon entropy", 1991, https://doi.org/10.1109/18.61115, eq. 5.1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.denoiser_features import DenoiserFeatures, on_grid
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of, generators_of, seed_of
from radiata_core.specs import buildable
from radiata_medical.model.few_shot_training import (
    Augmentation,
    Budget,
    check_slices,
    dice_entropy,
    fit,
    padded_to,
)

__all__ = ["FeatureHeads", "FewShotPrediction", "fit_head", "predict_slices", "prior_features"]

_CROP, _ROWS = 64, 4
_NOISE, _MOVE, _ORDER = 1, 2, 3  # purposes of the seed


@dataclass(frozen=True, eq=False)
class FewShotPrediction:
    """What an ensemble says of slices.

    Attributes:
        probabilities: Mean over the heads, (batch, classes, x, y).
        divergence: Jensen-Shannon divergence of the heads, nats, (batch, x, y).
    """

    probabilities: Tensor
    divergence: Tensor


class _Head(nn.Module):
    def __init__(self, widths: Sequence[int], classes: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(width, hidden, 1) for width in widths)
        self.conv1 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, classes, 1)

    def forward(self, maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
        sums: dict[tuple[int, ...], Tensor] = {}  # of maps of one resolution: each is upsampled once
        for enter, values in zip(self.enter, maps, strict=True):
            part, size = enter(values), tuple(values.shape[2:])
            sums[size] = sums[size] + part if size in sums else part
        together = torch.stack([on_grid(part, grid) for part in sums.values()]).sum(0)
        h = F.silu(together / math.sqrt(len(self.enter)))
        h = h + self.conv1(h)
        h = h + self.conv2(F.silu(h))
        logits: Tensor = self.out(F.silu(h))
        return logits


@buildable("feature-heads")
class FeatureHeads(nn.Module):
    """An ensemble of heads, and how the features they stand on are made.

    Args:
        widths: Channels of each map, the image's first.
        classes: Channels of the output, background first.
        hidden: Channels inside a head.
        members: Heads.
        levels: Noise levels of the features, kappa in units of the data.
        layers: Modules of the denoiser whose outputs are the maps.
        share: Part of a level's noise that is added.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        hidden: int = 32,
        members: int = 5,
        levels: Sequence[float] = (0.1, 0.3, 1.0),
        layers: Sequence[str] = (),
        share: float = 0.5,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "widths": tuple(widths), "classes": classes, "hidden": hidden, "members": members,
            "levels": tuple(levels), "layers": tuple(layers), "share": share,
        }  # fmt: skip
        self.widths, self.classes = tuple(widths), classes
        self.heads = nn.ModuleList(_Head(widths, classes, hidden) for _ in range(members))
        self.register_buffer("centre", torch.zeros(sum(widths)))
        self.register_buffer("spread", torch.ones(sum(widths)))

    def features_of(self, prior: nn.Module) -> DenoiserFeatures:
        """The features of a prior that these heads read.

        Raises:
            InputError: the prior has other layers.
        """
        names = ("levels", "layers", "share")
        return DenoiserFeatures(prior, **{name: self.options[name] for name in names})

    def standardise(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps with the mean and spread that their channels had in training taken out."""
        shape = (1, -1, 1, 1)
        parts = zip(maps, self.centre.split(self.widths), self.spread.split(self.widths), strict=True)
        return [(h.to(c) - c.reshape(shape)) / s.reshape(shape) for h, c, s in parts]

    def forward(self, maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
        """Logits of every head, `(members, batch, classes, *grid)`, of maps as they come from the prior."""
        if tuple(values.shape[1] for values in maps) != self.widths:
            raise InputError(
                f"expected maps of {self.widths} channels; got {tuple(values.shape[1] for values in maps)}. "
                "The heads belong to another prior."
            )
        even = self.standardise(maps)
        return torch.stack([head(even, grid) for head in self.heads])


def prior_features(
    features: DenoiserFeatures, images: Tensor, generators: Sequence[torch.Generator]
) -> list[Tensor]:
    """The image and its maps; the image's axes divide by the network's multiple."""
    return [images, *features.maps(images, generators)]


def fit_head(
    images: Tensor,
    labels: Tensor,
    prior: nn.Module,
    *,
    classes: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    members: int = 5,
    hidden: int = 32,
    levels: Sequence[float] = (0.1, 0.3, 1.0),
    layers: Sequence[str] = (),
    copies: int = 2,
    learning_rate: float = 5e-3,
    augmentation: Augmentation | None = None,
    report: Callable[[float, float], object] | None = None,
) -> FeatureHeads:
    """Heads trained on labelled slices; the prior stays as it is.

    Args:
        images: Slices (n, 1, x, y) in units of the prior.
        labels: Class of each voxel, (n, x, y), 0 background, -1 not labelled.
        prior: A 2-D denoiser with a `network.multiple`.
        classes: Number of classes; None: the largest label and one more.
        steps: Optimiser steps, all heads in each; None for no limit.
        seconds: Processor seconds, features included; None for no limit.
        seed: Of first weights, noise, motion and order.
        members: Heads.
        hidden: Channels inside a head.
        levels: Noise levels of the features.
        layers: Layers of the denoiser; empty for its decoder.
        copies: Versions of each slice, the first as it is; with `seconds` no more than fit into two fifths of them.
        learning_rate: At the start; it falls to nothing.
        augmentation: How the others are moved and bent; None for the usual.
        report: Called with the share of the budget used and the loss.

    Raises:
        InputError: slices and labels that do not fit, or no budget.
    """
    count = int(labels.max()) + 1 if classes is None else classes
    check_slices(images, labels, count)
    budget = Budget(steps, seconds)
    features = DenoiserFeatures(prior, tuple(levels), tuple(layers))
    multiple = _multiple(prior)
    pool = _pool(images, labels, features, multiple, budget, seed, copies, augmentation or Augmentation())
    widths = [values.shape[1] for values in pool[0][0]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        heads = FeatureHeads(widths, count, hidden, members, features.levels, features.layers, features.share)
    _set_scale(heads, [maps for maps, _ in pool])
    heads.to(images.device)
    fit(heads, _batches(heads, pool, multiple, seed), budget, learning_rate=learning_rate, report=report)
    return heads


def _multiple(prior: nn.Module) -> int:
    return int(getattr(getattr(prior, "network", prior), "multiple", 1))


def _pool(
    images: Tensor,
    labels: Tensor,
    features: DenoiserFeatures,
    multiple: int,
    budget: Budget,
    seed: int,
    copies: int,
    augmentation: Augmentation,
) -> list[tuple[list[Tensor], Tensor]]:
    """Maps (half precision, one row) and labels of every slice and copy."""
    pool: list[tuple[list[Tensor], Tensor]] = []
    for copy in range(max(1, copies)):
        for row in range(len(images)):
            if copy and budget.seconds is not None and budget.spent > 0.4 * budget.seconds:
                return pool
            image, wanted = images[row : row + 1], labels[row : row + 1].long()
            if copy:
                image, wanted = augmentation(image, wanted, generator_of(seed, _MOVE, copy, row))
            image, wanted = padded_to(image, multiple), padded_to(wanted, multiple, -1)
            drawn = generators_of([seed], _NOISE, copy, row)
            pool.append(([h.half() for h in prior_features(features, image, drawn)], wanted))
    return pool


def _set_scale(heads: FeatureHeads, pool: Sequence[Sequence[Tensor]]) -> None:
    """Mean and sd of every channel over the slices (at most 32 of them)."""
    some = pool[:32]
    centre, spread = [], []
    for number in range(len(heads.widths)):
        values = torch.cat([maps[number].float().flatten(2) for maps in some], 2)[0]
        centre.append(values.mean(1))
        spread.append(values.std(1).clamp_min(1e-3))
    heads.centre.copy_(torch.cat(centre))
    heads.spread.copy_(torch.cat(spread))


def _batches(
    heads: FeatureHeads, pool: Sequence[tuple[Sequence[Tensor], Tensor]], multiple: int, seed: int
) -> Iterator[Callable[[], Tensor]]:
    """Losses of random crops, other ones for every head."""
    drawn = [generator_of(seed, _ORDER, member) for member in range(len(heads.heads))]

    def loss() -> Tensor:
        losses = []
        for head, generator in zip(heads.heads, drawn, strict=True):
            maps, labels = _crops(pool, multiple, generator)
            losses.append(dice_entropy(head(heads.standardise(maps), labels.shape[1:]), labels))
        return torch.stack(losses).mean()

    while True:
        yield loss


def _crops(
    pool: Sequence[tuple[Sequence[Tensor], Tensor]], multiple: int, generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """Maps and labels of `_ROWS` windows that begin at multiples of the coarsest map's voxels."""
    rows: list[list[Tensor]] = []
    wanted = []
    for _ in range(_ROWS):
        maps, labels = pool[int(torch.randint(len(pool), (), generator=generator))]
        grid = labels.shape[1:]
        size = [min(n, max(multiple, _CROP // multiple * multiple)) for n in grid]
        start = [
            multiple * int(torch.randint((n - s) // multiple + 1, (), generator=generator))
            for n, s in zip(grid, size, strict=True)
        ]
        rows.append([_window(values, start, size, grid) for values in maps])
        wanted.append(labels[:, start[0] : start[0] + size[0], start[1] : start[1] + size[1]])
    return [torch.cat(column).float() for column in zip(*rows, strict=True)], torch.cat(wanted)


def _window(values: Tensor, start: Sequence[int], size: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The part of a coarse map that a window of the grid covers."""
    sides = [
        slice(s * c // n, (s + w) * c // n)
        for s, w, n, c in zip(start, size, grid, values.shape[2:], strict=True)
    ]
    return values[:, :, sides[0], sides[1]]


@torch.no_grad()
def predict_slices(
    heads: FeatureHeads, prior: nn.Module, images: Tensor, generators: Sequence[torch.Generator]
) -> FewShotPrediction:
    """Probabilities of slices and the disagreement of the heads.

    Args:
        heads: From `fit_head`.
        prior: The prior they were trained on.
        images: (batch, 1, x, y), units of the prior, any axes.
        generators: One a row, for the features' noise.
    """
    x, y = images.shape[2:]
    padded = padded_to(images, _multiple(prior))
    maps = prior_features(heads.features_of(prior), padded, generators)
    logits = heads(maps, padded.shape[2:])[..., :x, :y]
    p = torch.softmax(logits, 2)
    mean = p.mean(0)
    own = torch.special.entr(p).sum(2).mean(0)
    return FewShotPrediction(mean, (torch.special.entr(mean).sum(1) - own).clamp_min(0.0))
