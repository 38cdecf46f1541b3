r"""Rates of neurons from features by a Poisson regression each, which all simple baselines read out with.

$$\log r_i = w_i \cdot \frac{f - \mu}{s} + b_i, \qquad
  \min_{w, b}\ \frac1{TK}\sum (r - n\log r) + \tfrac{\alpha}{2}\lvert w\rvert^2$$

Features are standardised over the bins fitted on, so one penalty suits all. A prediction is limited to the largest count its
neuron was fitted on (at least 1): an exponential extrapolates badly, and a few trials teach it nothing about bursts. A
neuron silent while fitting gets the rate of half a spike in all of it, since log 0 costs everything later.

References:
    McCullagh & Nelder, "Generalized Linear Models", 1989, chapter 6.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from radiata_core.errors import InputError

__all__ = ["PoissonReadout", "fit_poisson_readout"]

TOLERANCE = 1e-12
"""A fit ends when Newton's step promises to lower the mean objective by less, nats a bin."""


@dataclass(frozen=True)
class PoissonReadout:
    """A fitted regression.

    Attributes:
        weights: (feature, neuron), in units of the features themselves.
        bias: (neuron,), log of expected counts a bin where features are 0.
        most: (neuron,), largest rate predicted.
    """

    weights: np.ndarray
    bias: np.ndarray
    most: np.ndarray

    def rates(self, features: np.ndarray) -> np.ndarray:
        """Expected counts a bin, (trial, time, neuron), of features (trial, time, feature).

        Raises:
            InputError: another number of features than it was fitted on.
        """
        features = np.asarray(features, float)
        if features.shape[-1] != len(self.weights):
            raise InputError(
                f"expected {len(self.weights)} features; got {features.shape[-1]}. Use those it was fitted on."
            )
        return np.exp(np.minimum(features @ self.weights + self.bias, self._log_most))

    @cached_property
    def _log_most(self) -> np.ndarray:
        return np.log(self.most)


def fit_poisson_readout(features: np.ndarray, counts: np.ndarray, penalty: float = 1e-4) -> PoissonReadout:
    """One penalised Poisson regression a neuron (the equation of this module).

    Args:
        features: (trial, time, feature), any unit, finite.
        counts: (trial, time, neuron), spikes a bin.
        penalty: Alpha >= 0, a bin and on standardised features.

    Raises:
        InputError: trials or bins differ, something is not finite, or the penalty is negative.

    References:
        McCullagh & Nelder, 1989, chapter 6.
    """
    features, counts = np.asarray(features, float), np.asarray(counts, float)
    if features.ndim != 3 or counts.ndim != 3 or features.shape[:2] != counts.shape[:2]:
        raise InputError(
            f"expected features and counts of equal (trial, time, ·); got {features.shape} and {counts.shape}. Align them."
        )
    if not (np.isfinite(features).all() and np.isfinite(counts).all() and penalty >= 0):
        raise InputError(
            f"expected finite features and counts and a penalty >= 0; got NaN or infinity, or {penalty}. Drop those bins."
        )
    rows, target = features.reshape(-1, features.shape[-1]), counts.reshape(-1, counts.shape[-1])
    mean, spread = rows.mean(0), rows.std(0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    rows = (rows - mean) / spread
    weights, bias = (
        np.zeros((rows.shape[1], target.shape[1])),
        np.full(target.shape[1], np.log(0.5 / len(rows))),
    )
    design = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    for i in np.flatnonzero(target.sum(0)):
        solved = _newton(design, target[:, i], penalty)
        weights[:, i], bias[i] = solved[:-1], solved[-1]
    weights = weights / spread[:, None]
    return PoissonReadout(weights, bias - mean @ weights, np.maximum(target.max(0), 1.0))


def _newton(design: np.ndarray, counts: np.ndarray, penalty: float, steps: int = 100) -> np.ndarray:
    """The minimiser, last entry the bias, by Newton's method; a step is halved until the convex objective falls.

    scikit-learn's PoissonRegressor finds the same (a test compares them), but its Newton solver overflows on neurons that
    fire a few times in an hour and starts anew with another.
    """
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 0.0

    def objective(w: np.ndarray) -> float:
        linear = design @ w
        with np.errstate(over="ignore"):  # infinite: the step was too long
            return float(np.mean(np.exp(linear) - counts * linear) + 0.5 * (ridge * w**2).sum())

    found = np.zeros(design.shape[1])
    found[-1] = np.log(counts.mean())
    best = objective(found)
    for _ in range(steps):
        rates = np.exp(design @ found)
        slope = design.T @ (rates - counts) / len(counts) + ridge * found
        curvature = (design.T * rates) @ design / len(counts) + np.diag(ridge)
        move = np.linalg.lstsq(curvature, slope, rcond=1e-12)[0]  # features may depend on each other
        size, gain = 1.0, float(slope @ move)
        while gain > TOLERANCE and not objective(found - size * move) <= best - 1e-4 * size * gain:
            size /= 2
            if size < 1e-8:
                return found
        if gain <= TOLERANCE:
            break
        found = found - size * move
        best = objective(found)
    return found
