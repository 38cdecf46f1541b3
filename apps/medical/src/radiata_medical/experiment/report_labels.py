"""Sections of segmentations: labels over their scans in their own colours, volumes, and how sure the program is."""

from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.manifest import read_rows
from radiata_imaging.nifti import read_volume, sidecar_path
from radiata_imaging.overlays import label_overlay
from radiata_imaging.report import Image, Overlay, Section, Table, Text, Viewer
from radiata_imaging.volume import Volume
from radiata_medical.data.pairing import LABEL_WORDS, Named, sibling
from radiata_medical.data.structures import STRUCTURES
from radiata_medical.experiment.report_folder import Folder, card_of

__all__ = ["colours_of", "label_sections"]

_MOST_COLUMNS = 12


def label_sections(folder: Folder, root: Path) -> list[Section]:
    """Tables of volumes and quality, and overlays of some cases."""
    results = [one for one in folder.files if one.word in LABEL_WORDS]
    shown = results if len(results) <= folder.limit else [
        results[i] for i in np.unique(np.linspace(0, len(results) - 1, folder.limit).round().astype(int))
    ]  # fmt: skip
    blocks: list[Any] = []
    for name, caption in (
        (
            "qc.csv",
            "Quality is a forecast of the Dice coefficient from the probabilities: low means unsure, not wrong.",
        ),
        ("volumes.csv", "Millilitres of each structure."),
    ):
        for path in sorted(root.rglob(name)):
            blocks.append(_csv(path, caption))
    sections = [Section("Segmentations", blocks or [_volumes(results)])]
    for number, one in enumerate(shown):
        sections.append(Section(f"Labels of {one.key}", _case(folder, one, viewer=number < folder.viewers)))
    return sections


def _csv(path: Path, caption: str) -> Table:
    """A table of a CSV file; one with many columns is turned, so that a case is a column."""
    rows = read_rows(path)
    header = list(rows[0]) if rows else ["empty"]
    cells = [[_number(row[name]) for name in header] for row in rows]
    if len(header) > _MOST_COLUMNS and cells:
        turned = [[name, *(row[i] for row in cells[:_MOST_COLUMNS])] for i, name in enumerate(header)]
        return Table(turned[0], turned[1:], f"{caption} n = {len(rows)} scans.")
    return Table(header, cells, f"{caption} n = {len(rows)} scans.")


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _volumes(results: list[Named]) -> Table:
    """Millilitres from the label maps themselves."""
    table: dict[str, list[Any]] = {}
    for number, one in enumerate(results[:_MOST_COLUMNS]):
        volume = read_volume(one.path, allow_constant=True, min_axis=1)
        ml = float(np.prod(volume.spacing)) / 1000
        names = colours_of(one.path)
        for code, count in zip(*np.unique(volume.array, return_counts=True), strict=True):
            if code:
                name = names.get(int(code), (f"label {int(code)}", (0, 0, 0)))[0]
                table.setdefault(name, [None] * len(results[:_MOST_COLUMNS]))[number] = float(count) * ml
    rows = [[name, *values] for name, values in table.items()]
    header = ("structure", *(one.key for one in results[:_MOST_COLUMNS]))
    return Table(header, rows, f"Millilitres of each structure. n = {len(results)} scans.")


def colours_of(path: Path) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Name and colour of each code from the table beside a label map (index, name, color); else FreeSurfer's."""
    known = {s.code: (s.name, s.colour) for s in STRUCTURES}
    table = sidecar_path(path).with_suffix(".tsv")
    if not table.is_file():
        return known
    try:
        rows = read_rows(table)
        for row in rows:
            red, green, blue = bytes.fromhex(row["color"].removeprefix("#"))
            known[int(row["index"])] = (row["name"], (red, green, blue))
    except (KeyError, ValueError, InputError):  # a table of another program
        return known
    return known


def _case(folder: Folder, one: Named, *, viewer: bool) -> list[Any]:
    labels = read_volume(one.path, allow_constant=True, min_axis=1)
    scan = folder.scan_of(one)
    image, on = labels, "a scan that was not found (give --scans)"
    if scan is not None:
        found = read_volume(scan.path, allow_constant=True, min_axis=1)
        if found.shape == labels.shape and np.allclose(found.affine, labels.affine, atol=1e-3):
            image, on = found, scan.path.name
    if image is labels:
        image = Volume(np.zeros_like(labels.array), labels.affine)
    codes = np.rint(labels.array).astype(np.int32)
    colours = colours_of(one.path)
    figure = label_overlay(image, codes, colours, title=one.key, convention=folder.convention)
    blocks: list[Any] = [
        Image(
            figure, f"Labels over {on}, on its own grid; the largest structures are named with their volumes."
        )
    ]
    if viewer and min(image.shape) > 3:
        overlays = {"labels": Overlay(labels, "labels", colours)} | _doubts(folder, one)
        blocks.append(Viewer({one.key: image}, overlays=overlays))
    warnings = card_of(one.path).get("Warnings") or ()
    return [*blocks, *(Text(f"{one.key}: {text}", warning=True) for text in warnings)]


def _doubts(folder: Folder, one: Named) -> dict[str, Overlay]:
    """Maps of what is unsure, where they were written."""
    paths = {word: sibling(one, folder.files, word) for word in ("entropy", "disagreement")}
    return {
        word: Overlay(read_volume(path, allow_constant=True, min_axis=1), "spread", unit="nats")
        for word, path in paths.items()
        if path is not None
    }
