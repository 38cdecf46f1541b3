"""Galleries: what was seen, what was decoded, what knows less – best, median, worst and random rows, never the best alone.

A row is a stimulus, chosen by the decoder's score (`flow_figures.ranked`) and labelled with it; a column is a decoder, a
control or the ceiling. Every gallery says that its pictures are a model's, and whether the cortex was simulated.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.experiment.evaluation import DISCLAIMER
from radiata_imaging.plots import NumberedFigure

__all__ = ["labelled_pictures", "picture_gallery", "said"]

CELL_INCHES = 1.05
WORDS_INCHES = 1.1


def said(synthetic: bool) -> str:
    """What stands under every picture of this application."""
    return f"Simulated cortex. {DISCLAIMER}" if synthetic else DISCLAIMER


def picture_gallery(
    columns: Mapping[str, Tensor],
    rows: Mapping[str, int],
    *,
    values: np.ndarray | None = None,
    value_name: str = "PixCorr",
    stimuli: Sequence[str] | None = None,
    synthetic: bool = False,
) -> NumberedFigure:
    """One row a stimulus, one column a set of pictures.

    Args:
        columns: Name → pictures (n, 3, y, x) in [0, 1]; sizes may differ between columns. What was seen comes first.
        rows: Label (best, median, worst, random 1) → row of the pictures.
        values: Score of each row of the pictures, written beside the label.
        value_name: Of the score.
        stimuli: Name of each row of the pictures.
        synthetic: Responses were simulated.

    Raises:
        InputError: no columns or rows, or columns of different length.
    """
    if not columns or not rows or len({len(part) for part in columns.values()}) > 1:
        raise InputError(
            "expected pictures of the same stimuli in each column, and a row to show; got others."
        )
    places = list(rows.values())
    told = {
        "row": list(rows),
        "stimulus": [str(place) if stimuli is None else stimuli[place] for place in places],
    }
    if values is not None:
        told[value_name] = [float(values[place]) for place in places]  # type: ignore[misc]
    size = (WORDS_INCHES + CELL_INCHES * len(columns), 0.8 + CELL_INCHES * len(rows))
    figure = NumberedFigure(
        {"figure": "gallery", "shown": list(columns), "columns": told}, figsize=size, layout="constrained"
    )
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (label, place) in zip(grid, rows.items(), strict=True):
        score = "" if values is None else f"\n{value_name} {values[place]:.2f}"
        for axes, pictures in zip(line, columns.values(), strict=True):
            picture = pictures[place].clamp(0, 1).movedim(0, -1).cpu().numpy()
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(f"{label}{score}", fontsize=8, rotation=0, ha="right", va="center")
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title("\n".join(textwrap.wrap(name, 14)), fontsize=8)
    figure.supxlabel(_wrapped(said(synthetic), size[0]), fontsize=7)
    return figure


def labelled_pictures(
    pictures: np.ndarray, labels: Sequence[str], *, title: str = "", across: int = 8, synthetic: bool = False
) -> NumberedFigure:
    """Pictures with a label under each: regions and what drives them, categories and what stands for them.

    Args:
        pictures: (n, y, x, 3) uint8.
        labels: One a picture.
        title: Printed above.
        across: Pictures a line.
        synthetic: Responses were simulated.

    Raises:
        InputError: no pictures, or another number of labels.
    """
    if not len(pictures) or len(pictures) != len(labels):
        raise InputError(f"expected a label for each picture; got {len(labels)} and {len(pictures)}.")
    across = min(across, len(pictures))
    lines = -(-len(pictures) // across)
    size = (max(3.2, 1.25 * across), 0.8 + 1.4 * lines)
    figure = NumberedFigure({"figure": title or "pictures", "columns": {"label": list(labels)}}, figsize=size,
                            layout="constrained")  # fmt: skip
    for axes in figure.subplots(lines, across, squeeze=False).flat:
        axes.axis("off")
    for axes, picture, label in zip(figure.axes, pictures, labels, strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(label, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.supxlabel(_wrapped(said(synthetic), size[0]), fontsize=7)
    return figure


def _wrapped(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, max(30, int(inches * 17))))
