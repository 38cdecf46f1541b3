"""A limit of memory for drawing: MedForJ's network then goes in slabs, its largest maps on disk if need be."""

import re
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.nets.medforj import MedForJUNet
from radiata_core.provenance import peak_memory_mib

__all__ = ["bytes_of", "limit_memory"]

_UNITS = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(text: str) -> int:
    """Bytes of a size like 4GiB, 800MiB or 2.5G; units are powers of 1024.

    Raises:
        InputError: not a size.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:iB|B)?", text.strip(), re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise InputError(
            f"expected a size of memory such as 4GiB or 800MiB; got {text!r}. Give a number and a unit."
        )
    return int(float(found[1]) * 1024 ** _UNITS[found[2].upper()])


def limit_memory(denoiser: Any, text: str, spill: Path | None = None) -> None:
    """Keep this process within a size of memory while `denoiser`, a MedForJ network's, draws; the result stays the same.

    Args:
        denoiser: Changed in place.
        text: The size, for example 4GiB, for the whole process, of which what it holds already is taken off.
        spill: Folder for what does not fit; None for the system's temporary one.

    Raises:
        InputError: not a size, less than the process holds already, or a network of another kind.
    """
    network, size = getattr(denoiser, "network", None), bytes_of(text)
    if not isinstance(network, MedForJUNet):
        raise InputError(
            f"expected a MedForJ network for --max-memory; got {type(network).__name__}. Drop it, or lower --batch-size."
        )
    held = int(peak_memory_mib()["process"] * 2**20)
    if size <= held:
        raise InputError(
            f"expected --max-memory above the {held / 2**20:.0f} MiB that the program and its weights hold; got {text}. "
            "Allow more."
        )
    network.max_memory, network.spill = size - held, spill
