r"""Figures of volumes and of runs. A function returns the figure; only a command saves it, with its numbers beside it.

Slices carry orientation letters on their four sides, the position in mm and one grey scale for the whole figure. The
convention is written on each figure: *neurological* shows the patient's left on the left of the picture,
*radiological* on the right. Pictures of generated heads are stamped: they could be taken for a patient's.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from radiata_core.errors import InputError
from radiata_core.runs import atomic_path, write_json
from radiata_imaging.canonical import Canonical, canonical
from radiata_imaging.volume import Volume

__all__ = ["COLOURS", "STAMP", "Convention", "NumberedFigure", "grid", "histogram", "losses", "mosaic", "png", "save",
           "spectrum", "validation_by_log_snr"]  # fmt: skip

STAMP = "SYNTHETIC – not for clinical use"
# Okabe and Ito (2008): told apart by colour-blind readers, and by lightness in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_AIR, _INK = "black", "white"
_OUTLINE = [withStroke(linewidth=2, foreground="black")]


class Convention(StrEnum):
    """On which side of the picture the patient's left is."""

    NEUROLOGICAL = "neurological"
    RADIOLOGICAL = "radiological"


class NumberedFigure(Figure):
    """A figure that knows the numbers it shows: `numbers` is a JSON-ready mapping."""

    def __init__(self, numbers: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        FigureCanvasAgg(self)
        self.numbers = dict(numbers)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=dpi, metadata={"Software": None}, facecolor=figure.get_facecolor()
    )
    return buffer.getvalue()


def save(figure: NumberedFigure, path: Path, dpi: int = 130) -> bytes:
    """Write `path` (.png), the numbers it shows (.json, and .csv where they are columns), atomically; returns the PNG."""
    picture = png(figure, dpi)
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture)
    write_json(path.with_suffix(".json"), figure.numbers)
    columns = figure.numbers.get("columns")
    if columns:
        with atomic_path(path.with_suffix(".csv")) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return picture


def mosaic(
    volume: Volume,
    *,
    title: str = "",
    columns: int = 5,
    synthetic: bool = False,
    convention: Convention = Convention.NEUROLOGICAL,
    limits: tuple[float, float] | None = None,
    unit: str = "intensity",
) -> NumberedFigure:
    """Axial, coronal and sagittal rows of a volume of any orientation.

    Args:
        volume: What to show; it is turned to the nearest RAS order, never resampled.
        title: Printed above.
        columns: Slices a row, evenly spaced over the middle 70 % of the grid.
        synthetic: Stamp the figure.
        convention: Side of the patient's left in axial and coronal rows.
        limits: Grey range; by default the 0.5 and 99.8 percentiles.
        unit: Of the intensities, for the colour bar.
    """
    turned = canonical(volume.array, volume.affine)
    low, high = limits if limits is not None else _limits(turned.array)
    chosen = {a: np.unique(np.rint(np.linspace(0.15, 0.85, columns) * (turned.array.shape[a] - 1)).astype(int))
              for a in (2, 1, 0)}  # fmt: skip
    numbers = {
        "figure": "mosaic", "convention": convention.value, "limits": [low, high], "unit": unit, "synthetic": synthetic,
        "slices_mm": {"RAS"[a]: [turned.position(a, int(i)) for i in chosen[a]] for a in chosen},
        "spacing_mm": turned.spacing.tolist(), "oblique_degrees": turned.oblique,
    }  # fmt: skip
    figure, axes, scale = _slices(numbers, (2.1 * columns + 0.9, 6.9), columns)
    for row, axis in enumerate((2, 1, 0)):
        for column in range(columns):
            if column < len(chosen[axis]):
                drawn = draw_slice(
                    axes[row, column], turned, axis, int(chosen[axis][column]), convention, (low, high)
                )
    figure.colorbar(drawn, cax=scale).set_label(unit, color=_INK)
    scale.tick_params(colors=_INK)
    oblique = f"; grid {turned.oblique:.0f}° oblique, letters nearest" if turned.oblique > 1 else ""
    figure.suptitle("\n".join(filter(None, [
        title, f"{_said(convention)}; {_mm(turned.spacing)} mm voxels{oblique}",
        STAMP if synthetic else ""])), color=_INK, fontsize=10, y=0.985)  # fmt: skip
    return figure


