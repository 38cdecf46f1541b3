r"""STAPLE: the true segmentation and the raters' performance, each estimated from the other.

R raters label every voxel; nobody knows the truth T. Rater j says s' where the truth is s with probability
$\theta_j(s', s)$, independently of the others. Expectation maximisation alternates

$$W_i(s) \propto \pi(s) \prod_j \theta_j(D_{ij}, s), \qquad
  \theta_j(s', s) = \frac{\sum_{i: D_{ij} = s'} W_i(s)}{\sum_i W_i(s)},$$

the posterior of the truth at voxel i, and each rater's confusion matrix; each round raises the likelihood of what was
seen. A majority vote gives every rater one voice; here a rater's voice is what it is worth. With two classes the
diagonal of theta is specificity (class 0) and sensitivity (class 1).

Voxels at which all raters said the same things are alike: the sums run over *patterns* of answers with their counts, some
thousands where a head has millions of voxels, and nothing is approximated. Products are sums of logarithms.

Two cautions. The prior pi is given or estimated, and one for the whole grid: a large background makes rare structures
rarer; a `mask` (where raters disagree, and around it) takes it away. And draws of one sampler are raters of equal worth: for
them the mean of the probabilities is the better fusion, and STAPLE tells only that they are equal.

References:
    Warfield, Zou & Wells, "Simultaneous truth and performance level estimation (STAPLE)", IEEE Trans. Med. Imaging 2004,
        https://doi.org/10.1109/TMI.2004.828354 (the two steps for binary and for several labels).
    Dawid & Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", J. R. Stat. Soc. C 1979,
        https://doi.org/10.2307/2346806 (with the prior estimated).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = ["Staple", "majority_vote", "staple"]

_FLOOR = 1e-12
"""Smallest probability whose logarithm is taken."""


@dataclass(frozen=True, eq=False)
class Staple:
    """What STAPLE found.

    Attributes:
        classes: Most probable class of every voxel, uint8, the raters' grid. Outside the mask the majority's.
        confusion: theta, (rater, said, true), columns sum to 1, float64. Of a class that never is true: as at the start.
        prior: pi, (classes,), float64.
        log_likelihood: Of the answers, nats, after each round; never falls.
        converged: Whether it stopped because nothing moved.
    """

    classes: np.ndarray
    confusion: np.ndarray
    prior: np.ndarray
    log_likelihood: np.ndarray
    converged: bool
    _posterior: np.ndarray
    _pattern: np.ndarray

    @property
    def sensitivity(self) -> np.ndarray:
        """P(rater says a class | it is true), (rater, class)."""
        return np.diagonal(self.confusion, axis1=1, axis2=2).copy()

    @property
    def specificity(self) -> np.ndarray:
        """P(rater does not say a class | another is true), (rater, class), weighed by the prior of the others."""
        says = np.einsum("rst,t->rst", self.confusion, self.prior)
        own = np.diagonal(says, axis1=1, axis2=2)
        return 1 - (says.sum(2) - own) / np.maximum(1 - self.prior, _FLOOR)

    def probability(self, index: int) -> np.ndarray:
        """Posterior probability of a class in every voxel, float32, the raters' grid; outside the mask 0 or 1."""
        inside = self._pattern >= 0
        values = self._posterior[:, index].astype(np.float32)[np.maximum(self._pattern, 0)]
        return np.where(inside, values, (self.classes == index).astype(np.float32))


def staple(
    ratings: np.ndarray,
    count: int,
    *,
    prior: Sequence[float] | None = None,
    estimate_prior: bool = False,
    mask: np.ndarray | None = None,
    start: float = 0.99,
    rounds: int = 300,
    tolerance: float = 1e-7,
) -> Staple:
    """The truth that explains several segmentations, and how good each of them is.

    Args:
        ratings: Classes 0 … count - 1 said by each rater, (rater, *grid), whole numbers.
        count: Number of classes, 2 … 256.
        prior: Probability of each class; None: its share of all answers, which poor raters pull towards equality.
        estimate_prior: Estimate it too, starting from `prior`: it becomes the mean of the posterior.
        mask: Voxels that count, (*grid); None: all.
        start: Diagonal of every confusion matrix at the start, in (1/count, 1).
        rounds: Most rounds.
        tolerance: Stop when no entry of a confusion matrix moves by more.

    Raises:
        InputError: fewer than 2 raters, an unknown class, a prior or mask that does not fit.
    """
    _check(ratings, count, prior, mask, start)
    shape, raters = ratings.shape[1:], len(ratings)
    answers = ratings.reshape(raters, -1)
    inside = np.ones(answers.shape[1], bool) if mask is None else np.asarray(mask, bool).ravel()
    patterns, index, counts = _patterns(answers[:, inside], count)
    if prior is None:
        pi = np.bincount(patterns.ravel(), np.repeat(counts[None], raters, 0).ravel(), count)
    else:
        pi = np.asarray(prior, np.float64)
    pi = pi / pi.sum()
    theta, pi, trace, converged, posterior = _em(
        patterns, counts, pi, estimate_prior, start, rounds, tolerance
    )
    pattern = np.full(answers.shape[1], -1, np.int64)
    pattern[inside] = index
    classes = np.empty(answers.shape[1], np.uint8)
    classes[inside] = posterior.argmax(1).astype(np.uint8)[index]
    if not inside.all():
        classes[~inside] = majority_vote(answers[:, ~inside], count)
    return Staple(
        classes.reshape(shape), theta, pi, np.array(trace), converged, posterior, pattern.reshape(shape)
    )


