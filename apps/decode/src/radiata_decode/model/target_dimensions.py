r"""How many dimensions of the targets are really predicted: the answer to "output dimension collapse".

A decoder of hundreds of latents may be right in a handful of directions and guess the rest; its pictures then look rich
because the generator is. For each target dimension (a principal component, a latent, a direction of an embedding) this
compares predictions with truth over held-out stimuli:

- r of each dimension, its p value from permuted pairings, the number above chance with the false discovery rate held;
- the effective dimension of predictions beside that of the truth. With eigenvalues $\lambda$ of the covariance over
  stimuli it is the participation ratio $(\sum\lambda)^2 / \sum\lambda^2$: 1 if all vary along one line, d for equal
  variance along d.

Correlated dimensions (raw latents, embeddings) are best turned to the principal axes of the training targets first.

References:
    K. Shirakawa, Y. Nagano, M. Tanaka, S. Aoki, Y. Muraki, K. Majima, Y. Kamitani (2024). Spurious reconstruction from brain
    activity. https://arxiv.org/abs/2405.10078 (output dimension collapse).
    Y. Benjamini, Y. Hochberg (1995). Controlling the false discovery rate. J. R. Stat. Soc. B 57, 289–300.
"""

from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = ["TargetDimensions", "participation_ratio", "target_dimensions"]


@dataclass(frozen=True)
class TargetDimensions:
    """Recoverability of each target dimension.

    Attributes:
        r: Correlation of predictions with truth over stimuli, (d,); 0 where either is constant.
        r2: 1 - squared error / variance, (d,), ≤ 1; 0 for a constant target.
        p: One-sided, from permutations, (d,), ≥ 1 / (1 + permutations).
        above_chance: Which dimensions have r above chance with the false discovery rate at `rate`, (d,) bool.
        count: How many.
        effective: Participation ratio of the predictions, 1 to d; 0 if they never change.
        effective_truth: Of the truth.
        variance_explained: Share of the truth's variance, over all dimensions, that predictions explain; ≤ 1.
        rate: The false discovery rate.
    """

    r: np.ndarray
    r2: np.ndarray
    p: np.ndarray
    above_chance: np.ndarray
    count: int
    effective: float
    effective_truth: float
    variance_explained: float
    rate: float


def target_dimensions(
    predicted: np.ndarray,
    truth: np.ndarray,
    rng: np.random.Generator,
    *,
    axes: np.ndarray | None = None,
    permutations: int | None = None,
    rate: float = 0.05,
) -> TargetDimensions:
    """Compare held-out predictions with truth, dimension by dimension.

    Args:
        predicted: (m, t), of stimuli that were not trained on (leave-one-out predictions have a null below r = 0).
        truth: (m, t).
        rng: Of the permutations.
        axes: Directions to look along, (d, t), e.g. principal axes of the training targets; None: the targets themselves.
        permutations: ≥ 1; the same for all dimensions. Below d / rate a single predicted dimension of d cannot be found;
            None: twice that, at least 1000 and at most 20 000.
        rate: False discovery rate, in (0, 1).

    Raises:
        InputError: fewer than three stimuli, shapes that differ, values that are not finite.
    """
    from scipy.stats import false_discovery_control

    a, b = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if a.shape != b.shape or a.ndim != 2 or len(a) < 3:
        raise InputError(
            f"expected predictions and truth of one shape (stimulus, target), three stimuli or more; got {a.shape} and "
            f"{b.shape}. Decode more stimuli."
        )
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        raise InputError("expected finite predictions and truth; got NaN or infinity.")
    if axes is not None:
        a, b = a @ np.asarray(axes, np.float64).T, b @ np.asarray(axes, np.float64).T
    draws = permutations or min(20_000, max(1000, int(2 * a.shape[1] / rate)))
    error, spread = ((a - b) ** 2).sum(0), ((b - b.mean(0)) ** 2).sum(0)
    r2 = np.where(spread > 0, 1 - error / np.where(spread > 0, spread, 1.0), 0.0)
    unit, other = _unit(a), _unit(b)
    r = (unit * other).sum(0)
    beaten = np.ones(len(r))
    for _ in range(draws):
        # Rounding must not decide between pairings that are equally good.
        beaten += (unit[rng.permutation(len(unit))] * other).sum(0) >= r - 1e-12
    p = beaten / (draws + 1)
    above = false_discovery_control(p) <= rate
    share = 1 - float(error.sum() / spread.sum()) if spread.sum() > 0 else 0.0
    ratios = participation_ratio(a), participation_ratio(b)
    return TargetDimensions(r, r2, p, above, int(above.sum()), *ratios, share, rate)


def participation_ratio(values: np.ndarray) -> float:
    """(Σλ)² / Σλ² of the covariance of (m, d) over rows: the effective number of dimensions; 0 if nothing varies."""
    centred = np.asarray(values, np.float64) - np.mean(values, 0)
    gram = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
    total = np.trace(gram)
    return float(total**2 / (gram**2).sum()) if total > 0 else 0.0


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(0)
    length = np.linalg.norm(centred, axis=0)
    # What is left of a dimension that predictions do not have, after a rotation, is rounding: it has no direction.
    constant = length <= 1e-13 * len(values) ** 0.5 * np.abs(values).max(initial=0.0)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, length))
