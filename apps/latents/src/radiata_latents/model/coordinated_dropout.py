r"""Which counts an encoder sees and which it is scored on: as released, and without the leak.

A model that is scored on the spikes it reads learns to copy them. Coordinated dropout shows a share p of held-in counts,
scaled by 1/p, and takes gradients from the others:

    keep ~ Bernoulli(p), shown = keep n / p, scored = not keep                      leak-free
    keep ~ Bernoulli(p), pass ~ Bernoulli(1 - p), scored = not keep or pass         released

In the released form p (1 - p) of all counts, a quarter at p = 1/2, are both shown and scored: the identity leaks through.
Unscored counts stay in the reported loss of the release; only their gradient is stopped (`block`).

References:
    Keshtkaran & Pandarinath, "Enabling hyperparameter optimization in sequential autoencoders for spiking neural data",
        2019, https://arxiv.org/abs/1908.07896.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from radiata_core.errors import InputError

__all__ = ["CountMasks", "block", "count_masks"]


@dataclass(frozen=True, eq=False)
class CountMasks:
    """Which held-in counts are shown and which are scored.

    Attributes:
        keep: Shown to the encoder.
        scored: Sends gradients back.
        share: p, the probability to be shown.
    """

    keep: Bool[Tensor, "batch bins heldin"]
    scored: Bool[Tensor, "batch bins heldin"]
    share: float

    def shown(self, counts: Float[Tensor, "batch bins heldin"]) -> Float[Tensor, "batch bins heldin"]:
        """What the encoder reads: n / p where kept, else 0."""
        return counts * self.keep / self.share

    def scored_of_all(self, time: int, neurons: int) -> Bool[Tensor, "batch time neuron"]:
        """`scored`, True beyond it: held-out neurons and the forward window are never shown, so always scored."""
        batch, bins, heldin = self.scored.shape
        everything = self.scored.new_ones(batch, time, neurons)
        everything[:, :bins, :heldin] = self.scored
        return everything

    def leak(self) -> Float[Tensor, ""]:
        """Share of counts that are both shown and scored."""
        return (self.keep & self.scored).float().mean()


def count_masks(
    generators: Sequence[Generator],
    bins: int,
    heldin: int,
    share: float,
    *,
    pass_through: bool,
    device: str | torch.device = "cpu",
) -> CountMasks:
    """Masks of a batch; row i is drawn from generator i alone.

    Args:
        generators: One a trial.
        bins: Observed bins.
        heldin: Held-in neurons.
        share: p, the probability that a count is shown, in (0, 1). The release calls it a rate of dropout, and keeps.
        pass_through: The released form, which leaks p (1 - p); False: a count is shown or scored, never both.
        device: Where the masks go.

    Raises:
        InputError: a probability outside (0, 1); no generator.
    """
    if not 0 < share < 1:
        raise InputError(
            f"expected a probability to be shown in (0, 1); got {share}. It is the share kept, not the share dropped."
        )
    if not generators:
        raise InputError("expected one generator a trial; got none. Use generators_of(seeds).")
    drawn = torch.stack(
        [
            torch.rand(1 + pass_through, bins, heldin, generator=g, device=g.device).to(device)
            for g in generators
        ]
    )
    keep = drawn[:, 0] < share
    scored = ~keep
    if pass_through:
        scored = scored | (drawn[:, 1] < 1 - share)
    return CountMasks(keep, scored, share)


def block(loss: Tensor, scored: Bool[Tensor, "..."]) -> Tensor:
    """The same numbers; gradients only where scored."""
    return torch.where(scored, loss, loss.detach())
