"""In which order a data set is read: item n of the training stream as a pure function of (seed, n).

There is no state to save: a run resumed at row n reads what it would have read, on any number of processes. Batches may
reach over the end of an epoch, so nothing is dropped and a batch may be larger than the data set.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of

__all__ = ["BalancedOrder", "Order", "ShuffledOrder", "micro_batches", "rows_of_process"]

_SHUFFLE = 101
_BALANCE = 102


@runtime_checkable
class Order(Protocol):
    """Item of the data set at row n of the stream."""

    def __call__(self, row: int) -> int: ...


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return rng_of(seed, _SHUFFLE, epoch).permutation(size)


@dataclass(frozen=True)
class ShuffledOrder:
    """Each epoch is another permutation of all items."""

    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(
                "expected a data set with at least one item; got none. Check the split of the store."
            )

    def __call__(self, row: int) -> int:
        epoch, place = divmod(row, self.size)
        return int(_permutation(self.size, self.seed, epoch)[place])


class BalancedOrder:
    """Each epoch has every group (person) once, in another order, with one of its items drawn uniformly.

    Args:
        groups: The group of each item, e.g. its subject.
        seed: Seed of the order.
    """

    def __init__(self, groups: Sequence[Hashable], seed: int) -> None:
        members: dict[Hashable, list[int]] = {}
        for item, group in enumerate(groups):
            members.setdefault(group, []).append(item)
        self.members = list(members.values())
        self.groups = ShuffledOrder(len(self.members), seed)
        self.seed = seed

    def __call__(self, row: int) -> int:
        items = self.members[self.groups(row)]
        return items[int(rng_of(self.seed, _BALANCE, row).integers(len(items)))]


def rows_of_process(batch_size: int, pieces: int, processes: int, rank: int) -> list[range]:
    """Positions in the batch of one optimiser step that a process computes, piece by piece.

    Raises:
        InputError: the batch cannot be cut evenly.
    """
    if batch_size < 1 or batch_size % (pieces * processes):
        raise InputError(
            f"expected a batch size that {processes} processes × {pieces} pieces divide; got {batch_size}. "
            f"Use a multiple of {pieces * processes}."
        )
    each = batch_size // (pieces * processes)
    return [range(start, start + each) for start in range(rank * each, batch_size, processes * each)]


def micro_batches(
    order: Order, steps: range, batch_size: int, positions: Sequence[range]
) -> Iterator[list[tuple[int, int]]]:
    """(item, row of the stream) pairs of each piece of each step: a batch sampler that starts where it is told."""
    for step in steps:
        for piece in positions:
            yield [(order(step * batch_size + p), step * batch_size + p) for p in piece]