def majority_vote(ratings: np.ndarray, count: int) -> np.ndarray:
    """The class most raters say, uint8, (*grid); of equals the smallest.

    Args:
        ratings: (rater, *grid).
        count: Number of classes.
    """
    best = np.zeros(ratings.shape[1:], np.uint8)
    most = (ratings == 0).sum(0)
    for index in range(1, count):
        votes = (ratings == index).sum(0)
        best[votes > most] = index
        most = np.maximum(most, votes)
    return best


def _em(
    patterns: np.ndarray,
    counts: np.ndarray,
    pi: np.ndarray,
    estimate_prior: bool,
    start: float,
    rounds: int,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, list[float], bool, np.ndarray]:
    raters, count = len(patterns), len(pi)
    theta = np.full((raters, count, count), (1 - start) / (count - 1))
    theta[:, range(count), range(count)] = start
    said = np.eye(count)[patterns] * counts[None, :, None]  # (rater, pattern, said)
    trace: list[float] = []
    converged = False
    for _ in range(rounds):
        posterior, evidence = _truth(patterns, pi, theta)
        trace.append(float(counts @ evidence))
        total = counts @ posterior  # (true,)
        estimate = np.einsum("rps,pt->rst", said, posterior) / np.maximum(total, _FLOOR)
        updated = np.where(total > _FLOOR, estimate, theta)
        moved = float(np.abs(updated - theta).max())
        theta = updated
        pi = total / total.sum() if estimate_prior else pi
        if moved <= tolerance:
            converged = True
            break
    posterior, evidence = _truth(patterns, pi, theta)
    trace.append(float(counts @ evidence))
    return theta, pi, trace, converged, posterior


def _truth(patterns: np.ndarray, pi: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior (pattern, true) and log-evidence (pattern,) of every pattern."""
    logs = np.log(np.maximum(theta, _FLOOR))
    joint = np.log(np.maximum(pi, _FLOOR)) + sum(log[said] for log, said in zip(logs, patterns, strict=True))
    top = joint.max(1, keepdims=True)
    weights = np.exp(joint - top)
    total = weights.sum(1, keepdims=True)
    return weights / total, (top + np.log(total))[:, 0]


def _patterns(answers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct columns (rater, pattern), the column of every voxel, and their numbers."""
    key = np.zeros(answers.shape[1], np.int64)
    size = 1
    for row in answers:
        if size > 2**40:  # the number would overflow: count what is there instead
            distinct, key = np.unique(key, return_inverse=True)
            size = len(distinct)
        key = key * count + row
        size *= count
    _, first, index, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return answers[:, first].astype(np.int64), index, counts.astype(np.float64)


def _check(
    ratings: np.ndarray, count: int, prior: Sequence[float] | None, mask: np.ndarray | None, start: float
) -> None:
    if (
        ratings.ndim < 2
        or len(ratings) < 2
        or not np.issubdtype(ratings.dtype, np.integer)
        or not ratings.size
    ):
        raise InputError(
            f"expected whole classes of at least 2 raters, (rater, *grid); got {ratings.dtype} of shape {ratings.shape}. "
            "Stack the segmentations."
        )
    if not 2 <= count <= 256 or int(ratings.min()) < 0 or int(ratings.max()) >= count:
        raise InputError(
            f"expected classes 0 … {count - 1}; got {int(ratings.min())} … {int(ratings.max())}. Group the codes first."
        )
    if prior is not None and (len(prior) != count or min(prior) < 0 or sum(prior) <= 0):
        raise InputError(
            f"expected a prior of {count} numbers >= 0; got {tuple(prior)}. Leave it out for shares."
        )
    if mask is not None and (mask.shape != ratings.shape[1:] or not np.any(mask)):
        raise InputError(
            f"expected a mask of shape {ratings.shape[1:]} with a voxel in it; got {mask.shape}. Leave it out for all."
        )
    if not 1 / count < start < 1:
        raise InputError(f"expected a start in (1/{count}, 1); got {start}. 0.99 is usual.")
