r"""A user's own network with spikes in the place of its activations.

    snn = spiking(network, activation=nn.SiLU, steps=4)      # a copy; the original is its twin
    snn(x, noise_level)                                      # the same arguments

Direct encoding: every row of x is given T times, the steps folded into the batch, so that convolutions, norms and attention
run as they are; only the replaced activations join the steps of a row. The output is the mean of the T answers with weights
proportional to 0.8^(T-1-n).

What this cannot see is an activation that is called as a function (`F.silu`); give it a module of its own. What it does not
change is what stands before the activation: where a network adds a residual to *activated* values, the sums are no longer
binary. Blocks of the order activation, convolution, norm (`nets.spiking`) keep every convolution's input binary. Batch norm
in training takes its statistics over rows and steps together; a norm of each row does not.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable
from radiata_core.spiking import IntegrateFire, SpikingActivation, decoding_weights

__all__ = ["SpikingNetwork", "decoded", "replaced", "spiking"]


def decoded(h: Tensor, steps: int, decay: float = 0.8) -> Tensor:
    """Weighted mean over the folded steps: `(steps * batch, *event)` -> `(batch, *event)`."""
    weights = decoding_weights(steps, decay).to(h)
    return (h.unflatten(0, (steps, -1)) * weights.reshape(-1, *[1] * h.ndim)).sum(0)


def replaced(
    network: nn.Module, activation: str, steps: int, neuron: IntegrateFire, keep: Sequence[str] = ()
) -> nn.Module:
    """A copy in which each module of the class `activation` is a spiking one, but for those in the parts named in `keep`.

    Raises:
        InputError: there is no such module.
    """
    kept = copy.deepcopy(network)
    places = [
        name
        for name, module in kept.named_modules(remove_duplicate=False)
        if name
        and type(module).__name__ == activation
        and not any(name == part or name.startswith(f"{part}.") for part in keep)
    ]
    if not places:
        raise InputError(
            f"expected modules of the class {activation} in {type(network).__name__}; got none. "
            "Name the class that it uses, and give activations that are called as functions a module."
        )
    for name in places:
        kept.set_submodule(name, SpikingActivation(steps, copy.deepcopy(neuron)))
    return kept


@buildable("spiking-network")
class SpikingNetwork(nn.Module):
    """A network of spiking activations, called as the network was.

    Args:
        network: `(x, *arguments) -> (batch, *any)`; it is copied.
        activation: Name of the class of modules that become spiking, such as "SiLU".
        steps: T, >= 1.
        threshold: theta of all neurons, > 0.
        leak: Of all neurons, in [0, 1].
        reset: "zero" or "subtract".
        decay: Of the weights of the steps in the output, in (0, 1].
        keep: Names of parts that keep their activations, such as the embedding of the noise level.

    Raises:
        InputError: nothing to replace, or numbers out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        activation: str = "SiLU",
        steps: int = 4,
        threshold: float = 1.0,
        leak: float = 1.0,
        reset: str = "zero",
        decay: float = 0.8,
        keep: Sequence[str] = (),
    ) -> None:
        super().__init__()
        decoding_weights(steps, decay)
        self.options: dict[str, Any] = {
            "network": network,
            "activation": activation,
            "steps": steps,
            "threshold": threshold,
            "leak": leak,
            "reset": reset,
            "decay": decay,
            "keep": tuple(keep),
        }
        self.steps, self.decay = steps, decay
        self.network = replaced(network, activation, steps, IntegrateFire(threshold, leak, reset), keep)

    def twin(self) -> nn.Module:
        """The network that it was made of, as it is now."""
        network: nn.Module = self.options["network"]
        return network

    def forward(self, x: Tensor, *arguments: Any, **conditions: Any) -> Tensor:
        """The network's output, decoded; tensors with one entry a row of x are repeated with it."""

        def repeated(value: Any) -> Any:
            rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(x)
            return torch.cat([value] * self.steps) if rows else value

        given = {name: repeated(value) for name, value in conditions.items()}
        output = self.network(repeated(x), *map(repeated, arguments), **given)
        return decoded(output, self.steps, self.decay)


def spiking(
    network: nn.Module,
    activation: type[nn.Module] = nn.SiLU,
    steps: int = 4,
    **settings: Any,
) -> SpikingNetwork:
    """A spiking copy of a network; `settings` are those of `SpikingNetwork`.

    Raises:
        InputError: no module of that class in the network.
    """
    return SpikingNetwork(network, activation.__name__, steps, **settings)
