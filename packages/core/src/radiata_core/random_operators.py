r"""What a law of operators is: a family draws one, and its noise, from a generator alone.

The families themselves are in `image_families` and `kspace_families`; `operator_families` is where to start reading.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator

__all__ = [
    "DrawnOperator",
    "OperatorFamily",
    "Range",
    "chance",
    "even",
    "even_in_log",
    "integer",
    "stopped_early",
]

Range = tuple[float | int, float | int]
"""Smallest and largest."""
_LEAST = 16
_EARLY = 10


@dataclass(frozen=True, eq=False)
class DrawnOperator:
    """An operator and its noise.

    Attributes:
        family: Name of the family it is of.
        operator: A, on real events.
        noise_sd: Standard deviation of the noise of every number of A x, in units of A x, > 0.
    """

    family: str
    operator: LinearOperator
    noise_sd: float


@dataclass(frozen=True)
class OperatorFamily(ABC):
    """A law of operators.

    Attributes:
        weight: How often it is drawn, relative to others, > 0.
        noise: Smallest and largest standard deviation of the noise, drawn evenly in the logarithm, > 0.
        name: In reports.
    """

    weight: float | int = 1.0
    noise: Range = (0.005, 0.1)
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if not (0 < self.weight < math.inf and 0 < self.noise[0] <= self.noise[1] < math.inf):
            raise InputError(
                f"expected a weight > 0 and noise with 0 < least <= largest; got {self.weight} and {self.noise}. "
                "Leave a family out instead of giving it no weight."
            )

    def draw(
        self, event_shape: Sequence[int], generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> DrawnOperator:
        """An operator for events of this shape, a function of the generator alone.

        Args:
            event_shape: (channel, *space), two or three axes of space of 16 voxels or more.
            generator: On the CPU.
            device: Where masks and maps are put.

        Raises:
            InputError: a shape of another kind.
        """
        shape = tuple(event_shape)
        if len(shape) not in (3, 4) or min(shape[1:]) < _LEAST:
            raise InputError(
                f"expected events (channel, *space) with 2 or 3 axes of at least {_LEAST} voxels; got {shape}. "
                "Take larger blocks."
            )
        operator = self._operator(shape, generator, torch.device(device))
        return DrawnOperator(self.name, operator, even_in_log(*self.noise, generator))

    @abstractmethod
    def _operator(
        self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
    ) -> LinearOperator:
        """A random operator for a checked shape."""


def stopped_early(operator: LinearOperator, bound: float) -> LinearOperator:
    """With few conjugate gradients, and a known bound in the place of the norm, which would take as many again."""
    operator.iterations = _EARLY
    operator.__dict__["norm"] = float(bound)
    return operator


def even(low: float | int, high: float | int, generator: torch.Generator) -> float:
    """A number between the two, evenly."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def even_in_log(low: float | int, high: float | int, generator: torch.Generator) -> float:
    """A number between the two, > 0, evenly in its logarithm."""
    return math.exp(even(math.log(low), math.log(high), generator))


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number between the two, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def chance(probability: float, generator: torch.Generator) -> bool:
    """True with this probability."""
    return even(0.0, 1.0, generator) < probability
