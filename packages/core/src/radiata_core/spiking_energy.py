r"""What a forward pass would cost where a spike is an addition: every operation counted by whether its input is binary.

A product of a layer with a float input is a multiply-accumulate (MAC, 4.6 pJ); with an input of zeros and ones it is an
addition for each one (AC, 0.9 pJ), nothing for a zero (45 nm, 32-bit floats). With rate, the share of ones, and T steps,

    E = 4.6 MAC + 0.9 AC,      AC = rate T MAC_of_the_layer,

so that a layer is cheaper than its twin without spikes below **T rate = 4.6/0.9 = 5.1**; at T = 8 a rate of 0.64 spends all.
The published formula takes only the first convolution as floats. Here all are counted as they come: embeddings, stems and
heads read floats and are MACs; convolutions, linear layers, matrix products and both products of attention are seen, however
they are called. Norms, sums and thresholds are not counted, on either side, nor is memory, which may cost more.

It is an account, not a measurement: **on a CPU or GPU a spiking network is slower**, T times its twin or so, since
they multiply by zero at the price of any other number.

References:
    Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014 (energies of operations).
    Cao et al., "Spiking diffusion models", 2024, https://arxiv.org/abs/2408.16467 (the formula).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from radiata_core.errors import InputError
from radiata_core.spiking import SpikingActivation

__all__ = ["SynapticEnergy", "synaptic_energy"]

_aten = torch.ops.aten
_OPERANDS: Mapping[Any, tuple[int, ...]] = {
    _aten.convolution: (0,),
    _aten._convolution: (0,),
    _aten.mm: (0,),
    _aten.addmm: (1,),
    _aten.bmm: (0, 1),
    _aten.baddbmm: (1, 2),
}
"""Products, with the arguments that may be spikes; weights are not."""


@dataclass(frozen=True)
class SynapticEnergy:
    """Operations and energy of one row's forward pass.

    Attributes:
        macs: Multiply-accumulates, of operations with an input that is not binary.
        acs: Additions, of those with a binary one: its ones.
        rate: Of each layer with binary input (module name), the share of ones in it.
        picojoule: mac_pj macs + ac_pj acs.
        twin_picojoule: Of the twin, nan without one.
        ratio: picojoule/twin_picojoule.
    """

    macs: float
    acs: float
    rate: dict[str, float]
    picojoule: float
    twin_picojoule: float
    ratio: float


class _Account(TorchDispatchMode):
    """Counts products below every way of calling them."""

    def __init__(self, sizes: set[float], place: Callable[[], str]) -> None:
        super().__init__()
        self.sizes, self.place = sizes, place
        self.macs = self.acs = 0.0
        self.seen: dict[str, list[tuple[float, float]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in _OPERANDS:
            dense = flop_registry[packet](*args, **(kwargs or {}), out_val=output) / 2
            operands = [args[index] for index in _OPERANDS[packet]]
            rates = [rate for rate in map(self.rate_of, operands) if rate is not None]
            if rates:
                self.acs += dense * rates[0]
                self.seen.setdefault(self.place(), []).append((dense, rates[0]))
            else:
                self.macs += dense
        return output

    def rate_of(self, x: Tensor) -> float | None:
        """Share of ones, or None if x is not binary: zeros and one size of spike."""
        ones = x != 0
        count = int(ones.sum())
        if count == 0:
            return 0.0
        largest = x.max()
        if not any(bool(largest == torch.tensor(size, dtype=x.dtype)) for size in self.sizes):
            return None
        return count / x.numel() if bool(((x == largest) | ~ones).all()) else None


@contextmanager
def _places(network: nn.Module) -> Iterator[Callable[[], str]]:
    """The name of the module that is running."""
    stack: list[str] = []
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: [stack.pop(), None][1]))
    try:
        yield lambda: stack[-1] if stack else ""
    finally:
        for hook in hooks:
            hook.remove()


def _account(network: nn.Module, arguments: tuple[Any, ...], conditions: Mapping[str, Any]) -> _Account:
    spiking = [module for module in network.modules() if isinstance(module, SpikingActivation)]
    sizes = {1.0, *(module.size for module in spiking)}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _places(network) as place:
        account = _Account(sizes, place)
        with account:
            network(*arguments, **conditions)
    return account


def synaptic_energy(
    network: nn.Module,
    x: Tensor,
    level: Tensor,
    *arguments: Any,
    mac_pj: float = 4.6,
    ac_pj: float = 0.9,
    twin: nn.Module | None = None,
    **conditions: Any,
) -> SynapticEnergy:
    """The account of one forward pass on x, a row; a network's weights and mode stay as they are.

    Args:
        network: Of `(x, level, *arguments, **conditions)`.
        x: `(batch, channels, *grid)`; rates are measured on it, so take real states.
        level: Noise level, a scalar or `(batch,)`.
        arguments: Further ones of the network.
        mac_pj: Energy of a multiply-accumulate, in pJ.
        ac_pj: Energy of an addition, in pJ.
        twin: The same network without spikes; by default what its method `twin` answers, if it has one.
        conditions: Passed to both.

    Raises:
        InputError: energies that are not positive.
    """
    if not (0 < mac_pj < math.inf and 0 < ac_pj < math.inf):
        raise InputError(f"expected energies > 0 pJ; got {mac_pj} and {ac_pj}. 4.6 and 0.9 are for 45 nm.")
    given = (x, level, *arguments)
    account = _account(network, given, conditions)
    other: nn.Module | None = twin if twin is not None else getattr(network, "twin", lambda: None)()
    paid = (mac_pj * account.macs + ac_pj * account.acs) / len(x)
    reference = math.nan
    if other is not None:
        there = _account(other, given, conditions)
        reference = (mac_pj * there.macs + ac_pj * there.acs) / len(x)
    rates = {
        name: sum(dense * rate for dense, rate in entries) / sum(dense for dense, _ in entries)
        for name, entries in account.seen.items()
    }
    return SynapticEnergy(
        account.macs / len(x), account.acs / len(x), rates, paid, reference, paid / reference
    )
