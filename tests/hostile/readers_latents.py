"""Readers of `radiata_latents`: populations, recordings, submissions, presets."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from reader import Reader
from scipy.io import savemat

from radiata_latents.data.arrays import load_arrays
from radiata_latents.data.benchmark import PRESETS
from radiata_latents.data.lfads_files import load_lfads, save_lfads
from radiata_latents.data.matlab import read_matlab, read_positions
from radiata_latents.data.nwb import read_nwb
from radiata_latents.data.population import load_population, population, save_population
from radiata_latents.data.sources import SourceKind, kind_of
from radiata_latents.data.submission import load_submission, save_submission
from radiata_latents.experiment.presets import with_preset
from radiata_latents.experiment.train import Train

__all__ = ["READERS"]


def _counts(trials: int = 6, bins: int = 5, neurons: int = 4) -> np.ndarray:
    return np.random.default_rng(0).poisson(1.0, (trials, bins, neurons)).astype(float)


def _population(behaviour: bool = True) -> Any:
    return population(
        _counts(), bin_s=0.02, rates=np.ones((6, 5, 4)), split=["train"] * 4 + ["validation"] * 2, source="x",
        **({"behaviour": np.zeros((6, 5, 2))} if behaviour else {}),
    )  # fmt: skip


def _read_source(name: str) -> Any:
    def read(folder: Path) -> None:
        kind = kind_of(folder / name)
        if kind is SourceKind.ARRAYS:
            load_arrays(folder / name, None, drop_silent=True)
        elif kind is SourceKind.LFADS:
            load_lfads(folder / name)

    return read


def _plain(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["counts"] = _counts()
        file["bin_s"] = 0.02
        file["neurons"] = ["a", "b", "c", "d"]
        file["condition"] = np.arange(6) % 2


def _npz(folder: Path) -> None:
    np.savez(
        folder / "a.npz",
        counts=_counts(),
        bin_s=0.02,
        behaviour=np.zeros((6, 5, 2)),
        split=["train"] * 4 + ["validation"] * 2,
    )


def _nwb(folder: Path) -> None:
    rng = np.random.default_rng(0)
    spikes = [np.sort(rng.uniform(0, 10, 20)) for _ in range(3)]
    with h5py.File(folder / "a.nwb", "w") as file:
        table = file.create_group("units")
        table["id"], table["spike_times"] = np.arange(3), np.concatenate(spikes)
        table["spike_times_index"] = np.cumsum([len(s) for s in spikes])
        table["heldout"] = np.arange(3) >= 2
        table["obs_intervals"], table["obs_intervals_index"] = (
            np.tile([[0.0, 10.0]], (3, 1)),
            np.arange(3) + 1,
        )
        rows = file.create_group("intervals/trials")
        rows["id"], rows["start_time"] = np.arange(4), 2.0 * np.arange(4)
        rows.create_dataset("split", data=["train"] * 4, dtype=h5py.string_dtype())
        series = file.create_group("processing/behavior/hand")
        series.attrs["comments"] = "columns=[x,y]"
        series.create_dataset("data", data=np.zeros((50, 2))).attrs["conversion"] = 0.001
        series["timestamps"] = np.arange(50) / 5
        regular = file.create_group("acquisition/pupil")
        regular["data"] = np.arange(20.0)
        regular.create_dataset("starting_time", data=1.5).attrs["rate"] = 20.0


def _matlab(compressed: bool) -> Any:
    def make(folder: Path) -> None:
        inner = np.empty((1, 3), object)
        one = {"time": np.array([[1.0], [2.0]]), "timerange": np.array([[0.0, 9.0]])}
        inner[0, 0], inner[0, 1], inner[0, 2] = one, np.zeros((1, 0)), one
        savemat(folder / "a.mat", {"spikes": inner}, do_compression=compressed)

    return make


def _tracking(folder: Path) -> None:
    record = np.dtype([("time", "<u4"), ("x", "<u2"), ("y", "<u2")])
    rows = np.zeros(4, record)
    rows["time"] = 30000 * np.arange(4)
    head = "<Start settings>\nclockrate: 30000\npixel scale: 2.0 pix/cm\n"
    head += "Fields: <time uint32><xloc uint16><yloc uint16>\n<End settings>\n"
    (folder / "a.videoPositionTracking").write_bytes(head.encode() + rows.tobytes())


def _submission(folder: Path) -> None:
    name = next(iter(PRESETS))
    keys = ("train_rates_heldin", "train_rates_heldout", "eval_rates_heldin", "eval_rates_heldout")
    save_submission(folder / "s.h5", {name: {key: np.ones((2, 3, 4), np.float32) for key in keys}})


def _preset(folder: Path) -> None:
    (folder / "p.toml").write_text(
        "steps = 100\nbatch_size = 2\nseed = 3\nema = [0.1]\nlearning_rate = 1e-3\n"
    )


READERS = (
    Reader(
        "population",
        lambda f: save_population(_population(), f / "p.h5"),
        lambda f: load_population(f / "p.h5"),
        (("p.h5", "hdf5"),),
    ),
    Reader(
        "arrays, netcdf",
        lambda f: save_population(_population(), f / "p.nc"),
        _read_source("p.nc"),
        (("p.nc", "hdf5"),),
    ),
    Reader("arrays, npz", _npz, _read_source("a.npz"), (("a.npz", "zip"),)),
    Reader(
        "arrays, npy",
        lambda f: np.save(f / "a.npy", _counts()),
        lambda f: load_arrays(f / "a.npy", 0.02),
        (("a.npy", "npy"),),
    ),
    Reader("arrays, hdf5", _plain, _read_source("a.h5"), (("a.h5", "hdf5"),)),
    Reader(
        "lfads",
        lambda f: save_lfads(_population(), f / "l.h5", encoded=True),
        _read_source("l.h5"),
        (("l.h5", "hdf5"),),
    ),
    Reader(
        "lfads, run manager",
        lambda f: save_lfads(_population(), f / "l.h5"),
        _read_source("l.h5"),
        (("l.h5", "hdf5"),),
    ),
    Reader("nwb", _nwb, lambda f: read_nwb(f / "a.nwb"), (("a.nwb", "hdf5"),)),
    Reader("matlab", _matlab(False), lambda f: read_matlab(f / "a.mat"), (("a.mat", "binary"),)),
    Reader("matlab, packed", _matlab(True), lambda f: read_matlab(f / "a.mat"), (("a.mat", "binary"),)),
    Reader(
        "tracking",
        _tracking,
        lambda f: read_positions(f / "a.videoPositionTracking"),
        (("a.videoPositionTracking", "binary"),),
    ),
    Reader("submission", _submission, lambda f: load_submission(f / "s.h5"), (("s.h5", "hdf5"),)),
    Reader(
        "preset, latents",
        _preset,
        lambda f: with_preset(Train(population=f / "p.h5", out=f / "out"), f / "p.toml"),
        (("p.toml", "toml"),),
    ),
)
