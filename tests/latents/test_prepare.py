"""`radiata-latents prepare`: every kind of source to a population, and one line for whatever cannot be used."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat

from radiata_core import commands
from radiata_core.files import sha256
from radiata_latents.data.population import load_population
from radiata_latents.experiment.prepare import Prepare

Command = Callable[..., int]


def prepare(*words: object) -> int:
    return commands.main("radiata-latents", "", {"prepare": Prepare}, ["prepare", *map(str, words)])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "trials.h5"


@pytest.fixture
def refused(out: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line of a command that fails; nothing is left behind."""

    def run(*words: object) -> str:
        capsys.readouterr()
        assert prepare(*words, "--out", out) == 1
        said = capsys.readouterr()
        assert "Traceback" not in said.err and said.out == ""
        lines = [
            line for line in said.err.splitlines() if line.startswith("radiata-latents prepare: error: ")
        ]
        assert len(lines) == 1, said.err
        assert not out.parent.exists() or not any(out.parent.iterdir())
        return lines[0]

    return run


def nwb(path: Path, units: int = 8, seed: int = 0, **change: Any) -> Path:
    """A recording of 60 s: units that fire at 20 Hz, 20 trials of 2.5 s, an angle at 100 Hz from 10 s on."""
    rng = np.random.default_rng(seed)
    spikes = [np.sort(rng.uniform(0, 60, 1200)) for _ in range(units)]
    with h5py.File(path, "w") as file:
        file["units/id"] = np.arange(units)
        file["units/spike_times"] = np.concatenate(spikes)
        file["units/spike_times_index"] = np.cumsum([len(s) for s in spikes])
        file["units/obs_intervals"] = np.tile([[0.0, 60.0]], (units, 1))
        file["units/obs_intervals_index"] = np.arange(units) + 1
        file["intervals/trials/start_time"] = 0.5 + 2.5 * np.arange(20)
        file["intervals/trials/target"] = np.arange(20) % 4
        times = np.arange(10, 60, 0.01)
        file["processing/behavior/Compass/ry/data"] = times % (2 * np.pi)
        file["processing/behavior/Compass/ry/timestamps"] = times
        for name, value in change.items():
            key = name.replace("__", "/")
            if key in file:
                del file[key]
            if value is not None:
                file[key] = value
    return path


# What comes out -------------------------------------------------------------------------------------------------------


def test_any_nwb(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = nwb(tmp_path / "a.nwb")
    words = [source, "--align", "trials.start_time", "--window", -0.1, 1.4, "--bin", "20ms", "--forward", "200ms",
             "--holdout", 0.25, "--behaviour", "Compass/ry", "--angle", "--lag=-20ms", "--condition", "target",
             "--validation", 0.2, "--test", 0.1]  # fmt: skip
    assert prepare(*words, "--out", out) == 0
    found = load_population(out)
    assert dict(found.sizes) == {"trial": 20, "time": 85, "neuron": 8, "channel": 2}
    assert found["forward"].values.sum() == 10 and found["heldout"].values.sum() == 2
    assert found["condition"].values.tolist() == list(range(4)) * 5
    words_of = found["split"].values.tolist()
    assert {w: words_of.count(w) for w in set(words_of)} == {"train": 14, "validation": 4, "test": 2}
    edges = 0.5 + 2.5 * 7 - 0.1 + 0.02 * np.arange(86)
    with h5py.File(source) as file:
        times = np.split(file["units/spike_times"][:], file["units/spike_times_index"][:-1])
    np.testing.assert_array_equal(found["counts"].values[7, :, 3], np.histogram(times[3], edges)[0])
    centres = 0.5 * (edges[:-1] + edges[1:]) - 0.02
    np.testing.assert_allclose(found["behaviour"].values[7, :, 0], np.cos(centres), atol=0.01)
    said = capsys.readouterr().out
    assert "75 bins of 20 ms and 10 forward" in said and "6 neurons held in, 2 out" in said
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["Sources"] == [{"Name": "a.nwb", "SHA256": sha256(source)}]
    assert record["sha256"] == sha256(out) and record["SyntheticData"] is False
    assert record["splits"] == {"train": 14, "validation": 4, "test": 2}
    assert record["spikes"] == int(found["counts"].values.sum()) and record["options"]["bin"] == "20ms"


def test_same_options_same_bytes_and_nothing_is_overwritten(tmp_path: Path, refused: Any) -> None:
    source = nwb(tmp_path / "a.nwb")
    for name in ("a", "b"):
        assert prepare(source, "--holdout", 0.25, "--out", tmp_path / f"{name}.h5") == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    before = (tmp_path / "a.h5").stat().st_mtime_ns
    assert prepare(source, "--out", tmp_path / "a.h5") == 1
    assert prepare(source, "--out", tmp_path / "a.h5", "--dry-run") == 0
    (tmp_path / "c.json").write_text("somebody's", encoding="utf-8")
    assert prepare(source, "--out", tmp_path / "c.h5") == 1
    assert (tmp_path / "c.json").read_text(encoding="utf-8") == "somebody's"
    assert (tmp_path / "a.h5").stat().st_mtime_ns == before
    assert prepare(source, "--out", tmp_path / "a.h5", "--overwrite", "--seed", 1) == 0
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "b.h5").read_bytes()


