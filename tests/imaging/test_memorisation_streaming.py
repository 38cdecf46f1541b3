"""Neighbours, kernel distances and spread a block at a time: the plain formulas' values, and never everything at once."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from radiata_core.errors import InputError
from radiata_imaging.diversity import pairwise_ssim, precision_recall, ssim
from radiata_imaging.features import HistogramFeatures, PooledVoxels, extract
from radiata_imaging.memorisation import _nearest_of_subsets, _to_other_people, nearest
from radiata_imaging.two_sample import EnergyKernel, PolynomialKernel, RBFKernel, compare, mmd2, streamed_mmd2

_spec = importlib.util.spec_from_file_location(
    "counted_volumes", Path(__file__).with_name("counted_volumes.py")
)
_module = importlib.util.module_from_spec(_spec)
sys.modules["counted_volumes"] = _module
_spec.loader.exec_module(_module)
CountedVolumes = _module.CountedVolumes

BLOCKS = [1, 3, 7, 40, 1000]


class CountedKernel:
    """A kernel that remembers the most values it was asked for at once."""

    def __init__(self, kernel) -> None:
        self.kernel, self.most = kernel, 0

    def __call__(self, x, y):
        self.most = max(self.most, len(x) * len(y))
        return self.kernel(x, y)


@pytest.mark.parametrize("block", BLOCKS)
def test_nearest_streams_its_second_set(block, rng):
    """Index and distance of scipy's full matrix for every block; at most a block of rows is alive, each is read once."""
    x, y = rng.standard_normal((12, 5)) + 30, rng.standard_normal((40, 5)) + 30
    rows = CountedVolumes(y)
    index, distance = nearest(x, iter(rows), block)
    full = cdist(x, y)
    np.testing.assert_array_equal(index, full.argmin(1))
    np.testing.assert_allclose(distance, full.min(1), rtol=1e-12)
    assert rows.peak <= block and rows.read == 40
    with pytest.raises(InputError, match="rows to search"):
        nearest(x, iter(()), block)


@pytest.mark.parametrize("block", BLOCKS)
def test_neighbours_among_people_and_subsets(block, rng):
    x, y = rng.standard_normal((9, 4)), rng.standard_normal((40, 4))
    names = np.array([f"person {i // 3}" for i in range(40)])
    apart = np.where(names[:, None] == names[None], np.inf, cdist(y, y))
    np.testing.assert_allclose(_to_other_people(y, names, block), apart.min(1), rtol=1e-10)
    subsets = [rng.choice(40, 11, replace=False) for _ in range(5)]
    expected = np.stack([cdist(x, y[s], "sqeuclidean").min(1) for s in subsets])
    np.testing.assert_allclose(_nearest_of_subsets(x, y, subsets, block), expected, rtol=1e-10)


@pytest.mark.parametrize("kernel", [PolynomialKernel(), RBFKernel(1.5), EnergyKernel()])
def test_kernel_distances_are_those_of_the_full_gram_matrix(kernel, rng):
    x, y = rng.standard_normal((23, 4)), rng.standard_normal((31, 4)) + 0.3
    z = np.concatenate([x, y])
    expected = mmd2(kernel(z, z), 23)
    people = [f"{i // 2}" for i in range(31)]
    whole = compare(x, y, kernel, np.random.default_rng(1), blocks_y=people, permutations=50, bootstraps=50)
    for block in BLOCKS:
        counted = CountedKernel(kernel)
        assert streamed_mmd2(x, y, counted, block) == pytest.approx(expected, rel=1e-9)
        assert counted.most <= block**2
        counted = CountedKernel(kernel)
        found = compare(
            x,
            y,
            counted,
            np.random.default_rng(1),
            blocks_y=people,
            permutations=50,
            bootstraps=50,
            block=block,
        )
        assert counted.most <= block**2
        assert found.value == pytest.approx(whole.value, rel=1e-9) and found.p_value == whole.p_value
        assert found.interval == pytest.approx(whole.interval, rel=1e-7)
    with pytest.raises(InputError, match="two volumes or more"):
        streamed_mmd2(x[:1], y, kernel)


@pytest.mark.parametrize("held", [1, 2, 8])
def test_pairwise_ssim_holds_a_few_volumes(held, rng):
    """Each pair's SSIM is that of `ssim`; `held` volumes and two beside them are alive, of nine."""
    volumes = rng.uniform(-1, 1, (9, 12, 13, 12)).astype(np.float32)
    people = ["a", "a", "b", "c", "c", "c", "d", "e", "f"]
    counted = CountedVolumes(volumes)
    spread = pairwise_ssim(counted, np.random.default_rng(0), blocks=people, held=held)
    pairs = [ssim(volumes[i], volumes[j]) for i in range(9) for j in range(i) if people[i] != people[j]]
    assert spread.mean == pytest.approx(np.mean(pairs), rel=1e-6) and spread.pairs == len(pairs)
    assert counted.peak <= held + 2


def test_precision_and_recall_beside_full_matrices(rng):
    """More rows than a block."""
    synthetic, real = rng.standard_normal((300, 3)) * 0.9, rng.standard_normal((270, 3))
    found = precision_recall(synthetic, real, k=3)
    radius = [np.sort(cdist(rows, rows), 1)[:, 3] for rows in (real, synthetic)]
    across = cdist(synthetic, real)
    assert found.precision == (across <= radius[0][None]).any(1).mean()
    assert found.recall == (across <= radius[1][:, None]).any(0).mean()


def test_features_are_extracted_one_volume_at_a_time(rng):
    """Each volume is read once for all maps; the one before lives until the next has come."""
    counted = CountedVolumes(rng.uniform(-1, 1, (20, 6, 6, 6)).astype(np.float32))
    pooled, histogram = extract(iter(counted), [PooledVoxels((6, 6, 6), 27), HistogramFeatures()])
    assert pooled.shape == (20, 27) and histogram.shape == (20, 64)
    assert counted.peak <= 2 and counted.read == 20
