"""Sizes of the cortex route by name: networks, steps, step sizes.

`tiny` is for one core and minutes, `paper` has the published widths, canvas and learning rate and wants accelerators. The
numbers of steps of `paper` are rough equivalents of the published epochs.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radiata_core.train import TrainOptions

__all__ = ["PRESETS", "SurfacePreset", "stage_options"]


@dataclass(frozen=True)
class SurfacePreset:
    """Sizes of networks and stages.

    Attributes:
        size: Side of the canvas, pixels, divides by the patch.
        encoder: Name in `SIZES`.
        patch: Of the encoder, pixels.
        dropout: Of the encoder in training.
        bottleneck: Of the autoencoder.
        context: T and D of the semantic tokens.
        components: Of the picture basis; 0: no guess.
        steps: Optimiser steps of the three stages.
        batch_size: Rows of a step.
        learning_rate: Of the first two stages.
        refine_rate: Of the third.
    """

    size: int = 128
    encoder: str = "tiny"
    patch: int = 16
    dropout: float = 0.1
    bottleneck: int = 128
    context: tuple[int, int] = (4, 32)
    components: int = 128
    steps: tuple[int, int, int] = (400, 800, 400)
    batch_size: int = 32
    learning_rate: float = 2e-3
    refine_rate: float = 5e-4


PRESETS: Mapping[str, SurfacePreset] = {
    "tiny": SurfacePreset(),
    "small": SurfacePreset(
        encoder="small",
        bottleneck=512,
        context=(16, 128),
        components=300,
        steps=(20_000, 40_000, 10_000),
        learning_rate=3e-4,
        refine_rate=1e-4,
    ),
    "paper": SurfacePreset(
        size=256,
        encoder="paper",
        dropout=0.0,
        bottleneck=2048,
        context=(77, 1024),
        components=0,
        steps=(120_000, 70_000, 45_000),
        batch_size=96,
        learning_rate=1e-4,
        refine_rate=1e-4,
    ),
}
"""tiny: minutes on one core. paper: the published widths, for several accelerators."""


def stage_options(preset: SurfacePreset, stage: int, **changes: Any) -> TrainOptions:
    """Options of stage 1, 2 or 3 for the core's training loop; `changes` go first (seed, device, resume, ...)."""
    steps = preset.steps[stage - 1]
    usual: dict[str, Any] = {
        "steps": steps,
        "batch_size": preset.batch_size,
        "learning_rate": preset.refine_rate if stage == 3 else preset.learning_rate,
        "warmup": max(1, min(500, steps // 20)),
        "cosine": True,
        "weight_decay": 0.01,
        "ema": (0.05,),
        "condition_dropout": 0.0,
        "checkpoint_every": max(1, steps // 4),
        "tensorboard": False,
    }
    return TrainOptions(**(usual | changes))