def draw_slice(
    axes: Axes, volume: Canonical, axis: int, index: int, convention: Convention, limits: tuple[float, float]
) -> Any:
    """Draw slice `index` across `axis` (0 sagittal, 1 coronal, 2 axial) with letters and mm; returns the image."""
    across, up = [a for a in (0, 1, 2) if a != axis]
    plane = np.take(volume.array, index, axis=axis).T  # rows run upwards, columns across
    left, right = ("LR", "PA", "IS")[across]
    bottom, top = ("LR", "PA", "IS")[up]
    if across == 0 and convention is Convention.RADIOLOGICAL:
        plane, left, right = plane[:, ::-1], right, left
    aspect = volume.spacing[up] / volume.spacing[across]
    image = axes.imshow(plane, cmap="gray", origin="lower", aspect=aspect, vmin=limits[0], vmax=limits[1],
                        interpolation="nearest")  # fmt: skip
    style: Any = {
        "color": "#ffd24d",
        "fontsize": 8,
        "fontweight": "bold",
        "transform": axes.transAxes,
        "path_effects": _OUTLINE,
    }
    axes.text(0.01, 0.5, left, ha="left", va="center", gid="left", **style)
    axes.text(0.99, 0.5, right, ha="right", va="center", gid="right", **style)
    axes.text(0.5, 0.99, top, ha="center", va="top", gid="top", **style)
    axes.text(0.5, 0.01, bottom, ha="center", va="bottom", gid="bottom", **style)
    millimetres = f"{'xyz'[axis]} = {round(volume.position(axis, index)) + 0:+d} mm"
    axes.text(0.01, 0.01, millimetres, ha="left", va="bottom", color="#9fd3ff", fontsize=6.5,
              transform=axes.transAxes, path_effects=_OUTLINE)  # fmt: skip
    return image


def grid(
    volumes: Sequence[Volume],
    labels: Sequence[str],
    *,
    title: str = "",
    synthetic: bool = False,
    convention: Convention = Convention.NEUROLOGICAL,
    limits: tuple[float, float] | None = None,
    unit: str = "intensity",
) -> NumberedFigure:
    """Middle axial, coronal and sagittal slice of each volume, one column a volume, one grey scale for all.

    Raises:
        InputError: No volume, or another number of labels.
    """
    if not volumes or len(volumes) != len(labels):
        raise InputError(
            f"expected a label for each of at least one volume; got {len(volumes)} and {len(labels)}"
        )
    turned = [canonical(volume.array, volume.affine) for volume in volumes]
    if limits is None:
        pairs = [_limits(volume.array) for volume in turned]
        limits = min(p[0] for p in pairs), max(p[1] for p in pairs)
    numbers = {"figure": "grid", "labels": list(labels), "limits": list(limits), "unit": unit, "synthetic": synthetic,
               "convention": convention.value}  # fmt: skip
    figure, axes, scale = _slices(numbers, (1.7 * len(turned) + 0.9, 6.2), len(turned))
    for column, (volume, label) in enumerate(zip(turned, labels, strict=True)):
        axes[0, column].set_title(label, color=_INK, fontsize=8, pad=2)
        for row, axis in enumerate((2, 1, 0)):
            middle = volume.array.shape[axis] // 2
            drawn = draw_slice(axes[row, column], volume, axis, middle, convention, limits)
    figure.colorbar(drawn, cax=scale).set_label(unit, color=_INK)
    scale.tick_params(colors=_INK)
    lines = [title, _said(convention), STAMP if synthetic else ""]
    figure.suptitle("\n".join(filter(None, lines)), color=_INK, fontsize=9, y=0.985)
    return figure


def _slices(
    numbers: dict[str, Any], size: tuple[float, float], columns: int
) -> tuple[NumberedFigure, Any, Axes]:
    """A dark figure of three rows, its axes without frames, and a place for the grey scale; all at fixed places."""
    figure = NumberedFigure(numbers, figsize=size, facecolor=_AIR)
    bar = 1.05 / size[0]  # inches for the scale and its label
    room = {"left": 0.005, "right": 1 - bar, "bottom": 0.005, "top": 0.885, "wspace": 0.02, "hspace": 0.02}
    axes = figure.subplots(3, columns, squeeze=False, gridspec_kw=room)
    for one in axes.flat:
        one.set_axis_off()
    return figure, axes, figure.add_axes((1 - 0.92 * bar, 0.2, 0.12 * bar, 0.5))


def _limits(array: np.ndarray) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(array, [0.5, 99.8]))
    return (low, high) if high > low else (low, low + 1.0)


def _said(convention: Convention) -> str:
    side = "left" if convention is Convention.NEUROLOGICAL else "right"
    return f"{convention.value} (patient's left is on the {side})"


