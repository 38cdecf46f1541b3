"""A folder of results as a page sees it: its files by what their names say, their scans, their cards."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiata_core.files import read_json
from radiata_imaging.nifti import sidecar_path
from radiata_imaging.plots import Convention
from radiata_medical.data.pairing import Named

__all__ = ["Folder", "card_of"]


@dataclass(frozen=True, eq=False)
class Folder:
    """Results and how they are to be shown.

    Attributes:
        files: All volumes, by what their names say.
        scans: The scans they were made from; empty if they are not known.
        limit: Most cases with pictures.
        viewers: Most cases with an interactive view.
        convention: Side of the patient's left.
    """

    files: tuple[Named, ...]
    scans: tuple[Named, ...]
    limit: int
    viewers: int
    convention: Convention

    def scan_of(self, result: Named) -> Named | None:
        """The scan a result was made from; None if it is not known."""
        found = [one for one in self.scans if one.key == result.key]
        found = found or [one for one in self.scans if result.key.startswith(f"{one.key}-")]
        same = [one for one in found if not result.contrast or one.contrast in ("", result.contrast)]
        return same[0] if len(same) == 1 else None


def card_of(path: Path) -> Mapping[str, Any]:
    """The card beside a volume; empty without one."""
    beside = sidecar_path(path)
    found = read_json(beside) if beside.is_file() else {}
    return found if isinstance(found, dict) else {}
