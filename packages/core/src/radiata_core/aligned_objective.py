"""Alignment in training: any objective with a loss on one hidden layer beside its own, for some of the steps.

    objective = aligned(Regression(...), denoiser, x0[:1], encoder, until=20_000)
    train(denoiser, objective, dataset, folder, options)

`aligned` looks once at an example and finds layer, channels and projector; `Aligned` is what it makes. The projector is
trained with the network and kept in the checkpoints of a run, and it is neither in the model that is saved nor in its
averages (`Trainer` asks an objective for `beside`). In a loop of your own, give the optimiser `objective.beside` too.

The encoder sees the clean images of the batch. With `encoder=None` the items bring their target under `entry`, from
`feature_cache`: the right way where the encoder is dear.

The layer (`default_layer`): of a transformer of depth d the output of block d/3 (8 of 24, 4 of 12 in the papers); of a
U-Net, for which nothing is published, the first level on the way up. `until` ends the alignment: its gain comes early, and
later it may hold the network back.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from radiata_core.alignment import Alignment
from radiata_core.denoiser_features import decoder_layers
from radiata_core.errors import InputError
from radiata_core.feature_targets import Features
from radiata_core.handles import tapped
from radiata_core.objectives import Loss
from radiata_core.sites import sites_of
from radiata_core.types import Batch

__all__ = ["Aligned", "AlignedLoss", "aligned", "default_layer", "hidden_maps"]


@dataclass(frozen=True)
class AlignedLoss(Loss):
    """A loss, `value` with the alignment's part and `per_sample` without, and the alignment's part ()."""

    alignment: Tensor


@dataclass(frozen=True, eq=False)
class Aligned:
    """An objective and an alignment of one layer.

    Attributes:
        objective: The objective itself; it calls the denoiser (the last call is read, if there are several).
        alignment: The loss between hidden maps and targets; `weight=0` leaves the objective as it is, to the bit.
        layer: Name of the module inside the denoiser that is read.
        encoder: What sees the clean images; None if the items bring their targets.
        entry: Name of the items' entry with targets `(batch, channels, *cells)`.
        until: Optimiser steps after which only the objective is left; None for all.
        step: The present step, set by `at`.
    """

    objective: Any
    alignment: Alignment
    layer: str
    encoder: Features | None = None
    entry: str = "features"
    until: int | None = None
    step: int = 0

    def __post_init__(self) -> None:
        if self.until is not None and self.until < 0:
            raise InputError(f"expected steps of alignment >= 0; got {self.until}. None is to the end.")

    @property
    def path(self) -> Any:
        return self.objective.path

    @property
    def companions(self) -> tuple[str, ...]:
        """Entries of the items that are not conditions (`trainer.Objective`)."""
        own = () if self.encoder is not None else (self.entry,)
        return (*getattr(self.objective, "companions", ()), *own)

    @property
    def beside(self) -> nn.Module:
        """What is trained beside the denoiser (`trainer.Objective`)."""
        inner = getattr(self.objective, "beside", None)
        mine: list[nn.Module] = [self.alignment] if self.alignment.weight > 0 else []
        return nn.ModuleList(mine if inner is None else [*mine, inner])

    def at(self, step: int) -> "Aligned":
        """The objective of a step (`trainer.Objective`)."""
        inner = self.objective.at(step) if hasattr(self.objective, "at") else self.objective
        return replace(self, objective=inner, step=step)

    def __call__(self, denoiser: Any, x0: Batch, generators: Sequence[Generator], **conditions: Any) -> Any:
        """Loss of the denoiser on a batch, with the alignment's part; nothing more is drawn than the objective draws.

        Raises:
            InputError: no encoder and no entry of targets, or maps that do not fit.
        """
        given = None if self.encoder is not None else conditions.pop(self.entry, None)
        if self.alignment.weight == 0:
            return self.objective(denoiser, x0, generators, **conditions)
        if self.until is not None and self.step >= self.until:
            loss = self.objective(denoiser, x0, generators, **conditions)
            # Processes that train together expect a gradient of every weight: here it is 0.
            nothing = torch.stack([0 * p.float().sum() for p in self.alignment.parameters()]).sum()
            return AlignedLoss(loss.value + nothing, loss.per_sample, loss.t, nothing.detach())
        with tapped(denoiser, self.layer) as held:
            loss = self.objective(denoiser, x0, generators, **conditions)
        if self.encoder is None and given is None:
            raise InputError(
                f"expected targets in the entry {self.entry!r} of the items; got none. See feature_cache."
            )
        with torch.no_grad():
            target = given if self.encoder is None else self.encoder(x0)
        part = self.alignment(held[self.layer], target)
        return AlignedLoss(loss.value + part, loss.per_sample, loss.t, part.detach())


def aligned(
    objective: Any,
    denoiser: nn.Module,
    example: Batch,
    encoder: Features | None,
    *,
    layer: str | None = None,
    target_channels: int | None = None,
    entry: str = "features",
    until: int | None = None,
    projector: str = "conv",
    hidden: int = 2048,
    standardise: str = "spatial",
    weight: float = 0.5,
    generator: Generator | None = None,
    **conditions: Any,
) -> Aligned:
    """An objective with alignment, made for a denoiser by one look at an example.

    Args:
        objective: E.g. `objectives.Regression`.
        denoiser: E.g. `denoisers.NetworkDenoiser` of a network of your own, which is told `noise_level`.
        example: One image or more, `(batch, channel, *grid)`.
        encoder: See `feature_targets`; None for targets in the items.
        layer: Name of a module inside the denoiser; None for `default_layer`.
        target_channels: Channels of the targets, if there is no encoder to say so.
        entry: Name of the items' entry with targets.
        until: Steps with alignment; None for all.
        projector: As `Alignment`.
        hidden: As `Alignment`.
        standardise: As `Alignment`.
        weight: As `Alignment`.
        generator: As `Alignment`.
        **conditions: Of the denoiser, one row an image.

    Raises:
        InputError: a layer that gives no maps, or no channels of the targets.
    """
    channels = target_channels if encoder is None else encoder.channels
    if channels is None:
        raise InputError("expected an encoder or target_channels; got neither. Give one of them.")
    name = default_layer(denoiser) if layer is None else layer
    maps = hidden_maps(denoiser, name, example, **conditions)
    alignment = Alignment(
        maps.shape[1], channels, maps.ndim - 2, projector=projector, hidden=hidden, standardise=standardise,
        weight=weight, generator=generator,
    ).to(maps.device)  # fmt: skip
    return Aligned(objective, alignment, name, encoder, entry, until)


@torch.no_grad()
def hidden_maps(denoiser: Any, layer: str, x: Batch, t: float = 0.5, **conditions: Any) -> Tensor:
    """What a layer answers on images taken as states of time t, `(batch, channels, *cells)`, in evaluation mode.

    Raises:
        InputError: a layer that gives no maps.
    """
    training = denoiser.training
    denoiser.eval()
    try:
        with tapped(denoiser, layer) as held:
            denoiser(x, torch.full((len(x),), t, dtype=torch.float64, device=x.device), **conditions)
    finally:
        denoiser.train(training)
    if layer not in held or held[layer].ndim != x.ndim:
        got = tuple(held[layer].shape) if layer in held else "nothing"
        raise InputError(
            f"expected maps (batch, channels, {x.ndim - 2} axes) from layer {layer}; got {got}. Choose another layer."
        )
    return held[layer]


def default_layer(network: nn.Module) -> str:
    """Name of the layer to align: block depth/3 of a transformer, else the first level up of a U-Net, else its middle.

    Raises:
        InputError: the network is neither; name a layer.
    """
    try:
        blocks = [s.name for s in sites_of(network, "residual").values() if s.axis == -1]
    except InputError:
        blocks = []
    if blocks:
        return blocks[max(round(len(blocks) / 3), 1) - 1]
    names = [name for name, _ in network.named_modules()]
    up = [name for name in names if re.search(r"(^|\.)up_blocks\.0$", name)]
    if up:
        return up[0]
    try:
        return decoder_layers(network)[0]
    except InputError:
        middle = [name for name in names if re.search(r"(^|\.)(middle|mid|middle_block|mid_block)$", name)]
    if not middle:
        raise InputError(
            f"expected a transformer or a U-Net known here; got {type(network).__name__}. Name the layer to align by layer=."
        )
    return middle[0]
