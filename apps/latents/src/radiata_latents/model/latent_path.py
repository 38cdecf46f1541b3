r"""Where latents are, and what is believed of them: paths of the dynamics, and the posterior that draws them.

Start and noise have standard normal priors, so whatever the dynamics are,

$$KL = \sum \big[\tfrac12(\mu^2 + s^2 - 1) - \log s\big],$$

over the start and the noise of every bin. Where the mean of the noise depends on the path so far, $\mu$ is that along
the path.

References:
    Kingma & Welling, "Auto-encoding variational Bayes", 2014, https://arxiv.org/abs/1312.6114, appendix B.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["CertainPosterior", "LatentPath", "Posterior"]


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the encoder says: independent normal laws.

    Attributes:
        start_mean: Of (q, v / omega) in the first bin.
        start_log_sd: Log of its standard deviation.
        noise_mean: Of the standard normal numbers that drive each step between observed bins.
        noise_log_sd: Log of their standard deviation.
    """

    start_mean: Float[Tensor, "batch 2 latent"]
    start_log_sd: Float[Tensor, "batch 2 latent"]
    noise_mean: Float[Tensor, "batch steps draws latent"]
    noise_log_sd: Float[Tensor, "batch steps draws latent"]

    def kl(self, path: "LatentPath | None" = None) -> Float[Tensor, "batch"]:
        """KL to the standard normal prior of start and noise, nats a trial.

        Args:
            path: A draw of the posterior, where the noise has feedback: its mean is then that along the path.
        """
        mean = self.noise_mean
        if path is not None and path.noise_mean is not None:
            mean = path.noise_mean[:, : mean.shape[1]]
        return _kl(self.start_mean, self.start_log_sd) + _kl(mean, self.noise_log_sd)

    def informed(self) -> tuple[float, float]:
        """Share of the variance of start and noise that trials explain, in [0, 1]: 0 is a collapsed posterior."""
        return _informed(self.start_mean, self.start_log_sd), _informed(self.noise_mean, self.noise_log_sd)


class CertainPosterior(Posterior):
    """Of a model without latents: its means are read out, so there is nothing to draw and no KL."""

    def kl(self, path: "LatentPath | None" = None) -> Float[Tensor, "batch"]:
        """Zero, (batch,)."""
        return torch.zeros_like(self.start_mean[:, 0, 0])

    def informed(self) -> tuple[float, float]:
        """All of it."""
        return 1.0, 1.0


@dataclass(frozen=True, eq=False)
class LatentPath:
    """Positions and velocities over omega: both have variance 1 at rest if the potential is |q|^2 / 2.

    Attributes:
        position: q.
        velocity: v / omega.
        noise_mean: Where the path was inferred: the mean of the noise given the path so far, feedback included.
    """

    position: Float[Tensor, "batch time latent"]
    velocity: Float[Tensor, "batch time latent"]
    noise_mean: Float[Tensor, "batch steps draws latent"] | None = None

    @property
    def features(self) -> Float[Tensor, "batch time features"]:
        """Both, side by side."""
        return torch.cat([self.position, self.velocity], 2)


def _kl(mean: Tensor, log_sd: Tensor) -> Tensor:
    return (0.5 * (mean.square() + torch.exp(2 * log_sd) - 1) - log_sd).flatten(1).sum(1)


def _informed(mean: Tensor, log_sd: Tensor) -> float:
    between = mean.var(0, unbiased=False)
    return float((between.sum() / (between + torch.exp(2 * log_sd).mean(0)).sum()).detach())
