r"""Do two samples come from one distribution? Kernel distances with their interval and a permutation p-value.

The squared maximum mean discrepancy between samples $x$ and $y$, without bias (it may be negative):

$$ \widehat{\mathrm{MMD}}^2 = \frac{\sum_{i \ne j} k(x_i, x_j)}{n(n-1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{m(m-1)}
   - \frac{2}{nm} \sum_{i, j} k(x_i, y_j) $$

With $k(x, y) = (x \cdot y / d + 1)^3$ it is the *kernel inception distance* of Bińkowski et al. on whatever features
are given; with $k = \exp(-\|x-y\|^2 / 2\ell^2)$ the RBF-MMD; with $k = -|x - y|$ the energy distance. One engine
serves the three: it sees a Gram matrix and which rows belong together.

**People, not scans, are the sample size.** Scans of one person are not independent. Rows that carry one block label are
averaged into one unit before anything else, $\bar k(b, c) = \mathrm{mean}_{i \in b, j \in c} k(z_i, z_j)$, and units
are what is counted, permuted and resampled. The estimate stays unbiased (distinct people are independent). The
permutation test is exact when units are exchangeable under the null, which holds when each side has one scan a person,
or equally many. A person with many scans has a less variable unit than a single synthetic volume; then the test is
approximate.

The rows' Gram matrix is made a block at a time and averaged into the units' at once; only the latter is held, for the test
resamples it. `streamed_mmd2` gives the estimate alone and holds no Gram matrix at all.

References:
    A. Gretton et al. (2012). A kernel two-sample test. JMLR 13, equation 3 (unbiased estimate), section 5.
    M. Bińkowski, D. Sutherland, M. Arbel, A. Gretton (2018). Demystifying MMD GANs. arXiv:1801.01401, section 4.
    B. Phipson, G. Smyth (2010). Permutation p-values should never be zero. SAGMB 9(1), equation 2.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import block_diag
from scipy.spatial.distance import cdist

from radiata_core.errors import InputError

__all__ = [
    "EnergyKernel",
    "PolynomialKernel",
    "RBFKernel",
    "TwoSample",
    "compare",
    "median_length",
    "mmd2",
    "people_means",
    "permutation_p_value",
    "streamed_mmd2",
    "units_of",
    "weighted_mmd2",
]

Rows = Float[np.ndarray, "_ _"]
Gram = Float[np.ndarray, "units units"]
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PolynomialKernel:
    r"""$k(x, y) = (x \cdot y / d + c)^p$; with the defaults, the kernel of KID."""

    degree: int = 3
    offset: float = 1.0

    def __call__(self, x: Rows, y: Rows) -> np.ndarray:
        return (x @ y.T / x.shape[1] + self.offset) ** self.degree


@dataclass(frozen=True)
class RBFKernel:
    r"""$k(x, y) = \exp(-\|x - y\|^2 / 2 \ell^2)$, `length` in units of the features, > 0."""

    length: float

    def __call__(self, x: Rows, y: Rows) -> np.ndarray:
        return np.exp(cdist(x, y, "sqeuclidean") / (-2.0 * self.length**2))


@dataclass(frozen=True)
class EnergyKernel:
    r"""$k(x, y) = -\|x - y\|$, whose MMD² is the energy distance: zero only for equal distributions."""

    def __call__(self, x: Rows, y: Rows) -> np.ndarray:
        return -cdist(x, y)


@dataclass(frozen=True)
class TwoSample:
    """A distance between two samples.

    Attributes:
        value: The unbiased estimate, in units of the kernel; negative values happen when there is nothing to see.
        interval: 95 % percentile bootstrap over units.
        p_value: Of the permutation test, one-sided, in (0, 1]; nan where it was not asked for.
        n_x: Units (people, or volumes that stand for themselves) in the first sample.
        n_y: Units in the second.
    """

    value: float
    interval: tuple[float, float]
    p_value: float
    n_x: int
    n_y: int


def median_length(z: Rows, limit: int = 1000) -> float:
    """Median distance between different rows: the usual length of an RBF kernel. Uses evenly spaced rows above `limit`."""
    z = z[np.unique(np.linspace(0, len(z) - 1, min(len(z), limit)).astype(int))]
    distances = cdist(z, z)[np.triu_indices(len(z), 1)]
    length = float(np.median(distances)) if len(distances) else 0.0
    return length if length > 0 else 1.0


def units_of(blocks: Sequence[Hashable] | None, n: int) -> Float[np.ndarray, "units rows"]:
    """Averaging matrix from rows to units: one unit a block label, in the order of first appearance; identity for None.

    Raises:
        InputError: Another number of labels than of rows.
    """
    if blocks is None:
        return np.eye(n)
    if len(blocks) != n:
        raise InputError(
            f"expected one block label a row, {n}; got {len(blocks)}. Give the subject of each volume."
        )
    order = {label: unit for unit, label in enumerate(dict.fromkeys(blocks))}
    matrix = np.zeros((len(order), n))
    matrix[[order[label] for label in blocks], np.arange(n)] = 1.0
    return matrix / matrix.sum(1, keepdims=True)


def people_means(
    rows: Float[np.ndarray, "n d"], blocks: Sequence[Hashable] | None
) -> Float[np.ndarray, "units d"]:
    """Mean of the rows of each block, in the order of first appearance; the rows themselves for None."""
    return rows if blocks is None else units_of(blocks, len(rows)) @ rows


def weighted_mmd2(gram: Gram, in_x: np.ndarray, in_y: np.ndarray) -> np.ndarray:
    r"""Unbiased MMD² for each row of weights.

    $\frac{a^T K a - \sum a_i^2 K_{ii}}{(\sum a)^2 - \sum a^2}$ within a side, $a^T K b / \sum a \sum b$ across.

    Args:
        gram: Kernel between units, symmetric.
        in_x: Weights of the units on the x side, `(draws, units)`, >= 0; ones and zeros give the plain estimate.
        in_y: The same for the y side, disjoint from `in_x`.
    """
    off = gram - np.diag(np.diag(gram))
    from_x, from_y = in_x @ off, in_y @ off
    within_x = (from_x * in_x).sum(1) / (in_x.sum(1) ** 2 - (in_x**2).sum(1))
    within_y = (from_y * in_y).sum(1) / (in_y.sum(1) ** 2 - (in_y**2).sum(1))
    return within_x + within_y - 2.0 * (from_x * in_y).sum(1) / (in_x.sum(1) * in_y.sum(1))


def mmd2(gram: Gram, n_x: int) -> float:
    """Unbiased MMD² of the first `n_x` units against the others, from their Gram matrix. Needs two units a side."""
    first = (np.arange(len(gram)) < n_x).astype(float)[None]
    return float(weighted_mmd2(gram, first, 1.0 - first)[0])


def streamed_mmd2(x: Rows, y: Rows, kernel: Kernel, block: int = 256) -> float:
    """`mmd2` of two samples of single volumes, holding `block` x `block` values of the kernel and no Gram matrix.

    Raises:
        InputError: fewer than two rows on a side.
    """
    if min(len(x), len(y)) < 2:
        raise InputError(
            f"expected two volumes or more on each side; got {len(x)} and {len(y)}. Add volumes."
        )
    sums = np.zeros((2, 2))
    for i, a in enumerate((x, y)):
        for j, b in enumerate((x, y)):
            for first, rows in _row_blocks(a, block):
                for second, others in _row_blocks(b, block):
                    values = kernel(rows, others)
                    diagonal = np.trace(values, first - second) if i == j else 0.0
                    sums[i, j] += values.sum() - diagonal
    n, m = len(x), len(y)
    return float(
        sums[0, 0] / (n * (n - 1)) + sums[1, 1] / (m * (m - 1)) - (sums[0, 1] + sums[1, 0]) / (n * m)
    )


def _row_blocks(rows: Rows, block: int) -> Iterator[tuple[int, np.ndarray]]:
    """Index of the first row, and the rows in float64, of each block."""
    for first in range(0, len(rows), block):
        yield first, rows[first : first + block].astype(np.float64)


def _unit_gram(rows: Rows, to_units: np.ndarray, kernel: Kernel, block: int) -> Gram:
    """Kernel between units, from the rows' kernel a block at a time."""
    gram = np.zeros((len(to_units), len(to_units)))
    for first, a in _row_blocks(rows, block):
        of_a = to_units[:, first : first + block]
        in_a = np.flatnonzero(of_a.any(1))
        for second, b in _row_blocks(rows, block):
            if second < first:  # the kernel is symmetric
                continue
            of_b = to_units[:, second : second + block]
            in_b = np.flatnonzero(of_b.any(1))
            part = of_a[in_a] @ kernel(a, b) @ of_b[in_b].T
            gram[np.ix_(in_a, in_b)] += part
            if second > first:
                gram[np.ix_(in_b, in_a)] += part.T
    return gram


