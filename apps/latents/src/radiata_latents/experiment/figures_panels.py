"""Panels in the house's look, for all figures of populations: light ground, little ink, colours that everybody tells apart.

A figure function takes arrays and returns a `NumberedFigure`; what it shows stands in its `numbers`, and a command saves
both. Time is in seconds from the event that trials are aligned to, rates are in Hz here and only here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from radiata_core.errors import InputError
from radiata_imaging.plots import COLOURS, STAMP, NumberedFigure

__all__ = [
    "FORWARD",
    "MODEL",
    "SECOND",
    "TRUTH",
    "check_alike",
    "dressed",
    "label_colours",
    "legend_above",
    "panels",
    "shade",
    "stamp",
]

MODEL, SECOND, TRUTH, FORWARD = COLOURS[0], COLOURS[1], "#1c2430", "#f0e9d8"
"""Colours of what a model says, of a second thing beside it, of the truth, and the ground of the forward window."""


def panels(
    name: str,
    rows: int,
    columns: int,
    size: tuple[float, float],
    numbers: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[NumberedFigure, np.ndarray]:
    """A figure and its axes, (rows, columns).

    Args:
        name: What the figure is; it stands first in its numbers.
        rows: Panels down.
        columns: Panels across.
        size: Width and height, inches.
        numbers: What is shown, ready for JSON.
        options: Of `Figure.subplots`.
    """
    room = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = NumberedFigure({"figure": name, **(numbers or {})}, figsize=size, layout=room)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
    return figure, axes


def dressed(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "") -> Axes:
    """The panel with its words, of one size everywhere."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(xlabel, fontsize=8.5)
    axes.set_ylabel(ylabel, fontsize=8.5)
    return axes


def legend_above(figure: NumberedFigure, axes: Axes, columns: int = 5) -> None:
    """What stands for what, once, above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5)


def shade(axes: Axes, times: np.ndarray, forward: np.ndarray) -> None:
    """Another ground under the bins that no model saw."""
    if np.any(forward):
        half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
        axes.axvspan(times[forward][0] - half, times[forward][-1] + half, color=FORWARD, lw=0, zorder=0)


def stamp(figure: NumberedFigure, synthetic: bool) -> NumberedFigure:
    """The figure, with the house's words below where its data are simulated."""
    figure.numbers["synthetic"] = synthetic
    if synthetic:
        figure.supxlabel(STAMP, x=0.995, ha="right", fontsize=7, color="#8a6100")
    return figure


def label_colours(labels: Sequence[int]) -> dict[int, Any]:
    """Label → colour: of the house while they last, of a perceptually even map beyond."""
    known = sorted(set(map(int, labels)))
    if len(known) <= len(COLOURS):
        return dict(zip(known, COLOURS, strict=False))
    ramp = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(known)))
    return {label: tuple(map(float, colour)) for label, colour in zip(known, ramp, strict=True)}


def check_alike(**arrays: np.ndarray) -> None:
    """Nothing, if all have one shape.

    Raises:
        InputError: they do not.
    """
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(f"expected arrays of one shape; got {said}. Cut them alike.")
