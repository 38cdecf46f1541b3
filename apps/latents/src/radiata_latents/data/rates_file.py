"""What a model says of a population: rates of all neurons in all bins, and the latents behind them.

    rates       (trial, time, neuron)   expected counts a bin, float32
    rates_sd    (trial, time, neuron)   standard deviation over draws of the posterior, where there were draws
    rates_low, rates_high               5 % and 95 % quantiles over draws, where they were asked for (forecasts)
    latents     (trial, time, latent)   along the posterior's mean: positions, then velocities over omega
    drive       (trial, step, latent)   mean of the inferred noise that drives each step; 0 where nothing drives a latent
    kl          (trial, oscillator)     nats that each oscillator's posterior is away from the prior

Neurons are in the *population's* order, whatever the network's was. Coordinates time, neuron, heldout, forward, split and
condition are the population's; `trial` is the number of each trial in it, so a file may hold some of them. Attributes:
bin_s, model, model_sha256, data_sha256 (`content_sha256` of the population), passes, seed, kind. A file is netCDF-4 (HDF5)
with a card beside it (`sidecar`).
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import open_hdf5, unfailing
from radiata_latents.data.sidecar import card_of

__all__ = ["check_belongs", "check_rates", "content_sha256", "load_rates", "rates_dataset", "save_rates"]

FORMAT = "radiata-rates/1"
COORDINATES = ("trial", "time", "neuron", "heldout", "forward", "split", "condition")
ATTRIBUTES = ("bin_s", "model", "model_sha256", "data_sha256", "passes", "seed", "kind")
DIMENSIONS = {
    "rates": ("trial", "time", "neuron"),
    "rates_sd": ("trial", "time", "neuron"),
    "rates_low": ("trial", "time", "neuron"),
    "rates_high": ("trial", "time", "neuron"),
    "latents": ("trial", "time", "latent"),
    "drive": ("trial", "step", "latent"),
    "kl": ("trial", "oscillator"),
}
"""What a file may hold; only `rates` has to be there."""


def content_sha256(population: xr.Dataset) -> str:
    """Checksum of what a model can see and be scored on: counts, observed bins, names, times, held-out and forward.

    It does not depend on how the file was packed, nor on splits.
    """
    found = hashlib.sha256()
    for name in ("counts", "observed", "neuron", "time", "heldout", "forward"):
        values = population[name].values
        if values.dtype.kind in "UOT":
            found.update("\n".join(map(str, values)).encode())
        else:
            kind = {"counts": np.uint16, "time": np.float64}.get(name, np.bool_)
            found.update(np.ascontiguousarray(values, kind).tobytes())
    return found.hexdigest()


def rates_dataset(
    population: xr.Dataset, rates: np.ndarray, trials: np.ndarray | None = None, **about: Any
) -> xr.Dataset:
    """Checked rates of a population, or of some of its trials.

    Args:
        population: Whose coordinates they take.
        rates: (trial, time, neuron) in the population's order of neurons, expected counts a bin, >= 0.
        trials: Numbers of their trials in the population; by default all.
        about: Attributes: model, model_sha256, passes, seed, kind. What is not given stands as "unknown", 0 or -1.

    Raises:
        InputError: as `check_rates`, or rates of another shape.
    """
    chosen = np.arange(population.sizes["trial"]) if trials is None else np.asarray(trials, np.int64)
    rates = np.asarray(rates, np.float32)
    expected = (len(chosen), population.sizes["time"], population.sizes["neuron"])
    if rates.shape != expected:
        raise InputError(
            f"expected rates of (trial, time, neuron) {expected}; got {rates.shape}. Infer them from this population."
        )
    few = population.isel(trial=chosen)
    coordinates: dict[str, Any] = {name: few.coords[name] for name in COORDINATES if name != "trial"}
    given = {
        "model": "unknown",
        "model_sha256": "unknown",
        "passes": 0,
        "seed": -1,
        "kind": "unknown",
    } | about
    attributes = {
        "format": FORMAT,
        "bin_s": float(population.attrs["bin_s"]),
        "data_sha256": content_sha256(population),
        "source": str(population.attrs.get("source", "unknown")),
        **given,
    }
    data = {"rates": (DIMENSIONS["rates"], rates)}
    return check_rates(xr.Dataset(data, coordinates | {"trial": chosen}, attributes))


def check_rates(dataset: xr.Dataset) -> xr.Dataset:
    """The rates themselves, if they keep the contract of this module.

    Raises:
        InputError: what they break, in one line.
    """
    missing = [name for name in COORDINATES if name not in dataset.coords]
    missing += [] if "rates" in dataset.data_vars else ["rates"]
    missing += [name for name in ATTRIBUTES if name not in dataset.attrs]
    if dataset.attrs.get("format") != FORMAT or missing:
        raise InputError(
            f"expected rates ({FORMAT}); got format {dataset.attrs.get('format')} without "
            f"{', '.join(missing) or 'nothing'}. Make them with `infer`."
        )
    for name, dims in DIMENSIONS.items():
        if name in dataset and tuple(dataset[name].dims) != dims:
            raise InputError(
                f"expected {name} of ({', '.join(dims)}); got ({', '.join(map(str, dataset[name].dims))}). Transpose it."
            )
    for name in ("rates", "rates_sd", "rates_low", "rates_high"):
        if name in dataset:
            values = dataset[name].values
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise InputError(
                    f"expected finite {name} >= 0, in expected counts a bin; got negative or NaN ones. Are they logarithms?"
                )
    return dataset


def check_belongs(rates: xr.Dataset, population: xr.Dataset) -> None:
    """Nothing, if the rates are of this population, some or all of its trials.

    Raises:
        InputError: other neurons, bins or trials, or other counts.
    """
    for name, word in (("neuron", "neurons"), ("time", "bins")):
        ours, theirs = population[name].values, rates[name].values
        same = len(ours) == len(theirs) and (
            np.allclose(ours, theirs, atol=1e-9)
            if name == "time"
            else (ours.astype(str) == theirs.astype(str)).all()
        )
        if not same:
            raise InputError(
                f"expected rates of this population's {len(ours)} {word}; got {len(theirs)} or others "
                f"({theirs[0]} … {theirs[-1]}). Infer them from this population."
            )
    most = int(rates["trial"].values.max(initial=-1))
    if most >= population.sizes["trial"] or rates.attrs["data_sha256"] != content_sha256(population):
        raise InputError(
            f"expected rates of this population; got rates of another one ({rates.attrs.get('source', 'unknown')}, "
            f"data {str(rates.attrs['data_sha256'])[:12]}…). Infer them from this population."
        )


def save_rates(dataset: xr.Dataset, path: Path, **about: Any) -> None:
    """Write them atomically as netCDF-4 (HDF5), and the card beside them.

    Args:
        dataset: Checked.
        path: Ends in .h5 or .nc.
        about: More for the card.

    Raises:
        InputError: another suffix, or as `check_rates`.
    """
    path = Path(path)
    if path.suffix not in (".h5", ".nc"):
        raise InputError(f"expected a name ending in .h5 or .nc; got {path}. Rename --out.")
    check_rates(dataset)
    packed = {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars}
    attributes = dataset.attrs
    sources = {
        str(attributes.get("source", "population")): str(attributes["data_sha256"]),
        str(attributes["model"]): str(attributes["model_sha256"]),
    }
    card = {
        "Description": "Rates inferred from spikes.",
        "Units": "expected counts a bin",
        "BinWidth": attributes["bin_s"],
        "Kind": attributes["kind"],
        "Passes": attributes["passes"],
        "Seed": attributes["seed"],
    }
    with atomic_path(path, card_of(path, sources, **(card | about))) as part, unfailing(part) as stream:
        dataset.to_netcdf(stream, engine="h5netcdf", encoding=packed)


def load_rates(path: Path) -> xr.Dataset:
    """Read them whole.

    Raises:
        InputError: no such file, a broken one, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a file of rates; got no such file: {path}. Check the path.")
    with foreign(
        f"expected a file of rates; got {path}, which cannot be read", "Make it again with `infer`."
    ):
        with open_hdf5(path, whole=True), xr.open_dataset(path, engine="h5netcdf") as opened:
            dataset = opened.load()
        check_rates(dataset)
        return dataset.assign_coords({name: dataset[name].astype(bool) for name in ("heldout", "forward")})
