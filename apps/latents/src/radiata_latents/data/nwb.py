"""Neurodata Without Borders files, read with h5py alone: units, intervals, trials, behaviour.

    units/spike_times, spike_times_index     spikes of each unit
    units/obs_intervals, …_index             when units were observed (their intersection is used)
    units/heldout                            units that the Neural Latents Benchmark holds out
    intervals/trials/*                       one row a trial
    processing, acquisition, analysis        every TimeSeries, by its path: the behaviour

References:
    Rübel et al., "The Neurodata Without Borders ecosystem for neurophysiological data science", 2022,
        https://doi.org/10.7554/eLife.78362.
    Pei et al., "Neural Latents Benchmark '21", 2021, https://arxiv.org/abs/2109.04463.
"""

import re
from pathlib import Path

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import open_hdf5
from radiata_latents.data.recordings import Recording, Trace

__all__ = ["read_nwb"]

_MOST_PAIRS = 10**6
SHELVES = ("processing", "acquisition", "analysis", "stimulus")


def read_nwb(path: Path) -> Recording:
    """The recording of a file.

    Raises:
        InputError: no such file, no HDF5 or a truncated one, no units, a clock out of order.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected an NWB file; got no such file: {path}. Check the path.")
    with (
        foreign(f"expected an NWB file; got {path}, which cannot be read", "Fetch it again."),
        open_hdf5(path, whole=True) as file,
    ):
        if "units" not in file or "spike_times" not in file["units"]:
            raise InputError(
                f"expected spike times in units/ of {path}; got none. Is it a file of sorted spikes?"
            )
        units = file["units"]
        names = _names(units)
        spikes = dict(zip(names, _ragged(units, "spike_times", len(names)), strict=True))
        return Recording(
            spikes=spikes,
            intervals=_intervals(units, len(names)),
            heldout=frozenset(np.asarray(names)[units["heldout"][:].astype(bool)])
            if "heldout" in units
            else frozenset(),
            events=_events(file),
            traces=_traces(file),
            source=path.name,
        )


def _names(units: h5py.Group) -> list[str]:
    count = len(units["spike_times_index"]) if "spike_times_index" in units else 1
    names = units["id"][:].tolist() if "id" in units else list(range(count))
    return [str(name) for name in names]


def _ragged(units: h5py.Group, column: str, count: int) -> list[np.ndarray]:
    values = units[column][:]
    ends = units[f"{column}_index"][:].astype(int) if f"{column}_index" in units else np.array([len(values)])
    if len(ends) != count or (len(ends) and ends[-1] != len(values)) or (np.diff(ends) < 0).any():
        raise InputError(
            f"expected an index of {count} rows into {len(values)} {column}; the file's does not fit."
        )
    return np.split(values, ends[:-1])


def _intervals(units: h5py.Group, count: int) -> np.ndarray:
    """What all units share; in files of the benchmark every unit has the same."""
    if "obs_intervals" not in units:
        return np.zeros((0, 2))
    rows = _ragged(units, "obs_intervals", count)
    shared = rows[0]
    for other in rows[1:]:
        if shared.shape == other.shape and np.array_equal(shared, other):
            continue
        if len(shared) * len(other) > _MOST_PAIRS:
            raise InputError(
                f"expected intervals that the units share, or a few; got {len(shared)} and {len(other)} different ones."
            )
        cut = [(max(a, c), min(b, d)) for a, b in shared for c, d in other if max(a, c) < min(b, d)]
        shared = np.array(cut).reshape(-1, 2)
    return shared


def _events(file: h5py.File) -> dict[str, np.ndarray]:
    trials = file.get("intervals/trials")
    if trials is None:
        return {}
    rows = len(trials["id"]) if "id" in trials else len(trials["start_time"])
    found = {}
    for name, item in trials.items():
        if isinstance(item, h5py.Dataset) and item.shape == (rows,) and name != "id":
            values = item.asstr()[:] if h5py.check_string_dtype(item.dtype) else item[:]
            found[name] = values
    return found


def _traces(file: h5py.File) -> dict[str, Trace]:
    found: dict[str, Trace] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Group) or not isinstance(item.get("data"), h5py.Dataset):
            return
        data = item["data"]
        if (
            data.ndim not in (1, 2)
            or data.dtype.kind not in "fiu"
            or not ("timestamps" in item or "starting_time" in item)
        ):
            return
        found[name] = _trace(item, data)

    for shelf in SHELVES:
        if shelf in file:
            group = file[shelf]
            group.visititems(lambda name, item, shelf=shelf: visit(f"{shelf}/{name}", item))
    return found


def _trace(item: h5py.Group, data: h5py.Dataset) -> Trace:
    values = data[:].astype(np.float64)
    factor, shift = float(data.attrs.get("conversion", 1.0)), float(data.attrs.get("offset", 0.0))
    values = values * factor + shift
    if "timestamps" in item:
        times = item["timestamps"][:].astype(np.float64)
    else:
        start = item["starting_time"]
        times = float(start[()]) + np.arange(len(values)) / float(start.attrs["rate"])
    count = 1 if values.ndim == 1 else values.shape[1]
    unit = data.attrs.get("unit", "")
    return Trace(
        times, values, _channels(item, count), unit.decode() if isinstance(unit, bytes) else str(unit)
    )


def _channels(item: h5py.Group, count: int) -> tuple[str, ...]:
    """Names that a comment like "columns=[x,y]" gives, or numbers."""
    comment = item.attrs.get("comments", "")
    comment = comment.decode() if isinstance(comment, bytes) else str(comment)
    match = re.search(r"columns\s*=\s*\[([^\]]*)\]", comment)
    names = [part.strip(" '\"") for part in match[1].split(",")] if match else []
    return tuple(names) if len(names) == count else tuple(str(i) for i in range(count))
