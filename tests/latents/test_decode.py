"""`decode`: the metric's own R², the truth decodes best, and nothing of the scored trials is fitted on."""

import csv
import json
import resource
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from radiata_core import commands
from radiata_latents.data.population import save_population
from radiata_latents.data.rates_file import rates_dataset, save_rates
from radiata_latents.experiment.behaviour import decode_behaviour
from radiata_latents.experiment.decode import Decode
from radiata_latents.experiment.decoding import decode_all
from radiata_latents.experiment.predictions import sources_of
from radiata_latents.model.behaviour_decoding import behaviour_r2


def call(*words: object) -> int:
    return commands.main("radiata-latents", "Latents.", {"decode": Decode}, ["decode", *map(str, words)])


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert call(*words) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and "error: expected" in lines[0], lines
    return lines[0]


def test_is_the_metric(wavy: xr.Dataset) -> None:
    """The same R² as the benchmark's function on the observed window, bit by bit."""
    features = wavy["rates"].values
    made = decode_behaviour(wavy, features, np.arange(24, 30))
    assert made is not None
    behaviour = wavy["behaviour"].values
    wanted = behaviour_r2(
        features[:24, :17], behaviour[:24, :17], features[24:30, :17], behaviour[24:30, :17]
    )
    from sklearn.metrics import r2_score

    assert r2_score(made.truth[made.known], made.found[made.known]) == pytest.approx(wanted, rel=1e-9)
    assert np.isnan(made.found[:, 17:]).all()


def test_nothing_of_other_trials_is_fitted_on(wavy: xr.Dataset) -> None:
    """Another behaviour in all trials but the training ones: what is decoded stays; in a training trial: it changes."""
    scored = np.arange(24, 30)

    def decoded(cells: xr.Dataset) -> np.ndarray:
        made = decode_behaviour(cells, wavy["rates"].values, scored)
        assert made is not None
        return made.found

    other = wavy.copy(deep=True)
    other["behaviour"][24:] = 99.0
    np.testing.assert_array_equal(decoded(other), decoded(wavy))
    other["behaviour"][3] = 99.0
    assert np.nanmax(np.abs(decoded(other) - decoded(wavy))) > 0.1


def test_writes_rows_and_predictions(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "decoded"
    words = ("--model", results / "radiata.safetensors", "--model", results / "gru.safetensors")
    assert call(results / "wavy.h5", *words, "--out", out) == 0
    with (out / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = [(row["name"], row["features"]) for row in rows]
    assert names[0][0] == "smoothed spikes" and names[0][1].startswith("sd ")
    assert names[1:] == [
        *(("radiata", word) for word in ("rates", "log-rates", "latents")),
        *(("gru", word) for word in ("rates", "log-rates")),
    ]
    table = json.loads((out / "decode.json").read_text())
    assert [row["r2"] for row in table["rows"]] == pytest.approx([float(row["r2"]) for row in rows])
    assert all(row["r2_low"] <= row["r2_high"] for row in table["rows"])
    for row in table["rows"]:
        assert row["r2"] == pytest.approx((row["r2_cos"] + row["r2_sin"]) / 2)
    made = xr.load_dataset(out / "predictions.h5", engine="h5netcdf")
    assert made["decoded"].shape == (6, 6, 20, 2) and made["trial"].values.tolist() == list(range(24, 30))
    assert json.loads((out / "predictions.json").read_text())["GeneratedBy"][0]["Name"] == "radiata-latents"
    assert json.loads((out / "run.json").read_text())["state"] == "done"
    said = capfd.readouterr().out
    assert "smoothed spikes" in said and said.strip().splitlines()[-1] == str(out)


def test_the_truth_decodes_best(results: Path, wavy: xr.Dataset, tmp_path: Path) -> None:
    """Rates that follow a phase by exp(a cos): its cosine and sine are linear in their logarithms, R² = 1."""
    save_rates(rates_dataset(wavy, wavy["rates"].values, kind="truth"), tmp_path / "truth.h5")
    sources = sources_of(wavy, [str(results / "gru.safetensors")], [tmp_path / "truth.h5"])
    given = sources.predictions()
    found = {(one.name, one.features): one.r2.value for one in decode_all(wavy, given, "validation")}
    assert found["truth", "log-rates"] == pytest.approx(1, abs=1e-4)
    assert max(found, key=found.get) == ("truth", "log-rates")


def test_wrong_input_is_one_line_and_leaves_nothing(
    results: Path, wavy: xr.Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out, model = tmp_path / "in", tmp_path / "out", results / "gru.safetensors"
    save_population(wavy.drop_vars("behaviour"), folder / "bare.h5")
    other = wavy.copy(deep=True)
    other["counts"][0, 0, 0] += 1
    save_rates(rates_dataset(other, wavy["rates"].values), folder / "other.h5")
    save_population(wavy.assign_coords(split=("trial", ["train"] * 36)), folder / "train.h5")
    cells = results / "wavy.h5"
    says = [
        ("a population with behaviour", (folder / "bare.h5", "--model", model)),
        ("rates of another one", (cells, "--rates", folder / "other.h5")),
        ("two validation trials", (folder / "train.h5", "--model", model)),
        ("got 'absent'", (cells, "--model", "absent")),
        ("no such file", (cells, "--rates", folder / "absent.h5")),
        ("no such file", (folder / "absent.h5", "--model", model)),
    ]
    for text, words in says:
        assert text in refused(capfd, *words, "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert call(cells, "--model", model, "--out", out) == 1
    line = capfd.readouterr().err.splitlines()
    assert "--overwrite" in line[-1] and [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_disk_that_is_full_is_one_line_and_no_crash(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the same command begins its unfinished run again."""
    words = (results / "wavy.h5", "--model", results / "gru.safetensors", "--out", tmp_path / "out")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, former[1]))
    try:
        assert call(*words) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert "too large" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out" / "predictions.h5").exists()
    assert call(*words) == 0
    assert (tmp_path / "out" / "predictions.h5").stat().st_size > 8000
