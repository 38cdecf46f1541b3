"""The layout: one smooth map of the field on each hemisphere, the same areas in everybody."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.cortical_layout import AREAS, FARTHEST, IMAGE_AREAS, NEAREST, TEMPLATE, voxel_table


@pytest.fixture
def table(rng):
    return voxel_table(1500, AREAS, rng)


def test_receptive_fields_lie_where_eccentricity_and_angle_say(table):
    """Up to the scatter of 0.15 standard deviations of the field itself."""
    angle, side = np.radians(table["polar_angle"]), np.where(table["hemisphere"] == "left", 1, -1)
    x = 0.5 + side * table["eccentricity"] * np.cos(angle)
    y = 0.5 - table["eccentricity"] * np.sin(angle)
    scatter = np.concatenate([table["prf_x"] - x, table["prf_y"] - y]) / np.tile(table["prf_size"], 2)
    assert abs(scatter.std() - 0.15) < 0.01
    right = table["prf_x"] > 0.5 + 0.5 * table["prf_size"]
    assert (table["hemisphere"][right] == "left").all()  # each hemisphere sees the other half


def test_sizes_grow_with_eccentricity_and_from_area_to_area(table):
    known = {"V1": (0.02, 0.08), "V2": (0.03, 0.12), "V3": (0.045, 0.18), "V4": (0.07, 0.30)}
    for name, (a, b) in known.items():
        area = table[table["area"] == name]
        assert np.allclose(area["prf_size"], a + b * area["eccentricity"])
        assert (area[f"roi_{name}"] == 1).all() and area.filter(like="roi_").sum(axis=1).eq(1).all()


def test_eccentricity_is_log_uniform_within_an_area(table):
    """Kolmogorov–Smirnov: the patch is not a perfect rectangle of equally spaced vertices, so at a loose level."""
    share = np.log(table["eccentricity"][table["area"] == "V1"] / NEAREST) / np.log(FARTHEST / NEAREST)
    ordered = np.sort(share)
    assert ordered.min() >= 0 and ordered.max() <= 1
    assert np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max() < 0.12


def test_neighbours_on_the_map_are_neighbours_in_the_field(table):
    for name in AREAS:
        for hemisphere in ("left", "right"):
            area = table[(table["area"] == name) & (table["hemisphere"] == hemisphere)]
            flat = area[["flat_x", "flat_y"]].to_numpy()
            field = area[["prf_x", "prf_y"]].to_numpy()
            apart = np.linalg.norm(flat[:, None] - flat[None], axis=2) + 1e6 * np.eye(len(area))
            nearest = apart.argmin(1)
            near = np.linalg.norm(field - field[nearest], axis=1).mean()
            anyone = np.linalg.norm(field - np.roll(field, 7, axis=0), axis=1).mean()
            assert near < 0.6 * anyone


def test_polar_angle_is_continuous_across_the_borders_of_areas():
    """V1, V2, V3 and V4 meet at shared meridians: the template's angles agree where its strips touch."""
    strips = [strip for strip in TEMPLATE if strip.name != "MT"]
    borders = [(a, b) for a in strips for b in strips if a.top == b.bottom]
    assert len(borders) == 5 and all(a.angle_top == b.angle_bottom for a, b in borders)


def test_another_person_has_other_voxels_and_the_same_areas():
    tables = [voxel_table(600, IMAGE_AREAS, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert tables[0].equals(tables[1])
    vertices = [set(zip(t["hemisphere"], t["vertex"], strict=True)) for t in tables]
    assert vertices[0] != vertices[2] and len(vertices[0]) == 600
    counts = [t["area"].value_counts() for t in tables]
    assert set(counts[0].index) == set(counts[2].index) == set(IMAGE_AREAS)
    assert (counts[0] - counts[2]).abs().max() < 60


def test_more_voxels_than_vertices_use_them_again(rng):
    table = voxel_table(5000, ("V1",), rng)
    assert len(table) == 5000
    times = table.groupby(["hemisphere", "vertex"]).size()
    assert times.max() - times.min() == 1


def test_what_does_not_go_is_said(rng):
    with pytest.raises(InputError, match="expected areas of V1"):
        voxel_table(10, ("V1", "FFA"), rng)
    with pytest.raises(InputError, match="a voxel for each; got 3"):
        voxel_table(3, IMAGE_AREAS, rng)
