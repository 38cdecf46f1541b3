"""The demo, shortened: what it leaves, that it leaves the same again, and what it refuses."""

import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_latents.data.population import load_population
from radiata_latents.data.rates_file import load_rates
from radiata_latents.experiment import demo_run
from radiata_latents.experiment.demo import Demo
from radiata_latents.experiment.demo_run import demo_population
from radiata_latents.experiment.models import metadata_of, network_for


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the demo's population that has learned nothing."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    cells = demo_population(2)
    network = network_for("radiata", cells, {"latents": 4, "hidden": 8})
    save_model(path, network, metadata=metadata_of(cells, "radiata"))
    return path


def short(tiny: Path, out: Path, **options) -> Demo:
    return Demo(out, **({"model": str(tiny), "train_steps": 2, "trials": 2, "passes": 2} | options))


def test_conditions_of_the_demo_do_not_depend_on_how_many_trials_there_are() -> None:
    few, more = demo_population(2), demo_population(3)
    held = [
        sorted(set(p["condition"].values[p["split"].values == "validation"].tolist())) for p in (few, more)
    ]
    assert held[0] == held[1] and len(held[0]) == 13
    np.testing.assert_array_equal(few["heldout"], more["heldout"])
    np.testing.assert_array_equal(few["counts"][:2], more["counts"][:2])
    np.testing.assert_array_equal(few["expected"][2], more["expected"][3])


@pytest.mark.slow
def test_the_demo_from_end_to_end_twice(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    short(tiny, out).run()
    said = capsys.readouterr().out
    assert said.strip().splitlines()[-1].endswith(str(out)) and "first picture" in said and "oracle" in said
    assert json.loads((out / "run.json").read_text())["state"] == "done"
    exported = [path for path in out.iterdir() if path.suffix in (".h5", ".csv")]
    assert {path.name for path in exported} == {
        "population.h5",
        "rates-lorenz.h5",
        "rates-trained.h5",
        "scores.csv",
    }
    for path in exported:
        card = json.loads(path.with_suffix(".json").read_text())
        assert card["GeneratedBy"][0]["Name"] == "radiata-latents" and card["SyntheticData"] is True, (
            path.name
        )
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Not for clinical use" in page and "synthetic" in page and "://" not in page
    assert "may not be its end" not in page
    cells = load_population(out / "population.h5")
    for name in ("rates-lorenz", "rates-trained"):
        rates = load_rates(out / f"{name}.h5")
        assert rates.sizes["trial"] == 26 and set(rates["split"].values) == {"validation"}
        assert set(rates["condition"].values).isdisjoint(
            cells["condition"].values[cells["split"].values == "train"]
        )
        assert (out / "pictures" / f"{name}-frequencies.png").is_file()
    rows = {row["name"]: row for row in csv.DictReader((out / "scores.csv").read_text().splitlines())}
    assert {"tiny (given)", "trained here", "mean rate", "oracle"} <= set(rows)
    assert float(rows["oracle"]["r2_expected"]) == 1 and float(rows["oracle"]["co_bps"]) > float(
        rows["mean rate"]["co_bps"]
    )

    again = tmp_path / "again"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(demo_run, "page_of", interrupted)
        short(tiny, again).run()
    short(tiny, again).run()  # without --overwrite: an unfinished demo is begun again
    assert (again / "report.html").is_file()
    for path in exported:
        assert digest(path) == digest(again / path.name), path.name
    with pytest.raises(InputError, match="--overwrite"):
        short(tiny, out).run()
    short(tiny, out, overwrite=True, train_steps=0).run()
    assert (
        (out / "report.html").is_file()
        and not (out / "rates-trained.h5").exists()
        and not (out / "model").exists()
    )
    assert not list((out / "pictures").glob("rates-trained-*"))


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_the_demo_refuses(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for options in ({"trials": 1}, {"passes": 0}, {"train_steps": -1}, {"seed": -1}):
        with pytest.raises(InputError, match="expected --train-steps"):
            short(tiny, out, **options).run()
    with pytest.raises(InputError, match="expected a model's name"):
        short(tiny, out, model=str(tmp_path / "absent")).run()
    cells = demo_population(2)
    other = cells.assign_coords(neuron=np.array([f"n{i}" for i in range(29)]))
    network = network_for("radiata", cells, {"latents": 4, "hidden": 8})
    save_model(tmp_path / "other.safetensors", network, metadata=metadata_of(other, "radiata"))
    with pytest.raises(InputError, match="the neurons that the model was trained on"):
        short(tiny, out, model=str(tmp_path / "other.safetensors")).run()
    assert not out.exists()


def test_an_interrupted_demo_says_so(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from radiata_latents.experiment import demo_run

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_run, "_trained", stopped)
    monkeypatch.setattr(demo_run, "_first_picture", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        short(tiny, tmp_path / "demo").run()
    record = json.loads((tmp_path / "demo" / "run.json").read_text())
    assert record["state"] == "interrupted" and record["options"]["train_steps"] == 2
    assert dataclasses.asdict(short(tiny, tmp_path))["trials"] == 2
