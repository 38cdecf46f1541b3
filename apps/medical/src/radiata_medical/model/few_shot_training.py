r"""Training from a handful of labelled slices under a budget of steps or of processor time.

    L = CE + 1 - mean over classes present of 2 sum(p y) / (sum p + sum y)

on random crops, AdamW, the step size falling along a half cosine to the end of the budget. The budget is what makes a
comparison fair: a head on frozen features and a network from scratch get the same seconds of the processor (of this process:
`time.process_time` on one thread is robust on a machine that others use), features included. Steps instead of seconds make a
run repeatable to the bit.

Labels may be sparse: voxels of class -1 are ignored.

References:
    Milletari et al., "V-Net", 2016, https://arxiv.org/abs/1606.04797 (soft Dice).
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError

__all__ = ["Augmentation", "Budget", "check_slices", "dice_entropy", "fit", "padded_to"]


@dataclass
class Budget:
    """Steps or seconds of the processor, whichever ends first; at least one of them.

    Attributes:
        steps: Optimiser steps; None for no limit.
        seconds: Processor seconds of this process from the making of this object; None for no limit.

    Raises:
        InputError: neither, or nothing to spend.
    """

    steps: int | None = None
    seconds: float | None = None
    _began: float = field(default_factory=time.process_time, repr=False)

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise InputError("expected a budget of steps or seconds; got neither. Give one.")
        if (self.steps is not None and self.steps < 1) or (self.seconds is not None and self.seconds <= 0):
            raise InputError(f"expected a budget above 0; got {self.steps} steps and {self.seconds} seconds.")

    @property
    def spent(self) -> float:
        """Processor seconds since it was made."""
        return time.process_time() - self._began

    def used(self, step: int) -> float:
        """Share of the budget that is used before this step, 0 to 1."""
        shares = [
            step / self.steps if self.steps is not None else 0.0,
            self.spent / self.seconds if self.seconds is not None else 0.0,
        ]
        return min(1.0, max(shares))


@dataclass(frozen=True)
class Augmentation:
    """Slices moved, turned, scaled, and their contrast bent.

    Attributes:
        degrees: Sd of the rotation.
        scale: Sd of the logarithm of the scale.
        shift: Sd of the shift, share of the field of view.
        power: Sd of the logarithm of the exponent of the intensities.
        gain: Sd of the logarithm of their factor.
        noise: Largest sd of added noise.
    """

    degrees: float = 8.0
    scale: float = 0.08
    shift: float = 0.02
    power: float = 0.2
    gain: float = 0.1
    noise: float = 0.03

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Slices `(n, 1, x, y)` and labels `(n, x, y)`, each row drawn by itself."""
        count = len(images)
        drawn = torch.randn((count, 6), generator=generator)
        angle, scale = torch.deg2rad(self.degrees * drawn[:, 0]), torch.exp(self.scale * drawn[:, 1])
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        shift = 2 * self.shift * drawn[:, 2:4]
        x, y = images.shape[2:]
        matrix = torch.stack(
            [
                torch.stack([cosine, -sine * (x / y), shift[:, 0]], 1),
                torch.stack([sine * (y / x), cosine, shift[:, 1]], 1),
            ],
            1,
        )
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        marked = (labels[:, None] + 1).to(images.dtype)  # 0 outside, then ignored
        found = F.grid_sample(marked, grid, mode="nearest", padding_mode="border", align_corners=False)
        power = torch.exp(self.power * drawn[:, 4]).reshape(-1, 1, 1, 1)
        gain = torch.exp(self.gain * drawn[:, 5]).reshape(-1, 1, 1, 1)
        level = self.noise * torch.rand((count, 1, 1, 1), generator=generator)
        noise = level * torch.randn(images.shape, generator=generator)
        return gain * moved.clamp_min(0.0) ** power + noise, found[:, 0].round().long() - 1


def check_slices(images: Tensor, labels: Tensor, classes: int) -> None:
    """Slices and labels fit together.

    Raises:
        InputError: other shapes, no slice, or a class out of range.
    """
    if images.ndim != 4 or images.shape[1] != 1 or labels.shape != (len(images), *images.shape[2:]):
        raise InputError(
            f"expected slices (n, 1, x, y) and their labels (n, x, y); got {tuple(images.shape)} and "
            f"{tuple(labels.shape)}. Are they on one grid?"
        )
    if not len(images):
        raise InputError("expected at least one labelled slice; got none. Give some.")
    if int(labels.min()) < -1 or int(labels.max()) >= classes:
        raise InputError(
            f"expected classes 0 to {classes - 1} (-1: not labelled); got {int(labels.min())} to {int(labels.max())}."
        )
    if not bool((labels > 0).any()):
        raise InputError("expected slices with labels; got background alone. Choose other slices.")


def padded_to(values: Tensor, multiple: int, value: float = 0.0) -> Tensor:
    """The last two axes padded at their ends until they divide by `multiple`."""
    x, y = values.shape[-2:]
    return F.pad(values, (0, -y % multiple, 0, -x % multiple), value=value)


def dice_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the classes present, a number; voxels of class -1 are left out.

    Args:
        logits: (batch, classes, *grid).
        labels: (batch, *grid), -1 to classes - 1.
    """
    known = labels >= 0
    if not bool(known.any()):
        return logits.sum() * 0.0
    entropy = F.cross_entropy(logits, labels, ignore_index=-1)
    p = torch.softmax(logits, 1) * known[:, None]
    truth = F.one_hot(labels.clamp_min(0), logits.shape[1]).movedim(-1, 1) * known[:, None]
    axes = (0, *range(2, logits.ndim))
    overlap, size, present = (p * truth).sum(axes), (p + truth).sum(axes), truth.sum(axes) > 0
    dice = (2 * overlap[present] + 1.0) / (size[present] + 1.0)
    return entropy + 1.0 - dice.mean()


def fit(
    module: nn.Module,
    batches: Iterable[Callable[[], Tensor]],
    budget: Budget,
    *,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-3,
    report: Callable[[float, float], object] | None = None,
) -> int:
    """Train `module` in place until the budget is used. Returns the steps done.

    Args:
        module: Whose parameters learn.
        batches: Losses of one batch after another, endless.
        budget: Checked before each step; the step size is its half cosine.
        learning_rate: At the start.
        weight_decay: AdamW's.
        report: Called after each step with the share of the budget used and the loss.

    Raises:
        InputError: a loss that is not finite.
    """
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    module.train()
    step = 0
    for loss_of in batches:
        used = budget.used(step)
        if used >= 1.0:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * used)) + 1e-6
        loss = loss_of()
        if not bool(torch.isfinite(loss)):
            raise InputError(f"expected a finite loss; got {loss.item():g} at step {step}. Check the images.")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        step += 1
        if report is not None:
            report(used, float(loss.detach()))
    module.eval()
    return step
