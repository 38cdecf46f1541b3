r"""Where voxels lie on the flat map of fsaverage5, whatever they were measured on.

    flat_x flat_y hemisphere      on the map already (mm)
    hemisphere vertex             a vertex of fsaverage5, or of any surface whose sphere is registered to fsaverage
    x y z                         mm in MNI152 space: the nearest vertex of the sheet halfway through the cortex

The first of these that a voxels table has is used. Vertices that flattening cut away (the medial wall, the rims of the
cuts) and voxels that lie off the sheet have no place on the map: they are marked, never moved far.

FreeSurfer's fsaverage is in MNI305 space; the affine between the two spaces is FreeSurfer's own.

References:
    B. Fischl, M. Sereno, A. Dale (1999). Cortical surface-based analysis II. NeuroImage 9 (fsaverage, flattening).
    FreeSurfer wiki, Coordinate systems (the matrix from MNI305 to MNI152).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data.cortical_layout import flat_vertices

__all__ = ["HEMISPHERES", "FlatPositions", "flat_positions", "nearest_vertices"]

HEMISPHERES = ("left", "right")
MNI152_OF_MNI305 = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
_VERTICES = 10242


@dataclass(frozen=True)
class FlatPositions:
    """Voxels on the flat map.

    Attributes:
        hemisphere: 0 left, 1 right, (voxel,) int64.
        x: On the flat map of the hemisphere, mm, (voxel,) float64.
        y: The same, upward.
        kept: Which voxels have a place, (voxel,) bool; x and y of the others are NaN.
    """

    hemisphere: np.ndarray
    x: np.ndarray
    y: np.ndarray
    kept: np.ndarray


def flat_positions(
    voxels: pd.DataFrame,
    *,
    sphere: Mapping[str, np.ndarray] | None = None,
    reach_mm: float = 6.0,
) -> FlatPositions:
    """Places of the voxels of a table.

    Args:
        voxels: With one of the three sets of columns above.
        sphere: Hemisphere → coordinates (vertex, 3) of the sphere that `vertex` numbers; None: those of fsaverage5.
        reach_mm: Farthest that a voxel given by x y z may lie from the sheet, and a vertex from the cut flat map.

    Raises:
        InputError: none of the columns, a hemisphere that is neither left nor right, a vertex of another surface, or no
            voxel that has a place.
    """
    columns = set(voxels.columns)
    if {"flat_x", "flat_y", "hemisphere"} <= columns:
        found = _given(voxels)
    elif {"hemisphere", "vertex"} <= columns:
        found = _of_vertices(voxels, sphere)
    elif {"x", "y", "z"} <= columns:
        found = _of_points(voxels[["x", "y", "z"]].to_numpy(np.float64), reach_mm)
    else:
        raise InputError(
            "expected flat_x flat_y hemisphere, hemisphere vertex, or x y z in the voxels table; got "
            f"{' '.join(map(str, voxels.columns[:8]))}. Prepare the subject with positions."
        )
    if not found.kept.any():
        raise InputError(
            f"expected voxels near the cortex of fsaverage5; none of {len(voxels)} is. Are x y z in mm of MNI152 space?"
        )
    return found


def _side(voxels: pd.DataFrame) -> np.ndarray:
    words = voxels["hemisphere"].astype(str)
    wrong = sorted(set(words) - set(HEMISPHERES))
    if wrong:
        raise InputError(f"expected the hemispheres left and right; got {', '.join(wrong[:3])}.")
    return (words == "right").to_numpy().astype(np.int64)


def _given(voxels: pd.DataFrame) -> FlatPositions:
    x, y = voxels["flat_x"].to_numpy(np.float64), voxels["flat_y"].to_numpy(np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    return FlatPositions(_side(voxels), x, y, kept)


def _of_vertices(voxels: pd.DataFrame, sphere: Mapping[str, np.ndarray] | None) -> FlatPositions:
    side, vertex = _side(voxels), voxels["vertex"].to_numpy().astype(np.int64)
    if sphere is not None:
        near = np.empty_like(vertex)
        for index, name in enumerate(HEMISPHERES):
            here = side == index
            if here.any():
                _within(vertex[here], len(sphere[name]), "the sphere that was given")
                near[here] = nearest_vertices(np.asarray(sphere[name]), name)[vertex[here]]
        vertex = near
    _within(vertex, _VERTICES, "fsaverage5")
    return _on_map(side, vertex, np.ones(len(vertex), bool))


def _within(vertex: np.ndarray, count: int, what: str) -> None:
    if len(vertex) and (vertex.min() < 0 or vertex.max() >= count):
        raise InputError(
            f"expected vertices of {what}, 0 to {count - 1}; got {vertex.min()} to {vertex.max()}. Resample to fsaverage5, "
            "or give the sphere of the surface that they number."
        )


def nearest_vertices(sphere: np.ndarray, hemisphere: str) -> np.ndarray:
    """Vertex of fsaverage5 nearest to each vertex of another sphere that is registered to fsaverage, (vertex,) int64.

    Raises:
        InputError: not (vertex, 3), or another hemisphere than left or right.
    """
    from scipy.spatial import cKDTree

    points = np.asarray(sphere, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or hemisphere not in HEMISPHERES:
        raise InputError(
            f"expected a sphere (vertex, 3) of left or right; got {points.shape} of {hemisphere}."
        )
    own = _surfaces()["sphere"][hemisphere]
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return cKDTree(own / np.linalg.norm(own, axis=1, keepdims=True)).query(unit)[1].astype(np.int64)


def _of_points(points: np.ndarray, reach_mm: float) -> FlatPositions:
    """Nearest vertex of the sheet halfway between white matter and pia, in either hemisphere."""
    from scipy.spatial import cKDTree

    back = np.linalg.inv(MNI152_OF_MNI305)
    fsaverage = np.nan_to_num(points) @ back[:3, :3].T + back[:3, 3]
    sheet = _surfaces()["middle"]
    both = np.concatenate([sheet[name] for name in HEMISPHERES])
    distance, nearest = cKDTree(both).query(fsaverage)
    close = (distance <= reach_mm) & np.isfinite(points).all(1)
    return _on_map(nearest // _VERTICES, nearest % _VERTICES, close)


def _on_map(side: np.ndarray, vertex: np.ndarray, wanted: np.ndarray) -> FlatPositions:
    table = flat_vertices()
    places = np.full((2, _VERTICES, 2), np.nan)
    rows = (table["hemisphere"] == "right").to_numpy().astype(np.int64)
    places[rows, table["vertex"].to_numpy()] = table[["x", "y"]].to_numpy()
    found = places[side, vertex]
    kept = wanted & np.isfinite(found).all(1)
    found[~kept] = np.nan
    return FlatPositions(side.astype(np.int64), found[:, 0], found[:, 1], kept)


@cache
def _surfaces() -> dict[str, dict[str, np.ndarray]]:
    """Sphere and middle sheet of fsaverage5, hemisphere → (vertex, 3); both come with nilearn."""
    from nilearn.datasets import load_fsaverage

    meshes = load_fsaverage("fsaverage5")
    coordinates = {
        kind: {name: np.asarray(meshes[kind].parts[name].coordinates, np.float64) for name in HEMISPHERES}
        for kind in ("sphere", "pial", "white_matter")
    }
    middle = {
        name: (coordinates["pial"][name] + coordinates["white_matter"][name]) / 2 for name in HEMISPHERES
    }
    return {"sphere": coordinates["sphere"], "middle": middle}
