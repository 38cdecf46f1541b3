"""Sections of restored, translated or healthy images: before, after and their difference, and what to doubt."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from radiata_imaging.interpolation import Interpolation
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import Grid, resample
from radiata_imaging.overlays import Panel, before_after
from radiata_imaging.report import Image, Section, Table, Text, Viewer
from radiata_imaging.volume import Volume, times
from radiata_medical.data.pairing import IMAGE_WORDS, Named, sibling
from radiata_medical.experiment.report_folder import Folder, card_of

__all__ = ["image_sections", "picture"]

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
        "over its noise: 1 explains it, far above 1 does not."
    )
    return Table(("file", *(_FIGURES[key] for key in columns)), rows, caption)


def _warnings(cards: Mapping[Any, Mapping[str, Any]]) -> list[Text]:
    found = [(path.name, text) for path, card in cards.items() for text in card.get("Warnings") or ()]
    return [Text(f"{name}: {text}", warning=True) for name, text in found]


def _case(folder: Folder, one: Named, card: Mapping[str, Any], *, viewer: bool) -> list[Any]:
    restored = read_volume(one.path, allow_constant=True, min_axis=1)
    before, what = _before(folder, one)
    sd_path = sibling(one, folder.files, "sd")
    sd = read_volume(sd_path, allow_constant=True, min_axis=1) if sd_path else None
    figure = picture(before, restored, sd, folder, one, what)
    blocks: list[Any] = [Image(figure, _caption(before, restored, sd, what, card))]
    if before is None:
        blocks.append(Text("The scan itself was not found: give --scans for before and after."))
    if viewer and min(restored.shape) > 3:
        volumes = {"restored": restored}
        if before is not None:
            volumes = {what: before, **volumes}
        if sd is not None:
            volumes["standard deviation"] = sd
        low, high = np.percentile(restored.array, [0.1, 99.9])
        blocks.append(
            Viewer(volumes, synthetic=True, limits=None if sd is not None else (float(low), float(high)))
        )
    return blocks


def _before(folder: Folder, one: Named) -> tuple[Volume | None, str]:
    """What was measured, as an image; else the scan."""
    measured = sibling(one, folder.files, "measured")
    if measured is not None:
        return read_volume(measured, allow_constant=True, min_axis=1), "measured"
    scan = folder.scan_of(one)
    if scan is None:
        return None, "given"
    return read_volume(scan.path, allow_constant=True, min_axis=1), "given"


def picture(
    before: Volume | None, after: Volume, sd: Volume | None, folder: Folder, one: Named, what: str = "given"
) -> "NumberedFigure":
    """Before, after and their difference on one scale each, and the standard deviation."""
    panels = [Panel(one.word or "restored", after)]
    if before is not None:
        nearest = before
        if before.shape != after.shape or not np.allclose(before.affine, after.affine, atol=1e-3):
            nearest = resample(before, Grid(after.shape, after.affine), interpolation=Interpolation.NEAREST)
        difference = Volume(after.array - nearest.array, after.affine)
        panels = [Panel(what, before), *panels, Panel("difference", difference, "difference")]
    if sd is not None:
        panels.append(Panel("sd", sd, "spread"))
    return before_after(
        panels, title=one.key, unit="intensity of the file", synthetic=True, convention=folder.convention
    )


def _caption(
    before: Volume | None, after: Volume, sd: Volume | None, what: str, card: Mapping[str, Any]
) -> str:
    parts = [f"{times(after.shape)} voxels of {times(np.round(after.spacing, 3))} mm"]
    if before is not None:
        parts.append(
            f"{what} and result on one grey scale; the difference is result minus {what}, symmetric about zero"
        )
    if sd is not None:
        parts.append("the standard deviation is that of the expected error, over draws")
    if card.get("Command"):
        parts.append(f"made by {card['Command']}")
    return "; ".join(parts) + "."
