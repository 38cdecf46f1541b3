r"""Regional volumes from any segmentation, and whether two groups of brains differ in them.

The volume of a region is (voxels that carry its codes) x |det A| with A the 3 x 3 part of the affine. Tables of other
programs are read as they are: SynthSeg's `--vol` CSV, FreeSurfer / FastSurfer `aseg.stats`, `asegstats2table` output,
and plain tables.

Each region is tested on its own by a permutation test of the energy distance (any difference of distribution, not
of means alone), and the family is corrected by Holm's step-down method. One multivariate figure stands beside them:
the sliced Wasserstein-2 distance of the standardised volumes,

$$ \mathrm{SW}_2^2 = \mathbb{E}_{\theta \in S^{d-1}}\, W_2^2(\theta^T x, \theta^T y), $$

in the spirit of WASABI, which takes the full Wasserstein distance.

References:
    S. Holm (1979). A simple sequentially rejective multiple test procedure. Scand. J. Statist. 6.
    N. Bonneel et al. (2015). Sliced and Radon Wasserstein barycenters of measures. JMIV 51.
    B. Jafrasteh et al. (2025). WASABI: a metric for evaluating morphometric plausibility of synthetic brain MRIs.
        arXiv:2504.21771.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from radiata_core.errors import InputError
from radiata_imaging.region_tables import RegionTable
from radiata_imaging.two_sample import EnergyKernel, compare, people_means, permutation_p_value

__all__ = [
    "RegionComparison",
    "RegionTable",
    "SlicedWasserstein",
    "compare_regions",
    "holm",
    "label_volumes",
    "sliced_wasserstein",
]


def label_volumes(
    labels: np.ndarray, affine: Float[np.ndarray, "4 4"], regions: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Millilitres of each region of a label map.

    Args:
        labels: Integer codes `(x, y, z)`; floats are accepted where they hold whole numbers.
        affine: Voxel to world, mm.
        regions: Codes that make up each region.

    Raises:
        InputError: Not a label map.
    """
    codes = np.rint(labels).astype(np.int64)
    if labels.ndim != 3 or not np.array_equal(codes, labels):
        raise InputError(
            f"expected a 3-D map of whole-number labels; got {labels.ndim}-D with values such as "
            f"{np.asarray(labels).flat[0]}. Give the segmentation, not the image."
        )
    millilitres = abs(np.linalg.det(affine[:3, :3])) / 1000.0
    present, count = np.unique(codes, return_counts=True)
    return {
        name: float(count[np.isin(present, list(members))].sum() * millilitres)
        for name, members in regions.items()
    }


def holm(p_values: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    r"""Adjusted p-values, $\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})$, in the order given."""
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((m - np.arange(m)) * p_values[order]))
    return adjusted


@dataclass(frozen=True)
class RegionComparison:
    """One region in two groups.

    Attributes:
        region: Its name.
        mean_x: Mean of the first group, ml.
        mean_y: Mean of the second, ml.
        difference: First minus second, ml.
        interval: Its 95 % bootstrap interval, ml.
        effect: Difference over the pooled sd (Cohen's d).
        p_value: Permutation test of the energy distance.
        p_holm: Corrected over all regions.
    """

    region: str
    mean_x: float
    mean_y: float
    difference: float
    interval: tuple[float, float]
    effect: float
    p_value: float
    p_holm: float


def compare_regions(
    x: RegionTable,
    y: RegionTable,
    rng: np.random.Generator,
    *,
    blocks_x: Sequence[Hashable] | None = None,
    blocks_y: Sequence[Hashable] | None = None,
    permutations: int = 999,
    bootstraps: int = 500,
) -> list[RegionComparison]:
    """Every region that both tables name, in the order of the first, people as units.

    Raises:
        InputError: No region in common, or fewer than two people in a group.
    """
    shared = x.shared_with(y)
    a, b = x.columns(shared), y.columns(shared)
    tests = [
        compare(
            a[:, [i]], b[:, [i]], EnergyKernel(), rng,
            blocks_x=blocks_x, blocks_y=blocks_y, permutations=permutations, bootstraps=0,
        )
        for i in range(len(shared))
    ]  # fmt: skip
    corrected = holm(np.array([test.p_value for test in tests]))
    a, b = people_means(a, blocks_x), people_means(b, blocks_y)
    drawn = _means(a, rng, bootstraps) - _means(b, rng, bootstraps)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    difference = a.mean(0) - b.mean(0)
    n, m = len(a), len(b)
    pooled = np.sqrt(((n - 1) * a.var(0, ddof=1) + (m - 1) * b.var(0, ddof=1)) / (n + m - 2))
    effect = np.divide(difference, pooled, out=np.zeros_like(difference), where=pooled > 0)
    return [
        RegionComparison(
            name, float(a[:, i].mean()), float(b[:, i].mean()), float(difference[i]), (float(low[i]), float(high[i])),
            float(effect[i]), tests[i].p_value, float(corrected[i]),
        )
        for i, name in enumerate(shared)
    ]  # fmt: skip


def _means(rows: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    return rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), draws) @ rows / len(rows)


@dataclass(frozen=True)
class SlicedWasserstein:
    """A sliced Wasserstein-2 distance, its permutation p-value, and the people on each side."""

    value: float
    p_value: float
    n_x: int
    n_y: int


def sliced_wasserstein(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    rng: np.random.Generator,
    *,
    directions: int = 64,
    permutations: int = 199,
) -> SlicedWasserstein:
    """Sliced Wasserstein-2 distance of columns standardised by the second (reference) sample, with a permutation p-value.

    Args:
        x: First sample, one row a person.
        y: Reference sample.
        rng: Draws directions and permutations.
        directions: Projections on the unit sphere.
        permutations: Draws of the test.
    """
    scale = y.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    theta = rng.standard_normal((x.shape[1], directions))
    theta /= np.linalg.norm(theta, axis=0)
    projected = np.concatenate([x, y]) / scale @ theta
    n = len(x)
    observed = _wasserstein_2(projected[:n], projected[n:])
    permuted = np.empty(permutations)
    for draw in range(permutations):
        shuffled = projected[rng.permutation(len(projected))]
        permuted[draw] = _wasserstein_2(shuffled[:n], shuffled[n:])
    return SlicedWasserstein(observed, permutation_p_value(observed, permuted), n, len(y))


def _wasserstein_2(x: np.ndarray, y: np.ndarray) -> float:
    """Root of the mean over columns of the squared 1-D Wasserstein-2 distance, exact for unequal sizes."""
    n, m = len(x), len(y)
    steps = np.unique(np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n]))
    width = np.diff(steps, prepend=0) / (n * m)
    gap = np.sort(x, axis=0)[(steps - 1) // m] - np.sort(y, axis=0)[(steps - 1) // n]
    return float(np.sqrt((width @ gap**2).mean()))
