r"""Figures of an evaluation: is confidence earned, and how do structures or methods score, with their intervals.

A reliability diagram has the confidence of the bins against the share that was right; the diagonal is calibration, below it
lies overconfidence. The bars beneath say how many voxels a bin has.

An interval chart has one row a name: the mean over people as a point, the interval as a line.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.plots import COLOURS, NumberedFigure

__all__ = ["interval_chart", "reliability_diagram"]


def reliability_diagram(
    confidence: Sequence[float | int | None],
    accuracy: Sequence[float | int | None],
    count: Sequence[float | int],
    *,
    title: str = "Reliability",
) -> NumberedFigure:
    """Share of right voxels against mean confidence, bin by bin.

    Args:
        confidence: Mean of each bin, in [0, 1]; None or NaN in an empty one.
        accuracy: Share that was right, in [0, 1].
        count: Voxels in each bin.
        title: Printed above.

    Raises:
        InputError: lengths that differ, or no voxel.
    """
    c, a = (
        np.array([np.nan if v is None else v for v in one], dtype=float) for one in (confidence, accuracy)
    )
    n = np.asarray(count, dtype=float)
    if not (len(c) == len(a) == len(n)) or n.sum() <= 0:
        raise InputError(
            f"expected bins of one number with voxels in them; got {len(c)}, {len(a)}, {len(n)}."
        )
    full = n > 0
    ece = float((n[full] * np.abs(a[full] - c[full])).sum() / n.sum())
    columns = {"confidence": c.tolist(), "accuracy": a.tolist(), "voxels": n.tolist()}
    figure = NumberedFigure(
        {"figure": "reliability", "ece": ece, "columns": columns}, figsize=(4.8, 5.2), layout="constrained"
    )
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color="#888", lw=1, ls="--", label="calibrated")
    upper.plot(c[full], a[full], "o-", color=COLOURS[0], ms=4, label=f"measured (ECE = {ece:.3g})")
    upper.set(ylabel="share of voxels that are right", xlim=(0, 1), ylim=(0, 1.02), title=title)
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    edges = np.linspace(0, 1, len(n) + 1)
    lower.bar(
        edges[:-1], n / n.sum(), width=np.diff(edges), align="edge", color=COLOURS[5], edgecolor="white"
    )
    lower.set(xlabel="confidence (probability of the label given)", ylabel="share of voxels")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure


def interval_chart(
    rows: Mapping[str, tuple[float, float, float]], *, xlabel: str, title: str = "", zero: bool = False
) -> NumberedFigure:
    """Means with their intervals, one row a name, the first on top.

    Args:
        rows: Name to mean, lower and upper end; ends of NaN draw the point alone.
        xlabel: What is measured, with its unit.
        title: Printed above.
        zero: Mark zero: differences.

    Raises:
        InputError: no rows.
    """
    if not rows:
        raise InputError("expected at least one row to draw; got none.")
    values = np.array(list(rows.values()), dtype=float)
    columns = {
        "name": list(rows),
        "mean": values[:, 0].tolist(),
        "low": values[:, 1].tolist(),
        "high": values[:, 2].tolist(),
    }
    size = (6.4, 0.9 + 0.22 * len(rows))
    figure = NumberedFigure(
        {"figure": title or xlabel, "columns": columns}, figsize=size, layout="constrained"
    )
    axes = figure.subplots()
    at = np.arange(len(rows))[::-1]
    axes.hlines(at, values[:, 1], values[:, 2], color=COLOURS[0], lw=1.6)
    axes.plot(values[:, 0], at, "o", color=COLOURS[0], ms=4)
    if zero:
        axes.axvline(0, color="#888", lw=1, ls="--")
    axes.set_yticks(at, list(rows), fontsize=7)
    axes.set(xlabel=xlabel, title=title, ylim=(-0.8, len(rows) - 0.2))
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
