"""Arrays that are counted while they live, for the tests of what is held at once."""

import weakref
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["CountedVolumes"]


class CountedVolumes(Sequence):
    """A sequence that makes its arrays anew at every reading; `peak` is how many lived at the same time."""

    def __init__(self, arrays: np.ndarray) -> None:
        self.arrays, self.alive, self.peak, self.read = arrays, 0, 0, 0

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> np.ndarray:
        array = self.arrays[index].copy()
        self.alive += 1
        self.read += 1
        self.peak = max(self.peak, self.alive)
        weakref.finalize(array, self._gone)
        return array

    def _gone(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))
