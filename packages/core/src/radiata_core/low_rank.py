r"""A few numbers that change a large network: low-rank additions to its frozen weights.

A layer's weight W, flattened to a matrix (out, rest), becomes

    W_n = W + (a / r) U_n V_n,        U_n (out, r), V_n (r, rest),

with W frozen and U_n = 0 at the start, so that the adapted network begins as the network it adapts. Biases and the scales of
norms, which are vectors and cost nothing, get an addition each. There may be several *experts* n on one network: they share
W, and one of them, or none, is in use at a time (`using`). What is added to a weight does not depend on the input, so the
sum is formed once a call and the layer runs once; `merged` leaves it in the weight and nothing of this module behind.

It holds for every linear and convolutional layer, whatever its stride, padding, dilation or groups, because only the weight
changes. The additions are torch parametrisations: code that reads `layer.weight` reads W_n.

References:
    Hu et al., "LoRA: low-rank adaptation of large language models", 2022, https://arxiv.org/abs/2106.09685, eq. 3.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_core.specs import buildable

__all__ = [
    "Adapted",
    "LowRankAddition",
    "VectorAddition",
    "adapt",
    "adapter_state",
    "load_adapter",
    "merged",
    "using",
]

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class LowRankAddition(nn.Module):
    """W + (alpha / rank) U_n V_n for the expert in use, W itself where none is.

    Args:
        like: W, (out, ...), at least 2 axes.
        experts: Number of pairs U_n, V_n, >= 1.
        rank: r, >= 1; cut to the smaller side of the flattened weight.
        alpha: Numerator of the scale, > 0: with it fixed, the step size of training suits every rank.
        generator: V_n is drawn from it, of variance 1/rest; U_n starts at 0.
    """

    active: int | None

    def __init__(
        self, like: Tensor, experts: int, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        out, rest = len(like), like[0].numel()
        rank = min(rank, out, rest)
        self.scale, self.active = alpha / rank, 0
        first = torch.randn(experts, rank, rest, generator=generator) / rest**0.5
        self.down = nn.Parameter(first.to(like))
        self.up = nn.Parameter(torch.zeros(experts, out, rank).to(like))

    def forward(self, weight: Tensor) -> Tensor:
        if self.active is None:
            return weight
        change = self.up[self.active] @ self.down[self.active]
        return weight + self.scale * change.view_as(weight)


class VectorAddition(nn.Module):
    """b + b_n for the expert in use, b itself where none is; b_n starts at 0.

    Args:
        like: b, (length,).
        experts: Number of additions, >= 1.
    """

    active: int | None

    def __init__(self, like: Tensor, experts: int) -> None:
        super().__init__()
        self.active = 0
        self.shift = nn.Parameter(torch.zeros(experts, *like.shape).to(like))

    def forward(self, vector: Tensor) -> Tensor:
        return vector if self.active is None else vector + self.shift[self.active]


def adapt(
    module: nn.Module,
    rank: int = 16,
    alpha: float = 8.0,
    *,
    experts: int = 1,
    vectors: bool = True,
    seed: int = 0,
) -> tuple[str, ...]:
    """Names of the layers whose weights now have additions; the module is changed in place and its own weights frozen.

    Args:
        module: Anything with linear or convolutional layers.
        rank: r >= 1.
        alpha: > 0; the scale is alpha / rank.
        experts: Sets of additions, >= 1; the first is in use.
        vectors: Also add to biases and to the scales of norms.
        seed: Of V_n.

    Raises:
        InputError: rank, alpha or experts out of range, no such layer, or additions that are there already.
    """
    if rank < 1 or experts < 1 or not 0 < alpha < float("inf"):
        raise InputError(
            f"expected rank >= 1, experts >= 1 and alpha > 0; got {rank}, {experts} and {alpha}. 16, 1 and 8 are usual."
        )
    if any(_additions(module)):
        raise InputError("expected a module without additions; got an adapted one. Merge it first.")
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _LAYERS)}
    if not layers:
        raise InputError(
            f"expected linear or convolutional layers in {type(module).__name__}; got none. Adapt another module."
        )
    module.requires_grad_(False)
    for index, layer in enumerate(layers.values()):
        addition = LowRankAddition(layer.weight, experts, rank, alpha, generator_of(seed, index))
        parametrize.register_parametrization(layer, "weight", addition)
    if vectors:
        for part in list(module.modules()):
            for name, value in list(part.named_parameters(recurse=False)):
                if name in ("weight", "bias") and value.ndim == 1:
                    parametrize.register_parametrization(part, name, VectorAddition(value, experts))
    return tuple(layers)


@contextlib.contextmanager
def using(module: nn.Module, expert: int | None) -> Iterator[None]:
    """The adapted module with this expert in use inside the block (None: without additions), as before after it.

    Raises:
        InputError: no such expert.
    """
    additions = list(_additions(module))
    before = [addition.active for addition in additions]
    count = min((_experts(addition) for addition in additions), default=0)
    if expert is not None and not 0 <= expert < count:
        raise InputError(
            f"expected an expert in 0..{count - 1}; got {expert}. Adapt the module with as many experts."
        )
    try:
        for addition in additions:
            addition.active = expert
        yield
    finally:
        for addition, active in zip(additions, before, strict=True):
            addition.active = active


def merged(module: nn.Module, expert: int | None = 0) -> nn.Module:
    """A copy with plain weights W_n, of the same classes and tensor names as before `adapt`; nothing of it is frozen.

    Args:
        module: An adapted module; it is left as it is.
        expert: Whose additions stay; None gives back the network that was adapted, to the bit.
    """
    with using(module, expert), torch.no_grad():
        plain = copy.deepcopy(module)
        for layer in list(plain.modules()):
            if parametrize.is_parametrized(layer):
                _made_plain(layer)
    return plain.requires_grad_(True)


def _made_plain(layer: nn.Module) -> None:
    """The layer with its present values as parameters of its own.

    By hand: `remove_parametrizations` takes the property off the class, which a copy shares with its original.
    """
    values = {name: getattr(layer, name).clone() for name in layer.parametrizations}  # type: ignore[union-attr]
    layer.__class__ = type(layer).__bases__[0]
    del layer.parametrizations
    for name, value in values.items():
        layer.register_parameter(name, nn.Parameter(value))


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """The additions alone, by name: what has to be stored beside the network they belong to."""
    owners = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, LowRankAddition | VectorAddition)
    }
    return {
        f"{name}.{key}": value.detach().clone()
        for name, part in owners.items()
        for key, value in part.named_parameters()
    }


@torch.no_grad()
def load_adapter(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy additions into a module that was adapted with the same options.

    Raises:
        InputError: a name or a shape differs.
    """
    own = dict(module.named_parameters())
    wanted = adapter_state(module)
    for name in sorted(wanted.keys() | state.keys()):
        there, given = wanted.get(name), state.get(name)
        if there is None or given is None or there.shape != given.shape:
            shapes = ["none" if value is None else str(tuple(value.shape)) for value in (there, given)]
            raise InputError(
                f"expected additions {name} of shape {shapes[0]}; got {shapes[1]}. Adapt with the same options."
            )
    for name, value in state.items():
        own[name].copy_(value)


@buildable("low-rank")
class Adapted(nn.Module):
    """A module with additions, which a checkpoint can name; called like the module.

    Args:
        module: Registered with `specs.buildable`; it is changed in place.
        rank: As in `adapt`.
        alpha: As in `adapt`.
        vectors: As in `adapt`.
        seed: As in `adapt`.
    """

    def __init__(
        self, module: nn.Module, rank: int = 16, alpha: float = 8.0, vectors: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        self.module = module
        self.options = {"module": module, "rank": rank, "alpha": alpha, "vectors": vectors, "seed": seed}
        adapt(module, rank, alpha, vectors=vectors, seed=seed)

    def forward(self, *arguments: object, **named: object) -> Tensor:
        """What the adapted module gives."""
        return self.module(*arguments, **named)


def _additions(module: nn.Module) -> Iterator[LowRankAddition | VectorAddition]:
    return (part for part in module.modules() if isinstance(part, LowRankAddition | VectorAddition))


def _experts(addition: LowRankAddition | VectorAddition) -> int:
    return len(addition.up if isinstance(addition, LowRankAddition) else addition.shift)
