"""The card beside every file of this application, and where a file may be written; see `radiata_core.sidecars`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radiata_core import sidecars
from radiata_core.sidecars import free_path, sidecar_path, source_list

__all__ = ["free_path", "generated_by", "sidecar_path", "source_list", "write_sidecar"]

APPLICATION = "radiata-decode"


def generated_by() -> list[dict[str, str]]:
    """BIDS' `GeneratedBy`: this program and its version."""
    return sidecars.generated_by(APPLICATION)


def write_sidecar(path: Path, sources: Mapping[str, str], **about: Any) -> Path:
    """Write the card of a file and return where it is.

    Args:
        path: The file that it describes.
        sources: Name → SHA-256 of what the file was made from.
        about: What else is to be found again, in BIDS' spelling: Seed, SyntheticData, ...
    """
    return sidecars.write_sidecar(path, APPLICATION, sources, **about)