def test_windows_end_to_end_are_split_by_block(tmp_path: Path, out: Path) -> None:
    assert prepare(nwb(tmp_path / "a.nwb"), "--behaviour", "ry", "--complete", "--out", out) == 0
    found = load_population(out)
    assert found.sizes["trial"] == 50
    validates = found["split"].values == "validation"
    assert abs(np.diff(validates.astype(int))).sum() < 2 * validates.sum()  # neighbours stay together
    assert found.attrs["split_by"] == "block"
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["windows_incomplete"] == 10


def test_the_benchmarks_two_files(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file to train on with behaviour, and a test file on the same clock that withholds units."""
    split = h5py.string_dtype()
    begin = 0.5 + 2.5 * np.arange(20)
    spans = np.stack([begin, begin + 2.0], 1)
    for name, rows, units, words in (
        ("train", slice(0, None, 2), 8, ["train"] * 7 + ["val"] * 3),
        ("test", slice(1, None, 2), 6, ["test"] * 10),
    ):
        path = nwb(
            tmp_path / f"{name}.nwb", units,
            units__heldout=np.arange(units) >= 6,
            units__obs_intervals=np.tile(spans[rows], (units, 1)),
            units__obs_intervals_index=10 * (np.arange(units) + 1),
            intervals__trials__start_time=begin[rows],
            intervals__trials__target=None,
            intervals__trials__move_onset_time=begin[rows] + 0.6,
        )  # fmt: skip
        with h5py.File(path, "a") as file:
            file.create_dataset("intervals/trials/split", data=words, dtype=split)
    sources = [tmp_path / "train.nwb", tmp_path / "test.nwb"]
    assert prepare(*sources, "--preset", "nlb:mc_maze_small", "--bin", "5ms", "--out", out) == 0
    found = load_population(out)
    assert dict(found.sizes) == {"trial": 20, "time": 180, "neuron": 8}
    assert found["withheld"].values.sum() == 10 and found["observed"].values.all()
    assert found["split"].values[:4].tolist() == ["train", "test", "train", "test"]
    assert "10 trials without the neurons held out" in capsys.readouterr().out


def test_matlab_with_a_tracker_that_parks(tmp_path: Path, out: Path, rng: np.random.Generator) -> None:
    cells = np.empty((1, 3), object)
    for k, rate in enumerate((900, 600, 5)):
        cells[0, k] = np.sort(rng.uniform(0, 30, rate))[:, None]
    savemat(tmp_path / "a.mat", {"units": cells})
    ticks = np.arange(0, 30, 1 / 60)
    track = np.zeros(len(ticks), [("time", "<u4"), ("xloc", "<u2"), ("yloc", "<u2")])
    track["time"], track["xloc"] = 30000 * ticks, np.where(ticks < 20, 500 + 50 * np.sin(ticks), 77)
    track["yloc"] = np.where(ticks < 20, np.arange(len(ticks)) % 7, 3)
    head = "clockrate: 30000\npixel scale: 5 pix/cm\nFields: <time uint32><xloc uint16><yloc uint16>\n<End settings>\n"
    (tmp_path / "t.videoPositionTracking").write_bytes(head.encode() + track.tobytes())
    words = [
        "--variable",
        "units",
        "--positions",
        tmp_path / "t.videoPositionTracking",
        "--parked",
        "--complete",
    ]
    assert prepare(tmp_path / "a.mat", *words, "--least-spikes", 50, "--out", out) == 0
    found = load_population(out)
    assert found["neuron"].values.tolist() == ["1", "2"] and found["channel"].values.tolist() == ["x", "y"]
    assert 18 <= found.sizes["trial"] <= 20
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["windows_parked"] in (9, 10) and record["neurons_left_out"] == 1
    assert [source["Name"] for source in record["Sources"]] == ["a.mat", "t.videoPositionTracking"]


@pytest.mark.parametrize(
    ("preset", "more", "sizes"),
    [
        ("lorenz", ["--conditions", 5, "--trials", 4], (20, 50, 29)),
        ("lfads_demo_2017", ["--conditions", 5, "--trials", 4], (20, 50, 29)),
        ("chaotic-rnn", ["--conditions", 5, "--trials", 4, "--neurons", 20], (20, 100, 20)),
        ("oscillators", ["--trials", 20, "--bin", "10ms"], (20, 100, 30)),
        ("ring", ["--trials", 20, "--neurons", 10], (20, 100, 10)),
    ],
)
def test_simulations(preset: str, more: list[Any], sizes: tuple[int, ...], out: Path) -> None:
    assert prepare("--preset", preset, *more, "--holdout", 0.2, "--seed", 3, "--out", out) == 0
    found = load_population(out)
    assert found["counts"].shape == sizes and "rates" in found
    assert set(found["split"].values) == {"train", "validation"}
    assert found.attrs["source"].startswith("synthetic") and found.attrs["synthetic"] == 1
    assert json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["SyntheticData"] is True
    if preset == "lorenz":  # whole conditions validate
        validates = found["split"].values == "validation"
        assert set(found["condition"].values[validates]).isdisjoint(found["condition"].values[~validates])


def test_arrays_and_lfads_keep_their_split(tmp_path: Path, out: Path, rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (20, 10, 6))
    np.savez(tmp_path / "a.npz", counts=counts, bin_s=0.02, split=["train"] * 15 + ["validation"] * 5)
    assert prepare(tmp_path / "a.npz", "--holdout", "1", "4", "--out", out) == 0
    found = load_population(out)
    assert found["split"].values.tolist() == ["train"] * 15 + ["validation"] * 5
    np.testing.assert_array_equal(np.flatnonzero(found["heldout"].values), [1, 4])
    assert prepare(tmp_path / "a.npz", "--validation", 0.5, "--out", out, "--overwrite") == 0
    assert (load_population(out)["split"].values == "validation").sum() == 10
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train_data"], file["valid_data"] = counts[:12], counts[12:]
    assert prepare(tmp_path / "a.h5", "--bin", "5 ms", "--out", out, "--overwrite") == 0
    again = load_population(out)
    assert again["split"].values.tolist() == ["train"] * 12 + ["validation"] * 8
    assert again.attrs["bin_s"] == 0.005


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c - 1.0, "a negative one, -1"),
        (lambda c: c + 0.5, "a fractional one"),
        (lambda c: c[:1], "at least two trials; got one"),
        (lambda c: c * [1, 1, 0, 1, 1, 1], "1 never do (2). Leave them out (--drop-silent)"),
        (lambda c: c[0], "Add the axis"),
    ],
)
def test_counts_that_are_none(
    change: Callable[[np.ndarray], np.ndarray],
    words: str,
    tmp_path: Path,
    rng: np.random.Generator,
    refused: Any,
) -> None:
    counts = rng.poisson(1.0, (12, 10, 6)).astype(float)
    counts[0, 0, 0] = 0.0
    np.savez(tmp_path / "a.npz", counts=change(counts), bin_s=0.02)
    assert words in refused(tmp_path / "a.npz")


def test_unobserved_bins_are_masked_and_counted(
    tmp_path: Path, out: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = rng.poisson(1.0, (12, 10, 6)).astype(float)
    counts[3, 5:9, 2] = np.nan
    np.savez(tmp_path / "a.npz", counts=counts, bin_s=0.02)
    assert prepare(tmp_path / "a.npz", "--out", out) == 0
    assert "4 of 120 not observed" in capsys.readouterr().out
    assert json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["masked_bins"] == 4


def test_arrays_that_do_not_fit(tmp_path: Path, rng: np.random.Generator, refused: Any) -> None:
    counts = rng.poisson(2.0, (12, 10, 6))
    np.savez(tmp_path / "a.npz", counts=counts, behaviour=np.zeros((12, 8, 2)), bin_s=0.02)
    assert "behaviour as long as the spikes" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", counts=counts, heldout=np.arange(6) > 1, bin_s=0.02)
    assert "fewer neurons held out than held in; got 4 of 6" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", counts=counts, bin_s=0.02)
    assert "Lower --holdout" in refused(tmp_path / "a.npz", "--holdout", 0.5)
    assert "got 9" in refused(tmp_path / "a.npz", "--holdout", "9")
    assert "12 of 12 have none" in refused(tmp_path / "a.npz", "--split-by", "condition")
    assert "expected no --align" in refused(tmp_path / "a.npz", "--align", "start_time")
    backwards = xr.Dataset({"counts": (("trial", "time", "neuron"), counts)}, {"time": np.arange(10.0)[::-1]})
    backwards.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert "Sort the clock" in refused(tmp_path / "b.nc")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"units__spike_times": np.linspace(60, 0, 9600)}, "in order; got"),
        ({"units__spike_times": np.full(9600, np.nan)}, "NaN or infinity"),
        ({"units__spike_times": None}, "expected spike times in units/"),
        ({"processing__behavior__Compass__ry__timestamps": np.arange(100.0)}, "a time a sample"),
        (
            {"processing__behavior__Compass__ry__timestamps": np.linspace(500, 600, 5000)},
            "in none of their bins",
        ),
        ({"units__obs_intervals": np.tile([[100.0, 110.0]], (8, 1))}, "inside the observed intervals"),
    ],
)
def test_recordings_that_are_broken(change: dict, words: str, tmp_path: Path, refused: Any) -> None:
    source = nwb(tmp_path / "a.nwb", **change)
    assert words in refused(source, "--align", "start_time", "--window", 0, 1, "--behaviour", "ry")


def test_files_that_are_cut_off_or_absent(tmp_path: Path, refused: Any) -> None:
    whole = nwb(tmp_path / "a.nwb").read_bytes()
    (tmp_path / "half.nwb").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refused(tmp_path / "half.nwb")
    assert "no such file" in refused(tmp_path / "none.nwb")
    (tmp_path / "a.csv").write_text("1,2")
    assert "got a.csv" in refused(tmp_path / "a.csv")
    assert "got neither" in refused()
    assert "overlap at" in refused(tmp_path / "a.nwb", nwb(tmp_path / "b.nwb"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bin", "20"], "--bin 20ms or --bin 20s"),
        (["--bin", "0ms"], "longer than 0 s"),
        (["--bin", "7ms"], "whole number of bins"),
        (["--forward", "0.2"], "expected --forward with its unit"),
        (["--align", "start_time"], "expected --window with --align"),
        (["--align", "go_time", "--window", "0", "1"], "There are: start_time"),
        (["--window", "1", "0"], "beginning before its end"),
        (["--align", "start_time", "--window", "0", "3"], "or pass --overlap"),
        (
            ["--align", "start_time", "--window", "0", "1", "--condition", "go"],
            "There are: start_time, target",
        ),
        (["--align", "start_time", "--window", "0", "1", "--condition", "start_time"], "whose values repeat"),
        (["--behaviour", "foot"], "There are: processing/behavior/Compass/ry"),
        (["--parked"], "no --parked with no --behaviour"),
        (["--holdout", "1.5"], "share in (0, 1)"),
        (["--validation", "0.9", "--test", "0.2"], "sum is below 1"),
        (["--split-by", "mouse"], "trial, condition or block"),
        (["--overlap", "--split-by", "trial"], "on both sides"),
        (["--preset", "nlb:mc_maze_smal"], "Did you mean nlb:mc_maze_small?"),
        (["--preset", "nlb:mc_maze"], "Is it DANDI:000128?"),
        (["--preset", "nlb:mc_rtt", "--bin", "10ms"], "5 or 20 ms"),
        (["--preset", "nlb:mc_rtt", "--align", "x"], "expected no --align with nlb:mc_rtt"),
        (["--preset", "lorenz"], "expected no files with the simulation lorenz"),
        (["--jitter"], "anything but nlb:dmfc_rsg"),
        (["--trials", "3"], "expected no --trials with files"),
        (["--least-spikes", "100000"], "Lower --least-spikes"),
        (["--seed", "-1"], "0 or more"),
    ],
)
def test_options_that_do_not_fit(options: list[str], words: str, tmp_path: Path, refused: Any) -> None:
    assert words in refused(nwb(tmp_path / "a.nwb"), *options)


def test_simulations_that_do_not_fit(refused: Any) -> None:
    assert "as lorenz has" in refused("--preset", "lorenz", "--bin", "5ms")
    assert "expected no --conditions with the simulation ring" in refused(
        "--preset", "ring", "--conditions", 3
    )
    assert "expected no --window" in refused("--preset", "ring", "--window", 0, 1)
    assert "none. Name them before --preset" in refused("--preset", "nlb:mc_rtt")


def test_a_name_that_is_no_population(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("--preset", "ring", "--out", tmp_path / "a.csv") == 1
    assert "ending in .h5" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", counts=np.ones((4, 3, 2), int), bin_s=0.1)
    assert prepare(tmp_path / "a.npz") == 2  # no --out


@pytest.mark.needs_shared
def test_the_real_linear_track(shared_data: Path, out: Path) -> None:
    """985 s on the track, 26 of them before the animal moves: the rest of 33 minutes is a frozen tracker."""
    folder = shared_data / "spikes" / "nelpy"
    words = [folder / "linear-track_spikes.mat", "--positions", folder / "linear-track_trajectory.videoPositionTracking",
             "--parked", "--complete", "--least-spikes", 100, "--holdout", 0.25]  # fmt: skip
    assert prepare(*words, "--out", out) == 0
    found = load_population(out)
    assert dict(found.sizes) == {"trial": 958, "time": 50, "neuron": 20, "channel": 2}
    assert found["heldout"].values.sum() == 5 and found.attrs["split_by"] == "block"
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["windows_parked"] == 1009 and record["neurons_left_out"] == 11
    assert record["behaviour_unknown_bins"] == 0
    assert not (found["behaviour"].values == (522, 8)).all(2).any()  # where the tracker rests


# What it costs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "code", "unused"), [
    (["none.nwb"], 1, ("torch", "xarray", "monai")),
    (["--preset", "lorenz", "--trials", "2", "--conditions", "5", "--dry-run"], 0, ("monai",)),
])  # fmt: skip
def test_loads_no_library_that_it_does_not_need(words: list[str], code: int, unused: tuple[str, ...]) -> None:
    """A path that is misspelt is said at once, and cutting trials does not wait for networks' loaders."""
    script = f"""
import sys
from radiata_latents.cli import run
found = run(["prepare", *{words!r}, "--out", "none.h5"])
sys.exit(str([found, [name for name in {unused!r} if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.stderr.splitlines()[-1] == str([code, []])
