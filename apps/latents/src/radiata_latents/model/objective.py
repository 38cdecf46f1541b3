r"""What a latent model is trained on: the evidence lower bound of a trial, with part of its own spikes hidden from it.

$$\mathcal L = -\sum_{\text{scored}} w\,\log\mathrm{Poisson}(n \mid r) + \beta\,KL,$$

a *sum* over bins and neurons against a *sum* over latents, as the bound has it: beta <= 1 means what it says. (A mean
against a sum, as LangevinFlow released it, is a beta of some hundreds, which empties the latents.) The value reported is
the bound over the number of scored counts.

Coordinated dropout: an encoder that sees the spikes it is scored on learns to copy them. Each held-in count is either shown
(scaled by one over the share shown) or scored, never both; what is scored weighs as much as if all were. Held-out neurons
and the forward window are always scored and never shown; bins that were not observed are neither.

References:
    Keshtkaran & Pandarinath, "Enabling hyperparameter optimization in sequential autoencoders for spiking neural data",
        2019, https://arxiv.org/abs/1908.07896 (coordinated dropout).
    Kingma & Welling, "Auto-encoding variational Bayes", 2014, https://arxiv.org/abs/1312.6114, eq. 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.objectives import Loss
from radiata_latents.model.coordinated_dropout import count_masks
from radiata_latents.model.elbo_terms import poisson_cost

__all__ = ["TrialBound", "poisson_nll"]


def poisson_nll(log_rates: Tensor, counts: Tensor) -> Tensor:
    """-log Poisson(counts | exp(log_rates)), nats, element by element."""
    return poisson_cost(log_rates, counts) + torch.lgamma(counts + 1)


@dataclass(frozen=True)
class TrialBound:
    """The objective of `model.langevin_flow.LangevinFlow`, for `radiata_core.train`.

    Items are {"image": counts (time, neuron) of observed and forward bins, held-in neurons first, "observed": (time,)}.

    Attributes:
        beta: Weight of the KL, in [0, 1].
        ramp: Steps over which beta rises to its value.
        shown: Probability that a held-in count is shown, (0, 1); the others are scored.
        step: Where the ramp stands.
    """

    beta: float = 1.0
    ramp: int = 0
    shown: float = 0.7
    step: int | None = None
    companions: ClassVar[tuple[str, ...]] = ("observed",)

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1 or not 0 < self.shown < 1 or self.ramp < 0:
            raise InputError(
                f"expected beta in [0, 1], shown in (0, 1) and a ramp >= 0; got {self.beta}, {self.shown} and {self.ramp}."
            )

    def at(self, step: int) -> "TrialBound":
        """The objective of a step."""
        return replace(self, step=step)

    @property
    def weight(self) -> float:
        """Beta now."""
        if self.step is None or self.ramp == 0:
            return self.beta
        return self.beta * min(1.0, self.step / self.ramp)

    def __call__(
        self,
        model: Any,
        counts: Float[Tensor, "batch time neuron"],
        generators: Sequence[Generator],
        *,
        observed: Bool[Tensor, "batch time"] | None = None,
    ) -> Loss:
        """Loss of a batch; row i draws its mask and noise from generator i only.

        Raises:
            InputError: counts that do not fit the model.
        """
        model.check_counts(counts)
        masks = count_masks(
            generators, model.bins, model.heldin, self.shown, pass_through=False, device=counts.device
        )
        posterior = model.encode(masks.shown(counts[:, : model.bins, : model.heldin]))
        path = model.path(posterior, generators, generators)
        log_rates = model.log_rates(path)
        weights = torch.ones_like(counts)
        weights[:, : model.bins, : model.heldin] = masks.scored.to(counts) / (1 - self.shown)
        if observed is not None:
            weights = weights * observed[..., None].to(counts)
        nll = (weights * poisson_nll(log_rates, counts)).flatten(1).sum(1)
        scored = weights.flatten(1).sum(1).clamp_min(1.0)
        per_sample = (nll + self.weight * posterior.kl(path)) / scored
        return Loss(per_sample.mean(), per_sample, torch.zeros_like(per_sample))
