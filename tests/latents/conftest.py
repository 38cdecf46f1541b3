"""A small population and networks of it, made once: what tests of results share."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from radiata_core.checkpoint import save_model
from radiata_core.seeds import generators_of
from radiata_latents.data.population import population, save_population
from radiata_latents.data.trials import TrialCounts
from radiata_latents.experiment.models import metadata_of, network_for
from radiata_latents.model.objective import TrialBound
from radiata_latents.model.population_model import PopulationModel

SMALL = {
    "radiata": {"latents": 4, "hidden": 8},
    "gru": {"hidden": 8, "factors": 4},
    "lfads": {"hidden": 8, "latents": 4, "generator": 8, "factors": 4},
    "paper": {"hidden": 8, "inner": 16},
}
"""Widths of tiny networks, by kind."""


def wavy_population(heldout: bool = True, forward: int = 3, trials: int = 36) -> xr.Dataset:
    """Poisson counts of ten neurons that follow a phase a trial, known rates, two conditions, behaviour = the phase's
    sine and cosine; held-out neurons are number 2 and 5, in the middle."""
    rng = np.random.default_rng(5)
    bins, neurons = 20, 10
    condition = np.arange(trials) % 2
    phase = np.linspace(0, 2 * np.pi, bins) + (condition * 2.0 + rng.normal(0, 0.3, trials))[:, None]
    tuning = rng.uniform(0, 2 * np.pi, neurons)
    rates = np.exp(-0.4 + 0.8 * np.cos(phase[..., None] - tuning))
    return population(
        rng.poisson(rates),
        0.02,
        start_s=-0.1,
        forward_bins=forward,
        neurons=[f"unit{i}" for i in range(neurons)],
        heldout=np.isin(np.arange(neurons), [2, 5]) if heldout else None,
        split=["train"] * (trials - 12) + ["validation"] * 6 + ["test"] * 6,
        condition=condition,
        behaviour=np.stack([np.cos(phase), np.sin(phase)], 2),
        channels=["cos", "sin"],
        rates=rates,
        source="synthetic: a phase",
    )


def tiny_network(cells: xr.Dataset, kind: str, steps: int = 8, seed: int = 0) -> PopulationModel:
    """A network after a few updates: not good, but not at its start."""
    network = network_for(kind, cells, SMALL[kind], seed=seed)
    counts = TrialCounts(cells, ("train",)).counts
    bound = TrialBound(beta=0.1)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        for step in range(steps if kind != "paper" else 0):
            optimiser.zero_grad()
            bound(network, counts, generators_of(range(len(counts)), step)).value.backward()
            optimiser.step()
    return network.eval()


def save_network(path: Path, network: PopulationModel, cells: xr.Dataset, kind: str) -> Path:
    """Its file, as training writes it."""
    save_model(path, network, metadata=metadata_of(cells, kind))
    return path


@pytest.fixture(scope="session")
def wavy() -> xr.Dataset:
    """The population, in memory."""
    return wavy_population()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: wavy.h5, and radiata, gru, lfads, paper .safetensors, an ensemble of two."""
    folder = tmp_path_factory.mktemp("results")
    cells = wavy_population()
    save_population(cells, folder / "wavy.h5")
    for kind in SMALL:
        save_network(folder / f"{kind}.safetensors", tiny_network(cells, kind), cells, kind)
    for member in range(2):
        network = tiny_network(cells, "radiata", seed=member)
        save_network(
            folder / "ensemble" / f"member-{member}" / "model.safetensors", network, cells, "radiata"
        )
    return folder
