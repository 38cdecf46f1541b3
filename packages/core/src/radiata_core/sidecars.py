"""The card beside every file that leaves: the same name with .json, in the words of BIDS.

    GeneratedBy    which program, which version
    Sources        names and checksums of what it was made from
    SyntheticData  true where nothing was recorded

`free_path` is the other half of the rule: nothing is overwritten unasked. An application fixes its own name once, in its
`data/sidecar.py`.

References:
    BIDS, derivatives (GeneratedBy, Sources), https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.files import write_json

__all__ = ["free_path", "generated_by", "sidecar_path", "source_list", "write_sidecar"]


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
    for taken in (path, sidecar_path(path)):
        if taken.exists() and not overwrite:
            raise InputError(
                f"expected a new file; got {taken}, which exists. Choose another --out, or pass --overwrite."
            )
    return path


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


def write_sidecar(path: Path, application: str, sources: Mapping[str, str], **about: Any) -> Path:
    """Write the card of a file and return where it is.

    Args:
        path: The file that it describes.
        application: Name of the program, as it is installed.
        sources: Name → SHA-256 of what the file was made from.
        about: What else is to be found again, in BIDS' spelling: Seed, SyntheticData, ...
    """
    card = sidecar_path(path)
    write_json(card, {"GeneratedBy": generated_by(application), "Sources": source_list(sources), **about})
    return card
