"""The card beside every file that leaves: the same name with .json, in the words of BIDS.

    GeneratedBy    which program, which version
    Sources        names and checksums of what it was made from
    SyntheticData  true where nothing was recorded

The card is on the disk before its file is (`card_of`, for `files.atomic_path`): a card alone is of a file that never came.
`free_path` is the other half of the rule: nothing is overwritten unasked. An application fixes its own name once, in its
`data/sidecar.py`.

References:
    BIDS, derivatives (GeneratedBy, Sources), https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.files import read_json, write_json

__all__ = [
    "card_of",
    "free_path",
    "generated_by",
    "in_the_way",
    "sidecar_path",
    "source_list",
    "write_sidecar",
]


def sidecar_path(path: Path) -> Path:
    """`rates.h5` → `rates.json`."""
    return Path(path).with_suffix(".json")


def free_path(path: Path, overwrite: bool, suffixes: tuple[str, ...], source: Path | None = None) -> Path:
    """The path itself, if it and the card beside it may be written.

    Args:
        path: Of the file to come.
        overwrite: Replace what is there.
        suffixes: Its name ends in one of them.
        source: What the file is made from: never replaced, whatever was asked.

    Raises:
        InputError: another suffix, the source itself, or a file that exists.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(f"expected a name ending in {' or '.join(suffixes)}; got {path}. Rename the output.")
    if source is not None and path.resolve() == source.resolve():
        raise InputError(
            f"expected the output to be another file than its source {source}. Choose another --out."
        )
    taken = None if overwrite else in_the_way(path, sidecar_path(path))
    if taken is not None:
        raise InputError(
            f"expected a new file; got {taken}, which exists. Choose another --out, or pass --overwrite."
        )
    return path


def in_the_way(path: Path, card: Path) -> Path | None:
    """What may not be replaced unasked: the file, or what has its card's name and is no card of this house.

    A card of this house without its file was left by a process that was killed between the two.
    """
    if path.exists():
        return path
    if not card.exists():
        return None
    try:
        makers = read_json(card)["GeneratedBy"]
        ours = str(makers[0]["Name"]).startswith("radiata-")
    except (InputError, OSError, KeyError, IndexError, TypeError, ValueError):
        ours = False
    return None if ours else card


def generated_by(application: str) -> list[dict[str, str]]:
    """BIDS' `GeneratedBy`: the program and its version ("unknown" where it is not installed)."""
    try:
        number = version(application)
    except PackageNotFoundError:
        number = "unknown"
    return [{"Name": application, "Version": number}]


def source_list(sources: Mapping[str, str]) -> list[dict[str, str]]:
    """BIDS' `Sources` from name → SHA-256."""
    return [{"Name": name, "SHA256": checksum} for name, checksum in sources.items()]


def card_of(
    path: Path, application: str, sources: Mapping[str, str], **about: Any
) -> tuple[Path, Callable[[Path], Any]]:
    """The card of a file that is to be written, as `files.atomic_path` takes it.

    Args:
        path: The file that it describes.
        application: Name of the program, as it is installed.
        sources: Name → SHA-256 of what the file was made from.
        about: What else is to be found again, in BIDS' spelling: Seed, SyntheticData, ...
    """
    card = {"GeneratedBy": generated_by(application), "Sources": source_list(sources), **about}
    return sidecar_path(path), lambda part: card


def write_sidecar(path: Path, application: str, sources: Mapping[str, str], **about: Any) -> Path:
    """Write the card of a file that is there, and return where it is; arguments as `card_of`."""
    card, content = card_of(path, application, sources, **about)
    write_json(card, content(path))
    return card
