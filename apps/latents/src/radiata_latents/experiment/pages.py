"""What stands on a page: a training, a table of scores, a population, rates and the latents behind them.

Sections are made from what a command wrote and from nothing else, so a page can be made again from the folder. Everything
that a file or a user named is escaped by `radiata_imaging.report`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.runs import read_json, read_log
from radiata_imaging.report import Image, Section, Table, Text
from radiata_latents.experiment.figures_scores import decoded_behaviour, score_dots, training_curves
from radiata_latents.experiment.pictures import Picture
from radiata_latents.experiment.score_table import SCORES

__all__ = [
    "WARNING",
    "decode_section",
    "opening",
    "picture_sections",
    "population_section",
    "score_section",
    "train_section",
]

WARNING = "Not for clinical use: rates, latents and behaviour are a model's guesses about spikes."
_DRAWN = ("co_bps", "fp_bps", "r2_expected", "behaviour_r2", "psth_r2", "log_r2")
_NAMED = {
    "score": "score that settings are chosen by",
    "hidden_bps": "bits a spike of counts hidden in turn",
    "informed start": "share of the start's variance that trials explain",
    "informed noise": "share of the noise's variance that trials explain",
    "frequency_hz": "frequency of each oscillator (Hz)",
    "damping": "damping ratio of each oscillator",
    "mode_frequency_hz": "frequency of each normal mode (Hz)",
    "mode_decay_s": "decay time of each normal mode (s)",
}
"""Words for keys of `scores.json`; those of scores are `SCORES`."""
_SYNTHETIC = "The spikes are synthetic: nothing on this page was recorded from an animal or a person."


def opening(synthetic: bool) -> Section:
    """What a reader has to know first."""
    blocks = [Text(WARNING, warning=True)]
    return Section("Read first", [*blocks, Text(_SYNTHETIC, warning=True)] if synthetic else blocks)


def population_section(population: xr.Dataset) -> Section:
    """Sizes of a population."""
    counts, observed = population["counts"].values, population["observed"].values
    words, sizes = np.unique(population["split"].values, return_counts=True)
    labels = population["condition"].values
    bin_s = float(population.attrs["bin_s"])
    held, forward = int(population["heldout"].sum()), int(population["forward"].sum())
    hz = counts.sum((0, 1), dtype=float) / max(float(observed.sum()) * bin_s, 1e-12)
    rows = [
        ("source", population.attrs.get("source", "unknown")),
        ("trials", ", ".join(f"{n} {word}" for word, n in zip(words, sizes, strict=True))),
        ("conditions", len(np.unique(labels[labels >= 0])) or "none"),
        (
            "bins",
            f"{population.sizes['time'] - forward} observed and {forward} forward, of {1000 * bin_s:g} ms",
        ),
        ("bins not observed", int((~observed).sum())),
        ("neurons", f"{population.sizes['neuron'] - held} held in, {held} held out"),
        ("rate of a neuron (Hz)", f"{np.median(hz):.2f} in the median, {hz.min():.2f} to {hz.max():.2f}"),
        (
            "behaviour",
            ", ".join(map(str, population["channel"].values)) if "behaviour" in population else "none",
        ),
    ]
    return Section("Population", [Table(("what", "value"), rows)])


def train_section(
    folder: Path, title: str = "Training", *, synthetic: bool = False
) -> tuple[Section, list[Picture]]:
    """Curves of `log.jsonl` and the table of `scores.json`, of a run folder."""
    records = read_log(folder / "log.jsonl")
    pictures: list[Picture] = []
    blocks: list[Any] = []
    if any(isinstance(record.get("loss"), int | float) for record in records):
        last = max((int(record.get("step", 0)) for record in records), default=0)
        caption = f"Loss of the objective against the step, {last} steps; the validation loss is of the averaged weights."
        pictures.append(
            Picture(f"training-{folder.name}", training_curves(records, synthetic=synthetic), caption)
        )
        blocks.append(Image(pictures[0].png, caption))
    else:
        blocks.append(Text("The log holds no loss yet."))
    if (folder / "scores.json").is_file():
        scores = read_json(folder / "scores.json")
        words = SCORES | _NAMED
        rows = [(words.get(key, key), words.get(str(value), value)) for key, value in _flat(scores)]
        blocks.append(
            Table(
                ("figure", "value"),
                rows,
                "scores.json: of the weights that were written, on validation trials.",
            )
        )
    return Section(title, blocks), pictures


def _flat(scores: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Rows of a nested mapping; lists of numbers in one cell."""
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        elif isinstance(value, list):
            if all(isinstance(v, int | float) for v in value):
                yield f"{prefix}{name}", ", ".join(f"{v:.3g}" for v in value)
            else:
                for k, item in enumerate(value):
                    yield from (
                        _flat(item, f"{prefix}{name} {k} ")
                        if isinstance(item, Mapping)
                        else [(f"{prefix}{name} {k}", item)]
                    )
        else:
            yield f"{prefix}{name}", value


