r"""The honest baseline: a bidirectional GRU that smooths spikes into a few factors, and no dynamics at all.

$$h_t = \mathrm{BiGRU}(n)_t, \qquad f_t = A h_t, \qquad \log r_t = W f_t + b$$

trained with coordinated dropout, so that it cannot copy. Whatever dynamics are worth shows against it. The forward window
is read from the last hidden state by one map a bin.

References:
    Keshtkaran & Pandarinath, 2019, https://arxiv.org/abs/1908.07896 (coordinated dropout).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from radiata_core.specs import buildable
from radiata_latents.model.gru_scan import bidirectional_gru
from radiata_latents.model.population_model import PopulationModel
from radiata_latents.model.rate_readout import RateReadout

__all__ = ["GRUSmoother", "NoPosterior"]


class NoPosterior:
    """A posterior without latents: its KL is 0."""

    def __init__(self, log_rates: Tensor) -> None:
        self.log_rates = log_rates

    def kl(self, path: object = None) -> Float[Tensor, "batch"]:
        """Zero, (batch,)."""
        return torch.zeros(len(self.log_rates), dtype=self.log_rates.dtype, device=self.log_rates.device)


@buildable("gru-smoother")
class GRUSmoother(PopulationModel):
    """Rates of a population from spikes of its held-in part; the interface of `LangevinFlow`, without latents.

    Args:
        neurons: All neurons; the held-in ones come first.
        heldin: How many the encoder sees.
        bins: Observed bins.
        forward: Bins after them.
        hidden: Units each way.
        factors: Width of the read-out.
        dropout: Probability that a hidden unit is missing in a whole trial.
        readout_units: Bounded units of the read-out; 0 for the linear one of the literature.
    """

    def __init__(
        self,
        neurons: int,
        heldin: int,
        bins: int,
        forward: int = 0,
        hidden: int = 64,
        factors: int = 16,
        dropout: float = 0.1,
        readout_units: int = 0,
    ) -> None:
        super().__init__(neurons, heldin, bins, forward)
        self.options = {
            "neurons": neurons,
            "heldin": heldin,
            "bins": bins,
            "forward": forward,
            "hidden": hidden,
            "factors": factors,
            "dropout": dropout,
            "readout_units": readout_units,
        }
        self.encoder = nn.GRU(heldin, hidden, batch_first=True, bidirectional=True)
        self.dropped = dropout
        self.factors = nn.Linear(2 * hidden, factors)
        self.ahead = nn.Linear(2 * hidden, forward * factors) if forward else None
        self.readout = RateReadout(factors, neurons, readout_units)

    def set_mean_counts(self, mean: Float[Tensor, "neuron"]) -> None:
        """Begin at the neurons' mean counts a bin."""
        self.readout.set_mean_counts(mean)

    def encode(self, counts: Float[Tensor, "batch bins heldin"]) -> NoPosterior:
        """Log-rates, in the place of a posterior."""
        self.check_seen(counts)
        hidden = self.whole_trial_dropout(bidirectional_gru(self.encoder, counts), self.dropped)
        factors = self.factors(hidden)
        if self.ahead is not None:
            factors = torch.cat([factors, self.ahead(hidden[:, -1]).unflatten(1, (self.forward_bins, -1))], 1)
        return NoPosterior(self.readout(factors))

    def path(
        self,
        posterior: NoPosterior,
        generators: Sequence[Generator] | None = None,
        forward_generators: Sequence[Generator] | None = None,
    ) -> NoPosterior:
        """The same; there is nothing to draw."""
        return posterior

    def log_rates(self, path: NoPosterior) -> Float[Tensor, "batch time neuron"]:
        """Log of expected counts a bin."""
        return path.log_rates

    def rates(
        self,
        counts: Float[Tensor, "batch bins heldin"],
        passes: int = 0,
        generators: Sequence[Generator] | None = None,
    ) -> Float[Tensor, "batch time neuron"]:
        """Expected counts a bin of all neurons, observed and forward bins."""
        return self.encode(counts).log_rates.exp()
