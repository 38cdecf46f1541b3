"""Charts of an evaluation: scores of decoders and controls with their intervals, permutations, confusion.

Every chart has the decoder, its controls and the ceiling on one axis, in three colours, with chance as a dashed line where
chance is a number. Intervals are 95 %, over stimuli.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from radiata_core.errors import InputError
from radiata_decode.experiment.evaluation import lower_is_better
from radiata_decode.experiment.galleries import said
from radiata_decode.model.permutation import PermutationTest
from radiata_decode.model.score_table import ScoreRow
from radiata_imaging.plots import COLOURS, NumberedFigure

__all__ = ["confusion_figure", "null_figure", "score_figure"]

DECODES, CONTROLS, CEILINGS = COLOURS[0], "#8a8a8a", COLOURS[2]
MOST = 4


def score_figure(
    rows: Sequence[ScoreRow], metrics: Sequence[str] = (), *, stimuli: int, synthetic: bool = False
) -> NumberedFigure:
    """One panel a metric, one line a decoder or control.

    Args:
        rows: Of the table.
        metrics: Which; by default PixCorr, SSIM and two-way identifications, or the first of the table.
        stimuli: How many were scored.
        synthetic: Responses were simulated.

    Raises:
        InputError: a metric that the table has not.
    """
    known = list(dict.fromkeys(row.metric for row in rows))
    chosen = list(metrics) or _main(known)
    missing = [name for name in chosen if name not in known]
    if missing or not rows:
        raise InputError(f"expected metrics of {', '.join(known)}; got {', '.join(missing) or 'no rows'}.")
    names = list(dict.fromkeys(row.decoder for row in rows))
    columns: dict[str, list[object]] = {"decoder": [], "metric": [], "mean": [], "low": [], "high": []}
    size = (1.6 + 2.1 * len(chosen), 1.1 + 0.27 * len(names))
    figure = NumberedFigure(
        {"figure": "scores", "stimuli": stimuli, "columns": columns}, figsize=size, layout="constrained"
    )
    panels = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
    at = {name: len(names) - 1 - place for place, name in enumerate(names)}
    for axes, metric in zip(panels, chosen, strict=True):
        for row in (row for row in rows if row.metric == metric):
            colour = CONTROLS if row.control else CEILINGS if "ceiling" in row.decoder else DECODES
            axes.hlines(at[row.decoder], row.low, row.high, color=colour, lw=1.8)
            axes.plot(row.mean, at[row.decoder], "o", color=colour, ms=4.5)
            if np.isfinite(row.chance):
                axes.axvline(row.chance, color="#999", lw=0.8, ls="--", zorder=0)
            for key, value in zip(columns, (row.decoder, metric, row.mean, row.low, row.high), strict=True):
                columns[key].append(value)
        better = "\n(lower is better)" if lower_is_better(metric) else ""
        axes.set_xlabel(metric + better, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(list(at.values()), list(at), fontsize=8)
    simulated = "simulated cortex; " if synthetic else ""
    figure.suptitle(
        f"{simulated}n = {stimuli} stimuli, 95 % intervals over stimuli; grey: controls, green: ceiling, dashed: chance",
        fontsize=7,
    )
    figure.numbers["columns"] = columns
    return figure


def null_figure(
    tests: Mapping[str, PermutationTest], within: str, *, most: int = MOST, synthetic: bool = False
) -> NumberedFigure:
    """What the true pairing scored, against what permuted pairings did.

    Args:
        tests: Metric → permutations.
        within: What was permuted within, in words.
        most: Panels, at most.
        synthetic: Responses were simulated.

    Raises:
        InputError: no tests.
    """
    if not tests:
        raise InputError("expected a permutation test to draw; got none.")
    shown = dict(list(tests.items())[:most])
    numbers = {
        name: {
            "observed": test.observed,
            "p": test.p,
            "draws": len(test.null),
            "null_mean": float(test.null.mean()),
        }
        for name, test in shown.items()
    }
    figure = NumberedFigure(
        {"figure": "permutations", "tests": numbers, "within": within},
        figsize=(2.5 * len(shown) + 0.4, 2.5), layout="constrained",
    )  # fmt: skip
    for axes, (name, test) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
    ):
        sign = -1 if name == "epe" else 1  # tested as its negative
        axes.hist(sign * test.null, bins=_bins(sign * test.null), color=CONTROLS, label="permuted")
        axes.axvline(sign * test.observed, color=DECODES, lw=2, label="decoder")
        measured = name.replace("distance", "correlation")  # what was permuted; the distance is 1 minus it
        axes.set_xlabel(f"{measured}\np = {test.p:.3g}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("permutations", fontsize=8)
    figure.axes[0].legend(frameon=False, fontsize=7)
    simulated = "simulated cortex; " if synthetic else ""
    draws = max(len(test.null) for test in shown.values())
    figure.suptitle(f"{simulated}{draws} permutations {within}", fontsize=8)
    return figure


def _bins(values: np.ndarray, count: int = 30) -> np.ndarray:
    """Edges around finite values, apart even where all of them are the same up to rounding."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    margin = max(0.02 * (high - low), 1e-3)
    return np.linspace(low - margin, high + margin, count + 1)


def confusion_figure(
    counts: np.ndarray, categories: Sequence[str], *, accuracy: float, chance: float, synthetic: bool = False
) -> NumberedFigure:
    """Shares of what was decoded, a row a category that was shown.

    Args:
        counts: (shown, decoded).
        categories: In the order of both.
        accuracy: Printed above.
        chance: Printed above.
        synthetic: Responses were simulated.

    Raises:
        InputError: counts that are not square, or of other categories.
    """
    if counts.shape != (len(categories), len(categories)) or not len(categories):
        raise InputError(
            f"expected counts of {len(categories)} by {len(categories)} categories; got {counts.shape}."
        )
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 1.9 + 0.45 * len(categories)
    numbers = {"figure": "confusion", "categories": list(categories), "counts": counts.tolist(), "accuracy": accuracy,
               "chance": chance}  # fmt: skip
    figure = NumberedFigure(numbers, figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    for row in range(len(categories)):
        for column in range(len(categories)):
            if counts[row, column]:
                colour = "black" if shares[row, column] > 0.6 else "white"
                axes.text(
                    column,
                    row,
                    str(int(counts[row, column])),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
    places = range(len(categories))
    axes.set_xticks(places, categories, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(places, categories, fontsize=7)
    axes.set(xlabel="decoded", ylabel="shown")
    figure.colorbar(drawn, label="share of the row", shrink=0.8)
    n = int(counts.sum())
    simulated = "simulated cortex; " if synthetic else ""
    axes.set_title(f"{simulated}accuracy {accuracy:.2f}, chance {chance:.2f}, n = {n}", fontsize=8)
    figure.supxlabel(said(synthetic).replace("; not", ";\nnot"), fontsize=6)
    return figure


def _main(known: Sequence[str]) -> list[str]:
    wanted = [name for name in known if name in ("pixcorr", "ssim") or name.endswith("2-way")]
    return wanted[:MOST] or list(known[:MOST])
