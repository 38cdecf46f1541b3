r"""What the released LangevinFlow is trained on, and the bound it should have been.

$$\mathcal L = \operatorname{mean}_{t,n}\,[r - n \log r] + w\,\big[KL(z_0) + KL(v_0) + \textstyle\sum_t KL_t\big],\qquad
  w = 0.1 \min(\text{epoch}/500, 1).$$

A *mean* over T·N counts stands against a *sum* over latents: of a trial's bound this is a beta of w T N, 10² to 10³, and
the posterior of the start collapses. With `mean_against_sum=False` both are sums, divided by the number of scored counts.

References:
    Song et al., 2025, https://arxiv.org/abs/2507.11531 (the loss, as released).
    Higgins et al., "beta-VAE", 2017, https://openreview.net/forum?id=Sy2fzU9gl, eq. 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.objectives import Loss
from radiata_latents.model.coordinated_dropout import CountMasks, block, count_masks
from radiata_latents.model.elbo_terms import observed_mean, observed_sum, poisson_cost, transition_kl
from radiata_latents.model.paper_flow import Draws, Encoded, PaperPath

__all__ = ["PaperBound"]


@dataclass(frozen=True)
class PaperBound:
    """The objective of `paper_flow.PaperLangevinFlow`, for `radiata_core.train`; its forms are the model's switches.

    Items are {"image": counts (time, neuron) of observed and forward bins, held-in neurons first, "observed": (time,)}.

    Attributes:
        steps_per_epoch: Updates an epoch, > 0: the release counts its ramp in epochs.
        step: Where the ramp stands; None: at its end.
    """

    steps_per_epoch: int = 1
    step: int | None = None
    companions: ClassVar[tuple[str, ...]] = ("observed",)

    def __post_init__(self) -> None:
        if self.steps_per_epoch < 1:
            raise InputError(f"expected one step an epoch or more; got {self.steps_per_epoch}.")

    def at(self, step: int) -> "PaperBound":
        """The objective of a step."""
        return replace(self, step=step)

    def weight(self, model: Any) -> float:
        """Weight of the KL now."""
        s = model.switches
        if self.step is None or s.kl_ramp == 0:
            return s.kl_weight
        return s.kl_weight * min(1.0, self.step // self.steps_per_epoch / s.kl_ramp)

    def __call__(
        self,
        model: Any,
        counts: Float[Tensor, "batch time neuron"],
        generators: Sequence[Generator],
        *,
        observed: Bool[Tensor, "batch time"] | None = None,
    ) -> Loss:
        """Loss of a batch; row i draws its masks and noise from generator i only.

        Raises:
            InputError: counts that do not fit the model.
        """
        model.check_counts(counts)
        s = model.switches
        masks = count_masks(
            generators, model.bins, model.heldin, s.shown, pass_through=s.pass_through, device=counts.device
        )
        return self.given(model, counts, masks, model.draw(generators, dropout=True), observed)

    def given(
        self,
        model: Any,
        counts: Float[Tensor, "batch time neuron"],
        masks: CountMasks,
        draws: Draws,
        observed: Bool[Tensor, "batch time"] | None = None,
    ) -> Loss:
        """Loss with given masks and noise."""
        if observed is not None:
            observed = observed.bool()  # the trainer's validation hands companions on as numbers
            counts = counts.masked_fill(~observed[..., None], 0.0)
        posterior = model.encode(masks.shown(counts[:, : model.bins, : model.heldin]), draws)
        path = model.path(posterior, draws=draws)
        cost = poisson_cost(model.log_rates(path), counts)
        scored = masks.scored_of_all(*counts.shape[1:])
        kl = self.weight(model) * _kl(model, posterior, path)
        if model.switches.mean_against_sum:
            per_sample = observed_mean(block(cost, scored), observed) + kl
        else:
            # Scored held-in counts stand for all of them: the sum is an unbiased estimate of the trial's cost.
            weights = scored.to(cost)
            weights[:, : model.bins, : model.heldin] /= _scored_share(masks, model.switches.pass_through)
            entries = observed_sum(weights, observed).clamp_min(1.0)
            per_sample = (observed_sum(cost * weights, observed) + kl) / entries
        return Loss(per_sample.mean(), per_sample, torch.zeros_like(per_sample))


def _scored_share(masks: CountMasks, pass_through: bool) -> float:
    """Probability that a held-in count is scored."""
    hidden = 1 - masks.share
    return hidden + masks.share * hidden if pass_through else hidden


def _kl(model: Any, posterior: Encoded, path: PaperPath) -> Float[Tensor, "batch"]:
    s = model.switches
    kl = posterior.kl()
    if not s.transition_term:
        return kl
    mean = path.velocity[:, 1:] if s.sample_as_mean else path.transition_mean
    return kl + transition_kl(
        mean, s.noise_variance, s.prior_variance, variance_as_log_variance=s.variance_as_log_variance
    )
