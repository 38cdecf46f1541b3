r"""The terms of an evidence bound for spikes: Poisson cost, normal KLs, and the transition term as it was released.

$$\ell(n, \log r) = r - n \log r, \qquad
  KL(\mathcal N(m, s^2) \,\|\, \mathcal N(0, p)) = \tfrac12\Big(\log p - \log s^2 + \frac{s^2 + m^2}{p} - 1\Big).$$

The released transition term puts the *sampled* velocity where the mean m belongs and the *variance* 2 gamma where log s²
does. All that is left of it is a constant and a penalty, KL_released = const + v² / (2p), that is v² / 0.2 for p = 0.1.

References:
    Kingma & Welling, "Auto-encoding variational Bayes", 2014, https://arxiv.org/abs/1312.6114, eq. 3 and appendix B.
    Song et al., 2025, https://arxiv.org/abs/2507.11531 (the transition term, as released).
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["observed_mean", "observed_sum", "poisson_cost", "standard_kl", "transition_kl"]


def poisson_cost(log_rates: Tensor, counts: Tensor) -> Tensor:
    """-log Poisson(n | r) without log n!, nats, element by element: what the release reports."""
    return torch.exp(log_rates) - counts * log_rates


def standard_kl(
    mean: Float[Tensor, "batch *event"], log_variance: Float[Tensor, "batch *event"]
) -> Float[Tensor, "batch"]:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) summed over the event, nats."""
    kl = 0.5 * (mean.square() + torch.exp(log_variance) - 1 - log_variance)
    return kl.flatten(1).sum(1)


def transition_kl(
    mean: Float[Tensor, "batch *event"],
    variance: float,
    prior_variance: float,
    *,
    variance_as_log_variance: bool = False,
) -> Float[Tensor, "batch"]:
    """KL(N(mean, variance) || N(0, prior_variance)) summed over the event, nats.

    Args:
        mean: (1 - gamma) v', mean of the velocity after a step; the release passes the velocity itself.
        variance: Of the noise of a step, > 0.
        prior_variance: p, > 0.
        variance_as_log_variance: The released form: the variance is read as its logarithm.

    Raises:
        InputError: a variance that is not positive.
    """
    if not (variance > 0 and prior_variance > 0):
        raise InputError(f"expected variances > 0; got {variance} and {prior_variance}.")
    log_variance = variance if variance_as_log_variance else math.log(variance)
    constant = math.log(prior_variance) - log_variance + math.exp(log_variance) / prior_variance - 1
    return 0.5 * (constant + mean.square() / prior_variance).flatten(1).sum(1)


def observed_sum(
    values: Float[Tensor, "batch time neuron"], observed: Bool[Tensor, "batch time"] | None = None
) -> Float[Tensor, "batch"]:
    """Sum over observed bins and all neurons, a trial; what unobserved bins hold, NaN included, does not matter."""
    if observed is not None:
        values = values.masked_fill(~observed[..., None], 0.0)
    return values.flatten(1).sum(1)


def observed_mean(
    values: Float[Tensor, "batch time neuron"], observed: Bool[Tensor, "batch time"] | None = None
) -> Float[Tensor, "batch"]:
    """Mean over observed bins and all neurons, a trial; 0 for a trial without observed bins."""
    bins = values.shape[1] if observed is None else observed.sum(1).clamp_min(1)
    return observed_sum(values, observed) / (bins * values.shape[2])
