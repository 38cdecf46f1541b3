r"""Intervals of scores over stimuli: what another set of pictures would have said.

A score of single pictures (PixCorr, SSIM) is bootstrapped as any mean of cases (`radiata_imaging.case_statistics`). A score
of *pairs*, such as two-way identification, depends on each picture twice, as a target and as a distractor; both are
drawn anew together. With weights w of a draw and wins $A_{ij} \in \{0, 1\}$ of decoded j against distractor i,

$$ \hat\theta(w) = \frac{\sum_{i \ne j} w_i w_j A_{ij}}{\sum_{i \ne j} w_i w_j} $$

so that a picture drawn twice is never its own distractor. Percentiles are Hesterberg's expanded ones, as there.

References:
    T. Hesterberg (2015). What teachers should know about the bootstrap. The American Statistician 69(4), section 5.
"""

import numpy as np
from scipy.special import ndtr, stdtrit

from radiata_core.errors import InputError
from radiata_imaging.case_statistics import MeanInterval, mean_interval, paired_difference

__all__ = ["MeanInterval", "mean_interval", "pair_interval", "paired_difference"]


def pair_interval(
    similarity: np.ndarray, rng: np.random.Generator, level: float = 0.95, draws: int = 2000
) -> MeanInterval:
    """Two-way identification with its interval over stimuli.

    Args:
        similarity: (n, n), true pictures in rows, decoded in columns; see `identification`.
        rng: Of the draws.
        level: Of the interval, in (0, 1).
        draws: Bootstrap samples.

    Raises:
        InputError: not square, fewer than two stimuli, a level outside (0, 1).
    """
    r = np.asarray(similarity, np.float64)
    if r.ndim != 2 or r.shape[0] != r.shape[1] or len(r) < 2:
        raise InputError(f"expected similarities of n by n pictures, n of 2 or more; got {r.shape}.")
    if not 0 < level < 1:
        raise InputError(f"expected a level in (0, 1); got {level}. 0.95 is usual.")
    n = len(r)
    counted = np.isfinite(r) & np.isfinite(np.diagonal(r)) & ~np.eye(n, dtype=bool)
    with np.errstate(invalid="ignore"):
        won = (counted & (r < np.diagonal(r))).astype(np.float32)
    pairs = counted.astype(np.float32)
    decoded = int(np.isfinite(np.diagonal(r)).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        each = won.sum(0, dtype=np.float64) / pairs.sum(0, dtype=np.float64)
    mean = float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
    if decoded < 3:
        return MeanInterval(mean, float("nan"), float("nan"), decoded, decoded, n - decoded)
    weights = rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float32)
    values = ((weights @ won) * weights).sum(1) / np.maximum(((weights @ pairs) * weights).sum(1), 1e-12)
    share = float(ndtr(np.sqrt(decoded / (decoded - 1)) * stdtrit(decoded - 1, (1 - level) / 2)))
    low, high = np.quantile(values, [share, 1 - share])
    return MeanInterval(mean, float(low), float(high), decoded, decoded, n - decoded)
