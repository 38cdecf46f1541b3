r"""Pairings of known pairs: what is done to noise and sample together before a student is trained on them.

A store of pairs gives each sample the noise it was made from. Annealing mixes that noise with fresh noise,

$$\varepsilon_\beta = \sqrt{1-\beta^2}\,\varepsilon + \beta\,\varepsilon', \qquad \varepsilon' \sim \mathcal N(0, I),$$

which is N(0, I) for every beta: beta = 1 is the independent coupling on the same samples, beta = 0 the teacher's own. A
mirror of both at once makes another pair, if the teacher commutes with it. All of it is a `couplings.Coupling`.

References:
    Zhu et al., "SlimFlow", 2024, https://arxiv.org/abs/2407.12718, section 4.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Generator, Tensor

from radiata_core.couplings import Pair
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.kernels import GaussianKernel
from radiata_core.types import Batch, Time

__all__ = ["Annealing", "AnnealingShape", "Flip", "PairedNoise", "equivariance_error"]


class AnnealingShape(StrEnum):
    """How beta falls with r, the share of the annealing that is done."""

    LINEAR = "linear"
    """1 - r"""
    COSINE = "cosine"
    """(1 + cos(pi r)) / 2"""
    EXPONENTIAL = "exponential"
    """(exp(-5 r) - exp(-5)) / (1 - exp(-5)): e-folds five times, and ends at 0"""


@dataclass(frozen=True)
class Annealing:
    """beta, the share of fresh noise in a pair, as a function of the training step: 1 at step 0, 0 from `steps` on.

    Args:
        steps: Step from which the pairs are the teacher's own, >= 1; 300 000 of 800 000 in the authors' program.
        shape: How it falls.

    References:
        Zhu et al., 2024, section 4.1.
    """

    steps: int
    shape: AnnealingShape = AnnealingShape.LINEAR

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(
                f"expected an annealing of 1 step or more; got {self.steps}. Leave it out for plain reflow."
            )

    def __call__(self, step: int) -> float:
        """beta in [0, 1] at a step >= 0."""
        r = min(1.0, max(0, step) / self.steps)
        match self.shape:
            case AnnealingShape.LINEAR:
                return 1.0 - r
            case AnnealingShape.COSINE:
                return 0.5 * (1 + math.cos(math.pi * r)) if r < 1 else 0.0
            case AnnealingShape.EXPONENTIAL:
                return (math.exp(-5 * r) - math.exp(-5)) / (1 - math.exp(-5))


@dataclass(frozen=True)
class Flip:
    """A mirror of data and noise together, as a symmetry that is declared.

    It makes true pairs only if the teacher commutes with it: D(flip x, t) = flip D(x, t). Brains, text and most labels do
    not; measure with `equivariance_error` before declaring.

    Args:
        dims: Axes of the event that are mirrored at once, counted within the event (-1 is the last axis).
        teacher_commutes: Say True: the declaration. Anything else is refused.
        probability: Of mirroring a row, in [0, 1].
    """

    dims: tuple[int, ...]
    teacher_commutes: bool = False
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not self.teacher_commutes:
            raise InputError(
                "expected a declared symmetry; got Flip without teacher_commutes=True. Measure "
                "equivariance_error and declare it if small; otherwise leave the flip out."
            )
        if not self.dims or not 0 <= self.probability <= 1:
            raise InputError(
                f"expected at least one axis and a probability in [0, 1]; got {self.dims} and {self.probability}."
            )

    def mirrored(self, x: Batch) -> Batch:
        """Every row mirrored, (batch, *event).

        Raises:
            InputError: the event has no such axis.
        """
        axes = x.ndim - 1
        if any(not -axes <= d < axes for d in self.dims):
            raise InputError(
                f"expected axes within an event of {axes} axes; got {self.dims}. Count within the event, without the batch."
            )
        return x.flip([d + 1 if d >= 0 else d for d in self.dims])

    def __call__(self, pair: Pair, generators: Sequence[Generator]) -> Pair:
        """Data and noise, mirrored together in the rows that a coin of the row's generator chooses."""
        coins = [float(torch.rand((), generator=g, device=g.device)) < self.probability for g in generators]
        chosen = torch.tensor(coins, device=pair.x0.device).view(-1, *[1] * (pair.x0.ndim - 1))
        x0, noise = (torch.where(chosen, self.mirrored(v), v) for v in (pair.x0, pair.noise))
        return Pair(x0, noise)


@torch.no_grad()
def equivariance_error(denoiser: Denoiser, flip: Flip, x: Batch, t: Time, **conditions: Any) -> float:
    """Root mean square of D(flip x) - flip D(x), divided by that of D(x): 0 for a denoiser that commutes with the flip."""
    kept = denoiser(x, t, **conditions)
    wanted = flip.mirrored(kept)
    return float((denoiser(flip.mirrored(x), t, **conditions) - wanted).norm() / kept.norm())


@dataclass(frozen=True)
class PairedNoise:
    """The coupling of a batch whose noise is known, mixed with a share of fresh noise.

    Attributes:
        noise: Noise of each row, (batch, *event).
        fresh: beta in [0, 1]: the noise becomes sqrt(1 - beta^2) noise + beta fresh. 0 draws nothing.
        flip: A declared symmetry, or None.

    References:
        Zhu et al., 2024, section 4.1.
    """

    noise: Tensor
    fresh: float = 0.0
    flip: Flip | None = None

    def __call__(self, x0: Batch, generators: Generator | Sequence[Generator], **conditions: Any) -> Pair:
        """`x0` with its own noise; row i depends on generator i only.

        Raises:
            InputError: the noise has not the shape of the data.
        """
        if self.noise.shape != x0.shape:
            raise InputError(
                f"expected the noise of each sample, {tuple(x0.shape)}; got {tuple(self.noise.shape)}. "
                "Take both from one store of pairs."
            )
        noise = self.noise.to(x0)
        if self.fresh > 0:
            fresh = GaussianKernel().noise(x0, generators)
            noise = fresh if self.fresh == 1 else (1 - self.fresh**2) ** 0.5 * noise + self.fresh * fresh
        pair = Pair(x0, noise)
        if self.flip is not None:
            pair = self.flip(
                pair, [generators] * len(x0) if isinstance(generators, Generator) else generators
            )
        return pair
