r"""Taps and handles: reading and changing any denoising network from outside, and leaving it as it was.

A *tap* reads what a module answers. A *handle* changes what a site (`sites`) does until it is removed; then outputs are
again what they were, to the bit, and at no time do the tensors of the state dictionary change. Papers become small pieces
on these:

    routing        residual sites, a mask of channels that depends on the noise level         `routing`
    windows        attention sites, softmax within windows                                    `attention_windows`
    alignment      a tap, and a loss on what it reads                                         `alignment`

    with routed(network), tapped(network, "down.1") as taps:
        loss = objective(network, ...) + align(taps["down.1"], target)

**The noise level** is a number a row in [0, 1], 0 = data and 1 = noise, and may differ from row to row. It is read off
the call itself, never counted: networks told $\lambda = \log(\alpha/\sigma)$ (`noise_level`) are at
$\sigma/(\alpha + \sigma) = 1/(1 + e^\lambda)$, which is t on the linear path; networks told a step 0 … 999 (`timesteps`) at
(step + 1)/1000; a module with the attribute `told_as` says so itself. A context variable carries it to the sites, so
threads do not meet, and nothing is left behind.

Handles are hooks. A copy of a network (`copy.deepcopy`) keeps those that it had; blocks that are checkpointed must be
recomputed in the context of their call, as `nets.transformer` does.
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.sites import sites_of, some_of

__all__ = [
    "Call",
    "Handle",
    "attached",
    "cells_of",
    "first_of",
    "level_of_log_snr",
    "level_of_quarter_log_kappa",
    "level_of_step",
    "on_cells",
    "tapped",
    "told_module",
]


@dataclass(frozen=True, eq=False)
class Call:
    """What one call of a network is about.

    Attributes:
        level: Noise level of each row, `(batch,)`, 0 = data to 1 = noise.
        grid: Voxels along each axis of the network's input.
        notes: What one hook leaves for another of the same call; gone with the call.
    """

    level: Float[Tensor, "batch"]
    grid: tuple[int, ...]
    notes: dict[Any, Any] = field(default_factory=dict)


class Handle:
    """A change to a network that can be taken back, by `remove` or at the end of a `with` block."""

    def __init__(self, undo: Callable[[], object]) -> None:
        self._undo: Callable[[], object] | None = undo

    def remove(self) -> None:
        """Take the change back; a second time does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def level_of_log_snr(log_snr: Tensor) -> Tensor:
    """sigma/(alpha + sigma) in [0, 1] of lambda = log(alpha/sigma): t itself on the linear path."""
    return torch.sigmoid(-log_snr)


def level_of_step(step: Tensor) -> Tensor:
    """(step + 1)/1000 in [0, 1] of a step 0 … 999, as DDPM networks are told it."""
    return ((step.double() + 1) / 1000).clamp(0, 1)


def level_of_quarter_log_kappa(told: Tensor) -> Tensor:
    """kappa/(1 + kappa) in [0, 1] of log(kappa)/4 with kappa = sigma/alpha, as EDM's networks are told it."""
    return torch.sigmoid(4 * told)


_TOLD = {"noise_level": "log-snr", "timesteps": "step", "timestep": "step"}
"""Parameters of `forward` that are the noise level, and what they mean unless a module says otherwise by `told_as`."""
_MEANINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "log-snr": level_of_log_snr,
    "step": level_of_step,
    "quarter-log-kappa": level_of_quarter_log_kappa,
}
_CALLS: ContextVar[Mapping[int, Call]] = ContextVar("radiata_calls")


def attached(
    network: nn.Module,
    hooks: Mapping[str, tuple[Callable[..., Any] | None, Callable[..., Any] | None]],
    level: Callable[[Tensor], Tensor] | None = None,
    told: str | None = None,
    reads: bool = False,
    first: bool = False,
) -> Handle:
    """Handle on functions around modules.

    `before(call, module, args, kwargs)` gives new (args, kwargs), or None for the same; `after(call, module, args, kwargs,
    output)` a new output, or None, and sees the arguments that the module saw.

    Args:
        network: The network, or a module around it; the outermost module that is told a noise level is the one whose calls
            are listened to.
        hooks: Module name → (before, after), None for none.
        level: Noise level in [0, 1] from what the network is told; None for what the parameter's name says.
        told: Name of the parameter of `forward` that is the noise level; None for noise_level, timesteps or timestep.
        reads: Whether `after` only reads: then it comes after all that change the output, whenever it was attached.
        first: Whether `before` comes before those attached so far: for what changes the grid. Not on the network itself.

    Raises:
        InputError: no module is told a noise level, or a name that is no module.
    """
    outer, parameter, word = told_module(network, told)
    meaning = level or _MEANINGS.get(word)
    if meaning is None:
        raise InputError(f"expected a function from {parameter!r} to [0, 1]; got none. Give level=.")
    modules = dict(network.named_modules())
    undo = contextlib.ExitStack()
    key = id(undo)
    undo.callback(_listen(outer, key, parameter, meaning).close)
    for name, (before, after) in hooks.items():
        if name not in modules:
            undo.close()
            raise InputError(f"expected modules of the network; got {name!r}. It has {some_of(modules)}.")
        if before is not None:
            hook = _pre(key, before)
            undo.callback(
                modules[name].register_forward_pre_hook(hook, prepend=first, with_kwargs=True).remove
            )
        if after is not None:
            hook = _post(key, after)
            undo.callback(
                modules[name].register_forward_hook(hook, prepend=not reads, with_kwargs=True).remove
            )
    return Handle(undo.close)


