r"""Trials of a model's prior: a path of the latents, rates, and spikes

$$n_{ti} \sim \mathrm{Poisson}(r_{ti}), \qquad \log r = \text{read-out of a path of the prior},$$

as a population that any command takes, its truth known. Seed s draws path and spikes of one trial, whatever stands
beside it in a batch.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_core.seeds import generators_of, rng_of
from radiata_latents.data.population import population
from radiata_latents.experiment.inference import latents_of
from radiata_latents.experiment.predictions import LoadedModel
from radiata_latents.model.flow_dynamics import Dynamics

__all__ = ["simulated"]

_PATH, _SPIKES = 21, 22
"""Purposes of a trial's generators."""


def simulated(
    model: LoadedModel, trials: int, bins: int | None = None, seed: int = 0, batch_size: int = 64
) -> xr.Dataset:
    """Counts, rates (= E[count]) and latents of trials seed, seed + 1, …, in the network's order of neurons.

    Args:
        model: One network that has a prior.
        trials: How many, >= 2.
        bins: How long; by default what the network was trained on, with its forward window.
        seed: Of the first trial.
        batch_size: Trials at once.

    Raises:
        InputError: an ensemble, a network without a prior, or a neuron that never fires.
    """
    if len(model.networks) > 1:
        raise InputError(
            f"expected one model to draw from; got an ensemble of {len(model.networks)}. Name a member's folder."
        )
    network: Any = model.networks[0]
    if not hasattr(network, "sample") or network.options.get("dynamics") == Dynamics.NONE:
        raise InputError(
            f"expected a model with a prior to draw from (radiata, lfads); got {model.name}, of kind {model.kind}, which "
            "only smooths or filters. Use another model."
        )
    length = network.bins + network.forward_bins if bins is None else bins
    rates, latents = [], []
    with torch.inference_mode(), Progress(trials, "sample", unit="trial") as bar:
        for start in range(0, trials, batch_size):
            seeds = range(seed + start, seed + min(start + batch_size, trials))
            path = network.sample(generators_of(seeds, _PATH), length)
            rates.append(network.log_rates(path).exp().double().cpu().numpy())
            found = latents_of(path)
            if found is not None:
                latents.append(found.float().cpu().numpy())
            bar.update(len(seeds))
    return _population(model, np.concatenate(rates), np.concatenate(latents) if latents else None, seed)


def _population(model: LoadedModel, rates: np.ndarray, latents: np.ndarray | None, seed: int) -> xr.Dataset:
    counts = np.stack([rng_of(seed + k, _SPIKES).poisson(row) for k, row in enumerate(rates)])
    known = model.metadata
    silent = [str(name) for name, n in zip(known["neurons"], counts.sum((0, 1)), strict=True) if n == 0]
    if silent:
        raise InputError(
            f"expected every neuron to fire in the sample; got none of {len(silent)} ({', '.join(silent[:5])}). Draw more "
            "--trials or --bins."
        )
    ahead = int(known["forward_bins"])
    made = population(
        counts,
        float(known["bin_s"]),
        start_s=float(known.get("start_s", 0.0)),
        forward_bins=ahead if rates.shape[1] == int(known["bins"]) + ahead else 0,
        neurons=known["neurons"],
        heldout=np.arange(rates.shape[2]) >= int(known["heldin"]),
        rates=rates,
        expected=rates,
        source=f"synthetic: prior of {model.name}",
        synthetic=1,
        model_sha256=model.sha256,
    )
    made = made.assign_coords(seed=("trial", np.arange(seed, seed + len(rates))))
    if latents is not None:
        made["latents"] = (("trial", "time", "latent"), latents)
    return made
