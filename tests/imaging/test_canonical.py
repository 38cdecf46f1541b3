from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.canonical import canonical, pooled

RAS = np.array([[2.0, 0, 0, -20], [0, 3.0, 0, -30], [0, 0, 1.5, -12], [0, 0, 0, 1]])


def reordered(array, affine, order, flips):
    """The same head stored another way."""
    turn = np.array(list(zip(order, flips, strict=True)), dtype=float)
    turned = nib.orientations.apply_orientation(array, turn)
    return turned, affine @ nib.orientations.inv_ornt_aff(turn, array.shape)


def test_all_48_orders_of_the_file_give_one_picture(rng):
    array = rng.random((4, 5, 6))
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        found = canonical(*reordered(array, RAS, order, flips))
        np.testing.assert_array_equal(found.array, array)
        np.testing.assert_allclose(found.affine, RAS, atol=1e-12)
        assert found.oblique == pytest.approx(0, abs=1e-5)


def test_oblique_grid_knows_its_angle(rng):
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert canonical(rng.random((4, 5, 6)), turn @ RAS).oblique == pytest.approx(20)


def test_position_in_mm():
    assert canonical(np.zeros((4, 5, 6)), RAS).position(1, 4) == pytest.approx(-30 + 12)


def test_pooling_keeps_the_world(rng):
    """A linear ramp in world coordinates is the same ramp after averaging."""
    turned = canonical(np.zeros((8, 8, 8)), RAS)
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), -1)
    ramp = canonical((grid @ RAS[:3, :3].T + RAS[:3, 3]).sum(-1), RAS)
    small = pooled(ramp, 64)
    centres = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1)
    np.testing.assert_allclose(
        small.array, (centres @ small.affine[:3, :3].T + small.affine[:3, 3]).sum(-1), rtol=1e-9
    )
    assert pooled(turned, 512) is turned


def test_singular_affine_is_refused():
    with pytest.raises(InputError, match="affine"):
        canonical(np.zeros((3, 3, 3)), np.zeros((4, 4)))
