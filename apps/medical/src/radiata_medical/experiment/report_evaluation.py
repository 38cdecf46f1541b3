"""Sections of an evaluation: scores with intervals over people, structures on one chart, reliability, another method."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from radiata_imaging.report import Image, Section, Table, Text
from radiata_imaging.score_plots import interval_chart, reliability_diagram

__all__ = ["evaluation_sections"]

_CHART = {"dice": "Dice coefficient", "hd95_mm": "HD95 (mm)"}
_MOST_ROWS = 40


def evaluation_sections(found: Mapping[str, Any]) -> list[Section]:
    """What stands in an `evaluation.json`."""
    sections = [Section("Evaluation", [Text(_what(found)), *_notes(found), _summary(found)])]
    charts = [block for score, label in _CHART.items() if (block := _chart(found, score, label))]
    if charts:
        sections.append(Section("By structure", charts))
    bins = found.get("reliability")
    if bins:
        figure = reliability_diagram(bins["confidence"], bins["accuracy"], bins["count"])
        text = f"Expected calibration error {bins['ece']:.3g}, largest {bins['mce']:.3g}; n = {bins['cases']} scans."
        sections.append(Section("Reliability", [Image(figure, text)]))
    if found.get("comparison"):
        sections.append(Section("Against the other method", [_comparison(found)]))
    return sections


def _what(found: Mapping[str, Any]) -> str:
    kind = "label maps" if found["kind"] == "labels" else "images"
    text = f"{found['cases']} {kind} of {found['people']} people: {found['results']} against {found['reference']}. "
    if found["kind"] == "labels":
        return (
            text
            + f"Surface Dice at {found['tolerance_mm']:g} mm. Structures absent from both maps have no score."
        )
    return (
        text
        + f"Voxels that count: {'all' if found['mask'] == 'none' else found['mask']}. Features: {found['encoder']}."
    )


def _notes(found: Mapping[str, Any]) -> list[Text]:
    alone = found.get("unscored_references") or []
    if not alone:
        return []
    return [Text(f"{len(alone)} references have no result: {', '.join(alone[:5])}.", warning=True)]


def _summary(found: Mapping[str, Any]) -> Table:
    structured = any("structure" in row for row in found["summary"])
    chosen = [
        row for row in found["summary"] if not structured or row["structure"].startswith(("mean", "uncert"))
    ]
    rows = [
        (*([row["structure"]] if structured else []), row["score"], row["mean"], (row["low"], row["high"]), row["people"],
         row["cases"], row["left_out"])
        for row in chosen
    ]  # fmt: skip
    header = (
        *(["structure"] if structured else []),
        "score",
        "mean",
        _level(found),
        "people",
        "cases",
        "left out",
    )
    return Table(
        header, rows, "Means over people with bootstrap intervals; left out are values that are not finite: no such "
        "structure, or one that was missed (no distance).",
    )  # fmt: skip


def _level(found: Mapping[str, Any]) -> str:
    return f"{100 * found['level']:g} % interval"


def _chart(found: Mapping[str, Any], score: str, label: str) -> Image | None:
    rows = {
        row["structure"]: (_real(row["mean"]), _real(row["low"]), _real(row["high"]))
        for row in found["summary"]
        if row["score"] == score and row.get("structure") and row["mean"] is not None
    }
    if not rows:
        return None
    shown = dict(list(rows.items())[:_MOST_ROWS])
    caption = f"Mean over n = {found['people']} people, {_level(found)}."
    return Image(interval_chart(shown, xlabel=label), caption)


def _real(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _comparison(found: Mapping[str, Any]) -> Table:
    def worth(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        few = [row for row in rows if row.get("structure", "mean").startswith("mean")]
        return few or list(rows)

    rows = [
        (
            row.get("structure", ""),
            row["score"],
            row["difference"],
            (row["low"], row["high"]),
            row["p"],
            row["people"],
        )
        for row in worth(found["comparison"])
    ]
    return Table(
        ("structure", "score", "difference", _level(found), "p", "people"), rows,
        f"{found['results']} minus {found['compared_with']}, within people; p by sign flips.",
    )  # fmt: skip
