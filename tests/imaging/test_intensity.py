import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from radiata_imaging.intensity import HistogramBins, histogram_distance, percentiles, wasserstein_1


@pytest.mark.parametrize(("n", "m"), [(5, 5), (7, 4), (1, 9), (30, 20)])
def test_wasserstein_equals_scipy(n, m, rng):
    x, y = rng.standard_normal((n, 3)), rng.exponential(size=(m, 3))
    expected = [wasserstein_distance(x[:, i], y[:, i]) for i in range(3)]
    np.testing.assert_allclose(wasserstein_1(x, y), expected, rtol=1e-12)


def test_histogram_distance_equals_scipy(rng):
    bins = HistogramBins(-1.0, 1.0, 40)
    p, q = (bins.fractions(np.clip(rng.normal(m, 0.3, 4000), -1, 1)) for m in (0.0, 0.2))
    expected = wasserstein_distance(bins.centres, bins.centres, p, q)
    assert histogram_distance(p, q, bins.width) == pytest.approx(expected, rel=1e-10)


def test_fractions_sum_to_one_and_keep_outliers(rng):
    bins = HistogramBins(-1.0, 1.0, 8)
    fractions = bins.fractions(np.array([-5.0, -1.0, 0.0, 1.0, 7.0]))
    np.testing.assert_allclose(fractions, [0.4, 0, 0, 0, 0.2, 0, 0, 0.4])


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 300_001])
@pytest.mark.parametrize("kind", ["smooth", "steps", "sorted", "one value"])
def test_percentiles_are_numpys(size, kind, rng):
    """To the bit, in the tails, in the middle and at the ends; also where a regular sample of the voxels misleads."""
    array = (100 * rng.standard_normal(size)).astype(np.float32)
    array = {"smooth": array, "steps": np.rint(array / 50), "sorted": np.sort(array), "one value": array * 0}[
        kind
    ]
    for levels in ((0.1, 99.9), (0.0, 100.0), (2.0, 60.0), (50.0, 75.0)):
        assert percentiles(array, levels) == tuple(np.percentile(array, levels).tolist())
    array[:: max(1, size // 2**16)] = 1e4  # every voxel of the sample is bright, and no other
    assert percentiles(array, (0.1, 99.9)) == tuple(np.percentile(array, (0.1, 99.9)).tolist())
