"""The card beside every file of this application, and where a file may be written; see `radiata_core.sidecars`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from radiata_core import sidecars
from radiata_core.sidecars import sidecar_path

__all__ = ["card_of", "free_path", "sidecar_path", "write_sidecar"]

APPLICATION = "radiata-latents"


def free_path(
    path: Path, overwrite: bool, suffixes: tuple[str, ...] = (".h5", ".nc"), source: Path | None = None
) -> Path:
    """The path itself, if it and the card beside it may be written; see `radiata_core.sidecars.free_path`.

    Raises:
        InputError: another suffix, the source itself, or a file that exists.
    """
    return sidecars.free_path(path, overwrite, suffixes, source)


def card_of(path: Path, sources: Mapping[str, str], **about: Any) -> tuple[Path, Callable[[Path], Any]]:
    """The card of a file to be written, as `radiata_core.files.atomic_path` takes it; arguments as `write_sidecar`."""
    return sidecars.card_of(path, APPLICATION, sources, **about)


def write_sidecar(path: Path, sources: Mapping[str, str], **about: Any) -> Path:
    """Write the card of a file and return where it is.

    Args:
        path: The file that it describes.
        sources: Name → SHA-256 of what the file was made from.
        about: What else is to be found again, in BIDS' spelling: Seed, SyntheticData, ...
    """
    return sidecars.write_sidecar(path, APPLICATION, sources, **about)
