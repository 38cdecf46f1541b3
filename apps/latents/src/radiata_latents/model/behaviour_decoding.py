"""What a linear decoder reads from rates: ridge regression with its penalty cross-validated, scored on trials not fitted.

The decoder sees one bin at a time and all neurons (held-in and held-out rates, expected counts a bin); that behaviour lags
behind is settled when trials are cut. R² is averaged over channels with equal weight, then over groups of trials that
have a decoder each (active and passive reaches of area2_bump). Bins without behaviour are left out. The penalties are
the benchmark's: 10^-4 ... 10^0 in nine steps, on rates as they are, five consecutive folds.

References:
    Pei et al., "Neural Latents Benchmark '21", 2021, https://arxiv.org/abs/2109.04463, section 3.3 (vel R²).
    Hoerl & Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970.
"""

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from radiata_core.errors import InputError

__all__ = ["PENALTIES", "behaviour_r2", "fit_behaviour_decoder"]

PENALTIES = np.logspace(-4, 0, 9)
"""Tried for the ridge regression; the benchmark's."""


def fit_behaviour_decoder(rates: np.ndarray, behaviour: np.ndarray) -> GridSearchCV:
    """A fitted decoder with `predict` and `score` (scikit-learn's).

    Args:
        rates: (trial, time, neuron), expected counts a bin, finite where there is behaviour.
        behaviour: (trial, time, channel); bins whose first channel is NaN are left out.

    Raises:
        InputError: they do not fit together, or too few bins have a behaviour.
    """
    return GridSearchCV(Ridge(), {"alpha": PENALTIES}).fit(*_rows(rates, behaviour))


def behaviour_r2(
    train_rates: np.ndarray,
    train_behaviour: np.ndarray,
    rates: np.ndarray,
    behaviour: np.ndarray,
    train_groups: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> float:
    """R² of behaviour decoded in trials that the decoder was not fitted on ("vel R²" where it is velocity).

    Args:
        train_rates: (trial, time, neuron) the decoder is fitted on.
        train_behaviour: (trial, time, channel).
        rates: Those scored, with the same neurons.
        behaviour: (trial, time, channel).
        train_groups: (trial, group), True where a trial belongs to a group with its own decoder; by default one of all.
        groups: The same for the scored trials.

    Raises:
        InputError: arrays that do not fit together, groups for one side only, or NaN rates where there is behaviour.

    References:
        Pei et al., 2021, section 3.3.
    """
    if (train_groups is None) != (groups is None):
        raise InputError("expected groups of both, fitted and scored trials, or of none; got one of the two.")
    of_train = (
        np.ones((len(train_rates), 1), bool) if train_groups is None else np.asarray(train_groups, bool)
    )
    of_eval = np.ones((len(rates), 1), bool) if groups is None else np.asarray(groups, bool)
    if of_train.shape[1] != of_eval.shape[1] or (len(of_train), len(of_eval)) != (
        len(train_rates),
        len(rates),
    ):
        raise InputError(
            f"expected groups of (trial, group); got {of_train.shape} for {len(train_rates)} and {of_eval.shape} for "
            f"{len(rates)} trials."
        )
    found = []
    for fitted, scored in zip(of_train.T, of_eval.T, strict=True):
        decoder = fit_behaviour_decoder(train_rates[fitted], train_behaviour[fitted])
        found.append(decoder.score(*_rows(rates[scored], behaviour[scored])))
    return float(np.mean(found))


def _rows(rates: np.ndarray, behaviour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bins that have a behaviour, (bin, neuron) and (bin, channel)."""
    rates, behaviour = np.asarray(rates, float), np.asarray(behaviour, float)
    if rates.ndim != 3 or behaviour.ndim != 3 or rates.shape[:2] != behaviour.shape[:2]:
        raise InputError(
            f"expected rates and behaviour of equal (trial, time, ·); got {rates.shape} and {behaviour.shape}. Align them."
        )
    rows, target = rates.reshape(-1, rates.shape[2]), behaviour.reshape(-1, behaviour.shape[2])
    measured = ~np.isnan(target[:, 0])
    rows, target = rows[measured], target[measured]
    if len(rows) < 10 or not (np.isfinite(rows).all() and np.isfinite(target).all()):
        raise InputError(
            f"expected ten bins or more with a behaviour, and finite rates there; got {len(rows)}, or NaN. Check them."
        )
    return rows, target
