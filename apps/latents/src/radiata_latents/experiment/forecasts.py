r"""Forecasts: what a model's dynamics say after the last observed bin T, for any horizon H.

$$(q, v)_{1 \dots T} \sim \text{posterior}, \qquad (q, v)_{T+1 \dots T+H} \sim \text{dynamics from } (q, v)_T
  \text{ with the prior's noise}$$

The mean over draws of exp(log rates) is the forecast: $E[n \mid \text{spikes so far}]$, which relaxes to the mean rate as
noise forgets the state; quantiles over draws say how far it has. Where a read-out attends over time it reads the whole
path. With H the model's forward window and no noise it is the forward part of the model's own rates (a test).

Two forecasts stand beside it: each neuron's mean count in the training trials' forward window, and *persistence*, the
model's own rate in the last observed bin held on. Dynamics that beat neither are none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_core.seeds import generators_of, noise_of
from radiata_latents.data.population import SPLITS
from radiata_latents.data.rates_file import FORMAT, check_rates, content_sha256
from radiata_latents.data.trials import TrialCounts, heldin_first
from radiata_latents.experiment.predictions import LoadedModel
from radiata_latents.experiment.score_table import withheld
from radiata_latents.model.flow_dynamics import Dynamics
from radiata_latents.model.latent_path import LatentPath
from radiata_latents.model.trial_sums import bits_interval

__all__ = ["forecast", "forecast_scores"]

_DRAWS = 31
"""Purpose of a trial's generators."""
QUANTILES = (0.05, 0.95)


def forecast(
    model: LoadedModel,
    population: xr.Dataset,
    horizon: int,
    draws: int = 100,
    seed: int = 0,
    batch_size: int = 64,
    *,
    splits: Sequence[str] = SPLITS,
    device: str = "cpu",
    progress: bool = True,
) -> xr.Dataset:
    """Rates of the bins after the observed window, with `rates_low`, `rates_high`, and `persistence` (trial, neuron).

    Args:
        model: One network with dynamics.
        population: Whose spikes it is given; it fits the model.
        horizon: H, >= 1.
        draws: 0: the posterior's mean, without noise, and no quantiles.
        seed: Of the draws; trial i draws from (i, seed).
        batch_size: Trials at once.
        splits: Which trials.
        device: Where to compute.
        progress: Count batches on standard error.

    Raises:
        InputError: an ensemble, or a network without dynamics that can be run on.
    """
    network = _dynamic(model).to(device)
    trials = TrialCounts(population, splits)
    seen = trials.counts[:, : network.bins, : network.heldin]
    found: dict[str, list[np.ndarray]] = {}
    starts = range(0, len(trials), batch_size)
    with torch.inference_mode(), Progress(len(starts), "forecast", unit="batch") as bar:
        for start in starts:
            rows = slice(start, start + batch_size)
            generators = generators_of(trials.trials[rows].tolist(), seed, _DRAWS)
            for name, value in _ahead(network, seen[rows].to(device), horizon, draws, generators).items():
                found.setdefault(name, []).append(value.float().cpu().numpy())
            if progress:
                bar.update()
    back = np.argsort(heldin_first(population))
    whole = {name: np.concatenate(parts)[..., back] for name, parts in found.items()}
    return _dataset(model, population, trials.trials, whole, draws, seed)


def _dynamic(model: LoadedModel) -> Any:
    if len(model.networks) > 1:
        raise InputError(
            f"expected one model to run on; got an ensemble of {len(model.networks)}. Name a member's folder."
        )
    network: Any = model.networks[0]
    if not hasattr(network, "run") or network.options.get("dynamics") == Dynamics.NONE:
        raise InputError(
            f"expected a model whose dynamics can be run on (radiata); got {model.name}, of kind {model.kind}. "
            "Its own forward window is in the rates of `infer`."
        )
    return network


