"""Figures of encoding: R² on the flat map of fsaverage5, and regions as bars with intervals.

Both hemispheres lie side by side, left on the left, as seen from outside. A voxel is a point where it lies on the map; the
outline of the map is grey. Simulated subjects have places on the map too, and the title says that they are simulated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data.cortical_positions import HEMISPHERES, flat_positions
from radiata_imaging.case_statistics import mean_interval
from radiata_imaging.plots import COLOURS, NumberedFigure

__all__ = ["flat_map_figure", "region_figure"]


def flat_map_figure(
    values: np.ndarray,
    voxels: pd.DataFrame,
    *,
    label: str = "R²",
    limits: tuple[float, float] | None = None,
    cropped: bool = True,
    synthetic: bool = False,
) -> NumberedFigure:
    """Values of voxels on the flat maps.

    Args:
        values: (voxel,); NaN is not shown.
        voxels: Table of the subject, with places (see `cortical_positions`).
        label: What is shown, with its unit.
        limits: Of the colours; None: 0 to the 99th percentile.
        cropped: Only the part of the map with voxels.
        synthetic: Responses were simulated.

    Raises:
        InputError: another number of values than voxels, or voxels without places.
    """
    from nilearn.datasets import load_fsaverage

    given = np.asarray(values, np.float64)
    if given.shape != (len(voxels),):
        raise InputError(f"expected a value for each of {len(voxels)} voxels; got {given.shape}.")
    places = flat_positions(voxels)
    shown = places.kept & np.isfinite(given)
    if not shown.any():
        raise InputError("expected a voxel with a value and a place; got none.")
    low, high = limits or (0.0, max(float(np.quantile(given[shown], 0.99)), 1e-6))
    numbers = {"figure": f"{label} on the flat map", "voxels": int(shown.sum()), "limits": [low, high],
               "mean": float(given[shown].mean()), "left_out": int((~shown).sum())}  # fmt: skip
    figure = NumberedFigure(numbers, figsize=(7.2, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    mesh = load_fsaverage("fsaverage5")["flat"]
    points: Any = None
    for index, (axes, side) in enumerate(zip(panels, HEMISPHERES, strict=True)):
        outline = np.asarray(mesh.parts[side].coordinates)[:, :2]
        axes.scatter(*outline.T, s=1.2, color="#dddddd", rasterized=True, linewidths=0)
        here = shown & (places.hemisphere == index)
        order = np.flatnonzero(here)[np.argsort(given[here], kind="stable")]  # large values on top
        points = axes.scatter(
            places.x[order], places.y[order], c=given[order], s=9 if cropped else 3, vmin=low, vmax=high,
            cmap="viridis", linewidths=0,
        )  # fmt: skip
        if cropped and here.any():
            axes.set_xlim(places.x[here].min() - 5, places.x[here].max() + 5)
            axes.set_ylim(places.y[here].min() - 5, places.y[here].max() + 5)
        axes.set_aspect("equal")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{side} hemisphere ({'L' if side == 'left' else 'R'})", fontsize=8)
        axes.spines[:].set_visible(False)
    figure.colorbar(points, ax=list(panels), label=label, shrink=0.8)
    said = "simulated responses, " if synthetic else ""
    figure.suptitle(f"{said}flat map of fsaverage5, {int(shown.sum())} voxels", fontsize=8)
    return figure


def region_figure(
    parts: Mapping[str, np.ndarray],
    regions: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    *,
    label: str = "R²",
    ceiling: np.ndarray | None = None,
    synthetic: bool = False,
) -> NumberedFigure:
    """Means over the voxels of each region, with 95 % intervals over voxels.

    Args:
        parts: Name of a bar (a model, a part of a partition) → value of each voxel, (voxel,).
        regions: Name → which voxels, (voxel,) bool; empty ones are left out.
        rng: Of the intervals.
        label: What the bars are, with its unit.
        ceiling: Noise ceiling of each voxel in the same unit, drawn as a line; None: without.
        synthetic: Responses were simulated.

    Raises:
        InputError: no bars, or no region with voxels.
    """
    kept = {name: members for name, members in regions.items() if np.any(members)}
    if not parts or not kept:
        raise InputError("expected something to show and a region with voxels; got none.")
    names = list(kept)
    columns: dict[str, list[Any]] = {"region": [], "bar": [], "mean": [], "low": [], "high": []}
    figure = NumberedFigure({"figure": f"{label} by region", "columns": columns},
                            figsize=(2.8 + 0.25 * len(names) * (len(parts) + 1), 3.0), layout="constrained")  # fmt: skip
    axes = figure.subplots()
    width = 0.8 / len(parts)
    for place, (bar, values) in enumerate(parts.items()):
        found = [mean_interval(np.asarray(values)[kept[name]], None, rng, draws=500) for name in names]
        means = np.array([one.mean for one in found])
        ends = np.array([[one.mean - one.low, one.high - one.mean] for one in found]).T
        at = np.arange(len(names)) + (place - (len(parts) - 1) / 2) * width
        errors = np.clip(np.nan_to_num(ends), 0, None)
        axes.bar(at, means, width, color=COLOURS[place % len(COLOURS)], label=bar, yerr=errors, capsize=1.5,
                 error_kw={"lw": 0.8})  # fmt: skip
        for name, one in zip(names, found, strict=True):
            for key, value in zip(columns, (name, bar, one.mean, one.low, one.high), strict=True):
                columns[key].append(value)
    if ceiling is not None:
        top = [float(np.nanmean(np.asarray(ceiling)[kept[name]])) for name in names]
        axes.hlines(top, np.arange(len(names)) - 0.45, np.arange(len(names)) + 0.45, color="#444", lw=1, ls="--",
                    label="noise ceiling")  # fmt: skip
    axes.axhline(0, color="#888", lw=0.7)
    axes.set_xticks(
        np.arange(len(names)), [f"{name}\nn={int(np.sum(kept[name]))}" for name in names], fontsize=7
    )
    said = "simulated responses; " if synthetic else ""
    axes.set(ylabel=label)
    axes.set_title(f"{said}means over voxels, 95 % intervals over voxels", fontsize=7)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    figure.numbers["columns"] = columns
    return figure
