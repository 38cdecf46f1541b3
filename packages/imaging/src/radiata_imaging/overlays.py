r"""What was given, what came out, and where they differ; labels over the scan they belong to. With letters and scales.

*Before and after* stand on one grey scale, stated on its bar. Their difference (after minus before, the same unit) has a
diverging scale symmetric about zero, so that a darker and a brighter change of one size have colours of one strength;
a standard deviation has a sequential one from zero. Slices are those through a position, by default where most has changed.

*Labels* are drawn with their own colours over the scan, half transparent, with the largest of them named.

Every slice carries its letters and its position in mm, and every figure the convention. Nothing is resampled here but a
volume of another grid, by its nearest voxel: thick slices look thick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from radiata_core.errors import InputError
from radiata_imaging.canonical import Canonical, canonical
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.orientation import Grid, resample
from radiata_imaging.plots import STAMP, Convention, NumberedFigure, draw_slice
from radiata_imaging.viewer import Colours
from radiata_imaging.volume import Volume, times

__all__ = ["Panel", "before_after", "label_overlay"]

_INK, _AIR = "white", "black"
_ALPHA = 0.55
_NAMED = 14
_PLANES = ((2, "axial"), (1, "coronal"), (0, "sagittal"))


@dataclass(frozen=True, eq=False)
class Panel:
    """A column of a figure.

    Attributes:
        label: Stands above it.
        volume: What it shows.
        kind: "grey" (one scale for all of them), "difference" (symmetric about zero) or "spread" (from zero).
    """

    label: str
    volume: Volume
    kind: str = "grey"


def before_after(
    panels: Sequence[Panel],
    *,
    title: str = "",
    unit: str = "intensity",
    synthetic: bool = False,
    convention: Convention = Convention.NEUROLOGICAL,
    at: Sequence[float | int] | None = None,
    limits: tuple[float, float] | None = None,
) -> NumberedFigure:
    """Axial, coronal and sagittal slices through one position, a column a panel.

    Args:
        panels: Columns, from left to right; grids that differ are brought to that of the last grey one.
        title: Printed above.
        unit: Of the intensities.
        synthetic: Stamp the figure.
        convention: Side of the patient's left.
        at: World position (mm, RAS) of the slices; by default the centre of the largest differences, or the middle.
        limits: Of the grey scale; by default the 0.5 and 99.8 percentiles of the last grey panel.

    Raises:
        InputError: no grey panel, or an unknown kind.
    """
    grey = [panel.volume for panel in panels if panel.kind == "grey"]
    if not grey or any(panel.kind not in ("grey", "difference", "spread") for panel in panels):
        raise InputError(
            "expected panels grey, difference or spread, one of them grey; got "
            f"{', '.join(panel.kind for panel in panels) or 'none'}."
        )
    grid = Grid(grey[-1].shape, grey[-1].affine)
    turned = [(panel, _on(panel.volume, grid)) for panel in panels]
    scales = _scales(turned, limits)
    index = _index(turned, at)
    rows = _rows(turned[0][1])
    numbers = {
        "figure": "before and after", "labels": [panel.label for panel in panels], "unit": unit, "synthetic": synthetic,
        "limits": {kind: list(pair) for kind, pair in scales.items()}, "convention": convention.value,
        "at_mm": {"RAS"[axis]: turned[0][1].position(axis, index[axis]) for axis, _ in rows},
    }  # fmt: skip
    figure, axes, bars = _layout(numbers, len(rows), len(panels), list(scales))
    drawn: dict[str, Any] = {}
    for column, (panel, volume) in enumerate(turned):
        axes[0, column].set_title(panel.label, color=_INK, fontsize=9, pad=3)
        for row, (axis, _) in enumerate(rows):
            image = draw_slice(axes[row, column], volume, axis, index[axis], convention, scales[panel.kind])
            image.set_cmap({"grey": "gray", "difference": "RdBu_r", "spread": "magma"}[panel.kind])
            drawn[panel.kind] = image
    names = {"grey": unit, "difference": f"difference, {unit}", "spread": f"standard deviation, {unit}"}
    for kind, bar in bars.items():
        figure.colorbar(drawn[kind], cax=bar, extend="both" if kind != "spread" else "max").set_label(
            names[kind], color=_INK, fontsize=8
        )
        bar.tick_params(colors=_INK, labelsize=7)
    _headline(figure, title, turned[0][1], convention, synthetic)
    return figure


def label_overlay(
    scan: Volume,
    codes: np.ndarray,
    colours: Colours,
    *,
    title: str = "",
    columns: int = 5,
    synthetic: bool = False,
    convention: Convention = Convention.NEUROLOGICAL,
) -> NumberedFigure:
    """Labels over their scan: axial, coronal and sagittal rows over the extent of the labels, and what the colours mean.

    Args:
        scan: The image.
        codes: Integer codes on its grid, (x, y, z); 0 is not drawn.
        colours: Code to name and colour (red, green, blue, 0-255); others are grey.
        title: Printed above.
        columns: Slices a row.
        synthetic: Stamp the figure.
        convention: Side of the patient's left.

    Raises:
        InputError: codes of another shape.
    """
    if codes.shape != scan.shape:
        raise InputError(
            f"expected codes on the grid of the scan, {times(scan.shape)}; got {times(codes.shape)}."
        )
    image, labels = canonical(scan.array, scan.affine), canonical(codes, scan.affine)
    rows = _rows(image)
    low, high = _percentiles(image.array)
    chosen = {axis: _spread(labels.array, axis, columns) for axis, _ in rows}
    present = [int(code) for code in np.unique(codes) if code]
    size = {code: int((codes == code).sum()) for code in present}
    largest = sorted(present, key=lambda code: -size[code])[:_NAMED]
    ml = float(np.prod(scan.spacing)) / 1000
    numbers = {
        "figure": "labels over the scan", "convention": convention.value, "limits": [low, high], "synthetic": synthetic,
        "slices_mm": {"RAS"[a]: [image.position(a, int(i)) for i in chosen[a]] for a in chosen},
        "volumes_ml": {colours[code][0] if code in colours else str(code): size[code] * ml for code in present},
    }  # fmt: skip
    figure, axes, _ = _layout(numbers, len(rows), columns, ["legend"])
    for row, (axis, _) in enumerate(rows):
        for column, index in enumerate(chosen[axis].tolist()):
            draw_slice(axes[row, column], image, axis, index, convention, (low, high))
            _draw_labels(axes[row, column], labels, axis, index, convention, colours)
    _legend(figure, [(code, size[code] * ml) for code in largest], colours)
    _headline(figure, title, image, convention, synthetic)
    return figure


def _on(volume: Volume, grid: Grid) -> Canonical:
    if volume.shape != grid.shape or not np.allclose(volume.affine, grid.affine, atol=1e-4):
        volume = resample(volume, grid, interpolation=Interpolation.NEAREST)
    return canonical(volume.array, volume.affine)


def _rows(volume: Canonical) -> list[tuple[int, str]]:
    """Planes in which there is something to see: of a single slice, its own."""
    flat = [axis for axis, n in enumerate(volume.array.shape) if n == 1]
    return [(axis, name) for axis, name in _PLANES if not flat or axis in flat]


def _percentiles(array: np.ndarray) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(array, [0.5, 99.8]))
    return (low, high) if high > low else (low, low + 1.0)


def _scales(
    turned: list[tuple[Panel, Canonical]], limits: tuple[float, float] | None
) -> dict[str, tuple[float, float]]:
    """Range of each kind of panel, shared by all panels of the kind."""
    of = {kind: [v.array for p, v in turned if p.kind == kind] for kind in ("grey", "difference", "spread")}
    scales = {"grey": limits or _percentiles(of["grey"][-1])}
    if of["difference"]:
        top = max(float(np.percentile(np.abs(array), 99.8)) for array in of["difference"]) or 1.0
        scales["difference"] = (-top, top)
    if of["spread"]:
        scales["spread"] = (0.0, max(float(np.percentile(a, 99.8)) for a in of["spread"]) or 1.0)
    return scales


def _index(turned: list[tuple[Panel, Canonical]], at: Sequence[float | int] | None) -> list[int]:
    first = turned[0][1]
    if at is not None:
        place = np.linalg.solve(first.affine, [*map(float, at), 1.0])[:3]
    else:
        place = (np.array(first.array.shape) - 1) / 2.0
        changed = [np.abs(v.array) for p, v in turned if p.kind == "difference"]
        if changed and changed[0].any():
            weight = (changed[0].astype(np.float64) / changed[0].max()) ** 4
            place = np.array([
                np.average(np.arange(n), weights=weight.sum(tuple(a for a in range(3) if a != axis)))
                for axis, n in enumerate(weight.shape)
            ])  # fmt: skip
    return [int(np.clip(round(float(p)), 0, n - 1)) for p, n in zip(place, first.array.shape, strict=True)]


def _spread(codes: np.ndarray, axis: int, columns: int) -> np.ndarray:
    """Slices evenly over the middle 80 % of what is labelled along an axis."""
    line = np.flatnonzero(codes.any(axis=tuple(a for a in range(3) if a != axis)))
    first, last = (int(line[0]), int(line[-1])) if line.size else (0, codes.shape[axis] - 1)
    return np.unique(np.rint(first + np.linspace(0.1, 0.9, columns) * (last - first)).astype(int))


def _draw_labels(
    axes: Axes, labels: Canonical, axis: int, index: int, convention: Convention, colours: Colours
) -> None:
    across, up = [a for a in (0, 1, 2) if a != axis]
    plane = np.take(labels.array, index, axis=axis).T
    if across == 0 and convention is Convention.RADIOLOGICAL:
        plane = plane[:, ::-1]
    painted = np.zeros((*plane.shape, 4))
    for code in np.unique(plane[plane != 0]).tolist():
        _, colour = colours.get(int(code), ("", (128, 128, 128)))
        painted[plane == code] = [*(channel / 255 for channel in colour), _ALPHA]
    axes.imshow(
        painted, origin="lower", aspect=labels.spacing[up] / labels.spacing[across], interpolation="nearest"
    )


def _legend(figure: NumberedFigure, sizes: list[tuple[int, float]], colours: Colours) -> None:
    from matplotlib.patches import Patch

    patches = []
    for code, ml in sizes:
        name, colour = colours.get(code, (f"label {code}", (128, 128, 128)))
        patches.append(Patch(color=[channel / 255 for channel in colour], label=f"{name} {ml:.3g} ml"))
    if patches:
        figure.legend(
            handles=patches, loc="center right", fontsize=6.5, facecolor=_AIR, labelcolor=_INK, frameon=False
        )


def _layout(
    numbers: dict[str, Any], rows: int, columns: int, bars: list[str]
) -> tuple[NumberedFigure, Any, dict[str, Axes]]:
    """A dark figure with room for colour bars (or a legend) on the right."""
    room = 2.0 if bars == ["legend"] else 0.8 * len(bars)  # inches
    width, height = 2.1 * columns + room, 2.15 * rows + 0.75
    figure = NumberedFigure(numbers, figsize=(width, height), facecolor=_AIR)
    place = {"left": 0.005, "right": 1 - room / width, "bottom": 0.005, "top": 1 - 0.75 / height}
    axes = figure.subplots(
        rows, columns, squeeze=False, gridspec_kw={**place, "wspace": 0.02, "hspace": 0.02}
    )
    for one in axes.flat:
        one.set_axis_off()
    found = {}
    if bars != ["legend"]:
        for number, kind in enumerate(bars):
            left = 1 - (room - 0.8 * number - 0.1) / width
            found[kind] = figure.add_axes((left, 0.2, 0.11 / width, 0.55))
    return figure, axes, found


def _headline(
    figure: NumberedFigure, title: str, volume: Canonical, convention: Convention, synthetic: bool
) -> None:
    side = "left" if convention is Convention.NEUROLOGICAL else "right"
    voxels = " × ".join(f"{edge:.3g}" for edge in volume.spacing)
    said = f"{convention.value} (patient's left is on the {side}); {voxels} mm voxels"
    lines = filter(None, [title, said, STAMP if synthetic else ""])
    figure.suptitle("\n".join(lines), color=_INK, fontsize=9, y=0.99)
