"""Figures of motion: colours and arrows of true, decoded and control flow, on one scale, with the wheel that reads them.

Decoded motion is a model's output. Which films are shown is the caller's choice; choose them by rank (best, median,
worst) and at random, never the best alone: `ranked` does.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from radiata_core.errors import InputError
from radiata_decode.model.flow_colours import flow_colours, wheel_picture
from radiata_imaging.plots import NumberedFigure

__all__ = ["draw_arrows", "flow_gallery", "ranked"]

ARROWS = 8  # a side
CELL_INCHES = 1.15


def ranked(scores: np.ndarray, rng: np.random.Generator, drawn: int = 2) -> dict[str, int]:
    """Which films to show: best, median, worst by a score (larger is better), and some at random.

    Raises:
        InputError: no finite score.
    """
    finite = np.flatnonzero(np.isfinite(scores))
    if not len(finite):
        raise InputError("expected a film with a score; got none.")
    order = finite[np.argsort(-scores[finite], kind="stable")]
    chosen = {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}
    for number, row in enumerate(rng.permutation(finite)[:drawn]):
        chosen[f"random {number + 1}"] = int(row)
    return chosen


def draw_arrows(axes: Axes, flow: np.ndarray, largest: float, arrows: int = ARROWS) -> None:
    """Colours with arrows of the mean motion of blocks.

    Args:
        axes: To draw in.
        flow: (2, y, x), x to the right and y downward.
        largest: Speed of a full colour, and of an arrow as long as a block.
        arrows: Blocks a side, at most.
    """
    height, width = flow.shape[1:]
    axes.imshow(flow_colours(flow, largest), interpolation="nearest")
    step = max(1, height // arrows), max(1, width // arrows)
    cut = flow[:, : height - height % step[0], : width - width % step[1]]
    blocks = cut.reshape(2, -1, step[0], cut.shape[2] // step[1], step[1]).mean((2, 4))
    y, x = np.meshgrid(
        *((np.arange(count) + 0.5) * size - 0.5 for count, size in zip(blocks.shape[1:], step, strict=True)),
        indexing="ij",
    )
    scale = largest / min(step)  # an arrow of the largest speed is a block long
    axes.quiver(
        x, y, blocks[0], blocks[1], angles="xy", scale_units="xy", scale=scale, width=0.012, color="#222"
    )
    axes.set(xticks=[], yticks=[])


def flow_gallery(
    flows: Mapping[str, np.ndarray],
    rows: Mapping[str, int],
    *,
    frames: np.ndarray | None = None,
    values: np.ndarray | None = None,
    value_name: str = "flow correlation",
    step: int = 0,
    synthetic: bool = False,
) -> NumberedFigure:
    """One row a film: first frame, then each kind of flow, all on one scale.

    Args:
        flows: Column → flow (n, step, 2, y, x): seen, decoded, controls; the first sets the scale.
        rows: Name of a row → which film.
        frames: First frames (n, 3, y, x) in [0, 1]; None: without.
        values: A score of each film, written beside its row.
        value_name: Of the score.
        step: Which step of the flow.
        synthetic: Responses were simulated: the title says so.

    Raises:
        InputError: nothing to show, or flows of different shape.
    """
    if not flows or not rows or len({flow.shape for flow in flows.values()}) > 1:
        raise InputError("expected flows of one shape and at least one film to show; got others, or none.")
    first = next(iter(flows.values()))
    shown = list(rows.values())
    speed = np.linalg.norm(first[shown][:, step], axis=1)
    largest = max(float(np.quantile(speed, 0.99)), 1e-6)
    columns = ([] if frames is None else ["first frame"]) + list(flows)
    size = (CELL_INCHES * (len(columns) + 1), CELL_INCHES * len(rows) + 0.7)
    numbers = {
        "figure": "flow gallery", "films": dict(rows), "largest_speed_cells": largest, "step": step,
        "columns": {"row": list(rows), "film": shown}
        | ({} if values is None else {value_name: [float(values[row]) for row in shown]}),
    }  # fmt: skip
    figure = NumberedFigure(numbers, figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    for axes, (name, film) in zip(grid, rows.items(), strict=True):
        score = "" if values is None else f"\n{values[film]:.2f}"
        axes[0].set_ylabel(f"{name}{score}", fontsize=8)
        cells: Sequence[Axes] = list(axes[:-1])
        if frames is not None:
            cells[0].imshow(np.moveaxis(np.clip(frames[film], 0, 1), 0, -1), interpolation="nearest")
            cells[0].set(xticks=[], yticks=[])
            cells = cells[1:]
        for cell, flow in zip(cells, flows.values(), strict=True):
            draw_arrows(cell, flow[film, step], largest)
        axes[-1].axis("off")
    for axes, name in zip(grid[0], columns, strict=False):
        axes.set_title(name, fontsize=8)
    key = grid[0, -1]
    key.imshow(wheel_picture())
    key.set_title(f"edge: {largest:.2f}\ncells a frame", fontsize=7)
    said = "simulated responses; " if synthetic else ""
    beside = "" if values is None else f"; beside the rows: {value_name}"
    told = f"{said}model outputs, not recordings of thoughts; not for clinical use{beside}"
    figure.suptitle("\n".join(textwrap.wrap(told, max(30, int(size[0] * 15)))), fontsize=7)
    return figure
