"""NWB files by h5py alone, against files written as the standard lays them out."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.benchmark import PRESETS, benchmark_population
from radiata_latents.data.nwb import read_nwb


def write_nwb(path: Path, rng: np.random.Generator, units: int = 12, trials: int = 20) -> list[np.ndarray]:
    """A file like the benchmark's: held-out units, observed intervals, trials with splits, hand velocity at 1 kHz."""
    length = 2.0 * trials
    spikes = [np.sort(rng.uniform(0, length, 400)) for _ in range(units)]
    with h5py.File(path, "w") as file:
        table = file.create_group("units")
        table["id"] = np.arange(units) + 100
        table["spike_times"] = np.concatenate(spikes)
        table["spike_times_index"] = np.cumsum([len(s) for s in spikes])
        table["heldout"] = np.arange(units) >= units - 3
        table["obs_intervals"] = np.tile([[0.0, length]], (units, 1))
        table["obs_intervals_index"] = np.arange(units) + 1
        rows = file.create_group("intervals/trials")
        rows["id"] = np.arange(trials)
        rows["start_time"] = 2.0 * np.arange(trials)
        rows["move_onset_time"] = 2.0 * np.arange(trials) + 0.6
        rows["trial_type"] = np.arange(trials) % 4
        rows.create_dataset(
            "split", data=["train"] * 12 + ["val"] * 5 + ["none"] * 3, dtype=h5py.string_dtype()
        )
        series = file.create_group("processing/behavior/hand_vel")
        series.attrs["comments"] = "columns=[x,y]"
        times = np.arange(0, length, 0.001)
        series.create_dataset("data", data=np.stack([np.sin(times), np.cos(times)], 1) * 1000).attrs[
            "conversion"
        ] = 0.001
        series["timestamps"] = times
        regular = file.create_group("acquisition/pupil")
        regular["data"] = np.arange(100.0)
        start = regular.create_dataset("starting_time", data=1.5)
        start.attrs["rate"] = 20.0
    return spikes


def test_what_is_in_the_file_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    spikes = write_nwb(tmp_path / "a.nwb", rng)
    found = read_nwb(tmp_path / "a.nwb")
    assert list(found.spikes) == [str(i + 100) for i in range(12)]
    for ours, theirs in zip(found.spikes.values(), spikes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.heldout == {"109", "110", "111"}
    np.testing.assert_array_equal(found.intervals, [[0.0, 40.0]])
    assert found.events["split"][0] == "train"
    hand, pupil = found.traces["processing/behavior/hand_vel"], found.traces["acquisition/pupil"]
    assert hand.channels == ("x", "y")
    np.testing.assert_allclose(hand.values[:, 0], np.sin(hand.times), atol=1e-12)
    np.testing.assert_allclose(pupil.times[[0, 1]], [1.5, 1.55])


def test_units_share_what_all_of_them_were_observed_in(tmp_path: Path, rng: np.random.Generator) -> None:
    write_nwb(tmp_path / "a.nwb", rng, units=2)
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        del file["units/obs_intervals"], file["units/obs_intervals_index"], file["units/heldout"]
        file["units/obs_intervals"] = [[0.0, 10.0], [20.0, 40.0], [5.0, 25.0]]
        file["units/obs_intervals_index"] = [2, 3]
    np.testing.assert_array_equal(read_nwb(tmp_path / "a.nwb").intervals, [[5.0, 10.0], [20.0, 25.0]])


@pytest.mark.parametrize("bin_ms", [5, 20])
def test_the_benchmarks_trials(bin_ms: int, tmp_path: Path, rng: np.random.Generator) -> None:
    spikes = write_nwb(tmp_path / "a.nwb", rng)
    made = benchmark_population(read_nwb(tmp_path / "a.nwb"), "mc_maze_small", bin_ms)
    assert dict(made.sizes) == {"trial": 17, "time": 900 // bin_ms, "neuron": 12, "channel": 2}
    assert made["forward"].values.sum() == 200 // bin_ms
    assert made["heldout"].values.sum() == 3
    assert made["split"].values.tolist() == ["train"] * 12 + ["validation"] * 5
    assert made["condition"].values[:5].tolist() == [0, 1, 2, 3, 0]
    edges = 2.0 * 4 + 0.6 - 0.25 + bin_ms / 1000 * np.arange(900 // bin_ms + 1)
    np.testing.assert_array_equal(made["counts"].values[4, :, 7], np.histogram(spikes[7], edges)[0])
    centres = 0.5 * (edges[:-1] + edges[1:]) + 0.12
    np.testing.assert_allclose(made["behaviour"].values[4, :, 0], np.sin(centres), atol=2e-3)


def test_presets_are_the_benchmarks() -> None:
    """Numbers of bins at 5 ms as its tools have them."""
    bins = {"mc_maze": 140, "mc_maze_large": 140, "mc_maze_medium": 140, "mc_maze_small": 140, "mc_rtt": 120}
    bins |= {"area2_bump": 120, "dmfc_rsg": 300}
    assert {name: round((p.window[1] - p.window[0]) / 0.005) for name, p in PRESETS.items()} == bins


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.pop("units"), "spike times in units"),
        (lambda f: f["units/spike_times"].__setitem__(3, 1e6), "in order"),
        (lambda f: f["units/spike_times_index"].__setitem__(-1, 10), "does not fit"),
    ],
)
def test_broken_files_are_refused(
    change: Callable[[h5py.File], object], words: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_nwb(tmp_path / "a.nwb", rng)
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        change(file)
    with pytest.raises(InputError, match=words):
        read_nwb(tmp_path / "a.nwb")


def test_files_that_are_none_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_nwb(tmp_path / "none.nwb")
    write_nwb(tmp_path / "a.nwb", rng)
    whole = (tmp_path / "a.nwb").read_bytes()
    for name, content in (("text.nwb", b"spikes"), ("half.nwb", whole[: len(whole) // 3])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read_nwb(tmp_path / name)
    recording = read_nwb(tmp_path / "a.nwb")
    with pytest.raises(InputError, match="expected one of mc_maze"):
        benchmark_population(recording, "mc_amaze")
    with pytest.raises(InputError, match="5 or 20 ms"):
        benchmark_population(recording, "mc_maze", 10)
    with pytest.raises(InputError, match="DANDI:000130"):
        benchmark_population(recording, "dmfc_rsg")
