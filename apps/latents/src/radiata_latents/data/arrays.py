"""Arrays that others wrote as a population: .npz, .npy, plain HDF5, and xarray's or anyone's netCDF.

    counts                 (trial, time, neuron)  whole numbers >= 0; NaN: not observed. Also called `spikes`
    rates, expected        (trial, time, neuron)  truth of simulations, expected counts a bin
    behaviour              (trial, time, channel) also called `behavior`
    condition, split       (trial)
    heldout, neurons       (neuron)
    bin_s, start_s, forward_bins                  numbers

Only `counts` has to be there, and the width of a bin, in the file or beside it. In netCDF the axes are found by their names
(`trial time neuron` in any order), and a coordinate `time` gives the width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_imaging.hdf5 import open_hdf5
from radiata_imaging.numpy_files import npy_array, npz_arrays
from radiata_latents.data.population import FORMAT, load_population, population
from radiata_latents.data.submission import check_unit

__all__ = ["load_arrays"]

_OTHER_NAMES = {
    "spikes": "counts",
    "behavior": "behaviour",
    "names": "neurons",
    "conditions": "condition",
    "dt": "bin_s",
}
_KNOWN = ("counts", "rates", "expected", "behaviour", "condition", "split", "heldout", "neurons", "channels",
          "bin_s", "start_s", "forward_bins")  # fmt: skip
_AXES = {"counts": ("trial", "time", "neuron"), "rates": ("trial", "time", "neuron"),
         "expected": ("trial", "time", "neuron"), "behaviour": ("trial", "time", "channel")}  # fmt: skip


def load_arrays(path: Path, bin_s: float | None = None, *, drop_silent: bool = False) -> xr.Dataset:
    """The population of a file of arrays.

    Args:
        path: Ends in .npz, .npy, .h5, .hdf5 or .nc.
        bin_s: Width of a bin, s; by default what the file says.
        drop_silent: Leave out neurons without a spike.

    Raises:
        InputError: no such file, a broken one, no counts, counts that are negative or fractional, parts that do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a file of arrays; got no such file: {path}. Check the path.")
    found = _numpy(path) if path.suffix in (".npz", ".npy") else _hdf5(path)
    if isinstance(found, xr.Dataset):
        return found
    with foreign(f"expected arrays of numbers that fit together in {path}; got others", "Write them again."):
        return _assembled(found, path, bin_s, drop_silent)


def _assembled(found: Mapping[str, Any], path: Path, bin_s: float | None, drop_silent: bool) -> xr.Dataset:
    """A population out of arrays by any of their names."""
    arrays = {_OTHER_NAMES.get(name, name): value for name, value in found.items()}
    if "counts" not in arrays:
        raise InputError(
            f"expected an array `counts` (trial, time, neuron) in {path.name}; got "
            f"{', '.join(sorted(found)[:8]) or 'nothing'}. Rename it."
        )
    arrays = {name: arrays[name] for name in _KNOWN if name in arrays}
    width = arrays.pop("bin_s", None)
    if bin_s is None and width is None:
        raise InputError(
            f"expected the width of a bin; {path.name} has no `bin_s`. Pass --bin, such as 20ms."
        )
    if bin_s is not None and width is not None and abs(float(np.ravel(width)[0]) - bin_s) > 1e-9:
        raise InputError(
            f"expected one width of a bin; {path.name} says {float(np.ravel(width)[0]):g} s, --bin {bin_s:g} s. Leave "
            "--bin out."
        )
    made = _population(arrays, float(np.ravel(width)[0]) if bin_s is None else bin_s, path.name, drop_silent)
    for name in ("rates", "expected"):
        if name in made:
            check_unit(made[name].values, made["counts"].values, name)
    return made


