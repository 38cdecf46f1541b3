"""Scores: models side by side with intervals, behaviour decoded from rates, few-shot curves, training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.plots import COLOURS, NumberedFigure
from radiata_latents.experiment.figures_panels import (
    MODEL,
    SECOND,
    TRUTH,
    check_alike,
    dressed,
    legend_above,
    panels,
    stamp,
)
from radiata_latents.model.few_shot import FewShotCurve

__all__ = ["decoded_behaviour", "few_shot", "score_dots", "training_curves"]


def score_dots(
    names: Sequence[str],
    scores: Mapping[str, Sequence[tuple[float, float, float] | None]],
    *,
    marked: Sequence[str] = (),
    lowest: float = -0.25,
    synthetic: bool = False,
) -> NumberedFigure:
    """A row a model, a panel a score: dot, 95 % interval and number. Right is better.

    Args:
        names: Models, the first on top.
        scores: Score → (value, low, high) of each model, or None where it has none; NaN for a missing interval.
        marked: Models in the second colour: those the figure is about.
        lowest: Dots below are drawn at the left edge as arrows, with their number: an R² has no lower bound.
        synthetic: Stamp the figure.

    Raises:
        InputError: no score, or another number of values than of models.
    """
    if not scores or any(len(values) != len(names) for values in scores.values()):
        raise InputError(
            f"expected a value for each of {len(names)} models in every score; got other numbers of them."
        )
    numbers = {
        "models": list(names),
        "scores": {name: [list(v) if v else None for v in values] for name, values in scores.items()},
    }
    width = 1.6 + 2.2 * len(scores) + 0.065 * max(map(len, names))
    figure, axes = panels("scores", 1, len(scores), (width, 0.33 * len(names) + 1.15), numbers, sharey=True)
    for one, (score, values) in zip(axes[0], scores.items(), strict=True):
        for row, (name, found) in enumerate(zip(names, values, strict=True)):
            if found is None or not np.isfinite(found[0]):
                one.text(
                    0.02,
                    row,
                    "–",
                    transform=one.get_yaxis_transform(),
                    va="center",
                    fontsize=8,
                    color="#777777",
                )
                continue
            value, low, high = found
            colour = SECOND if name in marked else MODEL
            if value < lowest:
                one.plot(lowest, row, "<", color=colour, ms=6)
            else:
                one.plot(value, row, "o", color=colour, ms=5)
                if np.isfinite([low, high]).all():
                    one.plot([max(low, lowest), high], [row, row], color=colour, lw=1.6)
            one.text(
                1.02,
                row,
                f"{value:.3f}",
                transform=one.get_yaxis_transform(),
                va="center",
                fontsize=8,
                color=colour,
            )
        one.axvline(0, color="#999999", lw=0.8, zorder=0)
        one.grid(axis="x", alpha=0.25)
        one.margins(x=0.08)
        dressed(one, score)
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=8.5)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return stamp(figure, synthetic)


def decoded_behaviour(
    times: np.ndarray,
    measured: np.ndarray,
    decoded: np.ndarray,
    *,
    channels: Sequence[str],
    labels: Sequence[Any],
    r2: Sequence[float] | None = None,
    shown: int = 4,
    synthetic: bool = False,
) -> NumberedFigure:
    """Behaviour of some trials, measured and decoded; at the right all bins of all trials against each other.

    Args:
        times: (time,) s.
        measured: (trial, time, channel), NaN where it was not.
        decoded: Of the same shape.
        channels: Names, with units.
        labels: One a trial.
        r2: One a channel, where the title shall say so.
        shown: Trials drawn, evenly chosen.
        synthetic: Stamp the figure.

    Raises:
        InputError: shapes that differ.
    """
    check_alike(measured=measured, decoded=decoded)
    chosen = np.unique(np.linspace(0, len(measured) - 1, min(shown, len(measured))).astype(int))
    rows = len(channels)
    numbers = {"times_s": times.tolist(), "trials": [str(labels[k]) for k in chosen], "channels": list(channels),
               "measured": measured[chosen].tolist(), "decoded": decoded[chosen].tolist(),
               "r2": None if r2 is None else list(map(float, r2))}  # fmt: skip
    figure, axes = panels(
        "decoded behaviour",
        rows,
        len(chosen) + 1,
        (2.15 * (len(chosen) + 1) + 0.7, 1.9 * rows + 0.8),
        numbers,
    )
    for i, channel in enumerate(channels):
        for j, trial in enumerate(chosen):
            one = axes[i, j]
            one.plot(times, measured[trial, :, i], color=TRUTH, lw=1.3, label="measured")
            one.plot(times, decoded[trial, :, i], color=MODEL, lw=1.5, label="decoded")
            one.sharey(axes[i, 0])
            dressed(one, f"trial {labels[trial]}" if i == 0 else "", "time (s)" if i == rows - 1 else "",
                    channel if j == 0 else "")  # fmt: skip
            if j:
                one.tick_params(labelleft=False)
        _against(axes[i, -1], measured[..., i].ravel(), decoded[..., i].ravel(), channel,
                 None if r2 is None else float(r2[i]))  # fmt: skip
    legend_above(figure, axes[0, 0])
    return stamp(figure, synthetic)


def _against(axes: Any, measured: np.ndarray, decoded: np.ndarray, channel: str, r2: float | None) -> None:
    known = np.isfinite(measured) & np.isfinite(decoded)
    low, high = np.quantile(np.concatenate([measured[known], decoded[known]]), [0.001, 0.999])
    axes.hexbin(measured[known], decoded[known], gridsize=32, extent=(low, high, low, high), bins="log", cmap="cividis",
                mincnt=1, linewidths=0.1)  # fmt: skip
    axes.plot([low, high], [low, high], color=SECOND, lw=1)
    axes.set_aspect("equal", adjustable="box")
    said = "" if r2 is None else f"R² = {r2:.3f}, "
    dressed(axes, f"{said}{int(known.sum())} bins", "measured", "decoded")


def few_shot(curves: Mapping[str, FewShotCurve], *, synthetic: bool = False) -> NumberedFigure:
    """Bits a spike of held-out neurons against the trials that the read-out saw, mean and standard error over draws."""
    numbers = {name: {"shots": c.shots.tolist(), "bits": c.bits.tolist()} for name, c in curves.items()}
    figure, axes = panels("few-shot co-smoothing", 1, 1, (5.4, 3.5), {"curves": numbers})
    one = axes[0, 0]
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        one.errorbar(curve.shots, curve.mean, curve.error, fmt="o-", ms=4, lw=1.4, capsize=2, color=colour,
                     label=f"{name} ({curve.bits.shape[1]} draws)")  # fmt: skip
    one.set_xscale("log")
    ticks = sorted({int(k) for curve in curves.values() for k in curve.shots})
    one.set_xticks(ticks, [str(k) for k in ticks])
    one.minorticks_off()
    one.axhline(0, color="#999999", lw=0.8, zorder=0)
    one.grid(alpha=0.25)
    dressed(one, "Few-shot co-smoothing", "trials the read-out saw", "held-out bits a spike").legend(
        frameon=False, fontsize=8
    )
    return stamp(figure, synthetic)


def training_curves(records: Sequence[Mapping[str, Any]], *, synthetic: bool = False) -> NumberedFigure:
    """Loss of the updates and of held-out trials, and held-out scores if the log has them, against the step.

    Args:
        records: Lines of `log.jsonl`.
        synthetic: Stamp the figure.

    Raises:
        InputError: no figure in them.
    """
    found = {key: _curve(records, key) for key in ("loss", "validation_loss")}
    scores = sorted(
        {key for r in records for key in r if key.startswith("validation_") and key != "validation_loss"}
    )
    extra = {key: curve for key in scores if len((curve := _curve(records, key))[0])}
    losses = {key: curve for key, curve in found.items() if len(curve[0])}
    if not losses:
        raise InputError("expected a loss in the log; got none. Train for more steps than --log-every.")
    numbers = {key: {"step": x.tolist(), "value": y.tolist()} for key, (x, y) in (losses | extra).items()}
    figure, axes = panels("training", 1, 1 + bool(extra), (9.2 if extra else 6.0, 3.4), {"curves": numbers})
    for (key, (x, y)), colour in zip(losses.items(), (MODEL, SECOND), strict=False):
        marker = "o-" if len(x) < 40 else "-"
        axes[0, 0].plot(x, y, marker, ms=3, lw=1.3, color=colour, label=key.replace("_", " "))
    axes[0, 0].grid(alpha=0.25)
    dressed(axes[0, 0], "Training", "step", "loss (nats a scored count)").legend(frameon=False, fontsize=8)
    if extra:
        for colour, (key, (x, y)) in zip(COLOURS[2:], extra.items(), strict=False):
            axes[0, 1].plot(
                x,
                y,
                "o-",
                ms=3,
                lw=1.3,
                color=colour,
                label=key.removeprefix("validation_").replace("_", " "),
            )
        axes[0, 1].grid(alpha=0.25)
        dressed(axes[0, 1], "Held-out trials", "step", "score").legend(frameon=False, fontsize=8)
    return stamp(figure, synthetic)


def _curve(records: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of a key."""
    points = [(r["step"], r[key]) for r in records if _number(r.get("step")) and _number(r.get(key))]
    x, y = zip(*points, strict=True) if points else ((), ())
    return np.array(x, float), np.array(y, float)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
