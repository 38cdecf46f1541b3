"""Voxels on the flat map: vertices, other spheres, points of MNI space, and what has no place."""

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.cortical_layout import flat_vertices
from radiata_decode.data.cortical_positions import MNI152_OF_MNI305, flat_positions, nearest_vertices


def test_vertices_lie_where_the_flat_map_has_them():
    table = flat_vertices().iloc[::501].reset_index(drop=True)
    found = flat_positions(table[["hemisphere", "vertex"]])
    assert found.kept.all()
    assert np.array_equal(found.x, table["x"]) and np.array_equal(found.y, table["y"])
    assert np.array_equal(found.hemisphere, (table["hemisphere"] == "right").astype(int))


def test_cut_vertices_are_marked_not_moved():
    used = set(flat_vertices().query("hemisphere == 'left'")["vertex"])
    cut = next(v for v in range(10242) if v not in used)
    found = flat_positions(pd.DataFrame({"hemisphere": ["left", "left"], "vertex": [cut, min(used)]}))
    assert found.kept.tolist() == [False, True]
    assert np.isnan(found.x[0])


def test_points_of_mni_space_find_their_vertex():
    """Points of the sheet, carried to MNI152 by FreeSurfer's matrix, come back to their own vertices; far ones to none."""
    from nilearn.datasets import load_fsaverage

    meshes = load_fsaverage("fsaverage5")
    table = flat_vertices().iloc[::401]
    sheet = np.concatenate(
        [
            sum(meshes[kind].parts[side].coordinates for kind in ("pial", "white_matter"))[
                table["vertex"][table["hemisphere"] == side].to_numpy()
            ]
            / 2
            for side in ("left", "right")
        ]
    )
    points = sheet @ MNI152_OF_MNI305[:3, :3].T + MNI152_OF_MNI305[:3, 3]
    voxels = pd.DataFrame(np.vstack([points, [[0, 0, 200]]]), columns=["x", "y", "z"])
    found = flat_positions(voxels)
    assert found.kept.tolist() == [True] * len(points) + [False]
    np.testing.assert_allclose(found.x[:-1], table["x"], atol=1e-9)
    assert np.isnan(found.x[-1]) and np.isnan(found.y[-1])


def test_another_registered_sphere_is_mapped_by_nearness():
    """A sphere twice as large with its vertices reversed numbers the same places backwards."""
    from nilearn.datasets import load_fsaverage

    own = np.asarray(load_fsaverage("fsaverage5")["sphere"].parts["right"].coordinates)
    other = 2 * own[::-1]
    assert np.array_equal(nearest_vertices(other, "right"), np.arange(len(own))[::-1])
    table = pd.DataFrame({"hemisphere": ["right"], "vertex": [0]})
    moved = flat_positions(table, sphere={"right": other})
    same = flat_positions(pd.DataFrame({"hemisphere": ["right"], "vertex": [10241]}))
    assert np.array_equal(moved.x, same.x) and np.array_equal(moved.y, same.y)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"beta": [1.0]}, "flat_x flat_y"),
        ({"hemisphere": ["lh"], "vertex": [1]}, "left and right"),
        ({"hemisphere": ["left"], "vertex": [163841]}, "fsaverage5"),
        ({"x": [0.0], "y": [0.0], "z": [500.0]}, "MNI152"),
    ],
)
def test_tables_without_places_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        flat_positions(pd.DataFrame(table))
