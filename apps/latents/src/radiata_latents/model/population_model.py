"""What every network of a population has: neurons of which the first are held in, observed bins, and a forward window.

    encode(counts of held-in neurons) -> a posterior;  path(posterior) -> a path;  log_rates(path) -> all neurons, all bins

A posterior has `kl(path)`, nats a trial; a model without latents has one that is 0. That is all that the objectives ask for.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from radiata_core.errors import InputError

__all__ = ["LARGEST_LOG_RATE", "LatentModel", "PopulationModel"]

LARGEST_LOG_RATE = 5.0
"""Log of the largest rate, expected counts a bin: beyond it exp() only overflows."""


class PopulationModel(nn.Module):
    """The sizes of a population, and the checks that they bring.

    Args:
        neurons: All neurons; the held-in ones come first.
        heldin: How many the encoder sees.
        bins: Observed bins.
        forward: Bins after them.

    Raises:
        InputError: numbers that do not fit together.
    """

    def __init__(self, neurons: int, heldin: int, bins: int, forward: int) -> None:
        super().__init__()
        if not 0 < heldin <= neurons or bins < 2 or forward < 0:
            raise InputError(
                f"expected 0 < heldin <= neurons, 2 bins or more and forward >= 0; got {heldin} of {neurons} neurons and "
                f"{bins} + {forward} bins."
            )
        self.neurons, self.heldin, self.bins, self.forward_bins = neurons, heldin, bins, forward

    def check_counts(self, counts: Float[Tensor, "batch time neuron"]) -> None:
        """Nothing, if they are of all neurons, in observed and forward bins.

        Raises:
            InputError: another shape.
        """
        if counts.shape[1:] != (self.bins + self.forward_bins, self.neurons):
            raise InputError(
                f"expected counts of (batch, {self.bins} + {self.forward_bins} bins, {self.neurons} neurons); got "
                f"{tuple(counts.shape)}. Cut trials as the model expects."
            )

    def check_seen(self, counts: Float[Tensor, "batch bins heldin"]) -> None:
        """Nothing, if they are of held-in neurons, in observed bins.

        Raises:
            InputError: another shape.
        """
        if counts.shape[1:] != (self.bins, self.heldin):
            raise InputError(
                f"expected counts of (batch, {self.bins} observed bins, {self.heldin} held-in neurons); got "
                f"{tuple(counts.shape)}. Cut trials as the model was trained."
            )

    @staticmethod
    def check_generators(counts: Tensor, generators: Sequence[Generator] | None) -> Sequence[Generator]:
        """The generators, if there is one a trial.

        Raises:
            InputError: another number of them.
        """
        if generators is None or len(generators) != len(counts):
            raise InputError(
                f"expected one generator a trial, {len(counts)}; got {len(generators or ())}. Use generators_of(seeds)."
            )
        return generators

    def whole_trial_dropout(
        self, hidden: Float[Tensor, "batch time hidden"], probability: float
    ) -> Float[Tensor, "batch time hidden"]:
        """In training, hidden states without some units, the same in all bins of a trial.

        A unit that flickers from bin to bin is noise that its neighbours in time average out.
        """
        return hidden * functional.dropout(torch.ones_like(hidden[:, :1]), probability, self.training)

    @staticmethod
    def begin_at(readout: nn.Linear, mean: Float[Tensor, "neuron"]) -> None:
        """Set the bias of a read-out of log-rates to the neurons' mean counts a bin: the null model of the metrics."""
        with torch.no_grad():
            readout.bias.copy_(mean.clamp_min(1e-4).log())


class LatentModel(PopulationModel):
    """A population model whose posterior can be drawn from: rates along its mean, or means over draws.

    It has `encode`, `path` and `log_rates`.
    """

    def forward(self, counts: Float[Tensor, "batch bins heldin"]) -> Float[Tensor, "batch time neuron"]:
        """Log-rates of the posterior mean's path."""
        network: Any = self
        return network.log_rates(network.path(network.encode(counts)))

    def rates(
        self,
        counts: Float[Tensor, "batch bins heldin"],
        passes: int = 0,
        generators: Sequence[Generator] | None = None,
    ) -> Float[Tensor, "batch time neuron"]:
        """Expected counts a bin of all neurons, observed and forward bins.

        Args:
            counts: Spikes of held-in neurons.
            passes: Draws of the posterior, averaged as rates; 0: one pass along its mean.
            generators: One a trial, for draws.

        Raises:
            InputError: draws without generators.
        """
        network: Any = self
        posterior = network.encode(counts)
        if passes == 0:
            return network.log_rates(network.path(posterior)).exp()
        rows = self.check_generators(counts, generators)
        drawn = [network.log_rates(network.path(posterior, rows, rows)).exp() for _ in range(passes)]
        return torch.stack(drawn).mean(0)
