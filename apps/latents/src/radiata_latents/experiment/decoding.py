"""Decoders of behaviour side by side: rates, log-rates and latents of models, and smoothed spikes.

Features of each bin are read by the ridge regression of `behaviour`: the rates of all neurons, their logarithms, or the
latents. Beside them stand the held-in spikes themselves under a Gaussian kernel, whose width is chosen by cross-validation
within the training trials. R² is averaged over channels with equal weight, with intervals over trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_latents.experiment.behaviour import DecodedBehaviour, decode_behaviour
from radiata_latents.experiment.predictions import Prediction
from radiata_latents.experiment.score_table import scored_trials
from radiata_latents.model.bits import LEAST
from radiata_latents.model.intervals import Interval
from radiata_latents.model.rate_scores import rate_r2
from radiata_latents.model.smoothing import WIDTHS_S, smooth
from radiata_latents.model.trial_sums import r2_interval

__all__ = ["Decoding", "decode_all", "predictions_dataset"]


@dataclass(frozen=True, eq=False)
class Decoding:
    """What one decoder says.

    Attributes:
        name: Of the model, or of the baseline.
        features: What it reads.
        penalty: alpha.
        r2: Over channels, with its interval over trials.
        channels: Channel → R².
        found: (trial, time, channel) of the scored trials, NaN where nothing is known.
    """

    name: str
    features: str
    penalty: float
    r2: Interval
    channels: dict[str, float]
    found: np.ndarray


def decode_all(
    population: xr.Dataset, predictions: Sequence[Prediction], split: str, seed: int = 0
) -> list[Decoding]:
    """Smoothed spikes, then the features of each prediction.

    Args:
        population: With behaviour.
        predictions: Of its training trials and of the scored ones.
        split: Which are scored.
        seed: Of the bootstrap; the same draws of trials for all.

    Raises:
        InputError: too few bins with a behaviour, or a prediction without the trials.
    """
    made = []
    todo = [(prediction, name) for prediction in predictions for name in _features(prediction)]
    with Progress(1 + len(todo), "decode", unit="decoder") as bar:
        made.append(_smoothed(population, split, seed))
        bar.update()
        for prediction, name in todo:
            one = decode_behaviour(population, _features(prediction)[name], scored_trials(population, split))
            made.append(_decoding(population, one, split, seed, prediction.name, name))
            bar.update()
    return made


def _features(prediction: Prediction) -> Mapping[str, np.ndarray]:
    found = {
        "rates": prediction.rates,
        "log-rates": np.log(np.maximum(prediction.rates, LEAST)),
    }
    latents = prediction.variable("latents")
    return found if latents is None else found | {"latents": latents}


def _smoothed(population: xr.Dataset, split: str, seed: int) -> Decoding:
    bin_s = float(population.attrs["bin_s"])
    window, trials = ~population["forward"].values, scored_trials(population, split)
    counts = population["counts"].values[..., ~population["heldout"].values].astype(float)
    found: dict[float, DecodedBehaviour | None] = {}
    for width in [w for w in WIDTHS_S if w >= bin_s] or WIDTHS_S:
        features = np.full(counts.shape, np.nan)
        features[:, window] = smooth(counts[:, window], width / bin_s)
        found[width] = decode_behaviour(population, features, trials)
    best = max(found, key=lambda width: -np.inf if (made := found[width]) is None else made.training_r2)
    return _decoding(population, found[best], split, seed, "smoothed spikes", f"sd {1000 * best:g} ms")


def _decoding(
    population: xr.Dataset, made: DecodedBehaviour | None, split: str, seed: int, name: str, features: str
) -> Decoding:
    if made is None:
        raise InputError(
            f"expected a behaviour in ten bins or more of train and of {split} trials, and {features} of {name} there; got "
            "fewer. Infer all trials, or prepare with more behaviour."
        )
    each = {
        str(channel): rate_r2(made.truth[made.known][:, [i]], made.found[made.known][:, [i]])
        for i, channel in enumerate(population["channel"].values)
    }
    r2 = r2_interval(made.truth, made.found, made.known, np.random.default_rng(seed))
    return Decoding(name, features, made.penalty, r2, each, made.found)


def predictions_dataset(population: xr.Dataset, found: Sequence[Decoding], split: str) -> xr.Dataset:
    """`behaviour` (trial, time, channel) of the scored trials and `decoded` (decoder, trial, time, channel)."""
    trials = scored_trials(population, split)
    few = population.isel(trial=trials)
    return xr.Dataset(
        {
            "behaviour": (("trial", "time", "channel"), few["behaviour"].values),
            "decoded": (
                ("decoder", "trial", "time", "channel"),
                np.stack([one.found for one in found]).astype(np.float32),
            ),
        },
        {
            "decoder": [f"{one.name}: {one.features}" for one in found],
            "trial": trials,
            "time": few["time"].values,
            "channel": few["channel"].values,
            "condition": ("trial", few["condition"].values),
        },
        {"format": "radiata-decoding/1", "split": split},
    )
