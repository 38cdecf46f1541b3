"""The outcome of an evaluation, and its files: one table of decoders and controls, a value a stimulus, figures.

    scores.tsv         decoder metric mean low high p chance cases left_out control (0/1)
    scores.json        the same, with differences to each control, the overlap with training, notes, provenance
    per_stimulus.tsv   stimulus decoder metric value
    *.png              galleries and charts, each with its numbers and sources as .json

Intervals are 95 %, over stimuli. p is one-sided, of permuted pairings. Higher is better unless the name says distance, epe,
angle or loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from radiata_core.files import write_json
from radiata_decode.data.sidecar import generated_by, source_list
from radiata_decode.data.tables import write_table
from radiata_decode.model.bootstrap_scores import paired_difference
from radiata_decode.model.permutation import PermutationTest
from radiata_decode.model.score_table import ScoreRow

if TYPE_CHECKING:
    from radiata_imaging.plots import NumberedFigure

__all__ = [
    "DECODER",
    "DISCLAIMER",
    "FORMAT",
    "SCORES",
    "Evaluation",
    "differences",
    "lower_is_better",
    "printed",
]

FORMAT = "radiata-decode-scores/1"
DECODER = "decoder"
"""Name of what is judged, in every table."""
SCORES = "scores.json"
DISCLAIMER = "Reconstructions are model outputs, not photographs of thoughts; not for clinical use."
_CONTROL = " (control)"
_LOWER = ("distance", "epe", "angle", "log loss")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found.

    Attributes:
        kind: images, motion or categories.
        rows: Of the table: decoders first, then controls, then the ceiling.
        values: Decoder or control → metric → a value a stimulus.
        tests: Metric → permutations of the decoder's pairings.
        differences: Decoder minus each control, stimulus by stimulus; see `differences`.
        overlap: How near the stimuli are to those of training; see `stimulus_overlap`.
        groups: Scores of stimuli whose group was seen in training, and of the others.
        notes: What a reader must know before the numbers.
        figures: Name of the file → figure.
        extra: What else belongs to this kind: a confusion matrix.
    """

    kind: str
    rows: list[ScoreRow]
    values: Mapping[str, Mapping[str, np.ndarray]]
    tests: Mapping[str, PermutationTest]
    differences: list[dict[str, Any]]
    overlap: dict[str, Any]
    groups: list[dict[str, Any]]
    notes: list[str]
    figures: "Mapping[str, NumberedFigure]" = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, names: Sequence[str], sources: Mapping[str, str], **about: Any) -> None:
        """Write tables, JSON and figures.

        Args:
            folder: Of the run.
            names: Stimuli, in the order of `values`.
            sources: Name → SHA-256 of what this was made from.
            about: What else the record says.
        """
        from radiata_imaging.plots import save

        table = pd.DataFrame([asdict(row) for row in self.rows])
        write_table(table.assign(control=table["control"].astype(int)), folder / "scores.tsv")
        write_table(self._per_stimulus(names), folder / "per_stimulus.tsv")
        made = {"GeneratedBy": generated_by(), "Sources": source_list(sources)}
        for name, figure in self.figures.items():
            figure.numbers |= made | {"SyntheticData": True, "Description": DISCLAIMER}
            save(figure, folder / f"{name}.png")
        record = {
            "format": FORMAT,
            "kind": self.kind,
            **made,
            **about,
            "stimuli": len(names),
            "notes": [*self.notes, DISCLAIMER],
            "rows": [asdict(row) for row in self.rows],
            "differences": self.differences,
            "overlap": self.overlap,
            "groups": self.groups,
            "permutations": {name: _quantiles(test) for name, test in self.tests.items()},
            "figures": [f"{name}.png" for name in self.figures],
            **self.extra,
        }
        write_json(folder / SCORES, record)

    def _per_stimulus(self, names: Sequence[str]) -> pd.DataFrame:
        parts = [
            pd.DataFrame({"stimulus": list(names), "decoder": decoder, "metric": metric, "value": values})
            for decoder, metrics in self.values.items()
            for metric, values in metrics.items()
        ]
        return pd.concat(parts, ignore_index=True)


def differences(
    values: Mapping[str, Mapping[str, np.ndarray]], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The decoder minus everything else, stimulus by stimulus: mean, 95 % interval, two-sided p of sign flips.

    Args:
        values: Decoder or control → metric → a value a stimulus; `DECODER` is what is compared.
        rng: Of draws and flips.
    """
    rows = []
    for other, metrics in values.items():
        for metric, theirs in metrics.items():
            if other == DECODER or metric not in values[DECODER]:
                continue
            found = paired_difference(values[DECODER][metric], theirs, None, rng)
            one = found.difference
            rows.append(
                {"other": other, "metric": metric, "difference": one.mean, "low": one.low, "high": one.high,
                 "p": found.p, "cases": one.cases}
            )  # fmt: skip
    return rows


def lower_is_better(metric: str) -> bool:
    """Whether a score of this name is an error."""
    return "skill" not in metric and any(word in metric for word in _LOWER)


def printed(rows: Sequence[ScoreRow], notes: Sequence[str]) -> str:
    """The table as text: means of all side by side, then the decoder's with intervals and p."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    lines = [f"note: {note}" for note in notes]
    width = max(len(row.decoder) + len(_CONTROL) * row.control for row in rows)
    columns = [max(7, len(metric)) for metric in metrics]
    head = "  ".join(f"{metric:>{size}}" for metric, size in zip(metrics, columns, strict=True))
    lines.append(f"{'':<{width}}  {head}")
    for name in dict.fromkeys(row.decoder for row in rows):
        found = {row.metric: row for row in rows if row.decoder == name}
        label = name + _CONTROL * next(iter(found.values())).control
        cells = [
            f"{found[metric].mean:>{size}.3f}" if metric in found else " " * size
            for metric, size in zip(metrics, columns, strict=True)
        ]
        lines.append(f"{label:<{width}}  {'  '.join(cells)}".rstrip())
    for row in (row for row in rows if row.decoder == DECODER):
        ends = "" if np.isnan(row.low) else f" [{row.low:.3f}, {row.high:.3f}]"
        p = "" if np.isnan(row.p) else f", p = {row.p:.3g}"
        out = f", {row.left_out} left out" if row.left_out else ""
        lines.append(f"{row.metric}: {row.mean:.3f}{ends}{p}{out}")
    return "\n".join(lines)


def _quantiles(test: PermutationTest) -> dict[str, Any]:
    low, middle, high = np.quantile(test.null, (0.025, 0.5, 0.975)) if len(test.null) else (np.nan,) * 3
    return {"observed": test.observed, "p": test.p, "draws": len(test.null), "null": [low, middle, high]}
