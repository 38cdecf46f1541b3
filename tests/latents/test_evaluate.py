"""`evaluate`: one table of models and baselines, reasons for what is missing, and figures beside the scores."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from radiata_core import commands
from radiata_latents.data.population import save_population
from radiata_latents.data.rates_file import rates_dataset, save_rates
from radiata_latents.experiment.evaluate import Evaluate
from radiata_latents.experiment.findings import calibrations, collapses, few_shots
from radiata_latents.experiment.predictions import sources_of
from radiata_latents.experiment.score_table import SCORES, Scored, score_rows
from radiata_latents.model.calibration import dispersion
from radiata_latents.model.few_shot import few_shot_curve

from .conftest import save_network, tiny_network, wavy_population


def call(*words: object) -> int:
    return commands.main(
        "radiata-latents", "Latents.", {"evaluate": Evaluate}, ["evaluate", *map(str, words)]
    )


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert call(*words) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and "error: expected" in lines[0], lines
    return lines[0]


@pytest.fixture(scope="module")
def evaluated(results: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything: three models, an ensemble, few shots, histograms."""
    out = tmp_path_factory.mktemp("evaluated") / "evaluation"
    models = [w for name in ("radiata", "gru", "paper") for w in ("--model", results / f"{name}.safetensors")]
    words = ("--model", results / "ensemble", "--few-shot", "--kernel-ms", 40, "--draws", 40, "--out", out)
    assert call(results / "wavy.h5", *models, *words) == 0
    with (out / "scores.csv").open() as stream:
        table = list(csv.DictReader(stream))
    result = json.loads((out / "evaluation.json").read_text())
    return result | {"table": table, "run": json.loads((out / "run.json").read_text())}


def test_every_baseline_stands_beside_the_models(evaluated: dict[str, Any]) -> None:
    names = [row["name"] for row in evaluated["rows"]]
    assert names == [
        "mean rate",
        "smoothing + Poisson regression",
        "GPFA + Poisson regression",
        "condition average",
        "oracle",
        "radiata",
        "gru",
        "paper",
        "ensemble",
    ]
    assert [row["name"] for row in evaluated["table"]] == names
    for row, line in zip(evaluated["rows"], evaluated["table"], strict=True):
        for column in SCORES:
            assert line[column] == ("" if row[column] is None else str(row[column]))
    assert evaluated["run"]["state"] == "done" and len(evaluated["run"]["data"]) == 5


def test_scores_are_the_tables(evaluated: dict[str, Any], results: Path, wavy: xr.Dataset) -> None:
    (found,) = sources_of(wavy, [str(results / "gru.safetensors")]).predictions()
    (row,) = score_rows(
        wavy,
        {"gru": found.rates},
        "validation",
        np.random.default_rng(0),
        heldin_scored=["gru"],
        kernel_ms=40,
        draws=40,
    )
    (line,) = [r for r in evaluated["rows"] if r["name"] == "gru"]
    assert {k: v for k, v in line.items() if k != "name"} == pytest.approx(
        {k: v for k, v in row.items() if k != "name"}, rel=1e-6
    )
    assert all(line[column] is not None for column in SCORES)


def test_held_in_bits_only_where_training_hid_what_it_scored(evaluated: dict[str, Any]) -> None:
    scored = {row["name"] for row in evaluated["rows"] if row["heldin_bps"] is not None}
    assert scored == {"radiata", "gru", "ensemble"}


def test_collapse_calibration_and_few_shots(evaluated: dict[str, Any]) -> None:
    assert set(evaluated["collapse"]) == {"radiata", "paper", "ensemble"}
    one = evaluated["collapse"]["radiata"]
    assert len(one["kl"]) == 4 and sum(one["share"]) == pytest.approx(1) and 1 <= one["effective"] <= 4
    assert set(evaluated["calibration"]) == {row["name"] for row in evaluated["rows"]}
    assert abs(evaluated["calibration"]["oracle"]["z"]) < 4
    assert evaluated["calibration"]["oracle"]["of"] == "held-out neurons, observed window"
    curves = evaluated["few_shot"]
    assert set(curves) == {"radiata", "gru", "paper", "ensemble"}
    assert curves["radiata"]["shots"] == [4, 8, 16] and len(curves["radiata"]["bits"]) == 3
    assert curves["radiata"]["from"] == "latents" and curves["gru"]["from"].startswith("log-rates")


def test_true_rates_are_calibrated_where_no_neuron_is_held_out(wavy: xr.Dataset) -> None:
    """The forward window stands in; without one there is no figure."""
    bare = wavy_population(heldout=False)
    found = calibrations({"truth": bare["rates"].values}, Scored(bare, "validation"), 0)
    assert found["truth"]["of"] == "all neurons, forward window" and abs(found["truth"]["z"]) < 4
    bare = wavy_population(heldout=False, forward=0)
    assert calibrations({"truth": bare["rates"].values}, Scored(bare, "validation"), 0) == {}


