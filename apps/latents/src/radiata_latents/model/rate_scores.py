r"""How near rates come to a known truth: R², squared correlation, R² of their logarithms.

$$R^2_i = 1 - \frac{\sum_t (\lambda_{ti} - r_{ti})^2}{\sum_t (\lambda_{ti} - \bar\lambda_i)^2}, \qquad
  R^2 = \frac1N \sum_i R^2_i$$

The truth comes first, here and in scikit-learn: with the arguments swapped the denominator is the prediction's variance, and
a model that shrinks is punished while one that overshoots is praised. Rates are heavy-tailed (bursts decide R²), therefore
the other two: correlation ignores scale, logarithms weigh quiet bins as much as bursts.
"""

import numpy as np
from sklearn.metrics import r2_score

from radiata_core.errors import InputError
from radiata_latents.model.bits import LEAST

__all__ = ["log_rate_r2", "rate_r2", "squared_correlation"]


def rate_r2(truth: np.ndarray, rates: np.ndarray) -> float:
    """R² of rates over all trials and bins, averaged over neurons with equal weight; 1 is perfect, no lower bound.

    Args:
        truth: (trial, time, neuron) true rates, or E[count], expected counts a bin.
        rates: Predictions, of the same shape and unit.

    Raises:
        InputError: shapes differ, or something is not finite.
    """
    truth, rates = _flat(truth, rates)
    return float(r2_score(truth, rates, multioutput="uniform_average"))


def log_rate_r2(truth: np.ndarray, rates: np.ndarray, least: float = 1e-4) -> float:
    """R² of logarithms, averaged over neurons.

    Args:
        truth: (trial, time, neuron), expected counts a bin.
        rates: Predictions, of the same shape.
        least: Smaller values count as this one, > 0.

    Raises:
        InputError: shapes differ, something is not finite, or `least` is too small.
    """
    if not least >= LEAST:
        raise InputError(f"expected a smallest rate of {LEAST:g} or more; got {least}.")
    truth, rates = _flat(truth, rates)
    return float(r2_score(np.log(np.maximum(truth, least)), np.log(np.maximum(rates, least))))


def squared_correlation(truth: np.ndarray, rates: np.ndarray, pooled: bool = False) -> float:
    """Squared Pearson correlation, averaged over neurons; a neuron with a constant prediction has 0.

    Args:
        truth: (trial, time, neuron).
        rates: Predictions, of the same shape.
        pooled: One correlation over all neurons together, which the differences of their means carry.

    Raises:
        InputError: shapes differ, or something is not finite.
    """
    truth, rates = _flat(truth, rates)
    if pooled:
        truth, rates = truth.reshape(-1, 1), rates.reshape(-1, 1)
    truth, rates = truth - truth.mean(0), rates - rates.mean(0)
    scale = (truth**2).sum(0) * (rates**2).sum(0)
    squares = (truth * rates).sum(0) ** 2
    return float(np.divide(squares, scale, out=np.zeros_like(squares), where=scale > 0).mean())


def _flat(truth: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, rates = np.asarray(truth, float), np.asarray(rates, float)
    if truth.shape != rates.shape or truth.ndim < 2:
        raise InputError(
            f"expected a prediction a rate, (trial, time, neuron); got {truth.shape} and {rates.shape}."
        )
    if not (np.isfinite(truth).all() and np.isfinite(rates).all()):
        raise InputError("expected finite rates; got NaN or infinity. Leave out bins that were not observed.")
    return truth.reshape(-1, truth.shape[-1]), rates.reshape(-1, rates.shape[-1])
