"""Sections of restored, translated or healthy images: before, after and their difference, and what to doubt."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_imaging.interpolation import Interpolation
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import Grid, resample
from radiata_imaging.overlays import Panel, before_after
from radiata_imaging.report import Image, Overlay, Section, Table, Text, Viewer
from radiata_imaging.volume import Volume, times
from radiata_medical.data.pairing import IMAGE_WORDS, Named, sibling
from radiata_medical.experiment.report_folder import Folder, card_of

if TYPE_CHECKING:
    from radiata_imaging.plots import NumberedFigure

__all__ = ["image_sections"]

_FIGURES = {
    "Method": "method", "Evaluations": "evaluations", "DataConsistency": "misfit / noise",
    "NoisePercent": "noise, % of white",
    "PSNRMeasured": "PSNR of the measurement, dB", "PSNR": "PSNR, dB", "Seconds": "s",
}  # fmt: skip


def image_sections(folder: Folder) -> list[Section]:
    """A table of all cases, their warnings, and pictures of some."""
    results = [one for one in folder.files if one.word in IMAGE_WORDS]
    cards = {one.path: card_of(one.path) for one in results}
    shown = results if len(results) <= folder.limit else [
        results[i] for i in np.unique(np.linspace(0, len(results) - 1, folder.limit).round().astype(int))
    ]  # fmt: skip
    sections = [Section("Restored scans", [_table(cards), *_warnings(cards)])]
    for number, one in enumerate(shown):
        blocks = _case(folder, one, cards[one.path], viewer=number < folder.viewers)
        sections.append(Section(one.key, blocks))
    return sections


def _table(cards: Mapping[Any, Mapping[str, Any]]) -> Table:
    columns = [key for key in _FIGURES if any(key in card for card in cards.values())]
    rows = [[path.name, *(card.get(key) for key in columns)] for path, card in cards.items()]
    caption = (
        f"n = {len(rows)} scans. Misfit over noise is the root mean square of what the result leaves of the measurement, "
        "over its noise: 1 explains it, less follows its noise too, far above 1 does not explain it."
    )
    return Table(("file", *(_FIGURES[key] for key in columns)), rows, caption)


def _warnings(cards: Mapping[Any, Mapping[str, Any]]) -> list[Text]:
    found = [(path.name, text) for path, card in cards.items() for text in card.get("Warnings") or ()]
    return [Text(f"{name}: {text}", warning=True) for name, text in found]


@dataclass(frozen=True, eq=False)
class _Shown:
    """What there is to show of a case.

    Attributes:
        restored: The result.
        before: What was measured, as an image, or the scan it was made from; None if neither is known.
        what: Which of the two.
        truth: The scan that a simulation measured; None otherwise.
        sd: Standard deviation of the expected error; None without draws.
    """

    restored: Volume
    before: Volume | None
    what: str
    truth: Volume | None
    sd: Volume | None


def _case(folder: Folder, one: Named, card: Mapping[str, Any], *, viewer: bool) -> list[Any]:
    shown = _shown(folder, one, simulated="PSNR" in card)
    blocks: list[Any] = [Image(_picture(shown, folder, one), _caption(shown, card))]
    if shown.before is None and shown.truth is None:
        blocks.append(Text("The scan itself was not found: give --scans for before and after."))
    if viewer and min(shown.restored.shape) > 3:
        blocks.append(_viewer(shown, one.word or "restored"))
    return blocks


def _viewer(shown: _Shown, word: str) -> Viewer:
    """Before on the left of the slider, after on the right, on one grey scale; what to doubt lies over them."""
    named = {shown.what: shown.before, word: shown.restored, "truth": shown.truth}
    volumes = {name: volume for name, volume in named.items() if volume is not None}
    low, high = np.percentile(shown.restored.array, [0.1, 99.9])
    left = shown.what if shown.before is not None else "truth" if shown.truth is not None else None
    overlays = {} if shown.sd is None else {"standard deviation": Overlay(shown.sd, "spread")}
    if (difference := _difference(shown)) is not None:
        overlays["error" if shown.truth is not None else "difference"] = Overlay(difference, "difference")
    compare = None if left is None else (left, word)
    return Viewer(volumes, True, (float(low), float(high)), overlays, compare)


def _difference(shown: _Shown) -> Volume | None:
    """Result minus truth, or minus before; None if neither is known."""
    after, other = shown.restored, shown.truth if shown.truth is not None else shown.before
    if other is None:
        return None
    same = other.shape == after.shape and np.allclose(other.affine, after.affine, atol=1e-3)
    grid = Grid(after.shape, after.affine)
    nearest = other if same else resample(other, grid, interpolation=Interpolation.NEAREST)
    return Volume(after.array - nearest.array, after.affine)


def _shown(folder: Folder, one: Named, *, simulated: bool) -> _Shown:
    def read(path: Path | None) -> Volume | None:
        return None if path is None else read_volume(path, allow_constant=True, min_axis=1)

    scan = folder.scan_of(one)
    known = read(scan.path if scan else None)
    restored = read_volume(one.path, allow_constant=True, min_axis=1)
    measured = read(sibling(one, folder.files, "measured"))
    before = measured if measured is not None else None if simulated else known
    truth = known if simulated else None
    what = "given" if measured is None else "measured"
    return _Shown(restored, before, what, truth, read(sibling(one, folder.files, "sd")))


def _picture(shown: _Shown, folder: Folder, one: Named) -> "NumberedFigure":
    """Before, after, the truth where it is known, the difference to it (else to before), and the standard deviation."""
    after = shown.restored
    panels = [] if shown.before is None else [Panel(shown.what, shown.before)]
    if shown.truth is not None:
        panels.append(Panel("truth", shown.truth))
    panels.append(Panel(one.word or "restored", after))  # its grid is that of the figure
    if (difference := _difference(shown)) is not None:
        panels.append(Panel("error" if shown.truth is not None else "difference", difference, "difference"))
    if shown.sd is not None:
        panels.append(Panel("sd", shown.sd, "spread"))
    return before_after(
        panels, title=one.key, unit="intensity of the file", synthetic=True, convention=folder.convention
    )


def _caption(shown: _Shown, card: Mapping[str, Any]) -> str:
    after = shown.restored
    parts = [f"{times(after.shape)} voxels of {times(np.round(after.spacing, 3))} mm"]
    if shown.truth is not None:
        parts.append(
            "simulated: the error is result minus truth, symmetric about zero; images on one grey scale"
        )
    elif shown.before is not None:
        parts.append(
            f"{shown.what} and result on one grey scale; the difference is result minus {shown.what}, symmetric about zero"
        )
    if shown.sd is not None:
        parts.append("the standard deviation is that of the expected error, over draws")
    if card.get("Command"):
        parts.append(f"made by {card['Command']}")
    return "; ".join(parts) + "."
