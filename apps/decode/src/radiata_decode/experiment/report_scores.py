"""Sections of an evaluation: the table of decoders and controls, differences, overlap with training, its figures."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.experiment.evaluation import DECODER, DISCLAIMER, FORMAT, SCORES
from radiata_imaging.report import Image, Section, Table, Text

__all__ = ["figure_image", "score_sections"]

CAPTIONS = {
    "gallery": "Rows by the decoder's score: best, median, worst, and drawn at random. ",
    "scores": "Means with 95 % intervals over stimuli. ",
    "permutations": "The true pairing against permuted ones. ",
    "confusion": "Rows are what was shown. ",
}


def score_sections(folder: Path) -> list[Section]:
    """What stands in a folder of `evaluate`.

    Raises:
        InputError: a file of another format.
    """
    found = read_json(folder / SCORES)
    if not isinstance(found, dict) or found.get("format") != FORMAT or not found.get("rows"):
        raise InputError(
            f"expected scores of format {FORMAT} in {folder / SCORES}; got others. Evaluate again."
        )
    sections = [Section("Scores", [Text(_what(found)), *_notes(found), _table(found)])]
    images = [
        figure_image(folder / name, found) for name in found.get("figures", []) if (folder / name).is_file()
    ]
    if images:
        sections.append(Section("Figures", images))
    if found.get("differences"):
        sections.append(Section("Against each control", [_differences(found)]))
    if found.get("overlap"):
        sections.append(Section("What was seen in training", _overlap(found)))
    return sections


def figure_image(path: Path, found: Mapping[str, Any]) -> Image:
    """A figure of a folder with its caption."""
    simulated = "Simulated cortex. " if found.get("synthetic") else ""
    return Image(path.read_bytes(), f"{CAPTIONS.get(path.stem, '')}{simulated}{DISCLAIMER}")


def _what(found: Mapping[str, Any]) -> str:
    text = f"{found['stimuli']} {found.get('split', '')} stimuli, {found['kind']}, route {found.get('route', 'unknown')}. "
    if found["kind"] == "images":
        text += f"Pictures compared by the preset {found.get('preset', '')}. "
    if found["kind"] == "motion":
        text += f"Flow in cells a frame step on a grid of {found.get('grid')}. "
    return text + f"p is one-sided, of pairings permuted {found.get('permuted', '')}."


def _notes(found: Mapping[str, Any]) -> list[Text]:
    return [Text(str(note), warning=True) for note in found.get("notes", []) if note != DISCLAIMER]


def _table(found: Mapping[str, Any]) -> Table:
    rows = [
        (row["decoder"], row["metric"], _real(row["mean"]), (_real(row["low"]), _real(row["high"])), row["p"],
         row["chance"], row["cases"], row["left_out"], "control" if row["control"] else "")
        for row in found["rows"]
    ]  # fmt: skip
    header = ("decoder", "metric", "mean", "95 % interval", "p", "chance", "stimuli", "left out", "")
    return Table(header, rows, "Decoders, then controls, then the ceiling where it is known.")


def _differences(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            row["other"],
            row["metric"],
            _real(row["difference"]),
            (_real(row["low"]), _real(row["high"])),
            row["p"],
        )
        for row in found["differences"]
    ]
    caption = f"The {DECODER} minus each other, stimulus by stimulus; two-sided p by sign flips."
    return Table(("other", "metric", "difference", "95 % interval", "p"), rows, caption)


def _overlap(found: Mapping[str, Any]) -> list[Text | Table]:
    known = found["overlap"]
    rows = [
        ("stimuli in training", known["train"]),
        ("stimuli decoded", known["test"]),
        ("stimuli in both", known["both"]),
        ("share whose group (cluster, photograph) was seen in training", known["groups"]),
        ("correlation with the nearest training picture", known["nearest"]),
        ("the same among training pictures", known["nearest_within"]),
    ]
    blocks: list[Text | Table] = [Table(("overlap", "value"), rows)]
    if found.get("groups"):
        cells = [
            (
                row["group"],
                row["metric"],
                _real(row["mean"]),
                (_real(row["low"]), _real(row["high"])),
                row["cases"],
            )
            for row in found["groups"]
        ]
        header = ("group", "metric", "mean", "95 % interval", "stimuli")
        blocks.append(
            Table(
                header, cells, "The decoder on stimuli whose group was seen in training, and on the others."
            )
        )
    return blocks


def _real(value: float | None) -> float:
    return math.nan if value is None else float(value)
