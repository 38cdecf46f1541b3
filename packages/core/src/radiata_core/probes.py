r"""Probes: small readers of frozen features, for tasks with few labels.

A probe says what features hold, and little of its own. With features z, standardised by the training rows,

    ridge      min_w  mean (y - w z - b)^2 + penalty |w|^2                     `ridge_probe`, in closed form
    logistic   min_w  mean -log softmax(w z + b)_y + penalty/2 |w|^2           `logistic_probe`, convex
    attention  z of a grid of cells -> norm -> [class token, cells] -> blocks  `AttentionProbe`, trained

The first two are one linear map (`LinearProbe`), of vectors or, voxel by voxel, of maps (a 1x1 convolution; `voxel_rows`
makes rows of labelled voxels). Both solve in the span of the n rows where there are more features than rows: the penalty
keeps w there, so nothing is lost, and 10 000 features cost what n do. Penalties are chosen on validation
(`feature_selection`).

References:
    Mukhopadhyay et al., "Do text-free diffusion models learn discriminative visual representations?", 2023,
        https://arxiv.org/abs/2311.17921 (linear and attention heads on a frozen denoiser).
    Hastie, Tibshirani & Friedman, "The elements of statistical learning", 2009, sections 3.4.1, 4.4 and 18.3.5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from radiata_core.denoiser_features import pooled
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of

__all__ = [
    "AttentionProbe",
    "LinearProbe",
    "logistic_probe",
    "ridge_probe",
    "train_probe",
    "voxel_rows",
]

Rows = Float[Tensor, "rows features"]


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """w z + b, of features as they are: the standardisation is inside.

    Attributes:
        weight: `(outputs, features)`.
        bias: `(outputs,)`.
    """

    weight: Float[Tensor, "outputs features"]
    bias: Float[Tensor, "outputs"]

    def __call__(self, features: Rows) -> Float[Tensor, "rows outputs"]:
        """Values or logits of rows of features."""
        return F.linear(features, self.weight.to(features), self.bias.to(features))

    def voxels(self, maps: Float[Tensor, "batch features *grid"]) -> Float[Tensor, "batch outputs *grid"]:
        """The same in each voxel of maps."""
        return self(maps.movedim(1, -1).flatten(0, -2)).unflatten(0, _places(maps)).movedim(-1, 1)


def ridge_probe(
    features: Rows, targets: Float[Tensor, "examples *outputs"], penalty: float = 1.0
) -> LinearProbe:
    """The linear probe of least squared error; `targets` `(rows,)` count as one output.

    Args:
        features: One row an example, >= 2 rows.
        targets: Numbers, in any unit.
        penalty: On standardised features, > 0; 1 is strong for one feature and mild for hundreds.

    Raises:
        InputError: fewer than 2 rows, another number of targets, or a penalty that is not > 0.
    """
    z, centre, scale = _standardised(features, len(targets), penalty)
    y = targets.double().to(z.device)
    y = y[:, None] if y.ndim == 1 else y
    middle = y.mean(0)
    # (Z'Z + n p)^-1 Z'y = Z'(ZZ' + n p)^-1 y: the smaller of the two systems.
    load = len(z) * penalty
    if z.shape[1] <= len(z):
        weight = torch.linalg.solve(z.T @ z + load * _eye(z.shape[1], z), z.T @ (y - middle))
    else:
        weight = z.T @ torch.linalg.solve(z @ z.T + load * _eye(len(z), z), y - middle)
    return _unstandardised(weight.T, middle, centre, scale)


def logistic_probe(
    features: Rows, labels: Int[Tensor, "examples"], penalty: float = 1e-2, classes: int | None = None
) -> LinearProbe:
    """The linear probe of greatest likelihood of the labels; its outputs are logits.

    Args:
        features: One row an example, >= 2 rows.
        labels: Classes 0, 1, …
        penalty: On standardised features, > 0.
        classes: Number of classes; None: the largest label and one more.

    Raises:
        InputError: fewer than 2 rows, another number of labels, a penalty that is not > 0, or a label out of range.
    """
    z, centre, scale = _standardised(features, len(labels), penalty)
    count = int(labels.max()) + 1 if classes is None else classes
    if int(labels.min()) < 0 or int(labels.max()) >= count:
        raise InputError(
            f"expected labels 0 … {count - 1}; got {int(labels.min())} … {int(labels.max())}. Leave out what has none."
        )
    labels = labels.long().to(z.device)
    basis = torch.linalg.qr(z.T).Q if z.shape[1] > len(z) else _eye(z.shape[1], z)
    short = z @ basis
    weight = torch.zeros(count, short.shape[1], dtype=z.dtype, device=z.device, requires_grad=True)
    bias = torch.zeros(count, dtype=z.dtype, device=z.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=500,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(short, weight, bias), labels) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(objective)
    return _unstandardised(weight.detach() @ basis.T, bias.detach(), centre, scale)


def voxel_rows(
    maps: Float[Tensor, "batch features *grid"], labels: Int[Tensor, "rows *places"]
) -> tuple[Float[Tensor, "voxels features"], Int[Tensor, "voxels"]]:
    """Features and labels of the labelled voxels (label >= 0), for a probe of voxels.

    Raises:
        InputError: maps and labels of different grids, or no label.
    """
    if _places(maps) != tuple(labels.shape):
        raise InputError(
            f"expected labels of the maps' places {_places(maps)}; got {tuple(labels.shape)}. Resample one of them."
        )
    known = labels >= 0
    if not bool(known.any()):
        raise InputError("expected at least one labelled voxel; got none. -1 means not labelled.")
    return maps.movedim(1, -1)[known], labels[known]


class AttentionProbe(nn.Module):
    """Maps `(batch, channels, *grid)` to `(batch, outputs)`: pooled to cells, normed, read by a class token.

    Args:
        channels: Of the maps.
        outputs: Classes, or numbers.
        grid: Cells along each axis; maps are averaged onto them. 16 x 16 in the paper.
        width: Of the tokens, divides by `heads`.
        depth: Blocks; 2 in the paper.
        heads: Of the attention.

    Raises:
        InputError: a number below 1, or a width that does not divide by the heads.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        grid: Sequence[int],
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if min(channels, outputs, *grid, width, depth, heads) < 1 or width % heads:
            raise InputError(
                f"expected sizes >= 1 and a width that divides by the heads; got channels {channels}, outputs {outputs}, "
                f"grid {tuple(grid)}, width {width}, depth {depth}, heads {heads}. Change the width."
            )
        self.grid = tuple(grid)
        self.norm = nn.LayerNorm(channels)
        self.enter = nn.Linear(channels, width)
        self.token = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(0.02 * torch.randn(math.prod(self.grid), width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.out = nn.Linear(width, outputs)

    def forward(self, maps: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch outputs"]:
        """Values or logits."""
        means = pooled(maps, self.grid).flatten(2).transpose(1, 2)
        cells = self.enter(self.norm(means)) + self.places
        tokens = torch.cat([self.token.expand(len(maps), 1, -1), cells], 1)
        for block in self.blocks:
            tokens = block(tokens)
        made: Tensor = self.out(tokens[:, 0])
        return made


def train_probe(
    probe: nn.Module,
    features: Tensor,
    targets: Tensor,
    steps: int = 300,
    *,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    batch_size: int = 32,
    seed: int = 0,
) -> nn.Module:
    """The probe, trained in place by AdamW along half a cosine: cross-entropy for integer targets, else squared error.

    Args:
        probe: `features -> (batch, outputs)`.
        features: A row an example.
        targets: Classes `(rows,)`, or numbers `(rows, outputs)`.
        steps: Optimiser steps.
        learning_rate: At the start.
        weight_decay: Of AdamW.
        batch_size: Rows a step, drawn with replacement; never more than there are.
        seed: Of the rows' order.
    """
    loss = F.mse_loss if targets.is_floating_point() else F.cross_entropy
    optimiser = torch.optim.AdamW(probe.parameters(), learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order, size = generator_of(seed), min(batch_size, len(features))
    probe.train()
    for _ in range(steps):
        rows = torch.randint(len(features), (size,), generator=order).to(features.device)
        value = loss(probe(features[rows]), targets[rows])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
    return probe.eval()


def _places(maps: Tensor) -> tuple[int, ...]:
    return (len(maps), *maps.shape[2:])


def _eye(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)


def _standardised(features: Tensor, targets: int, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 rows of mean 0 and variance 1, and what was taken out; a constant feature becomes 0."""
    if len(features) < 2 or len(features) != targets:
        raise InputError(
            f"expected at least 2 rows and a target each; got {len(features)} rows and {targets} targets. Add examples."
        )
    if not 0 < penalty < float("inf"):
        raise InputError(f"expected a penalty > 0; got {penalty}. Try 0.01, 0.1 and 1.")
    z = features.detach().double()
    centre, scale = z.mean(0), z.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * z.abs().amax(0).clamp_min(1e-12), scale, torch.inf)
    return (z - centre) / scale, centre, scale


def _unstandardised(weight: Tensor, bias: Tensor, centre: Tensor, scale: Tensor) -> LinearProbe:
    weight = weight / scale
    return LinearProbe(weight, bias - weight @ centre)
