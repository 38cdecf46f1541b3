r"""What an evaluation says beside scores: whether latents carry anything, whether counts are Poisson, how few trials do.

collapses      KL of the scored trials, latent by latent (`model.collapse`)
calibrations   dispersion and probability integral transform (`model.calibration`) of counts that nobody was shown:
               held-out neurons in the observed window, or else the forward window; neither: no figure, since counts
               that a model was fed look less random than they are
few_shots      co-smoothing of a read-out from latents fitted on k training trials (`model.few_shot`), k = 4, 8, 16, ...;
               of a model without latents, from the log-rates of its held-in neurons
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radiata_latents.experiment.predictions import Prediction
from radiata_latents.experiment.score_table import Scored, withheld
from radiata_latents.model.bits import LEAST
from radiata_latents.model.calibration import calibration
from radiata_latents.model.collapse import collapse_of
from radiata_latents.model.few_shot import few_shot_curve

__all__ = ["calibrations", "collapses", "few_shots"]

FIRST_SHOTS = 4
MOST_SHOTS = 128
DRAWS = 5
"""Choices of k trials."""


def collapses(predictions: Sequence[Prediction], scored: Scored) -> dict[str, dict[str, Any]]:
    """Name → figures of `collapse_of`, of models that have latents."""
    found = {}
    for one in predictions:
        kl = one.variable("kl")
        if kl is None:
            continue
        kl = kl[scored.trials]
        kl = kl[np.isfinite(kl).all(1)]
        if len(kl):
            c = collapse_of(kl)
            found[one.name] = {
                "total": c.total,
                "active": c.active,
                "effective": c.effective,
                "kl": c.kl.tolist(),
                "share": c.share.tolist(),
            }
    return found


def calibrations(
    rates: Mapping[str, np.ndarray], scored: Scored, seed: int, draws: int = 200
) -> dict[str, dict[str, Any]]:
    """Name → figures of `calibration`, on counts that no model was shown; the same draws for all.

    Args:
        rates: Name → (trial, time, neuron) of all trials.
        scored: Which trials and counts.
        seed: Of randomised transforms and the bootstrap.
        draws: Resamples of trials.
    """
    hidden = [
        ("held-out neurons, observed window", scored.window, scored.heldout),
        ("all neurons, forward window", ~scored.window, np.ones_like(scored.heldout)),
    ]
    found = {}
    for name, values in rates.items():
        for what, bins, neurons in hidden:
            r = values[scored.trials][:, bins][..., neurons]
            n = scored.counts[:, bins][..., neurons]
            there = np.isfinite(n).any((1, 2))
            if there.sum() < 2 or not np.isfinite(r[there]).all() or not np.nansum(n) > 0:
                continue
            c = calibration(r[there], n[there], np.random.default_rng(seed), draws)
            found[name] = {
                "of": what,
                "counts": c.counts,
                "dispersion": c.dispersion.value,
                "dispersion_low": c.dispersion.low,
                "dispersion_high": c.dispersion.high,
                "z": c.z,
                "pit": c.pit.tolist(),
                "p_value": c.p_value,
                "distance": c.distance,
            }
            break
    return found


def few_shots(predictions: Sequence[Prediction], scored: Scored, seed: int) -> dict[str, dict[str, Any]]:
    """Name → shots, mean bits, their standard error, and what was read; empty where no neuron is held out."""
    if "co_bps" in scored.why:
        return {}
    cells, window = scored.population, scored.window
    whole = cells["observed"].values[:, window].all(1) & ~withheld(cells)
    train = np.flatnonzero((cells["split"].values == "train") & whole)
    trials = scored.trials[whole[scored.trials]]
    counts = cells["counts"].values[:, window][..., scored.heldout].astype(float)
    shots = [k for k in (FIRST_SHOTS * 2**i for i in range(12)) if k <= min(len(train), MOST_SHOTS)]
    found = {}
    for one in predictions:
        features, what = one.variable("latents"), "latents"
        if features is None:
            features = np.log(np.maximum(one.rates[..., ~scored.heldout], LEAST))
            what = "log-rates of held-in neurons"
        features = features[:, window]
        if not shots or not len(trials) or not np.isfinite(features[np.concatenate([train, trials])]).all():
            continue
        curve = few_shot_curve(
            features[train], counts[train], features[trials], counts[trials], shots,
            np.random.default_rng(seed), draws=DRAWS,
        )  # fmt: skip
        found[one.name] = {
            "shots": curve.shots.tolist(),
            "bits": curve.mean.tolist(),
            "error": curve.error.tolist(),
            "draws": curve.bits.tolist(),
            "from": what,
        }
    return found
