"""Rates of a population on disk: what is written comes back, rates of something else are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import load_population, population, save_population
from radiata_latents.data.rates_file import (
    check_belongs,
    check_rates,
    content_sha256,
    load_rates,
    rates_dataset,
    save_rates,
)
from radiata_latents.data.sidecar import free_path


def people(rng: np.random.Generator) -> xr.Dataset:
    counts = rng.poisson(0.4, (6, 10, 5)).astype(float)
    counts[2, 3] = np.nan
    return population(
        counts,
        0.02,
        start_s=-0.1,
        forward_bins=2,
        neurons=["a", "b", "c", "d", "e"],
        heldout=np.array([False, True, False, False, True]),
        split=["train"] * 4 + ["validation", "test"],
        source="made up",
    )


def test_what_is_written_comes_back(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = people(rng)
    made = rates_dataset(
        cells, rng.uniform(0, 1, (6, 10, 5)), model="m", model_sha256="f" * 64, kind="radiata", seed=3
    )
    made["latents"] = (("trial", "time", "latent"), rng.normal(size=(6, 10, 4)))
    made["kl"] = (("trial", "oscillator"), rng.uniform(size=(6, 2)))
    save_rates(made, tmp_path / "rates.h5")
    back = load_rates(tmp_path / "rates.h5")
    xr.testing.assert_identical(back, made)
    assert back["rates"].dtype == np.float32 and back["heldout"].dtype == bool
    check_belongs(back, cells)


def test_the_card_says_from_what_and_by_what(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = people(rng)
    made = rates_dataset(
        cells, rng.uniform(0, 1, (6, 10, 5)), model="m", model_sha256="f" * 64, kind="gru", seed=3
    )
    save_rates(made, tmp_path / "rates.h5", Horizon=4)
    card = json.loads((tmp_path / "rates.json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-latents"
    assert card["Sources"] == [
        {"Name": "made up", "SHA256": content_sha256(cells)},
        {"Name": "m", "SHA256": "f" * 64},
    ]
    assert (card["Kind"], card["Seed"], card["Horizon"]) == ("gru", 3, 4)


def test_content_is_the_checksum_and_the_file_is_not(tmp_path: Path, rng: np.random.Generator) -> None:
    """Packing and splits do not change it; one spike, one held-out neuron, one name do."""
    cells = people(rng)
    known = content_sha256(cells)
    save_population(cells, tmp_path / "p.h5")
    assert content_sha256(load_population(tmp_path / "p.h5")) == known
    assert content_sha256(cells.assign_coords(split=("trial", ["train"] * 6))) == known
    spike = cells.copy(deep=True)
    spike["counts"][0, 0, 0] += 1
    others = [
        spike,
        cells.assign_coords(heldout=("neuron", np.array([True, False, False, False, True]))),
        cells.assign_coords(neuron=["a", "b", "c", "d", "f"]),
    ]
    assert len({known, *map(content_sha256, others)}) == 4


def test_some_trials_keep_their_numbers(rng: np.random.Generator) -> None:
    cells = people(rng)
    made = rates_dataset(cells, np.ones((2, 10, 5)), np.array([4, 5]))
    assert made["trial"].values.tolist() == [4, 5]
    assert made["split"].values.tolist() == ["validation", "test"]
    check_belongs(made, cells)


def test_rates_of_something_else_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = people(rng)
    made = rates_dataset(cells, np.ones((6, 10, 5)))
    other = cells.copy(deep=True)
    other["counts"][0, 0, 0] += 1
    with pytest.raises(InputError, match=r"got rates of another one \(made up"):
        check_belongs(made, other)
    with pytest.raises(InputError, match="this population's 4 neurons; got 5"):
        check_belongs(made, cells.isel(neuron=slice(4)))
    with pytest.raises(InputError, match="this population's 9 bins; got 10"):
        check_belongs(made, cells.isel(time=slice(9)))
    with pytest.raises(InputError, match=r"\(trial, time, neuron\) \(6, 10, 5\); got \(6, 10, 4\)"):
        rates_dataset(cells, np.ones((6, 10, 4)))
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match=r"finite rates >= 0"):
            rates_dataset(cells, np.full((6, 10, 5), wrong))
    with pytest.raises(
        InputError, match=r"expected rates \(radiata-rates/1\); got format radiata-population/1"
    ):
        check_rates(cells)
    made["latents"] = (("time", "trial", "latent"), np.ones((10, 6, 2)))
    with pytest.raises(InputError, match=r"latents of \(trial, time, latent\); got \(time, trial"):
        save_rates(made, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_none_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_rates(tmp_path / "none.h5")
    for name, content in (("empty.h5", b""), ("text.h5", b"rates")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            load_rates(tmp_path / name)
    save_population(people(rng), tmp_path / "p.h5")
    with pytest.raises(InputError, match="Make them with `infer`"):
        load_rates(tmp_path / "p.h5")
    with pytest.raises(InputError, match=r"ending in \.h5"):
        save_rates(rates_dataset(people(rng), np.ones((6, 10, 5))), tmp_path / "a.npz")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"mine")
    with pytest.raises(InputError, match="--overwrite"):
        free_path(tmp_path / "a.h5", overwrite=False)
    assert free_path(tmp_path / "a.h5", overwrite=True) == tmp_path / "a.h5"
    with pytest.raises(InputError, match="another file than its source"):
        free_path(tmp_path / "a.h5", overwrite=True, source=tmp_path / "a.h5")
    (tmp_path / "b.json").write_text("somebody's")
    with pytest.raises(InputError, match=r"b\.json, which exists"):
        free_path(tmp_path / "b.h5", overwrite=False)
    with pytest.raises(InputError, match=r"ending in \.h5 or \.nc; got"):
        free_path(tmp_path / "a.npz", overwrite=True)
