"""Fields of classes and of distances: there and back, planes exactly, spheres to a fraction of a voxel."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_medical.model.label_fields import (
    classes_of_field,
    codes_of_classes,
    distance_field,
    distances_of_field,
    field_of_classes,
    group_codes,
    probabilities_of_distances,
    probabilities_of_field,
    signed_distance,
)


def test_codes_to_classes_and_back(rng):
    codes = rng.choice(np.array([0, 2, 41, 3, 258]), (5, 6, 7)).astype(np.int16)
    groups = ((0,), (2, 41), (3,), (258,))
    classes = group_codes(codes, groups)
    assert all((classes == k).sum() == np.isin(codes, g).sum() for k, g in enumerate(groups))
    back = codes_of_classes(classes, [g[0] for g in groups])
    assert np.array_equal(back, np.where(codes == 41, 2, codes))
    assert np.array_equal(group_codes(codes, groups[:3], other=0) > 0, np.isin(codes, (2, 41, 3)))


def test_a_field_is_twice_the_probability_less_one(rng):
    classes = rng.integers(0, 4, (6, 5))
    field = field_of_classes(classes, 4)
    assert np.array_equal(classes_of_field(field), classes)
    p = rng.dirichlet(np.ones(4), (6, 5)).transpose(2, 0, 1)
    np.testing.assert_allclose(probabilities_of_field(2 * p - 1), p, atol=1e-6)
    one = probabilities_of_field(np.full((4, 1), -1.5))
    np.testing.assert_allclose(one, 0.25)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_distance_to_a_plane_along_an_axis_is_exact(spacing, axis):
    """The surface lies half a voxel beyond the last voxel inside, whatever the spacing."""
    inside = np.zeros((9, 8, 7), bool)
    inside[tuple(slice(0, 4) if a == axis else slice(None) for a in range(3))] = True
    index = np.arange(inside.shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
    expected = (3.5 - index) * spacing[axis] * np.ones(inside.shape)
    np.testing.assert_allclose(signed_distance(inside, spacing), expected, atol=1e-5)


def test_the_surface_of_a_sphere_is_found_between_voxels():
    """Root mean square error below 0.25 voxels near the surface; distances of voxel centres alone have 0.51."""
    grid = np.stack(np.meshgrid(*[np.arange(25.0)] * 3, indexing="ij")) - 12.3
    radius = np.sqrt((grid**2).sum(0))
    found = signed_distance(radius < 8.4, (1, 1, 1))
    near = np.abs(8.4 - radius) < 2
    error = (found - (8.4 - radius))[near]
    assert np.sqrt((error**2).mean()) < 0.25 and abs(error.mean()) < 0.1


def test_distances_give_the_classes_back_and_are_clipped(rng):
    classes = (rng.random((12, 12, 6)) < 0.5).astype(np.uint8) + 0
    classes[:4] = 2
    field = distance_field(classes, 4, (1.0, 1.0, 2.0))
    assert np.array_equal(classes_of_field(field), classes)
    assert np.abs(field).max() == 1 and (field[3] == -1).all()
    assert np.abs(distances_of_field(field)).max() == 5
    p = probabilities_of_distances(field)
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
    assert np.array_equal(p.argmax(0), classes)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: group_codes(np.array([7]), ((0,), (1,))), "got 7, which is in none"),
        (lambda: group_codes(np.array([0]), ((0,), (0, 1))), "without a code in common"),
        (lambda: group_codes(np.array([0.5]), ((0,), (1,))), "whole codes"),
        (lambda: codes_of_classes(np.array([2]), (0, 2)), "a code a class|code each"),
        (lambda: field_of_classes(np.array([3]), 3), "expected classes 0 … 2"),
        (lambda: distance_field(np.zeros((3, 3), int), 2, (1.0, -1.0)), "> 0 mm"),
    ],
)
def test_bad_input_in_one_line(call, said):
    with pytest.raises(InputError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
