"""`forecast`: the model's own forward window at that horizon, its law at rest far ahead, scores beside baselines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from radiata_core import commands
from radiata_latents.data.population import load_population, save_population
from radiata_latents.data.rates_file import load_rates
from radiata_latents.experiment.forecast import Forecast
from radiata_latents.experiment.forecasts import forecast, forecast_scores
from radiata_latents.experiment.inference import infer_rates
from radiata_latents.experiment.models import metadata_of, network_for
from radiata_latents.experiment.predictions import LoadedModel, load_ensemble
from radiata_latents.model.bits import bits_per_spike

from .conftest import SMALL, save_network, wavy_population


def call(*words: object) -> int:
    return commands.main(
        "radiata-latents", "Latents.", {"forecast": Forecast}, ["forecast", *map(str, words)]
    )


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert call(*words) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and "error: expected" in lines[0], lines
    return lines[0]


@pytest.mark.parametrize("options", [{}, {"attention": True}, {"dynamics": "first-order"}])
def test_without_noise_it_is_the_models_own_forward_window(
    wavy: xr.Dataset, options: dict[str, object]
) -> None:
    network = network_for("radiata", wavy, SMALL["radiata"] | options)
    with torch.no_grad():
        for parameter in network.parameters():  # an attention that does something
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model = LoadedModel("m", (network.eval(),), metadata_of(wavy, "radiata"), "0" * 64)
    own = infer_rates(model.networks, wavy)
    found = forecast(model, wavy, 3, draws=0)
    np.testing.assert_allclose(found["rates"].values, own["rates"].values[:, 17:], rtol=1e-4)
    np.testing.assert_allclose(found["persistence"].values, own["rates"].values[:, 16], rtol=1e-4)
    assert found["time"].values == pytest.approx(wavy["time"].values[17:])
    longer = forecast(model, wavy, 8, draws=0)
    if "attention" not in options:  # which looks ahead along the path
        np.testing.assert_allclose(longer["rates"].values[:, :3], found["rates"].values, rtol=1e-4)


FREE = {"coupled": False, "band_hz": (2.0, 8.0), "readout_units": 0}
"""Oscillators whose law at rest is normal, read out linearly."""


def test_far_ahead_it_is_the_law_at_rest(wavy: xr.Dataset) -> None:
    """Uncoupled oscillators forget: the mean of log-normal rates exp(b + N(0, |w|²)) is exp(b + |w|²/2) for every trial,
    within 5 % of 1200 draws; quantiles hold 90 % of what is drawn from there."""
    network = network_for("radiata", wavy, SMALL["radiata"] | FREE).eval()
    model = LoadedModel("m", (network,), metadata_of(wavy, "radiata"), "0" * 64)
    few = wavy.isel(trial=slice(12))
    found = forecast(model, few, 80, draws=100)
    with torch.no_grad():
        weight, bias = network.readout.linear.weight, network.readout.linear.bias
        wanted = torch.exp(bias + 0.5 * weight.square().sum(1)).numpy()
        spread = weight.square().sum(1).sqrt().numpy()
    back = np.argsort(np.argsort(wavy["heldout"].values, kind="stable"))
    last = {name: found[name].values[:, -20:].mean((0, 1)) for name in ("rates", "rates_low", "rates_high")}
    np.testing.assert_allclose(last["rates"], wanted[back], rtol=0.05)
    ratio = np.log(last["rates_high"] / last["rates_low"]) / (2 * 1.6449 * spread[back])
    np.testing.assert_allclose(ratio, 1, rtol=0.06)


def test_a_trial_has_its_own_draws(results: Path, wavy: xr.Dataset) -> None:
    model = load_ensemble(results / "radiata.safetensors", wavy)
    whole = forecast(model, wavy, 5, draws=4, seed=1)
    parted = forecast(model, wavy, 5, draws=4, seed=1, batch_size=5, splits=("validation",))
    for name in whole.data_vars:
        np.testing.assert_allclose(parted[name].values, whole[name].values[24:30], rtol=1e-4)


def test_scores_are_bits_of_what_was_recorded(wavy: xr.Dataset) -> None:
    """The truth as a forecast, beside the mean of training trials and its own last bin held on."""
    made = forecast_truth(wavy, 3)
    found = forecast_scores(wavy, made)
    counts = wavy["counts"].values[24:30, 17:].astype(float)
    truth = wavy["rates"].values[24:30]
    mean = np.broadcast_to(wavy["counts"].values[:24, 17:].mean((0, 1)), counts.shape)
    wanted = {
        "forecast": bits_per_spike(truth[:, 17:], counts),
        "persistence (last observed rate)": bits_per_spike(np.repeat(truth[:, 16:17], 3, 1), counts),
        "mean rate of training": bits_per_spike(mean, counts),
    }
    assert {name: s["value"] for name, s in found["fp_bps"].items()} == pytest.approx(wanted, rel=1e-6)
    assert wanted["forecast"] > wanted["persistence (last observed rate)"] > wanted["mean rate of training"]
    assert found["bins"] == 3 and found["trials"] == 6


def forecast_truth(wavy: xr.Dataset, bins: int) -> xr.Dataset:
    truth = wavy["rates"].values[24:30].astype(np.float32)
    network = network_for("radiata", wavy, SMALL["radiata"]).eval()
    model = LoadedModel("m", (network,), metadata_of(wavy, "radiata"), "0" * 64)
    made = forecast(model, wavy, bins, draws=0, splits=("validation",))
    made["rates"].values[:] = truth[:, 17 : 17 + bins]
    made["persistence"].values[:] = truth[:, 16]
    return made


def test_the_command_scores_what_it_can(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A horizon beyond the counts: scored where there are any."""
    words = (results / "wavy.h5", "--model", results / "radiata.safetensors", "--bins", 9, "--draws", 5)
    assert call(*words, "--out", tmp_path / "f.h5", "--split", "test") == 0
    said = capfd.readouterr().out
    assert "fp-bps of 3 bins, 6 trials (test)" in said and "a last number" in said and "persistence" in said
    found = load_rates(tmp_path / "f.h5")
    assert found["rates"].shape == (6, 9, 10) and (found["rates_low"] <= found["rates_high"]).all()
    card = json.loads((tmp_path / "f.json").read_text())
    assert card["Horizon"] == 9 and card["Scores"]["bins"] == 3
    assert card["SyntheticData"] is bool(load_population(results / "wavy.h5").attrs.get("synthetic", 0))


