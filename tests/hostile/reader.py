"""One reader: what the harness needs to know of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Reader"]


@dataclass(frozen=True)
class Reader:
    """How a file of one format is made and read.

    Attributes:
        name: For the table.
        make: Writes a valid tree into a folder.
        read: Reads it, and uses what it read.
        targets: Files of the tree that are mutated, in turn, and their kinds (`mutations.KINDS`).
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    targets: tuple[tuple[str, str], ...]
