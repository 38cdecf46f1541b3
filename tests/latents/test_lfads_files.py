"""LFADS' two dialects: rates in expected counts a bin, splits and order kept, there and back."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.lfads_files import load_lfads, save_lfads
from radiata_latents.data.population import population


def write(path: Path, **arrays: object) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return path


def test_truth_is_divided_by_the_factor_and_trials_come_back_in_order(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """As the run manager writes it: rates times 1/20, indices of MATLAB from 1, every fifth trial apart."""
    rates = rng.uniform(0.2, 2.0, (10, 6, 4))
    counts = rng.poisson(rates).astype(float)
    valid = np.arange(10) % 5 == 0
    path = write(
        tmp_path / "a.h5",
        train_data=counts[~valid],
        valid_data=counts[valid],
        train_truth=rates[~valid] / 20,
        valid_truth=rates[valid] / 20,
        train_inds=np.flatnonzero(~valid) + 1,
        valid_inds=np.flatnonzero(valid) + 1,
        conversion_factor=1 / 20,
    )
    found = load_lfads(path, 0.02)
    np.testing.assert_array_equal(found["counts"].values, counts)
    np.testing.assert_allclose(found["rates"].values, rates, rtol=1e-6)
    np.testing.assert_array_equal(found["split"].values == "validation", valid)
    with h5py.File(path, "a") as file:
        file["conversion_factor"][...] = 1 / 1000  # truth is 50 times too large: spikes a second
    with pytest.raises(InputError, match="expected counts a bin"):
        load_lfads(path, 0.02)


@pytest.fixture
def made(rng: np.random.Generator) -> xr.Dataset:
    return population(
        rng.poisson(1.5, (12, 8, 6)),
        0.005,
        forward_bins=2,
        heldout=np.array([False, True, False, False, True, False]),
        split=["train"] * 7 + ["validation"] * 3 + ["test"] * 2,
        behaviour=rng.standard_normal((12, 8, 2)),
    )


def test_there_and_back_with_held_out_neurons_and_forward_bins(made: xr.Dataset, tmp_path: Path) -> None:
    save_lfads(made, tmp_path / "a.h5", encoded=True)
    found = load_lfads(tmp_path / "a.h5")
    order = [0, 2, 3, 5, 1, 4]
    np.testing.assert_array_equal(found["counts"].values, made["counts"].values[..., order])
    np.testing.assert_array_equal(found["heldout"].values, [False] * 4 + [True] * 2)
    for name in ("forward", "split", "behaviour"):
        np.testing.assert_array_equal(found[name].values, made[name].values)
    assert found.attrs["bin_s"] == 0.005


def test_there_and_back_with_rates(tmp_path: Path, rng: np.random.Generator) -> None:
    rates = rng.uniform(0.2, 2.0, (10, 6, 4)).astype(np.float32)
    first = population(
        rng.poisson(rates), 0.02, rates=rates, split=["validation", "train", "train", "train", "test"] * 2
    )
    save_lfads(first, tmp_path / "a.h5")
    found = load_lfads(tmp_path / "a.h5")
    for name in ("counts", "rates", "split"):
        np.testing.assert_array_equal(found[name].values, first[name].values)


def test_a_test_part_without_recon_is_withheld(made: xr.Dataset, tmp_path: Path) -> None:
    save_lfads(made, tmp_path / "a.h5", encoded=True)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["test_recon_data"], file["test_behavior"]
    found = load_lfads(tmp_path / "a.h5")
    np.testing.assert_array_equal(found["withheld"].values, found["split"].values == "test")
    last = found.isel(trial=-1)
    assert not last["observed"].values[-2:].any() and last["observed"].values[:-2].all()
    assert np.isnan(last["behaviour"].values).all()
    np.testing.assert_array_equal(
        last["counts"].values[:-2, :4], made["counts"].values[-1, :-2][:, [0, 2, 3, 5]]
    )


def test_bad_input(made: xr.Dataset, tmp_path: Path, rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (5, 6, 4)).astype(float)
    for arrays, words in (
        ({"train_data": counts, "dt": 0.02, "valid_data": counts[:, :5]}, "same bins and neurons"),
        ({"train_data": counts}, "Pass --bin"),
        ({"train_data": counts - 1, "dt": 0.02}, "negative"),
        ({"train_data": counts / 2, "dt": 0.02}, "fractional"),
        ({"train_data": counts, "train_inds": [1, 1, 2, 3, 4], "dt": 0.02}, "each once"),
        ({"train_data": counts, "train_truth": counts, "conversion_factor": 0.0, "dt": 0.02}, "> 0"),
        ({"train_encod_data": counts, "train_recon_data": counts[..., :3], "dt": 0.02}, "no fewer"),
        ({"train_encod_data": counts, "train_recon_data": counts[..., ::-1], "dt": 0.02}, "begin with"),
        (
            {"train_encod_data": counts, "train_behavior": np.zeros((5, 4, 2)), "dt": 0.02},
            "behaviour as long as the spikes",
        ),
        ({"spikes": counts}, "Is it an LFADS file"),
    ):
        with pytest.raises(InputError, match=words):
            load_lfads(write(tmp_path / "a.h5", **arrays))
    (tmp_path / "text.h5").write_text("spikes")
    with pytest.raises(InputError, match="cannot be read"):
        load_lfads(tmp_path / "text.h5")
    with pytest.raises(InputError, match="no such file"):
        load_lfads(tmp_path / "none.h5")
    with pytest.raises(InputError, match="encoded=True"):
        save_lfads(made, tmp_path / "b.h5")
    with pytest.raises(InputError, match=r"ending in \.h5"):
        save_lfads(made, tmp_path / "b.hdf5", encoded=True)
    assert not (tmp_path / "b.h5").exists()


def test_silent_neurons_are_dropped_when_asked(tmp_path: Path, rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (5, 6, 4)).astype(float)
    counts[..., 2] = 0
    path = write(tmp_path / "a.h5", train_data=counts, train_truth=counts + 0.1, dt=0.02)
    with pytest.raises(InputError, match="--drop-silent"):
        load_lfads(path)
    assert load_lfads(path, drop_silent=True)["neuron"].values.tolist() == ["0", "1", "3"]