def test_nothing_to_score_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cells = wavy_population(forward=0)
    save_population(cells, tmp_path / "p.h5")
    network = network_for("radiata", cells, SMALL["radiata"])
    save_network(tmp_path / "m.safetensors", network, cells, "radiata")
    assert (
        call(
            tmp_path / "p.h5", "--model", tmp_path / "m.safetensors", "--bins", 4, "--out", tmp_path / "f.h5"
        )
        == 0
    )
    assert "nothing to score" in capfd.readouterr().out


def test_wrong_input_is_one_line_and_leaves_nothing(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cells, out = results / "wavy.h5", tmp_path / "f.h5"
    for kind in ("gru", "lfads", "paper"):
        line = refused(capfd, cells, "--model", results / f"{kind}.safetensors", "--bins", 4, "--out", out)
        assert "dynamics can be run on" in line
    made = load_population(cells)
    network = network_for("radiata", made, SMALL["radiata"] | {"dynamics": "none"})
    bare = save_network(tmp_path / "in" / "bare.safetensors", network, made, "radiata")
    assert "dynamics can be run on" in refused(capfd, cells, "--model", bare, "--bins", 4, "--out", out)
    shutil.rmtree(tmp_path / "in")
    model = ("--model", results / "radiata.safetensors")
    assert "an ensemble of 2" in refused(
        capfd, cells, "--model", results / "ensemble", "--bins", 4, "--out", out
    )
    assert "--bins >= 1" in refused(capfd, cells, *model, "--bins", 0, "--out", out)
    assert "got 4, 1 and" in refused(capfd, cells, *model, "--bins", 4, "--draws", 1, "--out", out)
    assert list(tmp_path.iterdir()) == []