def test_figures_beside_the_scores_are_of_the_scored_trials(wavy: xr.Dataset, results: Path) -> None:
    """Calibration and few-shot curves against calls of their own on the trials and neurons that they say."""
    (one,) = sources_of(wavy, [str(results / "radiata.safetensors")]).predictions()
    scored = Scored(wavy, "validation")
    heldout = wavy["heldout"].values
    counts = wavy["counts"].values[:, :17][..., heldout].astype(float)
    found = calibrations({"m": one.rates}, scored, 0)["m"]
    rates = one.rates[24:30, :17][..., heldout]
    assert (found["dispersion"], found["z"]) == pytest.approx(dispersion(rates, counts[24:30]), rel=1e-12)
    latents = one.inferred["latents"].values[:, :17].astype(float)
    curve = few_shot_curve(
        latents[:24],
        counts[:24],
        latents[24:30],
        counts[24:30],
        [4, 8, 16],
        np.random.default_rng(3),
        draws=5,
    )
    assert few_shots([one], scored, 3)["radiata"]["bits"] == pytest.approx(curve.mean.tolist(), rel=1e-9)
    kl = one.inferred["kl"].values[24:30]
    assert collapses([one], scored)["radiata"]["kl"] == pytest.approx(kl.mean(0).tolist(), rel=1e-6)


def test_without_held_out_neurons_there_is_a_dash_and_a_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cells = wavy_population(heldout=False, forward=0).drop_vars("rates")
    save_population(cells, tmp_path / "p.h5")
    save_network(tmp_path / "m.safetensors", tiny_network(cells, "gru", 2), cells, "gru")
    words = (tmp_path / "p.h5", "--model", tmp_path / "m.safetensors", "--few-shot", "--draws", 20)
    assert call(*words, "--out", tmp_path / "out") == 0
    said = capfd.readouterr().out.splitlines()
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert all(row["co_bps"] is None for row in rows.values())
    assert [name for name, row in rows.items() if row["heldin_bps"] is not None] == ["m"]
    assert result["few_shot"] == {} and result["calibration"] == {}
    assert any(line.startswith("– co_bps: the population has no held-out neurons") for line in said)
    assert any(line.startswith("mean rate") and "–" in line for line in said)
    assert "– r2_rates, r2_expected, correlation2, log_r2: the true rates are not known" in said


def test_a_file_of_rates_stands_for_a_model(
    results: Path, wavy: xr.Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The truth as rates of the test trials alone: R² 1, no behaviour (training was not inferred), and the warning."""
    test = np.flatnonzero(wavy["split"].values == "test")
    save_rates(rates_dataset(wavy, wavy["rates"].values[test], test), tmp_path / "truth.h5")
    words = ("--rates", tmp_path / "truth.h5", "--no-baselines", "--split", "test", "--out", tmp_path / "out")
    assert call(results / "wavy.h5", *words) == 0
    (row,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"]
    assert row["name"] == "truth" and row["r2_rates"] == pytest.approx(1) and row["behaviour_r2"] is None
    assert "a last number, not one to choose by" in capfd.readouterr().out


def test_wrong_input_is_one_line_and_leaves_nothing(
    results: Path, wavy: xr.Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out, model = tmp_path / "in", tmp_path / "out", results / "gru.safetensors"
    save_population(wavy.isel(neuron=slice(9)), folder / "nine.h5")
    other = wavy.copy(deep=True)
    other["counts"][0, 0, 0] += 1
    save_rates(rates_dataset(other, wavy["rates"].values), folder / "other.h5")
    save_rates(
        rates_dataset(wavy.isel(neuron=slice(9)), wavy["rates"].values[..., :9]), folder / "nine-rates.h5"
    )
    save_population(wavy.assign_coords(split=("trial", ["train"] * 36)), folder / "train.h5")
    cells = results / "wavy.h5"
    says = [
        ("expected 8 neurons held in", (folder / "nine.h5", "--model", model)),
        ("10 neurons; got 9", (cells, "--rates", folder / "nine-rates.h5")),
        ("rates of another one", (cells, "--rates", folder / "other.h5")),
        ("expected a file of rates", (cells, "--rates", folder / "absent.h5")),
        ("Make them with `infer`", (cells, "--rates", cells)),
        ("two validation trials", (folder / "train.h5", "--model", model)),
        ("--model, --rates or baselines", (cells, "--no-baselines")),
        ("--draws of 20", (cells, "--draws", 3)),
        ("no such file", (folder / "absent.h5", "--model", model)),
    ]
    for text, words in says:
        assert text in refused(capfd, *words, "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "--overwrite" in refused(capfd, cells, "--model", model, "--out", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
