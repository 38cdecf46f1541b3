import numpy as np
import pytest
import torch
from monai.metrics.regression import SSIMMetric

from radiata_core.errors import InputError
from radiata_imaging.diversity import pairwise_distance, pairwise_ssim, precision_recall, ssim


def test_ssim_equals_monai(rng):
    x = rng.uniform(-1, 1, (14, 15, 16)).astype(np.float32)
    y = (0.6 * x + 0.4 * rng.uniform(-1, 1, x.shape)).astype(np.float32)
    metric = SSIMMetric(3, data_range=2.0, win_size=11, kernel_sigma=1.5)
    expected = float(metric(torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None]))
    assert ssim(x, y) == pytest.approx(expected, abs=2e-4)
    assert ssim(x, x) == pytest.approx(1.0, abs=1e-6)


def test_collapse_raises_pairwise_ssim(rng):
    different = [rng.uniform(-1, 1, (12, 12, 12)).astype(np.float32) for _ in range(6)]
    alike = [0.9 * different[0] + 0.1 * x for x in different]
    assert pairwise_ssim(alike, rng).mean > pairwise_ssim(different, rng).interval[1] + 0.3


def test_pairs_within_a_person_do_not_count(rng):
    """Two scans a person, equal within: the mean is over pairs of different people alone."""
    rows = np.repeat(rng.standard_normal((5, 3)), 2, axis=0)
    people = np.repeat(np.arange(5), 2).tolist()
    spread, plain = pairwise_distance(rows, rng, blocks=people), pairwise_distance(rows[::2], rng)
    assert spread.mean == pytest.approx(plain.mean) and spread.n == 5 and spread.pairs == 40
    assert spread.interval[0] <= spread.mean <= spread.interval[1]


def test_precision_and_recall_of_known_sets(rng):
    real = rng.standard_normal((80, 2))
    same = precision_recall(rng.standard_normal((80, 2)), real)
    collapsed = precision_recall(0.05 * rng.standard_normal((80, 2)), real)
    far = precision_recall(real + 50, real)
    assert same.precision > 0.8 and same.recall > 0.8
    assert collapsed.precision > 0.9 and collapsed.recall < 0.3
    assert far.precision == far.recall == 0.0


def test_small_volumes_are_refused():
    with pytest.raises(InputError, match="11 voxels"):
        ssim(np.zeros((8, 12, 12), np.float32), np.zeros((8, 12, 12), np.float32))
