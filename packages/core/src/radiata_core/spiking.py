r"""Spiking neurons whose state is made and dropped within one call: currents in, spikes out.

A neuron of threshold $\theta$ adds its current to what is left of its potential, fires where that reaches the threshold, and
is reset, for n = 0 … T - 1:

    U[n] = leak V[n-1] + I[n],      S[n] = 1 where U[n] >= theta, else 0,
    V[n] = U[n] (1 - S[n])          reset "zero"
    V[n] = U[n] - theta S[n]        reset "subtract": no charge is lost

leak = 1 is the integrate-and-fire neuron of spiking diffusion models. The step has no useful derivative; going backward, a
window about the threshold stands for it (`AtanWindow`, `BoxWindow`), and the reset passes no gradient.

Libraries keep V in a buffer that has to be cleared after every call; a sampler that forgets mixes one noise level with the
next. Here `forward` takes all steps at once, `(steps, batch, *event)`, and nothing is kept: two calls are two calls.

`SpikingActivation` is a neuron in the place of an activation: steps folded into the batch, so that every layer between two
of them works as it is. It holds the *temporal gain* p[n], one number a step: I[n] <- p[n] I[n]. At 1, where it starts, it
changes nothing, to the bit. Training has two stages: the network with p held at 1, then a short one of all with p free
(`free_gains`). `thresholds` changes all thresholds for a while, the "threshold guidance" that needs no training.

Reading order: `IntegrateFire`, `SpikingActivation`; then `spiking_networks`, `spiking_conversion`, `spiking_energy`.

References:
    Cao et al., "Spiking diffusion models", 2024, https://arxiv.org/abs/2408.16467 (neuron, temporal-wise spiking mechanism,
        threshold guidance).
    Fang et al., "Incorporating learnable membrane time constant", 2021, https://arxiv.org/abs/2007.05785 (the ATan window).
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError

__all__ = [
    "AtanWindow",
    "BoxWindow",
    "IntegrateFire",
    "SpikingActivation",
    "Window",
    "decoding_weights",
    "free_gains",
    "thresholds",
]

Currents = Float[Tensor, "steps batch *event"]
Folded = Float[Tensor, "rows *event"]
RESETS = ("zero", "subtract")


@dataclass(frozen=True)
class AtanWindow:
    """alpha/2 / (1 + (pi alpha u/2)^2), the derivative of arctan(pi alpha u/2)/pi.

    Attributes:
        alpha: Sharpness, > 0, in units of 1/potential.
    """

    alpha: float = 2.0

    def __call__(self, excess: Tensor) -> Tensor:
        return self.alpha / 2 / (1 + (math.pi / 2 * self.alpha * excess).square())


@dataclass(frozen=True)
class BoxWindow:
    """1/width within half a width of the threshold, else 0.

    Attributes:
        width: In units of potential, > 0.
    """

    width: float = 1.0

    def __call__(self, excess: Tensor) -> Tensor:
        return (excess.abs() < self.width / 2).to(excess.dtype) / self.width


Window = AtanWindow | BoxWindow


class _Fire(torch.autograd.Function):
    """The step 1{u >= 0}; backward, the window."""

    @staticmethod
    def forward(ctx: Any, excess: Tensor, window: Window) -> Tensor:
        ctx.save_for_backward(excess)
        ctx.window = window
        return (excess >= 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (excess,) = ctx.saved_tensors
        return gradients[0] * ctx.window(excess), None


class IntegrateFire(nn.Module):
    """Spikes, 0 or 1, of leaky integrate-and-fire neurons; no parameters, no buffers, no state between calls.

    Args:
        threshold: theta > 0, in units of the current.
        leak: Share of the potential that is left after a step, in [0, 1]; 1 for none lost.
        reset: "zero" or "subtract".
        start: V before the first step.
        window: Surrogate derivative of the step.

    Raises:
        InputError: a threshold, leak or reset out of range.
    """

    def __init__(
        self,
        threshold: float = 1.0,
        leak: float = 1.0,
        reset: str = "zero",
        start: float = 0.0,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        if not 0 < threshold < math.inf:
            raise InputError(f"expected a threshold > 0; got {threshold}. 1 is the usual one.")
        if not 0 <= leak <= 1:
            raise InputError(f"expected a leak in [0, 1]; got {leak}. 1 loses nothing.")
        if reset not in RESETS:
            raise InputError(f"expected reset zero or subtract; got {reset!r}. Use one of them.")
        self.threshold, self.leak, self.reset, self.start = threshold, leak, reset, start
        self.window: Window = window or AtanWindow()

    def forward(self, currents: Currents) -> Currents:
        """Spikes of the same shape, of neurons that are all at `start` before step 0."""
        potential = torch.full_like(currents[0], self.start)
        spikes = []
        for current in currents.unbind(0):
            potential = potential + current if self.leak == 1 else self.leak * potential + current
            fired: Tensor = _Fire.apply(potential - self.threshold, self.window)
            spikes.append(fired)
            if self.reset == "zero":
                potential = potential.masked_fill(fired.detach() > 0, 0.0)
            else:
                potential = potential - self.threshold * fired.detach()
        return torch.stack(spikes)

    def extra_repr(self) -> str:
        """What is shown of it when a network is printed."""
        return f"threshold={self.threshold:g}, leak={self.leak:g}, reset={self.reset}, start={self.start:g}"


class SpikingActivation(nn.Module):
    """A neuron in the place of an activation, on folded rows: row n * batch + i is step n of sample i.

    Args:
        steps: T, >= 1.
        neuron: By default integrate-and-fire, threshold 1, reset to zero.
        size: Of a spike in the output, > 0; 1 but for converted networks, where weights could take it up.

    Raises:
        InputError: no steps, or a size that is not positive.
    """

    def __init__(self, steps: int, neuron: IntegrateFire | None = None, size: float = 1.0) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"expected at least one step; got {steps}. Four are usual.")
        if not 0 < size < math.inf:
            raise InputError(f"expected spikes of a size > 0; got {size}. 1 is the usual one.")
        self.steps, self.size = steps, size
        self.neuron = neuron or IntegrateFire()
        self.gain = nn.Parameter(torch.ones(steps), requires_grad=False)

    def forward(self, h: Folded) -> Folded:
        """Spikes of the shape of h.

        Raises:
            InputError: rows that are not a multiple of the steps.
        """
        if len(h) % self.steps:
            raise InputError(
                f"expected rows for {self.steps} steps; got {len(h)} rows. Repeat the input along the batch."
            )
        currents = h.unflatten(0, (self.steps, -1))
        gain = self.gain.reshape(-1, *[1] * h.ndim).to(h.dtype)
        spikes = self.neuron(gain * currents).flatten(0, 1)
        return spikes if self.size == 1 else self.size * spikes

    def extra_repr(self) -> str:
        """What is shown of it when a network is printed."""
        return f"steps={self.steps}, size={self.size:g}"


def _activations(network: nn.Module) -> list[SpikingActivation]:
    """The spiking activations of a network.

    Raises:
        InputError: there are none.
    """
    found = [module for module in network.modules() if isinstance(module, SpikingActivation)]
    if not found:
        raise InputError(
            f"expected a spiking network; got {type(network).__name__} without spiking activations. "
            "Make it one with spiking_networks.spiking."
        )
    return found


def free_gains(network: nn.Module, free: bool = True) -> list[nn.Parameter]:
    """Stage two of training: the gains p[n] of all layers, now to be trained (or held again). Give them no weight decay.

    Raises:
        InputError: nothing spikes in the network.
    """
    gains = [activation.gain for activation in _activations(network)]
    for gain in gains:
        gain.requires_grad_(free)
    return gains


@contextlib.contextmanager
def thresholds(network: nn.Module, value: float) -> Iterator[None]:
    """Within the context every threshold is `value` times its own; then all are what they were, also after an error.

    Above 1 fewer spikes, below 1 more. Which of them helps is not known beforehand, if any.

    Args:
        network: With spiking activations.
        value: > 0; the authors used 0.997 to 1.003. At 1 nothing changes, to the bit.

    Raises:
        InputError: a value that is not positive, or a network in which nothing spikes.
    """
    if not 0 < value < math.inf:
        raise InputError(f"expected a factor of the thresholds > 0; got {value}. 1 changes nothing.")
    neurons = {id(a.neuron): a.neuron for a in _activations(network)}.values()
    before = [neuron.threshold for neuron in neurons]
    try:
        for neuron in neurons:
            neuron.threshold = neuron.threshold * value
        yield
    finally:
        for neuron, threshold in zip(neurons, before, strict=True):
            neuron.threshold = threshold


def decoding_weights(steps: int, decay: float = 0.8) -> Tensor:
    """decay^(T-1-n) over their sum, `(steps,)`, float64: the last step counts most; decay 1 is the mean.

    Raises:
        InputError: a decay out of (0, 1].
    """
    if not 0 < decay <= 1:
        raise InputError(f"expected a decay in (0, 1]; got {decay}. The authors' is 0.8.")
    weights = decay ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    return weights / weights.sum()
