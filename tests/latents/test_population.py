"""The contract of a population: what it keeps, what it refuses, and that it comes back from the disk."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import (
    check_population,
    load_population,
    population,
    save_population,
    to_hz,
)


def counts_of(rng: np.random.Generator, trials: int = 6, bins: int = 10, neurons: int = 5) -> np.ndarray:
    return rng.poisson(0.8, (trials, bins, neurons))


def test_it_comes_back_from_the_disk(tmp_path: Path, rng: np.random.Generator) -> None:
    counts = counts_of(rng).astype(float)
    counts[2, 7:] = np.nan
    made = population(
        counts,
        0.02,
        start_s=-0.1,
        forward_bins=3,
        neurons=["a", "b", "c", "d", "e"],
        heldout=np.array([0, 0, 1, 0, 1], bool),
        split=["train", "validation"] * 3,
        condition=np.arange(6) % 2,
        behaviour=rng.standard_normal((6, 10, 2)),
        channels=["x", "y"],
        rates=np.abs(rng.standard_normal((6, 10, 5))),
        source="test",
    )
    save_population(made, tmp_path / "p.h5")
    back = load_population(tmp_path / "p.h5")
    xr.testing.assert_identical(made, back)
    assert {name: v.dtype for name, v in back.variables.items()} == {
        n: v.dtype for n, v in made.variables.items()
    }
    assert made.attrs["masked_bins"] == 3
    assert not made["observed"].values[2, 7:].any()
    assert made["observed"].values.sum() == 57
    assert made["counts"].values[2, 7:].sum() == 0
    assert made["forward"].values.sum() == 3
    np.testing.assert_allclose(made["time"].values[:2], [-0.09, -0.07])


def test_hz_is_only_another_unit() -> None:
    assert to_hz(np.array([0.5]), 0.02) == 25


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: {"counts": -c}, "negative one, -"),
        (lambda c: {"counts": c + 0.5}, "fractional one"),
        (lambda c: {"counts": c[0]}, r"\(trial, time, neuron\)"),
        (lambda c: {"counts": c * (np.arange(5) > 0)}, r"1 never do \(0\)"),
        (lambda c: {"counts": c[:1]}, "at least two trials"),
        (lambda c: {"counts": c * 100_000}, "at most 65535"),
        (lambda c: {"bin_s": 0.0}, "a bin > 0 s"),
        (lambda c: {"forward_bins": 10}, "fewer forward bins"),
        (lambda c: {"heldout": np.array([1, 1, 1, 0, 0], bool)}, "3 of 5"),
        (lambda c: {"behaviour": np.zeros((6, 9, 2))}, r"as long as the spikes, \(6, 10, channel\)"),
        (lambda c: {"split": ["train"] * 5 + ["dev"]}, "got dev"),
        (lambda c: {"split": ["train"] * 5}, "6 trials"),
    ],
)
def test_what_is_no_population_is_refused(change, words: str, rng: np.random.Generator) -> None:
    counts = counts_of(rng)
    options = {"counts": counts, "bin_s": 0.02} | change(counts)
    with pytest.raises(InputError, match=words):
        population(**options)


def test_an_unsorted_clock_is_refused(rng: np.random.Generator) -> None:
    made = population(counts_of(rng), 0.02)
    with pytest.raises(InputError, match="Sort the clock"):
        check_population(made.isel(time=[1, 0, *range(2, 10)]))


def test_files_that_are_none_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_population(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("spikes")
    with pytest.raises(InputError, match="cannot be read"):
        load_population(tmp_path / "text.h5")
    made = population(counts_of(rng), 0.02)
    save_population(made, tmp_path / "p.h5")
    whole = (tmp_path / "p.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        load_population(tmp_path / "half.h5")
    made.drop_vars("observed").to_netcdf(tmp_path / "other.h5", engine="h5netcdf")
    with pytest.raises(InputError, match="without observed"):
        load_population(tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"\.h5 or \.nc"):
        save_population(made, tmp_path / "p.mat")
