"""One page for whatever stands in a folder: recognised, paired, escaped, and one line where there is nothing."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_core.files import sha256, write_json
from radiata_core.runs import sole_writer
from radiata_latents.data.oscillator_network import oscillator_population
from radiata_latents.data.population import population, save_population
from radiata_latents.data.rates_file import content_sha256, load_rates, rates_dataset, save_rates
from radiata_latents.experiment.folder_page import page_of
from radiata_latents.experiment.inference import infer_rates
from radiata_latents.experiment.latent_pictures import energies_along, pictures_of_latents
from radiata_latents.experiment.models import metadata_of, network_for
from radiata_latents.experiment.report import Report
from radiata_latents.model.langevin_flow import LangevinFlow

HOSTILE = "<script>alert('x')</script>"


def simulated(trials: int = 8):
    made = oscillator_population(neurons=8, trials=trials, bins=30, conditions=4)
    return made.assign_coords(
        heldout=("neuron", np.arange(8) >= 6),
        split=("trial", ["train"] * (trials // 2) + ["validation"] * (trials // 2)),
    )


def filled(folder: Path) -> None:
    """A population, a network, and its rates of the validation trials."""
    cells = simulated()
    save_population(cells, folder / "cells.h5")
    network = network_for("radiata", cells, {"latents": 4, "hidden": 8}).eval()
    save_model(folder / "model.safetensors", network, metadata=metadata_of(cells, "radiata"))
    rates = infer_rates(
        [network], cells, 3, splits=("validation",), model=HOSTILE,
        model_sha256=sha256(folder / "model.safetensors"), kind="radiata",
    )  # fmt: skip
    save_rates(rates, folder / "rates.h5", SyntheticData=True)


def test_rates_are_paired_with_their_population_and_their_network(tmp_path: Path, capsys) -> None:
    filled(tmp_path)
    write_json(tmp_path / "run.json", {"command": f"radiata-latents infer {HOSTILE}", "state": "interrupted"})
    Report(tmp_path, title=f"A & B {HOSTILE}", pictures=tmp_path / "pictures").run()
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page and page.count("&lt;script&gt;") >= 3
    assert "Not for clinical use" in page and "synthetic" in page and "interrupted" in page
    assert "http://" not in page and "https://" not in page
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert names == {f"rates-{name}" for name in (
        "counts-and-rates", "rates-against-truth", "rates-by-truth", "latent-trajectories", "frequencies", "potential",
        "kl-by-latent", "inferred-drive")}  # fmt: skip
    learned = json.loads((tmp_path / "pictures" / "rates-frequencies.json").read_text())
    assert len(learned["frequency_hz"]) == 4 and learned["synthetic"] is True
    with pytest.raises(InputError, match="--overwrite"):
        Report(tmp_path).run()


def test_of_one_file_only_that_file(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "broken.h5").write_bytes(b"not what its name says")
    Report(tmp_path / "cells.h5").run()
    page = (tmp_path / "cells.html").read_text(encoding="utf-8")
    assert "8 held" not in page and "6 held in, 2 held out" in page and "data:image/png" not in page
    save_population(simulated(10), tmp_path / "other.h5")  # neither shown nor a reason for a stamp
    titles = [section.title for section in page_of(tmp_path / "rates.h5").sections]
    assert titles == ["Read first", "Population", f"Rates of {HOSTILE}", "Provenance"]
    with pytest.raises(InputError, match="cannot be read"):
        page_of(tmp_path)


def test_recorded_rates_have_no_truth_and_no_stamp(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = population(
        rng.poisson(1.0, (6, 20, 5)), 0.02, split=["train"] * 3 + ["test"] * 3, source="recorded.nwb"
    )
    save_population(cells, tmp_path / "cells.h5")
    save_rates(rates_dataset(cells, np.ones((6, 20, 5)), model="by hand"), tmp_path / "rates.h5")
    made = page_of(tmp_path)
    assert not made.synthetic
    assert [p.name for p in made.pictures] == ["rates-counts-and-rates", "rates-rates-of-neurons"]
    assert all(p.figure.numbers["synthetic"] is False for p in made.pictures)
    assert "truth_hz" not in made.pictures[1].figure.numbers


def test_a_forecast_is_drawn_after_what_it_was_made_from(tmp_path: Path) -> None:
    cells = simulated()
    cells = cells.assign_coords(forward=("time", np.arange(30) >= 25))
    ahead = rates_dataset(cells, np.full((8, 30, 8), 0.2), model="m", passes=7).isel(time=slice(0, 8))
    times = cells["time"].values[24] + 0.02 * np.arange(1, 9)
    ahead = ahead.assign_coords(time=times, forward=("time", np.ones(8, bool))).assign_attrs(horizon=8)
    ahead["rates_low"], ahead["rates_high"] = 0.5 * ahead["rates"], 2 * ahead["rates"]
    save_population(cells, tmp_path / "cells.h5")
    save_rates(ahead, tmp_path / "forecast.h5")
    (picture,) = page_of(tmp_path).pictures
    drawn = np.array(picture.figure.numbers["rates_hz"], float)
    assert drawn.shape[1] == 33 and np.isnan(drawn[:, :25]).all()
    np.testing.assert_allclose(drawn[:, 25:], 10, rtol=1e-6)
    np.testing.assert_allclose(np.array(picture.figure.numbers["band_95_hz"], float)[:, 25:], 20, rtol=1e-6)
    truth = np.array(picture.figure.numbers["truth_hz"], float)
    assert np.isfinite(truth[:, :30]).all() and np.isnan(truth[:, 30:]).all(), (
        "beyond the population nothing is known"
    )
    assert "from 25 observed bins for 8 more" in picture.caption and "7 draws" in picture.caption


def test_trainings_below_and_scores_are_found(tmp_path: Path) -> None:
    for member in ("member-0", "member-1"):
        (tmp_path / member).mkdir()
        lines = [{"step": k, "loss": 1 / (k + 1)} for k in range(5)]
        (tmp_path / member / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_json(
            tmp_path / member / "scores.json",
            {"co_bps": 0.25, "frequency_hz": [1.0, 2.0], "informed": {"start": 0.5}},
        )
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["name", "co_bps", "co_bps_low", "co_bps_high"], [HOSTILE, 0.5, 0.25, 0.75], ["b", "", "", ""]]
        )
    assert not page_of(tmp_path).synthetic
    write_json(tmp_path / "member-1" / "model.json", {"metadata": {"source": "synthetic: lorenz"}})
    made = page_of(tmp_path)
    assert made.synthetic
    assert [s.title for s in made.sections] == [
        "Read first",
        "Scores",
        "Training in member-0",
        "Training in member-1",
        "Provenance",
    ]
    text = "".join(block.html() for section in made.sections for block in section.blocks)
    assert (
        HOSTILE not in text
        and "0.500 [0.250,\u00a00.750]" in text
        and "trials explain" in text
        and "1, 2" in text
    )
    assert made.pictures[0].figure.numbers["scores"]["co-bps, bits a spike"] == [[0.5, 0.25, 0.75], None]


def test_an_evaluation_says_what_is_missing_and_why(tmp_path: Path) -> None:
    rows = [
        {"name": name, "co_bps": value, "co_bps_low": 0.0, "co_bps_high": 1.0}
        for name, value in (("mean rate", 0.0), (HOSTILE, 0.5))
    ]
    bits = [[0.1, 0.2], [0.3, 0.5]]
    result = {
        "split": "test", "trials": 7, "synthetic": False, "rows": rows, "baselines": ["mean rate"],
        "why_not": {"fp_bps": f"no {HOSTILE}", "psth_r2": "no kernel", "log_r2": "no kernel"},
        "left_out": {}, "collapse": {HOSTILE: {"total": 5.0, "active": 1, "effective": 1.5, "kl": [4.9, 0.1]}},
        "calibration": {"mean rate": {"of": "held-out neurons", "counts": 9, "dispersion": 1.5, "dispersion_low": 1.25,
                        "dispersion_high": 1.75, "distance": 0.1, "p_value": 0.01}},
        "few_shot": {HOSTILE: {"shots": [4, 8], "draws": bits, "from": "latents"}},
    }  # fmt: skip
    write_json(tmp_path / "evaluation.json", result)
    made = page_of(tmp_path)
    text = "".join(block.html() for section in made.sections for block in section.blocks)
    assert HOSTILE not in text and "fp-bps, bits a spike" in text and "test trials: a last number" in text
    assert "[1.25,\u00a01.75]" in text and "1 of 2" in text and "PSTH, R²; R² of log-rates" in text
    few = next(p for p in made.pictures if p.name == "few-shot")
    assert few.figure.numbers["curves"][HOSTILE]["bits"] == bits


def test_decoded_behaviour_is_that_of_the_best_decoder(tmp_path: Path, rng: np.random.Generator) -> None:
    import xarray as xr

    measured = rng.standard_normal((4, 20, 1))
    said = np.stack([measured * 0, measured * 0.9])
    xr.Dataset(
        {"behaviour": (("trial", "time", "channel"), measured), "decoded": (("decoder", "trial", "time", "channel"), said)},
        {"trial": [3, 5, 7, 9], "time": 0.02 * np.arange(20), "channel": ["x"]}, {"format": "radiata-decoding/1"},
    ).to_netcdf(tmp_path / "predictions.h5", engine="h5netcdf")  # fmt: skip
    rows = [{"name": n, "features": "rates", "penalty": 0.1, "r2": r, "r2_low": r - 0.1, "r2_high": r + 0.1, "r2_x": r}
            for n, r in (("a", 0.0), ("b", 0.99))]  # fmt: skip
    write_json(tmp_path / "decode.json", {"split": "validation", "rows": rows})
    (picture,) = page_of(tmp_path).pictures
    np.testing.assert_array_equal(picture.figure.numbers["decoded"], said[1])
    assert picture.figure.numbers["r2"] == [0.99] and "of b says" in picture.caption


class Tilted(LangevinFlow):
    """The ring's potential is the same for all latents; this one tells them apart."""

    def energy(self, q: torch.Tensor) -> torch.Tensor:
        return super().energy(q) + q @ torch.arange(4.0)