def _ahead(
    network: Any, seen: Tensor, horizon: int, draws: int, generators: Sequence[Generator]
) -> dict[str, Tensor]:
    """Mean, quantiles and persistence of a batch, (trial, horizon, neuron), in the network's order."""
    posterior = network.encode(seen)
    last, count = network.bins - 1, posterior.noise_mean.shape[2]
    if draws == 0:
        path = network.path(posterior)
        rates = network.log_rates(_run_on(network, path, horizon, count, None)).exp()
        return {"rates": rates[:, last + 1 :], "persistence": rates[:, last]}
    drawn: list[Tensor] = []
    here = torch.zeros(len(seen), network.neurons, dtype=torch.float64, device=seen.device)
    for _ in range(draws):
        path = network.path(posterior, generators)
        rates = network.log_rates(_run_on(network, path, horizon, count, generators)).exp()
        drawn.append(rates[:, last + 1 :])
        here = here + rates[:, last].double()
    stacked = torch.stack(drawn)
    # torch.quantile refuses more than 16 million numbers
    low, high = map(torch.from_numpy, np.quantile(stacked.cpu().numpy(), QUANTILES, axis=0))
    return {"rates": stacked.mean(0), "rates_low": low, "rates_high": high, "persistence": here / draws}


def _run_on(
    network: Any, path: LatentPath, horizon: int, count: int, generators: Sequence[Generator] | None
) -> LatentPath:
    """The observed part of a path, and the dynamics from its last state, driven by `count` numbers a latent and bin."""
    q, w = path.position[:, : network.bins], path.velocity[:, : network.bins]
    shape = (horizon, count, q.shape[2])
    noise = q.new_zeros(len(q), *shape)
    if generators is not None:
        noise = noise_of(generators, shape, q.dtype, q.device)
    after = network.run(torch.stack([q[:, -1], w[:, -1]], 1), noise)
    return LatentPath(torch.cat([q, after.position[:, 1:]], 1), torch.cat([w, after.velocity[:, 1:]], 1))


def _dataset(
    model: LoadedModel,
    population: xr.Dataset,
    trials: np.ndarray,
    found: dict[str, np.ndarray],
    draws: int,
    seed: int,
) -> xr.Dataset:
    bin_s = float(population.attrs["bin_s"])
    first = float(population["time"].values[~population["forward"].values][-1]) + bin_s
    horizon = found["rates"].shape[1]
    few = population.isel(trial=trials)
    coordinates: dict[str, Any] = {
        "trial": trials,
        "time": first + np.arange(horizon) * bin_s,
        "forward": ("time", np.ones(horizon, bool)),
        **{name: few.coords[name] for name in ("neuron", "heldout", "split", "condition")},
    }
    attributes = {
        "format": FORMAT,
        "bin_s": bin_s,
        "data_sha256": content_sha256(population),
        "source": str(population.attrs.get("source", "unknown")),
        "passes": draws,
        "seed": seed,
        "horizon": horizon,
        **model.about,
    }
    data: dict[str, Any] = {
        name: (("trial", "time", "neuron"), values) for name, values in found.items() if name != "persistence"
    }
    data["persistence"] = (("trial", "neuron"), found["persistence"])
    return check_rates(xr.Dataset(data, coordinates, attributes))


def forecast_scores(population: xr.Dataset, made: xr.Dataset, seed: int = 0) -> dict[str, Any]:
    """fp-bps of forecast, mean rate and persistence over the bins whose counts are known; `bins` is 0 where none are.

    Args:
        population: With a forward window.
        made: From `forecast`.
        seed: Of the bootstrap over trials.
    """
    ahead = population["forward"].values
    bins = min(int(ahead.sum()), made.sizes["time"])
    trials = made["trial"].values
    counts = population["counts"].values.astype(float)
    counts[~population["observed"].values] = np.nan
    hidden = np.ix_(withheld(population), np.ones(len(ahead), bool), population["heldout"].values)
    counts[hidden] = np.nan
    train = counts[population["split"].values == "train"][:, ahead][:, :bins]
    counts = counts[trials][:, ahead][:, :bins]
    if bins == 0 or len(trials) < 2 or not np.nansum(counts) > 0:
        return {"bins": 0}
    rates = made["rates"].values[:, :bins].astype(float)
    held = np.broadcast_to(made["persistence"].values[:, None].astype(float), rates.shape)
    predictions = {"forecast": rates, "persistence (last observed rate)": held}
    if np.isfinite(train).any((0, 1)).all():
        predictions["mean rate of training"] = np.broadcast_to(np.nanmean(train, (0, 1)), rates.shape)
    found = {
        name: bits_interval(values, counts, np.random.default_rng(seed))
        for name, values in predictions.items()
    }
    table = {name: {"value": s.value, "low": s.low, "high": s.high} for name, s in found.items()}
    return {"bins": bins, "trials": len(trials), "fp_bps": table}
