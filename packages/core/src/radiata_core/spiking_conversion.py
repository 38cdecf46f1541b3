r"""From a network of quantised activations to spikes, layer for layer exactly.

A clipped ReLU with T = 2^b - 1 levels above zero,

    q(x) = (theta/T) clip(floor(T x/theta + 1/2), 0, T),

is what a neuron sends in T steps of a steady current x, if it starts at theta/2 and is reset by subtraction: after all steps
it has received theta/2 + T x, and each spike took theta. With steady input the number of spikes is *exactly* the level
(`level_of`); where T x/theta + 1/2 is an integer, rounding of the sums may decide otherwise. There are no negative spikes.

In depth a layer sees spikes, not their mean, and may fire early on what later spikes would have cancelled: the network is
converted exactly where a layer's input is steady, and otherwise up to this error, which a fine-tuning of the spiking network
reduces (`convert` returns an ordinary, trainable one).

References:
    Cao et al., "Spiking diffusion models", 2024, https://arxiv.org/abs/2408.16467 (the section on ANN-SNN conversion).
    Hu et al., "Fast-SNN", 2023, https://arxiv.org/abs/2305.19868.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.spiking import IntegrateFire, SpikingActivation
from radiata_core.spiking_networks import decoded

__all__ = ["ConvertedNetwork", "QuantisedReLU", "convert", "level_of"]


def level_of(x: Tensor, bits: int, threshold: float) -> Tensor:
    """clip(floor(T x/theta + 1/2), 0, T), T = 2^bits - 1: the number of spikes in T steps of the current x."""
    levels = 2**bits - 1
    return (levels * x / threshold + 0.5).floor().clamp(0, levels)


class QuantisedReLU(nn.Module):
    """q(x); the derivative passes through the rounding, and theta is learned.

    Args:
        bits: b, from 1 to 8.
        threshold: theta at the start, > 0: the largest output.

    Raises:
        InputError: bits or threshold out of range.
    """

    def __init__(self, bits: int = 2, threshold: float = 1.0) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise InputError(f"expected 1 to 8 bits; got {bits}. Each doubles the steps; 2 give 3.")
        if not 0 < threshold < math.inf:
            raise InputError(f"expected a threshold > 0; got {threshold}. 1 is the usual one.")
        self.bits = bits
        self.log_threshold = nn.Parameter(torch.tensor(math.log(threshold)))

    @property
    def steps(self) -> int:
        """T."""
        return int(2**self.bits - 1)

    @property
    def threshold(self) -> Tensor:
        """theta, a scalar."""
        return self.log_threshold.exp()

    def forward(self, x: Tensor) -> Tensor:
        theta = self.threshold.to(x.dtype)
        scaled = self.steps * x / theta
        rounded = scaled + ((scaled + 0.5).floor() - scaled).detach()
        return theta / self.steps * rounded.clamp(0, self.steps)

    def extra_repr(self) -> str:
        """What is shown of it when a network is printed."""
        return f"bits={self.bits}"


class ConvertedNetwork(nn.Module):
    """A spiking network made by `convert`; it is called as the quantised one, and answers with the mean over its steps.

    To save one, save the quantised network and convert again.
    """

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, x: Tensor, *arguments: Any, **conditions: Any) -> Tensor:
        def repeated(value: Any) -> Any:
            rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(x)
            return torch.cat([value] * self.steps) if rows else value

        given = {name: repeated(value) for name, value in conditions.items()}
        return decoded(self.network(repeated(x), *map(repeated, arguments), **given), self.steps, decay=1.0)


def convert(network: nn.Module) -> ConvertedNetwork:
    """The spiking network of a quantised one, which is copied; T = 2^bits - 1 steps.

    Raises:
        InputError: no `QuantisedReLU` in it, or of different bits.
    """
    kept = copy.deepcopy(network)
    places = {
        name: module
        for name, module in kept.named_modules(remove_duplicate=False)
        if isinstance(module, QuantisedReLU)
    }
    steps = {module.steps for module in places.values()}
    if len(steps) != 1 or "" in places:
        raise InputError(
            f"expected a network with QuantisedReLU modules of equal bits within; got steps {sorted(steps)}. "
            "Put them in the place of its activations and train it first."
        )
    (count,) = steps
    for name, module in places.items():
        theta = module.threshold.item()
        neuron = IntegrateFire(theta, reset="subtract", start=theta / 2)
        kept.set_submodule(name, SpikingActivation(count, neuron, size=theta))
    return ConvertedNetwork(kept, count)
