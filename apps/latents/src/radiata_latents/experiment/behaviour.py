r"""Behaviour of a population read from features of each bin: fitted on training trials, applied to others.

$$\hat b_t = W f_t + c, \qquad \min_{W, c} \sum_t \lvert b_t - \hat b_t\rvert^2 + \alpha \lvert W\rvert^2$$

with alpha cross-validated within the training trials (`model.behaviour_decoding`). Only bins of the observed window that
were observed and have a behaviour in every channel are fitted and scored.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from radiata_latents.model.behaviour_decoding import fit_behaviour_decoder

__all__ = ["DecodedBehaviour", "decode_behaviour", "known_behaviour"]

FEWEST = 10
"""Bins with a behaviour that a decoder needs, in training and in the scored trials."""


@dataclass(frozen=True, eq=False)
class DecodedBehaviour:
    """What a decoder says of some trials.

    Attributes:
        truth: (trial, time, channel).
        found: The same, NaN where `known` is False.
        known: (trial, time), which bins count.
        penalty: alpha.
        training_r2: Of cross-validation within the training trials; what a choice may rest on.
    """

    truth: np.ndarray
    found: np.ndarray
    known: np.ndarray
    penalty: float
    training_r2: float


def known_behaviour(population: xr.Dataset) -> np.ndarray:
    """(trial, time) bins of the observed window that were observed and have a behaviour in every channel."""
    window = ~population["forward"].values.astype(bool)
    measured = np.isfinite(population["behaviour"].values).all(2)
    return population["observed"].values.astype(bool) & window & measured


def decode_behaviour(
    population: xr.Dataset, features: np.ndarray, trials: np.ndarray
) -> DecodedBehaviour | None:
    """A decoder fitted on training trials, applied to others.

    Args:
        population: With behaviour.
        features: (trial, time, feature) of all trials.
        trials: Numbers of those decoded.

    Returns:
        None where too few bins have a behaviour, or features are missing in one of them.
    """
    train = np.flatnonzero(population["split"].values == "train")
    known, truth = known_behaviour(population), population["behaviour"].values.astype(float)
    fitted, wanted = known[train], known[trials]
    rows, targets = features[train][fitted], features[trials][wanted]
    if min(len(rows), len(targets)) < FEWEST or not (np.isfinite(rows).all() and np.isfinite(targets).all()):
        return None
    # one long trial: the decoder looks at one bin at a time
    decoder = fit_behaviour_decoder(rows[None], truth[train][fitted][None])
    found = np.full(truth[trials].shape, np.nan)
    found[wanted] = decoder.predict(targets).reshape(len(targets), -1)
    return DecodedBehaviour(
        truth[trials], found, wanted, float(decoder.best_params_["alpha"]), float(decoder.best_score_)
    )
