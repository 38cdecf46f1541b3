import numpy as np
import pytest
from sklearn.decomposition import PCA

from radiata_core.errors import InputError
from radiata_imaging.features import (
    HistogramFeatures,
    PCAFeatures,
    PooledVoxels,
    RandomConvFeatures,
    Standardised,
    extract,
)


def test_pooling_keeps_the_mean_and_the_limit(rng):
    pooled = PooledVoxels((12, 12, 8), limit=200)
    x = rng.standard_normal((12, 12, 8)).astype(np.float32)
    assert pooled.factor == 2 and pooled.name == "voxels averaged over 2³"
    np.testing.assert_allclose(pooled.volume(x)[1, 2, 3], x[2:4, 4:6, 6:8].mean(), rtol=1e-5)
    assert pooled(x).mean() == pytest.approx(x.mean(), abs=1e-6)


def test_principal_components_equal_sklearn(rng):
    """Up to sign: scores with unit variance on the training set and the same on new volumes."""
    pooled = PooledVoxels((6, 5, 4))
    rows = rng.standard_normal((20, 120)).astype(np.float32) * np.linspace(3, 0.1, 120, dtype=np.float32)
    new = rng.standard_normal((6, 5, 4)).astype(np.float32)
    ours, theirs = PCAFeatures.fit(rows, pooled, 5), PCA(5, whiten=True, svd_solver="full").fit(rows)
    np.testing.assert_allclose(np.abs(ours.project(rows)), np.abs(theirs.transform(rows)), atol=2e-3)
    np.testing.assert_allclose(np.abs(ours(new)), np.abs(theirs.transform(new.reshape(1, -1))[0]), atol=2e-3)
    assert "PCA-5" in ours.name and "20 training" in ours.name


def test_random_network_is_a_function_of_its_seed(rng):
    x = rng.standard_normal((16, 18, 16)).astype(np.float32)
    np.testing.assert_array_equal(RandomConvFeatures(0)(x), RandomConvFeatures(0)(x))
    assert not np.allclose(RandomConvFeatures(0)(x), RandomConvFeatures(1)(x))


def test_random_network_needs_room(rng):
    """Three halvings must leave two voxels an axis: the spread of one voxel is no number."""
    assert np.isfinite(RandomConvFeatures(0)(rng.standard_normal((9, 9, 9)).astype(np.float32))).all()
    with pytest.raises(InputError, match=r"9 or more voxels an axis .* got 9×8×9"):
        RandomConvFeatures(0)(rng.standard_normal((9, 8, 9)).astype(np.float32))


def test_random_network_sees_blur(rng):
    from scipy.ndimage import gaussian_filter

    feature = RandomConvFeatures()
    sharp = [rng.standard_normal((16, 16, 16)).astype(np.float32) for _ in range(6)]
    a, b = (np.stack([feature(v) for v in s]) for s in (sharp, [gaussian_filter(v, 0.7) for v in sharp]))
    standard_error = a.std(0) / np.sqrt(6)
    assert (
        np.median((np.abs(a.mean(0) - b.mean(0)) / standard_error)[:16]) > 5
    )  # means and spreads of the first layer


def test_histogram_features_are_blind_to_place(rng):
    x = rng.uniform(-1, 1, (5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(HistogramFeatures()(x), HistogramFeatures()(x[::-1].copy()))


def test_standardised_columns(rng):
    rows = np.column_stack([rng.normal(3, 2, 50), np.full(50, 7.0)])
    z = Standardised.fit(rows)(rows)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(0), [1.0, 0.0], atol=1e-12)


def test_extract_reads_each_volume_once(rng):
    volumes = iter([rng.uniform(-1, 1, (8, 8, 8)).astype(np.float32) for _ in range(3)])
    a, b = extract(volumes, [HistogramFeatures(), PooledVoxels((8, 8, 8))])
    assert a.shape == (3, 64) and b.shape == (3, 512)


def test_two_volumes_make_no_components():
    with pytest.raises(InputError, match="three training volumes"):
        PCAFeatures.fit(np.zeros((2, 8), np.float32), PooledVoxels((2, 2, 2)))
