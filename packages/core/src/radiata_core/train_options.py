r"""The options of a training, and what follows from them alone: the step size and the conditions that are hidden.

References:
    Ho and Salimans, 2022, Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598 (condition dropout).
    Loshchilov and Hutter, 2017, SGDR, https://arxiv.org/abs/1608.03983, eq. 5 (the half cosine, without restarts).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from radiata_core.errors import InputError
from radiata_core.seeds import sent

__all__ = ["TrainOptions", "hide", "learning_rate"]


@dataclass(frozen=True)
class TrainOptions:
    """How to train."""

    steps: int = 100_000
    """Optimiser steps."""
    batch_size: int = 8
    """Rows of one optimiser step, over all processes and pieces."""
    accumulate: int = 1
    """Pieces the batch of a process is cut into to save memory; changes rounding only."""
    learning_rate: float = 1e-4
    """Step size of AdamW after the warm-up."""
    warmup: int = 1000
    """Steps of linear warm-up."""
    cosine: bool = False
    """Let the step size fall to 0 along a half cosine, from the end of the warm-up to the last step."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of AdamW's moments."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: tuple[float, ...] = (0.05, 0.10)
    """Relative widths of the averages of the weights (0, 0.28]; the first becomes model.safetensors."""
    condition_dropout: float = 0.1
    """Probability that all conditions of a row are hidden (NaN), for guidance without a classifier."""
    covariate_dropout: float = 0.0
    """Probability that one condition value of a row is hidden, each for itself."""
    seed: int = 0
    """Seed of order, times, noise and dropout."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there (several under `accelerate launch`)."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision of the network; no is float32."""
    workers: int = 0
    """Processes that read data; 0 reads in the training process."""
    log_every: int = 50
    """Steps between two records of log.jsonl."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    validate_every: int = 1000
    """Steps between two validations."""
    validation_draws: int = 4
    """Times and noises drawn for each validation item, the same at every validation."""
    tensorboard: bool = True
    """Write TensorBoard curves too."""
    max_minutes: float | None = None
    """Stop after this time with a checkpoint and the models so far."""
    resume: bool = False
    """Go on from the newest valid checkpoint of the folder, if there is one."""

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "log_every",
            "checkpoint_every",
            "keep",
            "validate_every",
        ):
            if getattr(self, name) < 1:
                raise InputError(
                    f"expected {name} of 1 or more; got {getattr(self, name)}. Give a larger one."
                )
        for name in ("condition_dropout", "covariate_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} in [0, 1]; got {getattr(self, name)}. 0.1 is usual.")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise InputError(f"expected learning_rate > 0; got {self.learning_rate}. 1e-4 is usual.")
        if self.seed < 0:
            raise InputError(f"expected a seed of 0 or more; got {self.seed}. Give another --seed.")


def learning_rate(step: int, options: TrainOptions) -> float:
    """Step size at step 0, 1, …: linear warm-up, then constant or a half cosine."""
    rate = options.learning_rate * min(1.0, (step + 1) / max(1, options.warmup))
    if options.cosine and step >= options.warmup:
        part = (step - options.warmup) / max(1, options.steps - options.warmup)
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
    return rate


def hide(
    conditions: Mapping[str, torch.Tensor], generators: Sequence[torch.Generator], options: TrainOptions
) -> dict[str, torch.Tensor]:
    """Conditions `(batch, …)` with some rows, and some values, set to NaN; row i by generator i alone."""
    given = sorted(conditions.items())
    rows: dict[str, list[torch.Tensor]] = {name: [] for name, _ in given}
    for generator in generators:
        whole = torch.rand((), generator=generator) < options.condition_dropout
        for name, value in given:
            rows[name].append(
                whole | (torch.rand(value.shape[1:], generator=generator) < options.covariate_dropout)
            )
    return {
        name: value.to(torch.float32).masked_fill(sent(torch.stack(rows[name]), value.device), math.nan)
        for name, value in given
    }