def test_energies_are_the_networks_own() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Tilted(neurons=5, heldin=4, bins=6, latents=4, hidden=4)
    grid = np.linspace(-2, 2, 5)
    found = energies_along(network, [(3, 1)], grid)[3, 1]
    q = torch.tensor([[0.0, float(grid[4]), 0.0, float(grid[1])]])
    assert found[1, 4] == pytest.approx(float(network.energy(q).detach()), rel=1e-6)


def test_nothing_is_made_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got none of them"):
        Report(tmp_path).run()
    with pytest.raises(InputError, match="got nothing at"):
        Report(tmp_path / "absent").run()
    (tmp_path / "text.h5").write_bytes(b"text")
    for name in ("text.h5",):
        with pytest.raises(InputError, match="cannot be read"):
            Report(tmp_path / name).run()
    assert [path.name for path in tmp_path.iterdir()] == ["text.h5"]


def test_rates_of_another_population_stand_alone(tmp_path: Path) -> None:
    filled(tmp_path)
    other = simulated(10)
    save_population(other, tmp_path / "cells.h5")
    made = page_of(tmp_path)
    assert content_sha256(other) and not any("truth" in p.name for p in made.pictures)
    caption = next(p.caption for p in made.pictures if p.name.endswith("latent-trajectories"))
    assert "averages of conditions" in caption
    alone = load_rates(tmp_path / "rates.h5")
    alone["condition"].values[:] = -1
    assert "conditions" not in pictures_of_latents(alone, None)[0].caption


def test_a_report_that_was_killed_goes_on_and_pictures_of_something_else_stay(tmp_path: Path) -> None:
    """Killed after its picture, before its page; a picture of other numbers, or without any, is not replaced."""
    lines = [{"step": k, "loss": 1 / (k + 1)} for k in range(5)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "pictures"
    first = page_of(tmp_path).pictures[0].save(folder)
    with sole_writer(tmp_path / "report.html"), pytest.raises(InputError, match="in use by process"):
        Report(tmp_path, pictures=folder).write()
    assert Report(tmp_path, pictures=folder).write().is_file()
    (tmp_path / "report.html").unlink()
    card = first.with_suffix(".json")
    for numbers in (json.loads(card.read_text()) | {"more": 1}, None):
        card.unlink() if numbers is None else write_json(card, numbers)
        with pytest.raises(InputError, match=f"{first.name} exists and shows something else"):
            Report(tmp_path, pictures=folder).write()
    assert not (tmp_path / "report.html").exists()
    assert Report(tmp_path, pictures=folder, overwrite=True).write().is_file() and card.is_file()
