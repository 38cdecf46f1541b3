r"""A classifier of motion in each cell of the first frame: cross-entropy over a codebook of flow vectors.

    responses (n, v) ── MLP ──────────── broadcast over the grid ──┐
    first frame (n, c, y, x) ── 1×1 ───────────────────────────────┼─ sum ─ 3 × residual 1×1 block ─ classifier (step · k)
    guess (n, step · 2, y, x) ── 1×1 ──────────────────────────────┤
    place (8, y, x) ── 1×1 ────────────────────────────────────────┘

As in BrainNRDS, one vector of the brain meets the local features of the picture; the sum of projections is their
concatenation followed by one 1×1 layer. Two things are added. *Place*, sines and cosines of x and y: local features that
know their place, as DINOv2's do, are not there offline. And an optional *guess*, the map that the ridge decodes
(`motion_decoder`): the ridge knows where a voxel looks, which an MLP has to learn from few films. In training the guess
must be a leave-one-out prediction; an in-sample one is far too good and the network would believe it.

`inputs` says what the network may know: brain, image, or both. "image" is the ablation that decides whether a brain was
needed.

References:
    BrainNRDS (2024), section on the flow decoder. https://arxiv.org/abs/2406.02659.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["INPUTS", "CodeCrossEntropy", "MotionNetwork"]

INPUTS = ("brain", "image", "both")
OCTAVES = 2  # of the place


@buildable("motion-network")
class MotionNetwork(nn.Module):
    """Logits of the codes, (n, step, k, y, x).

    Args:
        grid: Cells (y, x).
        steps: Of the flow.
        codes: k.
        voxels: Of the responses; 0: it sees none.
        features: Channels of the first frame's features; 0: it sees none.
        guess: Channels of the guess, 2 · steps; 0: none.
        width: Of the blocks.
        hidden: Of the MLP.
        blocks: Residual blocks.
        dropout: In the MLP and in each block.
    """

    def __init__(
        self,
        grid: Sequence[int],
        steps: int,
        codes: int,
        voxels: int = 0,
        features: int = 0,
        guess: int = 0,
        width: int = 64,
        hidden: int = 128,
        blocks: int = 3,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if not voxels and not features and not guess:
            raise InputError("expected a network that sees the brain or the first frame; got neither.")
        if steps < 1 or codes < 2 or min(grid) < 1:
            raise InputError(
                f"expected steps >= 1 and codes >= 2 on a grid; got {steps}, {codes} and {grid}."
            )
        self.options = {
            "grid": list(grid), "steps": steps, "codes": codes, "voxels": voxels, "features": features, "guess": guess,
            "width": width, "hidden": hidden, "blocks": blocks, "dropout": dropout,
        }  # fmt: skip
        self.steps, self.codes = steps, codes
        self.brain = (
            nn.Sequential(nn.Linear(voxels, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))
            if voxels
            else None
        )
        self.picture = nn.Conv2d(features, width, 1) if features else None
        self.guessed = nn.Conv2d(guess, width, 1) if guess else None
        place = _place(grid)
        self.register_buffer("place", place, persistent=False)
        self.placed = nn.Conv2d(place.shape[1], width, 1)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(blocks))
        self.classifier = nn.Conv2d(width, steps * codes, 1)
        for start in self.classifier.parameters():  # at first, all codes have the same chance
            nn.init.zeros_(start)

    def forward(
        self, responses: Tensor | None = None, features: Tensor | None = None, guess: Tensor | None = None
    ) -> Tensor:
        """Logits.

        Args:
            responses: (n, v), standardised.
            features: (n, c, y, x) of the first frame.
            guess: (n, 2 · steps, y, x), cells a frame step.

        Raises:
            InputError: an input that the network needs is not there.
        """
        x: Any = self.placed(self.place)
        for name, module, given in (
            ("responses", self.brain, responses),
            ("features", self.picture, features),
            ("guess", self.guessed, guess),
        ):
            if module is None:
                continue
            if given is None:
                raise InputError(f"expected {name} for this network; got none. It was built to see them.")
            added = module(given)
            x = x + (added[..., None, None] if added.ndim == 2 else added)
        for block in self.blocks:
            x = block(x)
        return self.classifier(x).unflatten(1, (self.steps, self.codes))


class _Block(nn.Module):
    """Normalise, 1×1, GELU, dropout, 1×1, added."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, width), nn.Conv2d(width, width, 1), nn.GELU(), nn.Dropout(dropout), nn.Conv2d(width, width, 1)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _place(grid: Sequence[int]) -> Tensor:
    y, x = torch.meshgrid(*((torch.arange(size) + 0.5) / size for size in grid), indexing="ij")
    waves = []
    for octave in range(OCTAVES):
        for axis in (x, y):
            waves += [torch.sin(math.pi * 2**octave * axis), torch.cos(math.pi * 2**octave * axis)]
    return torch.stack(waves)[None]


@dataclass(frozen=True)
class _Loss:
    value: Tensor
    per_sample: Tensor
    t: Tensor


@dataclass(frozen=True)
class CodeCrossEntropy:
    r"""$-\log p_{c(u)}(u)$, mean over steps and cells: an objective for `radiata_core.train.train`.

    Items are {"image": codes of the true flow (step, y, x), as floats} and what the network sees.
    """

    companions: tuple[str, ...] = ("responses", "features", "guess")

    def __call__(
        self, denoiser: MotionNetwork, x0: Tensor, generators: Sequence[torch.Generator], **seen: Tensor
    ) -> _Loss:
        """Loss of a batch; nothing is drawn."""
        logits = denoiser(**seen)
        rows = cross_entropy(logits.movedim(2, 1), x0.long(), reduction="none").flatten(1).mean(1)
        return _Loss(rows.mean(), rows, torch.zeros_like(rows))
