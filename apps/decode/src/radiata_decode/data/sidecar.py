"""The card beside every file that leaves: the same name with .json, in the words of BIDS.

    GeneratedBy    which program, which version
    Sources        names and checksums of what it was made from
    SyntheticData  true for generated pictures and simulated data

References:
    BIDS, derivatives (GeneratedBy, Sources), https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from radiata_core.files import write_json

__all__ = ["generated_by", "sidecar_path", "source_list", "write_sidecar"]

APPLICATION = "radiata-decode"


def sidecar_path(path: Path) -> Path:
    """`decoded.h5` → `decoded.json`."""
    return Path(path).with_suffix(".json")


def generated_by() -> list[dict[str, str]]:
    """BIDS' `GeneratedBy`: this program and its version."""
    try:
        number = version(APPLICATION)
    except PackageNotFoundError:
        number = "unknown"
    return [{"Name": APPLICATION, "Version": number}]


def source_list(sources: Mapping[str, str]) -> list[dict[str, str]]:
    """BIDS' `Sources`: name → SHA-256."""
    return [{"Name": name, "SHA256": checksum} for name, checksum in sources.items()]


def write_sidecar(path: Path, sources: Mapping[str, str], **about: Any) -> Path:
    """Write the card of a file and return where it is.

    Args:
        path: The file that it describes.
        sources: Name → SHA-256 of what the file was made from.
        about: What else is to be found again, in BIDS' spelling: Seed, SyntheticData, ...
    """
    card = sidecar_path(path)
    write_json(card, {"GeneratedBy": generated_by(), "Sources": source_list(sources), **about})
    return card
