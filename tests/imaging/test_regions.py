import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.region_tables import RegionTable
from radiata_imaging.regions import compare_regions, holm, label_volumes, sliced_wasserstein


def test_volume_of_a_known_ellipsoid():
    """4/3 pi a b c on an oblique, anisotropic grid; the error of counting voxels is below 1 % at this size."""
    radii, spacing = np.array([18.0, 24.0, 15.0]), np.array([1.0, 1.5, 0.8])
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    grid = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in (44, 40, 44)], indexing="ij"), -1)
    world = grid @ affine[:3, :3].T
    labels = np.where(((world / radii) ** 2).sum(-1) <= 1, 17, 0)
    exact = 4 / 3 * np.pi * radii.prod() / 1000
    found = label_volumes(labels, affine, {"a": (17,), "a and none": (17, 99), "none": (99,)})
    assert (
        found["a"] == pytest.approx(exact, rel=0.01)
        and found["a and none"] == found["a"]
        and found["none"] == 0
    )
    assert found["a"] == pytest.approx((labels == 17).sum() * 1.2 / 1000, rel=1e-12)


def test_an_image_is_not_a_label_map(rng):
    with pytest.raises(InputError, match="whole-number labels"):
        label_volumes(rng.random((4, 4, 4)), np.eye(4), {"a": (1,)})


def test_holm_by_hand():
    """p = .01 .04 .03 .005: sorted .005*4, .01*3, .03*2, .04*1 -> .02 .03 .06 .06 (the last is lifted to the one before)."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])


def table(ml, names=("thalamus", "putamen", "hippocampus")):
    return RegionTable(tuple(str(i) for i in range(len(ml))), names, ml)


def test_a_changed_region_is_found_and_the_others_are_not(rng):
    x, y = rng.normal(10, 1, (40, 3)), rng.normal(10, 1, (40, 3))
    x[:, 1] -= 1.5
    found = compare_regions(table(x), table(y), rng, permutations=499)
    assert [r.region for r in found if r.p_holm < 0.05] == ["putamen"]
    putamen = found[1]
    assert putamen.difference == pytest.approx((x - y)[:, 1].mean())
    assert putamen.interval[0] < -1.5 + 0.6 and putamen.interval[1] > -1.5 - 0.6
    assert -2.2 < putamen.effect < -0.9


def test_equal_means_of_unequal_spread_are_found(rng):
    """The energy distance sees what a test of means cannot: synthetic volumes that are all alike."""
    x, y = rng.normal(10, 0.2, (40, 1)), rng.normal(10, 1, (40, 1))
    assert compare_regions(table(x, ("a",)), table(y, ("a",)), rng, permutations=199)[0].p_holm < 0.05


def test_no_shared_region_is_one_line(rng):
    with pytest.raises(InputError, match="regions of the same names"):
        compare_regions(table(np.ones((3, 1)), ("a",)), table(np.ones((3, 1)), ("b",)), rng)


def test_sliced_wasserstein_of_a_shift(rng):
    """Unit-scale reference, shift m: E over directions of (theta . m)^2 = |m|^2 / d."""
    y = rng.standard_normal((400, 3))
    y /= y.std(0)
    result = sliced_wasserstein(y + np.array([2.0, 0, 0]), y, rng, directions=4000, permutations=9)
    assert result.value == pytest.approx(2 / np.sqrt(3), rel=0.05)
    assert result.p_value == pytest.approx(0.1)
    null = sliced_wasserstein(y[:200], y[200:], rng, permutations=99)
    assert null.p_value > 0.01
