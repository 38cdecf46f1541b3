r"""From latents to log-rates: linear, and beside it units that saturate.

$$\log r = W f + V \tanh(U f + a) + b$$

Oscillators are unbounded and their read-out exponential, so a linear one cannot hold a rate at a ceiling or a floor, which
recordings and simulations have; bounded units can. On held-out trajectories of a Lorenz attractor that is worth more than
everything in the prior (docs/latents.md). Without units it is the linear read-out, in which a neuron's weights can be
read as loadings.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_latents.model.population_model import LARGEST_LOG_RATE, PopulationModel

__all__ = ["RateReadout"]


class RateReadout(nn.Module):
    """Log of expected counts a bin, (batch, time, neuron), from features (batch, time, feature).

    Args:
        features: Their number.
        neurons: How many.
        units: Width of the bounded part, >= 0.

    Raises:
        InputError: a negative width.
    """

    def __init__(self, features: int, neurons: int, units: int) -> None:
        super().__init__()
        if units < 0:
            raise InputError(f"expected units >= 0; got {units}. 0 is a linear read-out.")
        self.bounded = nn.Linear(features, units) if units else None
        self.linear = nn.Linear(features + units, neurons)
        nn.init.normal_(self.linear.weight, std=0.1 * math.sqrt(2 / features))

    def forward(self, features: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch time neuron"]:
        """Log-rates, at most `LARGEST_LOG_RATE`."""
        if self.bounded is not None:
            features = torch.cat([features, torch.tanh(self.bounded(features))], -1)
        return self.linear(features).clamp(max=LARGEST_LOG_RATE)

    def set_mean_counts(self, mean: Float[Tensor, "neuron"]) -> None:
        """Begin at the neurons' mean counts a bin: the null model of the metrics."""
        PopulationModel.begin_at(self.linear, mean)
