import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from radiata_imaging.intensity import HistogramBins, histogram_distance, wasserstein_1


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
