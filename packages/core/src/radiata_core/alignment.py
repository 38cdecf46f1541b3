r"""Alignment: a hidden layer of a denoiser is taught to contain what a frozen encoder sees in the clean image.

$$\mathcal L = \mathcal L_{\mathrm{denoise}} - \lambda\, \frac1N \sum_{n=1}^{N}
  \cos\big(h_\phi(H(x_t))_n,\; \tilde y_n\big), \qquad y = f(x_0)$$

H is a layer about a third of the way through the network, $h_\phi$ a small projector that is dropped after training, f any
encoder (`feature_targets`). What is learnt is a representation; the denoising loss itself was not lowered by it here.

Two forms, which differ in projector and target. REPA: an MLP cell by cell, targets as they are. iREPA, the default: one
convolution of 3^n cells, and targets z-scored over the cells of each image and channel,

$$\tilde y = \frac{y - \gamma\,\mathrm{mean}_n\, y}{\mathrm{std}_n\, y + 10^{-6}},$$

since the *spatial structure* of the targets is what helps, not what they say of the image as a whole.

The target is brought to the grid of H by averaging, never H to the target's. Cosines are taken in float32. The encoder
gets no gradient, and the projector is no part of the network.

Read next: `aligned_objective` (in training), `feature_targets` and `feature_cache` (f), `self_alignment` (without any f).

References:
    Yu et al., "Representation alignment for generation", 2025, https://arxiv.org/abs/2410.06940, section 3 (the loss and
        the MLP), section 4 (depth, weight).
    Singh et al., "What matters for representation alignment: global information or spatial structure?", 2025,
        https://arxiv.org/abs/2512.10794 (convolution and spatial standardisation, after the authors' program).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_core.types import Scalar

__all__ = ["Alignment", "averaged_on", "spatially_standardised"]

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_AVERAGES = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_EPSILON = 1e-6

Maps = Float[Tensor, "..."]
"""`(batch, channels, *cells)`; channels and cells of two maps may differ."""


def averaged_on(values: Maps, cells: Sequence[int]) -> Maps:
    """Maps `(batch, channels, *coarse)`: each cell the mean of what it overlaps. The same maps if the grid is theirs."""
    if tuple(values.shape[2:]) == tuple(cells):
        return values
    average: Any = _AVERAGES[len(cells)]
    averaged: Tensor = average(values, list(cells))
    return averaged


def spatially_standardised(values: Maps, gamma: float = 1.0) -> Maps:
    """(y - gamma mean y)/(std y + 1e-6), mean and std over the cells of each row and channel."""
    axes = tuple(range(2, values.ndim))
    spread, mean = torch.std_mean(values, axes, keepdim=True)
    return (values - gamma * mean) / (spread + _EPSILON)


class Alignment(nn.Module):
    r"""$-\lambda$ mean cosine between projected hidden maps and target maps.

    Args:
        channels: Channels of the hidden maps, >= 1.
        target_channels: Channels of the targets, >= 1.
        dims: Axes of the grid, 1, 2 or 3.
        projector: "conv", one convolution of 3^n cells (iREPA), or "mlp", three layers with SiLU cell by cell (REPA).
        hidden: Width of the MLP, >= 1; without meaning for "conv".
        standardise: "spatial" (iREPA) or "none" (REPA). Features of a convolutional network, which have a large mean in
            common, want "spatial".
        weight: lambda >= 0; 0.5 in pixels, 0.5 to 1 in latents. With 0 nothing is computed, and nothing is changed.
        gamma: Part of the mean that is taken off, 0 to 1.
        generator: Draws the projector; None for one that is the same every time.

    Raises:
        InputError: a word or a number that is none of these.
    """

    def __init__(
        self,
        channels: int,
        target_channels: int,
        dims: int,
        *,
        projector: str = "conv",
        hidden: int = 2048,
        standardise: str = "spatial",
        weight: float = 0.5,
        gamma: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if projector not in ("conv", "mlp") or standardise not in ("spatial", "none"):
            raise InputError(
                f"expected a projector conv or mlp, and standardise spatial or none; got {projector!r} and "
                f"{standardise!r}. iREPA is conv and spatial, REPA is mlp and none."
            )
        if min(channels, target_channels, hidden) < 1 or dims not in _CONVOLUTIONS:
            raise InputError(
                f"expected channels >= 1 and 1 to 3 dimensions; got {channels} and {target_channels} target channels, "
                f"width {hidden}, {dims} dimensions. See the shapes of both maps."
            )
        if not 0 <= weight < math.inf or not 0 <= gamma <= 1:
            raise InputError(
                f"expected weight >= 0 and gamma in [0, 1]; got {weight} and {gamma}. 0.5 and 1 are usual."
            )
        self.channels, self.target_channels, self.dims = channels, target_channels, dims
        self.standardise, self.weight, self.gamma = standardise, float(weight), float(gamma)
        self.projector = _projector(projector, dims, channels, hidden, target_channels)
        _draw(self.projector, generator_of(0, channels) if generator is None else generator)

    def forward(self, hidden: Maps, target: Maps) -> Scalar:
        """Loss (), float32: to be added to the loss of the denoiser.

        Args:
            hidden: `(batch, channels, *cells)`, with its graph.
            target: `(batch, target_channels, *any cells)`; no gradient flows into it.

        Raises:
            InputError: maps of other channels, dimensions or rows.
        """
        if self.weight == 0:
            return hidden.new_zeros((), dtype=torch.float32)
        return -self.weight * self.cosine(hidden, target)

    def cosine(self, hidden: Maps, target: Maps) -> Scalar:
        """Mean cosine over cells and rows, (), float32, -1 … 1. Arguments as in a call."""
        self._check(hidden, target)
        wanted = averaged_on(target.detach().float(), hidden.shape[2:])
        if self.standardise == "spatial":
            wanted = spatially_standardised(wanted, self.gamma)
        weight = next(self.projector.parameters())
        projected = self.projector(hidden.to(weight.dtype)).float()
        return F.cosine_similarity(projected, wanted, dim=1, eps=_EPSILON).mean()

    def _check(self, hidden: Tensor, target: Tensor) -> None:
        for name, maps, channels in (
            ("hidden", hidden, self.channels),
            ("target", target, self.target_channels),
        ):
            if maps.ndim != self.dims + 2 or maps.shape[1] != channels or len(maps) != len(hidden):
                raise InputError(
                    f"expected {name} maps (batch, {channels}, {self.dims} axes) of {len(hidden)} rows; got "
                    f"{tuple(maps.shape)}. Make the Alignment for these maps."
                )


def _projector(kind: str, dims: int, channels: int, hidden: int, out: int) -> nn.Module:
    """Without values: `_draw` gives them, so that no global generator is asked."""
    layer = _CONVOLUTIONS[dims]

    def made(before: int, after: int, edge: int) -> nn.Module:
        return torch.nn.utils.skip_init(layer, before, after, edge, padding=edge // 2)

    if kind == "conv":
        return made(channels, out, 3)
    return nn.Sequential(
        made(channels, hidden, 1), nn.SiLU(), made(hidden, hidden, 1), nn.SiLU(), made(hidden, out, 1)
    )


@torch.no_grad()
def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """Weights and biases as torch's layers start: uniform within 1/sqrt(inputs of an output)."""
    bound = 0.0
    for parameter in module.parameters():
        if parameter.ndim > 1:
            bound = 1 / math.sqrt(parameter[0].numel())
        parameter.uniform_(-bound, bound, generator=generator)
