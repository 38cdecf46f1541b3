"""A network built from a file's own description, within what the file's own weights can fill.

A description (`specs.rebuild`) is a few numbers: channels, blocks, shapes. Nobody has to believe them: 10⁹ channels would
take the machine's memory, 10⁹ blocks its time, before the first weight is compared. But whoever describes a network also
gives its weights, and a network of the right size makes little more than these. So while it is built every new tensor is
counted before it is made, and the first that exceeds the allowance ends the building.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from radiata_core.errors import InputError

__all__ = ["BoundedBuilding"]

_ROOM = 2**24
"""Elements beyond the weights: positions, frequencies, masks."""
_TIMES = 8
"""Times the elements of the weights that building may make: drawn, scaled, copied."""
_LEAST_CALLS = 50_000
"""Operations that any network may take: tables of indices are made in loops."""
_CALLS = 50
"""Operations a tensor of the weights; a few draw and scale it."""


class BoundedBuilding(TorchDispatchMode):
    """A context in which tensors may be made as far as some weights explain them.

    Args:
        weights: Of the network that is going to be built.
        where: File of the description, for the message.

    Raises:
        InputError: in the context, when a tensor or an operation exceeds the allowance.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], where: object) -> None:
        super().__init__()
        self.elements = _ROOM + _TIMES * sum(tensor.numel() for tensor in weights.values())
        self.calls = _LEAST_CALLS + _CALLS * len(weights)
        self.where = where

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: nothing is compiled here, and to be skipped the compiler is imported, which takes longer than a network."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls -= 1
        self.elements -= max((_elements(thing) for thing in args), default=0)
        if self.calls < 0 or self.elements < 0:
            raise InputError(
                f"expected a description of the network whose weights stand beside it; {self.where} asks for a far larger "
                "one. Copy both files again."
            )
        return func(*args, **(kwargs or {}))


def _elements(thing: Any) -> int:
    """Elements that an argument may stand for: a shape, a length, a tensor."""
    if isinstance(thing, torch.Tensor):
        return thing.numel()
    if isinstance(thing, bool | float) or thing is None:
        return 0
    if isinstance(thing, int):
        return 0 if thing == sys.maxsize else abs(thing)  # the end of a slice that has none
    if isinstance(thing, list | tuple) and thing and all(isinstance(n, int) for n in thing):
        return math.prod(max(1, abs(n)) for n in thing)
    return 0