def _mm(spacing: np.ndarray) -> str:
    return " × ".join(f"{edge:.3g}" for edge in spacing)


def histogram(
    centres: np.ndarray,
    sets: Mapping[str, np.ndarray],
    *,
    unit: str = "intensity",
    title: str = "Intensities",
) -> NumberedFigure:
    """Mean histogram of each set on common bins; a set is `(n, bins)` of fractions, the band its 2.5-97.5 % over units."""
    figure, axes = _chart(title, unit, "share of voxels a bin", {unit: centres.tolist()})
    _bands(figure, axes, centres, sets)
    axes.set_yscale("log")
    return figure


def spectrum(
    frequency: np.ndarray, sets: Mapping[str, np.ndarray], *, title: str = "Radial power spectrum"
) -> NumberedFigure:
    """Mean log power of each set; a set is `(n, shells)` in dB, the band its 2.5-97.5 % over units."""
    figure, axes = _chart(
        title, "spatial frequency (cycles/mm)", "power (dB)", {"cycles_per_mm": frequency.tolist()}
    )
    _bands(figure, axes, frequency, sets)
    return figure


def losses(
    records: Sequence[Mapping[str, Any]], *, keys: Sequence[str] = ("loss",), step: str = "step"
) -> NumberedFigure:
    """Logged figures against the step; a running median of 5 % of the points stands over the raw ones.

    Args:
        records: Lines of `log.jsonl`; lines without a key are left out of its curve.
        keys: Names of the figures.
        step: Name of the abscissa.
    """
    figure, axes = _chart("Training", step, "loss", {})
    curves: dict[str, dict[str, list[float]]] = {}
    for colour, key in zip(COLOURS, keys, strict=False):
        points = [(r[step], r[key]) for r in records if _finite(r.get(step)) and _finite(r.get(key))]
        if not points:
            continue
        x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
        curves[key] = {step: x.tolist(), key: y.tolist()}
        dense = len(y) >= 40
        axes.plot(x, y, color=colour, lw=0.7, alpha=0.35 if dense else 1.0, label=None if dense else key)
        if dense:
            width = max(3, len(y) // 20)
            windows = np.lib.stride_tricks.sliding_window_view(y, width)
            axes.plot(
                x[width // 2 :][: len(windows)], np.median(windows, axis=1), color=colour, lw=1.6, label=key
            )
    figure.numbers = {"figure": "losses", "curves": curves}
    if all(v > 0 for curve in curves.values() for v in next(iter(reversed(curve.values())))):
        axes.set_yscale("log")
    if curves:
        axes.legend(frameon=False)
    return figure


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def validation_by_log_snr(
    edges: Sequence[float], curves: Mapping[str, Sequence[float]], *, ylabel: str = "mean squared error of x₀"
) -> NumberedFigure:
    """Held-out error by bin of λ = log(α/σ), one curve a denoiser (model, linear, mean image, identity).

    Args:
        edges: Bin edges of λ, `(bins + 1,)`, increasing.
        curves: Error in each bin, `(bins,)`.
        ylabel: What the error is of.
    """
    centres = (np.asarray(edges[:-1]) + np.asarray(edges[1:])) / 2.0
    columns = {"log_snr": centres.tolist()} | {
        name: list(map(float, values)) for name, values in curves.items()
    }
    title = "Held-out error by noise level"
    figure, axes = _chart(title, "half log-SNR λ = log(α/σ)   (left: noise, right: data)", ylabel, columns)
    for colour, (name, values) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(centres, values, "o-", ms=3.5, color=colour, label=name)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure


def _chart(
    title: str, xlabel: str, ylabel: str, columns: dict[str, list[float]]
) -> tuple[NumberedFigure, Axes]:
    figure = NumberedFigure({"figure": title, "columns": columns}, figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bands(figure: NumberedFigure, axes: Axes, x: np.ndarray, sets: Mapping[str, np.ndarray]) -> None:
    for colour, (name, rows) in zip(COLOURS, sets.items(), strict=False):
        low, high = np.percentile(rows, [2.5, 97.5], axis=0)
        axes.plot(x, rows.mean(0), color=colour, lw=1.5, label=f"{name} (n = {len(rows)}; band 2.5–97.5 %)")
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        columns = {name: rows.mean(0), f"{name} 2.5%": low, f"{name} 97.5%": high}
        figure.numbers["columns"] |= {key: values.tolist() for key, values in columns.items()}
    axes.legend(frameon=False, fontsize=8)