def score_section(
    rows: Sequence[Mapping[str, Any]],
    *,
    trials: str,
    marked: Sequence[str] = (),
    synthetic: bool = False,
    title: str = "Scores",
) -> tuple[Section, list[Picture]]:
    """Models and baselines as dots and as a table; columns that no row has are left out.

    Args:
        rows: Of `score_table.score_rows`.
        trials: How many of which split, for the caption.
        marked: Names of the models that the page is about.
        synthetic: Stamp the figure.
        title: Of the section.
    """
    columns = [column for column in SCORES if any(row.get(column) is not None for row in rows)]
    drawn = [column for column in _DRAWN if column in columns][:4] or columns[:4]
    if not columns:
        return Section(title, [Text("No score could be computed.")]), []
    names = [str(row["name"]) for row in rows]
    dots = {SCORES[column]: [_interval(row, column) for row in rows] for column in drawn}
    caption = (
        f"{trials}; lines: 95 % interval, bootstrap over trials (not over trainings). An arrow: the score lies further "
        "left. A dash: the model says nothing there."
    )
    picture = Picture("scores", score_dots(names, dots, marked=marked, synthetic=synthetic), caption)
    body = [
        (name, *(_cell(row, column) for column in columns)) for name, row in zip(names, rows, strict=True)
    ]
    table = Table(
        ("model", *(SCORES[column] for column in columns)),
        body,
        f"{trials}; value and 95 % interval over trials.",
    )
    return Section(title, [Image(picture.png, caption), table]), [picture]


def _interval(row: Mapping[str, Any], column: str) -> tuple[float, float, float] | None:
    value = row.get(column)
    if value is None:
        return None
    low, high = (row.get(f"{column}_{end}") for end in ("low", "high"))
    return (
        float(value),
        float("nan") if low is None else float(low),
        float("nan") if high is None else float(high),
    )


def _cell(row: Mapping[str, Any], column: str) -> str:
    found = _interval(row, column)
    if found is None:
        return "–"
    value, low, high = found
    return f"{value:.3f}" + (f" [{low:.3f},\u00a0{high:.3f}]" if np.isfinite([low, high]).all() else "")


def decode_section(
    found: Mapping[str, Any], made: xr.Dataset, *, synthetic: bool = False
) -> tuple[Section, list[Picture]]:
    """Decoders as a table, and behaviour as the best of the models' decoded it.

    Args:
        found: Content of `decode.json`.
        made: Behaviour (trial, time, channel) and what was decoded (decoder, trial, time, channel).
        synthetic: Stamp the figure.
    """
    rows, channels = found["rows"], [str(c) for c in made["channel"].values]
    best = max(range(len(rows)), key=lambda k: rows[k]["r2"])
    row = rows[best]
    trials = f"{made.sizes['trial']} {found['split']} trials"
    caption = (
        f"Behaviour, and what a ridge regression on {row['features']} of {row['name']} says of it (the best of {len(rows)} "
        f"decoders here): R² = {_cell(row, 'r2')}, {trials}, 95 % interval over trials."
    )
    figure = decoded_behaviour(
        made["time"].values, made["behaviour"].values, made["decoded"].values[best], channels=channels,
        labels=made["trial"].values.tolist(), r2=[float(row[f"r2_{c}"]) for c in channels], synthetic=synthetic,
    )  # fmt: skip
    body = [
        (r["name"], r["features"], _cell(r, "r2"), *(r[f"r2_{c}"] for c in channels), r["penalty"])
        for r in rows
    ]
    header = ("model", "features", "R²", *(f"R² {c}" for c in channels), "penalty")
    table = Table(header, body, f"{trials}; decoders fitted on training trials; 95 % interval over trials.")
    picture = Picture("decoded-behaviour", figure, caption)
    return Section("Behaviour", [Image(picture.png, caption), table]), [picture]


def picture_sections(title: str, pictures: Sequence[Picture]) -> list[Section]:
    """A section of pictures; none of none."""
    return [Section(title, [Image(p.png, p.caption) for p in pictures])] if pictures else []
