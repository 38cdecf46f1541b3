r"""Which of the pictures was it? Identification of the truth among others by similarity of features.

With $r_{ij}$ the similarity of true picture i and decoded picture j, decoded j *wins* against distractor i when
$r_{ij} < r_{jj}$; a tie is lost. From its share of wins $w_j$ among the $n - 1$ distractors follow all the scores of the
field, without drawing anything:

    two-way     $w_j$, chance 1/2
    k-way       the chance that k - 1 distractors drawn without replacement all lose: C(W, k-1)/C(n-1, k-1), W = (n-1) w_j
    top-1       all n - 1 lose

`retrieval` is top-1 among random pools, as MindEye draws it, in both directions: forward finds the true picture of a
decoded one, backward the decoded one of a true picture.

A decoded picture without features (constant, so that $r_{jj}$ is NaN) gets NaN, to be counted; a distractor without
features is no distractor.

References:
    F. Ozcelik, R. VanRullen (2023). Brain-Diffuser. https://arxiv.org/abs/2303.05334, quantitative results (two-way).
    P. Scotti et al. (2023). Reconstructing the mind's eye. https://arxiv.org/abs/2305.18274, section on retrieval.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from radiata_core.errors import InputError

__all__ = [
    "Retrieval",
    "correlation_distance",
    "correlation_matrix",
    "cosine_matrix",
    "n_way",
    "retrieval",
    "two_way",
    "wins",
]


@dataclass(frozen=True)
class Retrieval:
    """Share of right answers, one value a draw.

    Attributes:
        forward: (draw,), decoded → true.
        backward: (draw,), true → decoded.
        pool: Candidates in each draw; chance is 1/pool.
    """

    forward: np.ndarray
    backward: np.ndarray
    pool: int


def correlation_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Pearson's correlations of features, (true, decoded) float64; NaN for features that are all the same.

    Args:
        truth: (n, feature), or of more axes, which are flattened.
        predicted: (m, feature).

    Raises:
        InputError: another number of features.
    """
    a, b = _flat(truth, predicted)
    return _cosines(a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True))


def cosine_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Cosines of the angles between features, (true, decoded) float64; see `correlation_matrix`."""
    return _cosines(*_flat(truth, predicted))


def correlation_distance(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """1 - correlation of each pair's features, (n,); 0 is best.

    Raises:
        InputError: another number of pairs or features.
    """
    a, b = _flat(truth, predicted)
    if len(a) != len(b):
        raise InputError(f"expected as many decoded pictures as true ones; got {len(b)} and {len(a)}.")
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1.0 - (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def wins(similarity: np.ndarray) -> np.ndarray:
    """Where each pairing stands: share of other true pictures that pairing (i, j) beats, (true, decoded).

    The diagonal is two-way identification; the rest is what a permutation of the pairing would score.
    NaN where the pairing itself has no similarity.

    Args:
        similarity: (n, n), true pictures in rows, decoded in columns.

    Raises:
        InputError: not square, or fewer than two.
    """
    r = _square(similarity)
    order = np.sort(r, axis=0)  # NaN last
    finite = np.isfinite(r).sum(0)
    below = np.stack(
        [np.searchsorted(order[: finite[j], j], r[:, j], side="left") for j in range(r.shape[1])], 1
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        share = below / (finite - 1)
    return np.where(np.isfinite(r) & (finite > 1), share, np.nan)


def two_way(similarity: np.ndarray) -> np.ndarray:
    """Share of distractors that lose against the truth, (decoded,), 0 to 1; ties are lost, chance is 1/2.

    Args:
        similarity: (n, n), true pictures in rows, decoded in columns, pairs on the diagonal.

    Raises:
        InputError: not square, or fewer than two.
    """
    return np.diagonal(wins(similarity)).copy()


def n_way(similarity: np.ndarray, ways: int) -> np.ndarray:
    """Chance that the truth is found among `ways` candidates, (decoded,), exact over all draws of distractors.

    Args:
        similarity: See `two_way`.
        ways: Candidates, truth included, 2 to n.

    Raises:
        InputError: more ways than pictures.
    """
    r = _square(similarity)
    if not 2 <= ways <= len(r):
        raise InputError(f"expected 2 to {len(r)} ways for {len(r)} pictures; got {ways}.")
    share = two_way(r)
    others = np.isfinite(r).sum(0) - 1
    lost = np.where(np.isfinite(share), np.round(share * others), 0.0)
    drawn = np.minimum(ways - 1, np.maximum(others, 0))
    log = _log_choose(lost, drawn) - _log_choose(others, drawn)
    return np.where(np.isfinite(share), np.where(lost >= drawn, np.exp(log), 0.0), np.nan)


def retrieval(
    similarity: np.ndarray, rng: np.random.Generator, pool: int = 300, draws: int = 30
) -> Retrieval:
    """Top-1 among pools of pictures drawn without replacement, both ways; ties are lost.

    Args:
        similarity: (n, n), usually cosines (`cosine_matrix`).
        rng: Of the pools.
        pool: Pictures in each, 2 to n; 300 in the literature.
        draws: Pools; 30 in the literature.

    Raises:
        InputError: a pool larger than there are pictures.
    """
    r = _square(similarity)
    if not 2 <= pool <= len(r) or draws < 1:
        raise InputError(
            f"expected a pool of 2 to {len(r)} for {len(r)} pictures and at least one draw; got {pool} and {draws}. "
            "Chance depends on the pool: state it."
        )
    forward, backward = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        chosen = rng.permutation(len(r))[:pool]
        part = r[np.ix_(chosen, chosen)]
        own = np.diagonal(part)
        rivals = np.where(np.eye(pool, dtype=bool) | ~np.isfinite(part), -np.inf, part)
        forward[draw] = np.mean(own > rivals.max(0))
        backward[draw] = np.mean(own > rivals.max(1))
    return Retrieval(forward, backward, pool)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, 0) + 1)


def _square(similarity: np.ndarray) -> np.ndarray:
    r = np.asarray(similarity, np.float64)
    if r.ndim != 2 or r.shape[0] != r.shape[1] or len(r) < 2:
        raise InputError(
            f"expected similarities of n true and n decoded pictures, n of 2 or more; got {r.shape}. One picture cannot be "
            "identified among others."
        )
    return r


def _flat(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (truth, predicted))
    if a.shape[1] != b.shape[1]:
        raise InputError(f"expected as many features of both; got {a.shape[1]} and {b.shape[1]}.")
    return a, b


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    scale = [np.abs(part).max(1, initial=0) for part in (a, b)]
    norms = [np.linalg.norm(part, axis=1) for part in (a, b)]
    # What rounding leaves of a constant is no direction.
    with np.errstate(divide="ignore", invalid="ignore"):
        units = [
            np.where((size > 1e-12)[:, None], part / norm[:, None], np.nan)
            for part, size, norm in zip((a, b), scale, norms, strict=True)
        ]
        return units[0] @ units[1].T