def _population(arrays: dict[str, Any], bin_s: float, source: str, drop_silent: bool) -> xr.Dataset:
    for name in ("start_s", "forward_bins"):
        if name in arrays:
            arrays[name] = np.ravel(arrays[name])[0].item()
    for name in ("split", "neurons", "channels"):
        if name in arrays:
            arrays[name] = [w.decode() if isinstance(w, bytes) else str(w) for w in np.ravel(arrays[name])]
    for name in ("rates", "expected"):
        if name in arrays and np.shape(arrays[name]) != np.shape(arrays["counts"]):
            raise InputError(
                f"expected {name} of the shape of counts, {np.shape(arrays['counts'])}; got {np.shape(arrays[name])}."
            )
    counts = np.asarray(arrays["counts"])
    if counts.ndim == 3 and drop_silent:
        fires = np.nansum(counts, axis=(0, 1)) > 0
        names = arrays.get("neurons", [str(i) for i in range(len(fires))])
        arrays["neurons"] = [n for n, f in zip(names, fires, strict=True) if f]
        for name in {"counts", "rates", "expected", "heldout"} & set(arrays):
            arrays[name] = np.asarray(arrays[name])[..., fires]
    if "condition" in arrays and np.asarray(arrays["condition"]).dtype.kind not in "iu":  # words
        arrays["condition"] = np.unique(np.ravel(arrays["condition"]), return_inverse=True)[1]
    return population(bin_s=bin_s, source=source, **arrays)


def _numpy(path: Path) -> dict[str, Any]:
    with foreign(
        f"expected arrays of numbers; got {path}, which cannot be read", "Save it again with numpy.savez."
    ):
        return {"counts": npy_array(path)} if path.suffix == ".npy" else npz_arrays(path)


def _hdf5(path: Path) -> dict[str, Any] | xr.Dataset:
    """Arrays of an HDF5 or netCDF file; the population itself if it is one of ours."""
    with path.open("rb") as stream:
        classic = stream.read(4) in (b"CDF\x01", b"CDF\x02")  # netCDF 3
    with foreign(f"expected arrays; got {path}, which cannot be read"):
        if classic:
            check_declared(path.stat().st_size, path)
        else:
            with open_hdf5(path, whole=True) as file:
                named = any("DIMENSION_LIST" in item.attrs for item in file.values())
                if not named:
                    return {name: item[()] for name, item in file.items() if isinstance(item, h5py.Dataset)}
        with xr.open_dataset(path, engine="scipy" if classic else "h5netcdf", decode_times=False) as opened:
            dataset = opened.load()
    return load_population(path) if dataset.attrs.get("format") == FORMAT else _named(dataset, path.name)


def _named(dataset: xr.Dataset, source: str) -> dict[str, Any]:
    """Arrays of a netCDF file whose axes have names."""
    found: dict[str, Any] = {}
    for name, variable in dataset.variables.items():
        known = _OTHER_NAMES.get(str(name), str(name))
        axes = _AXES.get(known)
        if axes is None:
            if known in _KNOWN:
                found[known] = variable.values
            continue
        if set(variable.dims) != set(axes):
            raise InputError(
                f"expected {known} of {source} with the axes {', '.join(axes)}; got {', '.join(map(str, variable.dims))}. "
                "Rename its dimensions."
            )
        found[known] = variable.transpose(*axes).values
    found |= {name: dataset.attrs[name] for name in ("bin_s", "start_s") if name in dataset.attrs}
    for axis, known in (("neuron", "neurons"), ("channel", "channels")):
        if axis in dataset.coords:
            found.setdefault(known, dataset[axis].values)
    if "time" in dataset.coords and dataset.sizes["time"] > 1:
        found |= _clock(dataset["time"].values, source)
    return found


def _clock(times: np.ndarray, source: str) -> Mapping[str, float]:
    """Width and start of the bins from the times of their centres."""
    steps = np.diff(np.asarray(times, float))
    if (steps <= 0).any() or not np.allclose(steps, steps.mean(), rtol=1e-3):
        raise InputError(
            f"expected bins of one width in order; the times of {source} go {times[0]:g}, {times[1]:g} … {times[-1]:g}, "
            "unevenly or backwards. Sort the clock and bin again."
        )
    width = float(steps.mean())
    return {"bin_s": width, "start_s": float(times[0]) - width / 2}
