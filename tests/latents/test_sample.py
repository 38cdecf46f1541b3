"""`sample`: the prior's own law, one seed a trial, and a population that says it was simulated."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from radiata_core import commands
from radiata_core.errors import InputError
from radiata_latents.data.population import load_population
from radiata_latents.experiment.models import load_network, metadata_of, network_for
from radiata_latents.experiment.predictions import LoadedModel, load_ensemble
from radiata_latents.experiment.sample import Sample
from radiata_latents.experiment.simulation import simulated

from .conftest import SMALL, save_network


def call(*words: object) -> int:
    return commands.main("radiata-latents", "Latents.", {"sample": Sample}, ["sample", *map(str, words)])


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert call(*words) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and "error: expected" in lines[0], lines
    return lines[0]


def test_a_population_that_says_it_was_simulated(results: Path, wavy: xr.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "samples.h5"
    assert call("--model", results / "radiata.safetensors", "--trials", 12, "--out", out, "--seed", 5) == 0
    made = load_population(out)
    loaded = load_network(results / "radiata.safetensors")
    assert made.sizes["trial"] == 12 and made.sizes["time"] == 20 and int(made["forward"].sum()) == 3
    assert made["neuron"].values.tolist() == loaded.metadata["neurons"]
    assert made["heldout"].values.tolist() == [False] * 8 + [True] * 2
    assert made["time"].values == pytest.approx(wavy["time"].values)
    assert made.attrs["synthetic"] == 1 and str(made.attrs["source"]).startswith("synthetic")
    assert made["seed"].values.tolist() == list(range(5, 17))
    card = json.loads((tmp_path / "samples.json").read_text())
    assert card["SyntheticData"] is True and card["Seeds"] == [5, 16]
    assert card["Sources"] == [{"Name": "radiata", "SHA256": loaded.sha256}]
    with torch.no_grad():  # rates are the read-out of the latents that stand beside them
        features = torch.from_numpy(made["latents"].values)
        own = network_rates(loaded.network, features)
    np.testing.assert_allclose(made["rates"].values, own, rtol=1e-4)


def network_rates(network: torch.nn.Module, features: torch.Tensor) -> np.ndarray:
    from radiata_latents.model.latent_path import LatentPath

    q, w = features.chunk(2, 2)
    return network.log_rates(LatentPath(q, w)).exp().numpy()


@pytest.mark.parametrize("kind", ["radiata", "lfads"])
def test_a_seed_is_a_trial(kind: str, results: Path) -> None:
    """Trial 7 alone in its batch, among others, and as the first of another call."""
    model = load_ensemble(results / f"{kind}.safetensors")
    whole = simulated(model, 60, seed=0, batch_size=60)
    parted = simulated(model, 60, seed=0, batch_size=1)
    later = simulated(model, 40, seed=7)
    for name in ("counts", "rates", "latents"):
        np.testing.assert_allclose(parted[name].values, whole[name].values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(later[name].values, whole[name].values[7:47], rtol=1e-4, atol=1e-5)


def test_spikes_are_poisson_around_the_rates(results: Path) -> None:
    """Dispersion of 400 simulated trials of 20 bins and 10 neurons is 1 within four of its standard deviations."""
    from radiata_latents.model.calibration import dispersion

    made = simulated(load_ensemble(results / "radiata.safetensors"), 400)
    assert abs(dispersion(made["rates"].values, made["counts"].values)[1]) < 4


def test_latents_have_the_law_of_the_prior(wavy: xr.Dataset) -> None:
    """Uncoupled oscillators at rest: mean 0 and variance 1 in every bin, far beyond what the model was trained on, within
    four standard errors (1500 trials: mean 0.10, variance 0.15)."""
    network = network_for("radiata", wavy, SMALL["radiata"] | {"coupled": False}).eval()
    model = LoadedModel("m", (network,), metadata_of(wavy, "radiata"), "0" * 64)
    made = simulated(model, 1500, bins=60, batch_size=500)
    latents = made["latents"].values
    assert made.sizes["time"] == 60 and not made["forward"].any()
    for bin_ in (0, 19, 59):
        assert np.abs(latents[:, bin_].mean(0)).max() < 0.105
        assert np.abs(latents[:, bin_].var(0) - 1).max() < 0.15


def test_wrong_input_is_one_line_and_leaves_nothing(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.h5"
    for kind in ("gru", "paper"):
        line = refused(capfd, "--model", results / f"{kind}.safetensors", "--out", out)
        assert "a prior to draw from" in line and kind in line
    model = results / "radiata.safetensors"
    cells = load_population(results / "wavy.h5")
    network = network_for("radiata", cells, SMALL["radiata"] | {"dynamics": "none"})
    bare = save_network(tmp_path / "in" / "bare.safetensors", network, cells, "radiata")
    assert "a prior to draw from" in refused(capfd, "--model", bare, "--out", out)
    shutil.rmtree(tmp_path / "in")
    assert "an ensemble of 2" in refused(capfd, "--model", results / "ensemble", "--out", out)
    assert "got 1, None" in refused(capfd, "--model", model, "--out", out, "--trials", 1)
    assert "ending in .h5" in refused(capfd, "--model", model, "--out", tmp_path / "s.npz")
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"mine")
    assert "--overwrite" in refused(capfd, "--model", model, "--out", out)


def test_silent_neurons_are_said(wavy: xr.Dataset) -> None:
    network = network_for("radiata", wavy, SMALL["radiata"]).eval()
    with torch.no_grad():
        network.readout.linear.bias[3] = -20
    model = LoadedModel("m", (network,), metadata_of(wavy, "radiata"), "0" * 64)
    with pytest.raises(InputError, match=r"every neuron to fire in the sample; got none of 1 \(unit4\)"):
        simulated(model, 20)