@contextlib.contextmanager
def tapped(
    network: nn.Module,
    *names: str,
    level: Callable[[Tensor], Tensor] | None = None,
    told: str | None = None,
) -> Iterator[dict[str, Tensor]]:
    """What modules answered in the last call: name → `(batch, channels, *cells)`, empty before the first.

    Gradients flow through what is read. Tokens of known blocks are folded back onto their grid.

    Args:
        network: The network, or a module around it.
        names: Modules inside it.
        level: As for `attached`.
        told: As for `attached`.

    Raises:
        InputError: no module is told a noise level, or a name that is no module.
    """
    held: dict[str, Tensor] = {}
    tokens = _token_modules(network)

    def reader(name: str) -> Callable[..., None]:
        def read(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            values = first_of(output)
            held[name] = on_cells(values, cells_of(network, call.grid)) if name in tokens else values

        return read

    with attached(network, {name: (None, reader(name)) for name in names}, level, told, reads=True):
        yield held


def _token_modules(network: nn.Module) -> set[str]:
    try:
        return {site.name for site in sites_of(network).values() if site.axis == -1}
    except InputError:  # a network without any known block is tapped as it is
        return set()


def cells_of(network: nn.Module, grid: Sequence[int]) -> tuple[int, ...]:
    """Tokens along each axis for an input of `grid` voxels: the network's own `token_grid`, or voxels over its `patch`."""
    module: Any
    for module in network.modules():
        if hasattr(module, "token_grid"):
            return tuple(module.token_grid(grid))
        if hasattr(module, "patch"):
            patch = module.patch
            sizes = (patch,) * len(grid) if isinstance(patch, int) else tuple(patch)
            return tuple(math.ceil(n / p) for n, p in zip(grid, sizes, strict=True))
    return tuple(grid)


def on_cells(tokens: Tensor, cells: Sequence[int]) -> Tensor:
    """Tokens `(batch, tokens, channels)` as maps `(batch, channels, *cells)`; what follows the grid's tokens is left out."""
    return tokens[:, : math.prod(cells)].transpose(1, 2).unflatten(2, tuple(cells))


def first_of(values: Any) -> Tensor:
    """The tensor itself, or the first of a tuple."""
    return values if isinstance(values, Tensor) else values[0]


def told_module(network: nn.Module, told: str | None = None) -> tuple[nn.Module, str, str]:
    """The outermost module that is told a noise level, the parameter's name, and the word for its meaning.

    Raises:
        InputError: no module is told one.
    """
    word = None
    for module in network.modules():
        word = word or getattr(module, "told_as", None)
        parameters = inspect.signature(module.forward).parameters
        for name in (told,) if told is not None else _TOLD:
            if name in parameters:
                return module, name, word or _TOLD.get(name, "")
    wanted = told or ", ".join(_TOLD)
    raise InputError(
        f"expected a network whose forward is told {wanted}; got {type(network).__name__}. Give told= and level=."
    )


def _listen(
    outer: nn.Module, key: int, parameter: str, meaning: Callable[[Tensor], Tensor]
) -> contextlib.ExitStack:
    signature = inspect.signature(outer.forward)

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = signature.bind(*args, **kwargs).arguments
        x = next(iter(given.values()))
        level = meaning(torch.as_tensor(given[parameter], device=x.device)).reshape(-1).expand(len(x))
        _CALLS.set({**_CALLS.get({}), key: Call(level, tuple(x.shape[2:]))})

    def end(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        _CALLS.set({k: call for k, call in _CALLS.get({}).items() if k != key})

    undo = contextlib.ExitStack()
    undo.callback(outer.register_forward_pre_hook(begin, prepend=True, with_kwargs=True).remove)
    undo.callback(outer.register_forward_hook(end, with_kwargs=True, always_call=True).remove)
    return undo


def _call(key: int) -> Call:
    call = _CALLS.get({}).get(key)
    if call is None:
        raise InputError(
            "expected a call of the whole network; got one of a block alone. Remove the handle, or call the network."
        )
    return call


def _pre(key: int, before: Callable[..., Any]) -> Callable[..., Any]:
    return lambda module, args, kwargs: before(_call(key), module, args, kwargs)


def _post(key: int, after: Callable[..., Any]) -> Callable[..., Any]:
    return lambda module, args, kwargs, output: after(_call(key), module, args, kwargs, output)
