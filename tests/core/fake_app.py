"""An application of two verbs, for the contract of the command line."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from radiata_core.commands import main
from radiata_core.errors import InputError


@dataclass(frozen=True)
class Sample:
    """Draw things."""

    out: Path
    """Folder to write."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, one a thing."""
    fail: str = ""
    """Which error to meet."""

    def run(self) -> None:
        errors = {
            "input": InputError("expected a head;\ngot a foot. Use a head."),
            "disk": OSError(28, "No space left on device"),
            "missing": FileNotFoundError(2, "No such file", "lost.nii"),
            "memory": MemoryError(),
            "interrupt": KeyboardInterrupt(),
            "bug": ZeroDivisionError("1/0"),
        }
        if self.fail:
            raise errors[self.fail]
        print(*self.seeds, "torch" in sys.modules)


@dataclass(frozen=True)
class Report:
    """Write a report."""

    names: tuple[str, ...] = field(default=())

    def run(self) -> None:
        """Nothing."""


def _check(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"expected {name} of 1 or more;\ngot {value}. Give more.")


@dataclass(frozen=True)
class Size:
    """Options inside options."""

    least: int = 1

    def __post_init__(self) -> None:
        _check("least", self.least)


@dataclass(frozen=True)
class Measure:
    """Measure things."""

    count: int = 1
    size: Size = field(default_factory=Size)

    def __post_init__(self) -> None:
        _check("count", self.count)

    def run(self) -> None:
        print("measured")


if __name__ == "__main__":
    code = main("radiata-fake", "Fake things.", {"sample": Sample, "report": Report})
    print("torch imported" if "torch" in sys.modules else "light", file=sys.stderr)
    sys.exit(code)
