r"""Rates of a whole population from trained networks: batches in, one data set of `data.rates_file` out.

    counts of held-in neurons → each network → rates along its posterior's mean, or averaged over draws of it → mean

The rates of an ensemble are the mean of its members' rates (not of their logarithms: the members' errors then average out
without a bias towards silence). Latents, drive and KL are the first member's, since those of two members have nothing to
do with each other.

Trial i draws from the generator (i, seed): its rates are the same in any batch, in any subset of trials, and in an ensemble
of equal members, to rounding.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_core.seeds import generators_of
from radiata_latents.data.population import SPLITS
from radiata_latents.data.rates_file import DIMENSIONS, check_rates, rates_dataset
from radiata_latents.data.trials import TrialCounts, heldin_first
from radiata_latents.model.collapse import kl_per_latent
from radiata_latents.model.latent_path import CertainPosterior
from radiata_latents.model.population_model import PopulationModel

__all__ = ["infer_rates", "latents_of"]

_RATES, _KL = 11, 12
"""Purposes of a trial's generators."""


def infer_rates(
    networks: Sequence[PopulationModel],
    population: xr.Dataset,
    passes: int = 0,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
    *,
    splits: Sequence[str] = SPLITS,
    device: str = "cpu",
    **about: Any,
) -> xr.Dataset:
    """Rates, and what the networks infer beside them.

    Args:
        networks: One, or the members of an ensemble; in evaluation mode.
        population: Whose spikes they are given.
        passes: Draws of the posterior a network, averaged; 0: one pass along its mean.
        seed: Of the draws.
        batch_size: Trials at once, >= 1.
        progress: Count batches on standard error.
        splits: Which trials.
        device: Where to compute.
        about: Attributes of the result: model, model_sha256, kind.

    Raises:
        InputError: no network, a network of another size, a negative number of passes, no trials.
    """
    if not networks or passes < 0 or batch_size < 1:
        raise InputError(
            f"expected a network, --passes >= 0 and --batch-size >= 1; got {len(networks)}, {passes} and {batch_size}."
        )
    trials = TrialCounts(population, splits)
    counts = trials.counts
    for network in networks:
        network.check_counts(counts[:1])
        if network.heldin != int((~population["heldout"]).sum()):
            raise InputError(
                f"expected {network.heldin} neurons held in, as the model has; got "
                f"{int((~population['heldout']).sum())}. Prepare with the same held-out neurons."
            )
    parts: dict[str, list[np.ndarray]] = {}
    starts = range(0, len(trials), batch_size)
    bar = Progress(len(starts), "infer", unit="batch") if progress else None
    with torch.inference_mode(), bar or contextlib.nullcontext():
        for network in networks:
            network.to(torch.device(device))
        for start in starts:
            numbers = trials.trials[start : start + batch_size].tolist()
            seen = counts[start : start + batch_size, : networks[0].bins, : networks[0].heldin].to(device)
            found = _batch(networks, seen, numbers, passes, seed)
            for name, value in found.items():
                parts.setdefault(name, []).append(value.float().cpu().numpy())
            if bar is not None:
                bar.update()
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    return _in_order(whole, population, trials.trials, passes=passes, seed=seed, **about)


def _batch(
    networks: Sequence[Any], seen: Tensor, numbers: Sequence[int], passes: int, seed: int
) -> dict[str, Tensor]:
    first = _beside(networks[0], seen, generators_of(numbers, seed, _KL))
    if passes == 0:
        rates = torch.stack([network.rates(seen).double() for network in networks]).mean(0)
        return {"rates": rates} | first
    drawn = [_moments(network, seen, generators_of(numbers, seed, _RATES), passes) for network in networks]
    rates, mean, square = (torch.stack(parts).mean(0) for parts in zip(*drawn, strict=True))
    return {"rates": rates, "rates_sd": (square - mean.square()).clamp_min(0).sqrt()} | first


def _moments(
    network: Any, seen: Tensor, generators: Sequence[Generator], passes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rates over draws: averaged as the network averages (the released one: by logarithms), mean, and mean square."""
    geometric = bool(getattr(getattr(network, "switches", None), "geometric_mean", False))
    first = network.rates(seen, 1, generators).double()
    logs, total, squares = first.log(), first, first.square()
    for _ in range(passes - 1):
        drawn = network.rates(seen, 1, generators).double()
        logs, total, squares = logs + drawn.log(), total + drawn, squares + drawn.square()
    mean = total / passes
    return torch.exp(logs / passes) if geometric else mean, mean, squares / passes


def latents_of(path: Any) -> Tensor | None:
    """(batch, time, latent) of a path: positions and velocities, or factors; None where a model has none."""
    if hasattr(path, "features"):
        return path.features
    if hasattr(path, "position"):
        return torch.cat([path.position, path.velocity], 2)
    return None


def _beside(network: Any, seen: Tensor, generators: Sequence[Generator]) -> dict[str, Tensor]:
    """Latents and drive of the posterior's mean, and the KL along a draw of it (it depends on the path)."""
    posterior = network.encode(seen)
    path = network.path(posterior)
    found: dict[str, Tensor] = {}
    latents = latents_of(path)
    if latents is not None:
        found["latents"] = latents
        noise = getattr(path, "noise_mean", None)
        if noise is not None and not isinstance(posterior, CertainPosterior):
            drive = noise.flatten(2)
            missing = (
                latents.shape[2] - drive.shape[2]
            )  # first-order dynamics: no velocity, nothing drives it
            found["drive"] = torch.nn.functional.pad(drive, (0, missing))
    kl = kl_per_latent(posterior, network.path(posterior, generators, generators))
    if kl is not None:
        found["kl"] = kl
    return found


def _in_order(
    found: dict[str, np.ndarray], population: xr.Dataset, trials: np.ndarray, **about: Any
) -> xr.Dataset:
    """The data set, its neurons back in the population's order."""
    back = np.argsort(heldin_first(population))
    dataset = rates_dataset(population, found["rates"][..., back], trials, **about)
    for name, values in found.items():
        if name != "rates":
            dataset[name] = (DIMENSIONS[name], values[..., back] if "neuron" in DIMENSIONS[name] else values)
    return check_rates(dataset)