def permutation_p_value(observed: float, permuted: np.ndarray) -> float:
    """`(1 + #{permuted >= observed}) / (1 + draws)`, which is never zero (Phipson and Smyth, equation 2)."""
    slack = 1e-12 * max(1.0, abs(observed))  # the observed split itself must count as a tie despite rounding
    return float((1 + np.sum(permuted >= observed - slack)) / (1 + len(permuted)))


def compare(
    x: Rows,
    y: Rows,
    kernel: Kernel,
    rng: np.random.Generator,
    *,
    blocks_x: Sequence[Hashable] | None = None,
    blocks_y: Sequence[Hashable] | None = None,
    permutations: int = 999,
    bootstraps: int = 500,
    block: int = 512,
) -> TwoSample:
    """MMD² between two samples with a bootstrap interval and a permutation p-value.

    Args:
        x: Features of the first sample, one row a volume.
        y: Features of the second.
        kernel: Of two matrices of rows, `(n, d), (m, d) -> (n, m)`.
        rng: Draws permutations and bootstrap weights.
        blocks_x: Label (person) of each row of x; rows of one label are one unit. None: each row stands for itself.
        blocks_y: The same for y.
        permutations: Draws of the test; 0 leaves the p-value nan.
        bootstraps: Draws of the interval; 0 leaves it nan.
        block: Rows whose kernel is made at once.

    Raises:
        InputError: Different features, not finite, or fewer than two units on a side.
    """
    if x.shape[1] != y.shape[1] or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError(
            f"expected finite features of one length; got {x.shape[1]} and {y.shape[1]} columns, "
            f"{int((~np.isfinite(x)).sum() + (~np.isfinite(y)).sum())} not finite. Use one feature map for both samples."
        )
    to_x, to_y = units_of(blocks_x, len(x)), units_of(blocks_y, len(y))
    n_x, n_y = len(to_x), len(to_y)
    if min(n_x, n_y) < 2:
        raise InputError(f"expected two people or more on each side; got {n_x} and {n_y}. Add subjects.")
    gram = _unit_gram(np.concatenate([x, y]), block_diag(to_x, to_y), kernel, block)
    value = mmd2(gram, n_x)
    p_value = float("nan")
    if permutations:
        sides = rng.permuted(np.tile(np.arange(n_x + n_y) < n_x, (permutations, 1)), axis=1).astype(float)
        p_value = permutation_p_value(value, weighted_mmd2(gram, sides, 1.0 - sides))
    interval = (float("nan"), float("nan"))
    if bootstraps:
        interval = _bootstrap(gram, n_x, rng, bootstraps)
    return TwoSample(value, interval, p_value, n_x, n_y)


def _bootstrap(gram: Gram, n_x: int, rng: np.random.Generator, draws: int) -> tuple[float, float]:
    n_y = len(gram) - n_x
    a = np.zeros((draws, len(gram)))
    b = np.zeros((draws, len(gram)))
    a[:, :n_x] = rng.multinomial(n_x, np.full(n_x, 1 / n_x), draws)
    b[:, n_x:] = rng.multinomial(n_y, np.full(n_y, 1 / n_y), draws)
    two_units = ((a > 0).sum(1) > 1) & (
        (b > 0).sum(1) > 1
    )  # one unit drawn n times has no pair to average over
    if not two_units.any():
        return float("nan"), float("nan")
    low, high = np.percentile(weighted_mmd2(gram, a[two_units], b[two_units]), [2.5, 97.5])
    return float(low), float(high)
