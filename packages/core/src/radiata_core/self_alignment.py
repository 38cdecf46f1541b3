r"""Self-alignment: an early layer at much noise learns what a later layer of the averaged network says at less noise.

$$\mathcal L = \mathcal L_{\mathrm{denoise}} - \lambda\, \cos\big(h_\phi(H_{early}(x_t)),\; H^{EMA}_{late}(x_{t'})\big),
  \qquad t' = \max(t - \mathrm{gap},\, 0)$$

with x_t and x_t' made of the *same* image and noise. No encoder is needed: this is for signals that have none (electrodes,
functional images, microscopy). Two calls of the network a step, one without a gradient.

The teacher moves once a step towards the network, and is kept in a run's checkpoints (`trainer.Objective.beside`), so that a
resumed run has the same. It is no encoder of anything at first; the authors' results are for long runs.

Departure: the loss here is the cosine of `alignment`, spatially standardised by default, so that one loss serves both.

References:
    Jiang et al., "No other representation component is needed: diffusion transformers can provide representation guidance
        by themselves", 2025, https://arxiv.org/abs/2505.02831 (SRA; abstract).
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from radiata_core.aligned_objective import AlignedLoss, hidden_maps
from radiata_core.alignment import Alignment
from radiata_core.couplings import Pair
from radiata_core.ema import HalfLife, Profile
from radiata_core.errors import InputError
from radiata_core.handles import tapped
from radiata_core.objectives import Loss, Regression
from radiata_core.paths import add_noise
from radiata_core.types import Batch, Row

__all__ = ["MovingTeacher", "SelfAligned", "self_aligned"]


class MovingTeacher(nn.Module):
    """A copy of a network that follows its weights, once a step.

    Args:
        network: Is copied, handles and all; later the copy follows it.
        profile: How it forgets; a half-life of 1000 steps.
        length: In units of the profile.
    """

    steps: Tensor
    seen: Tensor

    def __init__(self, network: nn.Module, profile: Profile | None = None, length: float = 1000.0) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.profile, self.length = HalfLife() if profile is None else profile, length
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.full((), -1, dtype=torch.int64))

    def train(self, mode: bool = True) -> "MovingTeacher":
        """Always in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int | None = None) -> None:
        """Take in the network's weights; a second time of the same step does nothing."""
        if step is not None and step <= int(self.seen):
            return
        if step is not None:
            self.seen.fill_(step)
        self.steps += 1
        kept = self.profile.keep(int(self.steps), self.length)
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs.to(mine), 1 - kept)
        for own, other in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(other)


@dataclass(frozen=True, eq=False)
class SelfAligned(Regression):
    """A regression with an alignment of one layer to a later one of the averaged network. Made by `self_aligned`.

    Attributes:
        alignment: The loss between both.
        teacher: The averaged network.
        early: Layer of the network that learns.
        late: Layer of the teacher that is learnt from.
        gap: Largest difference of times, in (0, 1].
        step: The present step, set by `at`; None in a loop of your own, where every call is a step.
    """

    alignment: Alignment = field(kw_only=True)
    teacher: MovingTeacher = field(kw_only=True)
    early: str = field(kw_only=True)
    late: str = field(kw_only=True)
    gap: float = field(default=0.2, kw_only=True)
    step: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.gap <= 1:
            raise InputError(f"expected a gap of times in (0, 1]; got {self.gap}. 0.2 is usual.")

    @property
    def beside(self) -> nn.Module:
        """What is trained or kept beside the denoiser (`trainer.Objective`)."""
        kept = {"alignment": self.alignment, "teacher": self.teacher}
        return nn.ModuleDict(kept if self.alignment.weight > 0 else {})

    def at(self, step: int) -> "SelfAligned":
        """The objective of a step (`trainer.Objective`)."""
        return replace(self, step=step)

    def compare(self, denoiser: Any, pair: Pair, t: Row, **conditions: Any) -> Loss:
        """Loss of the denoiser on pairs at given times, with the alignment's part; the teacher moves if this is training."""
        if self.alignment.weight == 0:
            return super().compare(denoiser, pair, t, **conditions)
        if torch.is_grad_enabled():
            self.teacher.follow(denoiser, self.step)
        with tapped(denoiser, self.early) as held:
            loss = super().compare(denoiser, pair, t, **conditions)
        cleaner = (t - self.gap).clamp(min=0)
        with torch.no_grad(), tapped(self.teacher.network, self.late) as seen:
            self.teacher.network(add_noise(self.path, pair.x0, pair.noise, cleaner), cleaner, **conditions)
        part = self.alignment(held[self.early], seen[self.late])
        return AlignedLoss(loss.value + part, loss.per_sample, loss.t, part.detach())


def self_aligned(
    regression: Regression,
    denoiser: nn.Module,
    example: Batch,
    *,
    early: str,
    late: str,
    gap: float = 0.2,
    profile: Profile | None = None,
    length: float = 1000.0,
    projector: str = "conv",
    hidden: int = 2048,
    standardise: str = "spatial",
    weight: float = 0.5,
    generator: Generator | None = None,
    **conditions: Any,
) -> SelfAligned:
    """A regression with self-alignment, made for a denoiser by one look at an example.

    Args:
        regression: Its path, law of times, coupling, target, weight and loss are kept.
        denoiser: Is copied as the teacher.
        example: One image or more, `(batch, channel, *grid)`.
        early: Layer that learns, about a third of the way in.
        late: Layer that is learnt from, about two thirds of the way in.
        gap: How much less noisy the teacher's state is, in (0, 1].
        profile: As `MovingTeacher`.
        length: As `MovingTeacher`.
        projector: As `Alignment`.
        hidden: As `Alignment`.
        standardise: As `Alignment`.
        weight: As `Alignment`.
        generator: As `Alignment`.
        **conditions: Of the denoiser, one row an image.

    Raises:
        InputError: a layer that gives no maps, or a gap out of range.
    """
    before = hidden_maps(denoiser, early, example, **conditions)
    after = hidden_maps(denoiser, late, example, **conditions)
    alignment = Alignment(
        before.shape[1], after.shape[1], before.ndim - 2, projector=projector, hidden=hidden,
        standardise=standardise, weight=weight, generator=generator,
    ).to(before.device)  # fmt: skip
    return SelfAligned(
        regression.path, regression.time_law, regression.coupling, regression.target, regression.weight, regression.loss,
        alignment=alignment, teacher=MovingTeacher(denoiser, profile, length), early=early, late=late, gap=gap,
    )  # fmt: skip
