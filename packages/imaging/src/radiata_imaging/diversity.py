r"""Are the volumes of a set different from one another, and do they cover what real ones cover?

Structural similarity of two volumes, averaged over the positions of an 11³ Gaussian window ($\sigma = 1.5$ voxels):

$$ \mathrm{SSIM} = \Big\langle \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}
   {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)} \Big\rangle, \quad c_i = (K_i L)^2 $$

A set whose mean pairwise SSIM is above that of real *different people* has collapsed. Air counts, as it does in the
papers, and lifts every value: compare with the real figure only. Precision is the share of synthetic rows that lie
within the k-nearest radius of a real row, recall the share of real rows within that of a synthetic one.

References:
    Z. Wang et al. (2004). Image quality assessment: from error visibility to structural similarity. IEEE TIP 13(4),
        equation 13.
    T. Kynkäänniemi et al. (2019). Improved precision and recall metric for assessing generative models.
        arXiv:1904.06991, eq. 1-2.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from radiata_core.errors import InputError

__all__ = ["PrecisionRecall", "Spread", "pairwise_distance", "pairwise_ssim", "precision_recall", "ssim"]

_BLOCK = 256
"""Rows whose distances are made together."""


def ssim(x: Float[np.ndarray, "x y z"], y: Float[np.ndarray, "x y z"], data_range: float = 2.0) -> float:
    """Mean structural similarity of two volumes, in [-1, 1]; 1 for equal volumes.

    Args:
        x: First volume, at least 11 voxels an axis.
        y: Second volume, same shape.
        data_range: L, the span of intensities; 2 for [-1, 1].

    Raises:
        InputError: Shapes that differ or are smaller than the window.
    """
    return _ssim(_moments(x), _moments(y), data_range)


def _window(x: np.ndarray) -> np.ndarray:
    filtered = gaussian_filter(x, 1.5, radius=5)
    return filtered[5:-5, 5:-5, 5:-5]  # only windows that lie inside the volume


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if x.ndim != 3 or min(x.shape) < 11:
        raise InputError(f"expected a volume of 11 voxels or more on each axis; got {x.shape}")
    mean = _window(x)
    return x, mean, _window(x * x) - mean**2


def _ssim(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], data_range: float) -> float:
    (x, mean_x, var_x), (y, mean_y, var_y) = a, b
    if x.shape != y.shape:
        raise InputError(f"expected two volumes of one shape; got {x.shape} and {y.shape}")
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    product = mean_x * mean_y
    covariance = _window(x * y) - product
    value = (2 * product + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(value.mean(dtype=np.float64))


@dataclass(frozen=True)
class Spread:
    """Mean over pairs of different units, with a 95 % bootstrap interval over units.

    Attributes:
        mean: Of the measure over all pairs of different people.
        interval: Percentile bootstrap.
        n: Units (people, or volumes that stand for themselves).
        pairs: Pairs averaged over.
    """

    mean: float
    interval: tuple[float, float]
    n: int
    pairs: int


def pairwise_ssim(
    volumes: Sequence[np.ndarray], rng: np.random.Generator, *, blocks: Sequence[Hashable] | None = None,
    data_range: float = 2.0, bootstraps: int = 500, held: int = 8,
) -> Spread:  # fmt: skip
    """Mean SSIM over pairs of different people; its time grows as n², so give a few dozen volumes.

    `held` volumes are kept, and the others read again beside them, one at a time: `volumes` may read from a file.
    """
    n = len(volumes)
    matrix = np.zeros((n, n))
    for first in range(0, n, held):
        kept: list[tuple[np.ndarray, ...]] = []
        for j in range(first, n):
            moments = _moments(volumes[j])
            for i, others in enumerate(kept, first):
                if blocks is None or blocks[i] != blocks[j]:
                    matrix[i, j] = matrix[j, i] = _ssim(others, moments, data_range)
            if len(kept) < held:
                kept.append(moments)
    return _spread(matrix, blocks, rng, bootstraps)


def pairwise_distance(
    rows: Float[np.ndarray, "n d"], rng: np.random.Generator, *, blocks: Sequence[Hashable] | None = None,
    bootstraps: int = 500,
) -> Spread:  # fmt: skip
    """Mean Euclidean distance over pairs of different people, in units of the features."""
    return _spread(cdist(rows, rows), blocks, rng, bootstraps)


def _spread(
    matrix: np.ndarray, blocks: Sequence[Hashable] | None, rng: np.random.Generator, bootstraps: int
) -> Spread:
    labels = list(range(len(matrix))) if blocks is None else list(blocks)
    people = list(dict.fromkeys(labels))
    if len(people) < 2:
        raise InputError(f"expected two people or more to measure spread; got {len(people)}")
    member = np.array([[label == person for label in labels] for person in people], dtype=float)
    sums, sizes = member @ matrix @ member.T, member.sum(1)
    between = 1.0 - np.eye(len(people))
    sums, pairs = sums * between, np.outer(sizes, sizes) * between
    draws = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), bootstraps).astype(float)
    weight = ((draws @ pairs) * draws).sum(1)
    estimates = (((draws @ sums) * draws).sum(1))[weight > 0] / weight[weight > 0]
    low, high = np.percentile(estimates, [2.5, 97.5]) if len(estimates) else (np.nan, np.nan)
    return Spread(
        float(sums.sum() / pairs.sum()), (float(low), float(high)), len(people), int(pairs.sum() / 2)
    )


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1] and the neighbour that set the radius."""

    precision: float
    recall: float
    k: int


def precision_recall(
    synthetic: Float[np.ndarray, "n d"], real: Float[np.ndarray, "m d"], k: int = 3
) -> PrecisionRecall:
    """Share of synthetic rows on the real manifold, and of real rows on the synthetic one."""
    k = min(k, len(real) - 1, len(synthetic) - 1)
    if k < 1:
        raise InputError(f"expected two rows or more on each side; got {len(synthetic)} and {len(real)}")
    radius_real, radius_synthetic = _radii(real, k), _radii(synthetic, k)
    on_real, on_synthetic = np.zeros(len(synthetic), bool), np.zeros(len(real), bool)
    for first in range(0, len(synthetic), _BLOCK):
        some = slice(first, first + _BLOCK)
        across = cdist(synthetic[some], real)
        on_real[some] = (across <= radius_real[None]).any(1)
        on_synthetic |= (across <= radius_synthetic[some, None]).any(0)
    return PrecisionRecall(float(on_real.mean()), float(on_synthetic.mean()), k)


def _radii(rows: np.ndarray, k: int) -> np.ndarray:
    """Distance of each row to its k-th neighbour; the row itself is the zeroth."""
    starts = range(0, len(rows), _BLOCK)
    return np.concatenate([np.partition(cdist(rows[a : a + _BLOCK], rows), k)[:, k] for a in starts])
