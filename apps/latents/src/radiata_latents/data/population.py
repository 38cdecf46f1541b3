"""One population in memory: spike counts of trials, labelled, checked once at the border.

    counts    (trial, time, neuron)  spikes a bin, uint16
    observed  (trial, time)          False where a bin was not recorded; its counts are 0 and are never scored
    heldout   (neuron)               True for neurons that an encoder may not see
    forward   (time)                 True for bins after the observed window, which are predicted
    split     (trial)                "train", "validation" or "test"
    condition (trial)                label of the trial's condition, -1 where there is none
    behaviour (trial, time, channel) optional, NaN where it was not measured
    rates, expected (trial, time, neuron)  optional truth of simulations

**Rates are expected counts per bin**, everywhere; `to_hz` is for plots. `expected` is E[count], which is not the rate where
a simulation draws at most one spike a millisecond. Times are the centres of bins in seconds from the event that trials
are aligned to; bins of one population have one width, the attribute `bin_s`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import open_hdf5, unfailing

__all__ = [
    "SPLITS",
    "check_population",
    "heldin_first",
    "load_population",
    "population",
    "save_population",
    "to_hz",
]

SPLITS = ("train", "validation", "test")
FORMAT = "radiata-population/1"
MOST = np.iinfo(np.uint16).max


def population(
    counts: np.ndarray,
    bin_s: float,
    *,
    start_s: float = 0.0,
    forward_bins: int = 0,
    neurons: Sequence[str] | None = None,
    heldout: np.ndarray | None = None,
    split: Sequence[str] | None = None,
    condition: np.ndarray | None = None,
    behaviour: np.ndarray | None = None,
    channels: Sequence[str] | None = None,
    rates: np.ndarray | None = None,
    expected: np.ndarray | None = None,
    **attributes: str | float | int,
) -> xr.Dataset:
    """A checked population from arrays.

    Args:
        counts: Spikes a bin, (trial, time, neuron), whole numbers >= 0. A bin with a NaN in any neuron is not observed;
            how many there are stands in the attribute `masked_bins`.
        bin_s: Width of a bin, s, > 0.
        start_s: Beginning of the first bin from the event that trials are aligned to, s.
        forward_bins: How many of the last bins are the forward window.
        neurons: Names; by default their numbers.
        heldout: Which neurons are held out, (neuron,) bool; by default none.
        split: One of `SPLITS` a trial; by default all "train".
        condition: Label a trial, whole numbers.
        behaviour: (trial, time, channel).
        channels: Names of the behaviour's channels.
        rates: True rates, expected counts a bin, of a simulation.
        expected: True E[count] of a simulation, if it is not `rates`.
        attributes: What else is known: source, checksum, lag.

    Raises:
        InputError: counts that are negative or fractional, arrays that do not fit together, a neuron that never fires.
    """
    counts = np.asarray(counts)
    if counts.ndim != 3:
        raise InputError(f"expected counts of (trial, time, neuron); got shape {counts.shape}. Add the axis.")
    observed = np.isfinite(counts).all(2) if counts.dtype.kind == "f" else np.ones(counts.shape[:2], bool)
    filled = np.where(observed[..., None], counts, 0)
    _check_counts(filled)
    trials, bins, size = counts.shape
    if not bin_s > 0 or not 0 <= forward_bins < bins:
        raise InputError(
            f"expected a bin > 0 s and fewer forward bins than the {bins} there are; got {bin_s} and {forward_bins}."
        )
    data: dict[str, Any] = {"counts": (("trial", "time", "neuron"), filled.astype(np.uint16))}
    data["observed"] = (("trial", "time"), observed)
    for name, array in (("rates", rates), ("expected", expected)):
        if array is not None:
            data[name] = (("trial", "time", "neuron"), np.asarray(array, np.float32))
    if behaviour is not None:
        behaviour = np.asarray(behaviour, np.float32)
        if behaviour.ndim != 3 or behaviour.shape[:2] != (trials, bins):
            raise InputError(
                f"expected behaviour as long as the spikes, ({trials}, {bins}, channel); got {behaviour.shape}. "
                "Cut or resample it to the same bins."
            )
        data["behaviour"] = (("trial", "time", "channel"), behaviour)
    coordinates: dict[str, Any] = {
        "time": start_s + (np.arange(bins) + 0.5) * bin_s,
        "neuron": np.asarray(neurons if neurons is not None else [f"{i}" for i in range(size)], dtype=str),
        "heldout": ("neuron", np.zeros(size, bool) if heldout is None else np.asarray(heldout, bool)),
        "forward": ("time", np.arange(bins) >= bins - forward_bins),
        "split": ("trial", np.asarray(["train"] * trials if split is None else list(split), dtype=str)),
        "condition": (
            "trial",
            np.full(trials, -1, np.int64) if condition is None else np.asarray(condition, np.int64),
        ),
    }
    if behaviour is not None:
        names = channels if channels is not None else [f"{i}" for i in range(behaviour.shape[2])]
        coordinates["channel"] = np.asarray(names, dtype=str)
    about = {"format": FORMAT, "bin_s": float(bin_s), "masked_bins": int((~observed).sum()), **attributes}
    try:
        dataset = xr.Dataset(data, coordinates, about)
    except ValueError as error:  # lengths that differ
        raise InputError(
            f"expected parts for {trials} trials, {bins} bins, {size} neurons; {error}"
        ) from error
    return check_population(dataset)


def _check_counts(counts: np.ndarray) -> None:
    for wrong, what in ((counts < 0, "negative"), (counts != np.floor(counts), "fractional")):
        if wrong.any():
            trial, time, neuron = np.argwhere(wrong)[0]
            raise InputError(
                f"expected whole spike counts >= 0; got a {what} one, {counts[trial, time, neuron]:g}, in trial {trial}, "
                f"bin {time}, neuron {neuron}. Give counts a bin, not rates."
            )
    if counts.size and counts.max() > MOST:
        raise InputError(f"expected at most {MOST} spikes a bin; got {counts.max():g}. Are the units right?")


def check_population(dataset: xr.Dataset) -> xr.Dataset:
    """The population itself, if it keeps the contract of this module.

    Raises:
        InputError: what it breaks, in one line.
    """
    missing = {"counts", "observed"} - set(dataset.data_vars)
    missing |= {"time", "neuron", "heldout", "forward", "split", "condition"} - set(dataset.coords)
    if missing or dataset.attrs.get("format") != FORMAT:
        raise InputError(
            f"expected a population ({FORMAT}); got one of format {dataset.attrs.get('format')} without "
            f"{', '.join(sorted(missing)) or 'nothing'}. Make it with `prepare`."
        )
    times = dataset["time"].values
    if len(times) > 1 and not np.allclose(np.diff(times), dataset.attrs["bin_s"], rtol=1e-6, atol=1e-9):
        raise InputError(
            f"expected bins of {dataset.attrs['bin_s']} s in order; got times {times[:3]} … {times[-1]:g}. Sort the "
            "clock and bin again."
        )
    words = set(dataset["split"].values.tolist())
    if not words <= set(SPLITS):
        raise InputError(
            f"expected splits {', '.join(SPLITS)}; got {', '.join(sorted(words - set(SPLITS)))}."
        )
    if dataset.sizes["trial"] < 2:
        raise InputError("expected at least two trials; got one. Cut the recording into windows.")
    heldout = int(dataset["heldout"].sum())
    if heldout >= dataset.sizes["neuron"] - heldout:
        raise InputError(
            f"expected fewer neurons held out than held in; got {heldout} of {dataset.sizes['neuron']}. Lower --holdout."
        )
    silent = dataset["neuron"].values[dataset["counts"].values.sum((0, 1)) == 0]
    if len(silent):
        raise InputError(
            f"expected neurons that fire; {len(silent)} never do ({', '.join(map(str, silent[:5]))}). Leave them out "
            "(--drop-silent)."
        )
    return dataset


def heldin_first(population: xr.Dataset) -> np.ndarray:
    """Indices of the neurons, held-in ones first, each group in its order: (neuron,) whole numbers."""
    return np.argsort(population["heldout"].values.astype(bool), kind="stable")


def to_hz(rates: np.ndarray, bin_s: float) -> np.ndarray:
    """Spikes a second from expected counts a bin. For plots only."""
    return np.asarray(rates) / bin_s


def save_population(
    dataset: xr.Dataset, path: Path, card: tuple[Path, Callable[[Path], Any]] | None = None
) -> None:
    """Write it atomically as netCDF-4 (HDF5); ends in .h5 or .nc. Its card, if given, is there first (see `atomic_path`)."""
    if Path(path).suffix not in (".h5", ".nc"):
        raise InputError(f"expected a name ending in .h5 or .nc; got {path}. Rename --out.")
    check_population(dataset)
    packed = {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars}
    with atomic_path(path, card) as part, unfailing(part) as stream:
        dataset.to_netcdf(stream, engine="h5netcdf", encoding=packed)


def load_population(path: Path) -> xr.Dataset:
    """Read it whole.

    Raises:
        InputError: no such file, a broken one, or something else.
    """
    if not Path(path).is_file():
        raise InputError(f"expected a population; got no such file: {path}. Check the path.")
    with foreign(f"expected a population; got {path}, which cannot be read", "Make it again with `prepare`."):
        with open_hdf5(path, whole=True), xr.open_dataset(path, engine="h5netcdf") as opened:
            dataset = opened.load()
        check_population(dataset)
        dataset["observed"] = dataset["observed"].astype(bool)
        return dataset.assign_coords({name: dataset[name].astype(bool) for name in ("heldout", "forward")})
