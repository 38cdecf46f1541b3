"""LFADS-style HDF5, both dialects, in and out.

    run manager, NDT                         lfads-torch
    train_data, valid_data                   train_encod_data, valid_encod_data    what the encoder sees
    train_truth, valid_truth                 train_recon_data, valid_recon_data    what is to be reconstructed
    train_inds, valid_inds                   train_behavior, valid_behavior        (trial, time, channel)
    conversion_factor

All are (trial, time, neuron), or (trial, time, channel). `truth` holds rates times `conversion_factor`: they are divided by
it, as NDT does, and are **expected counts a bin** then; a file in Hz is refused. `inds` bring the trials of the two parts
back into one order. In lfads-torch's files neurons of `recon` beyond those of `encod` are held out, and bins beyond are the
forward window; a part without `recon` (a test set) has both withheld: its forward bins are not observed, and `withheld`
marks trials whose held-out neurons are unknown. Neither dialect says how wide a bin is, unless the file has `dt`.

References:
    Sussillo et al., 2016, https://arxiv.org/abs/1608.06315.
    Sedler & Pandarinath, "lfads-torch: a modular and extensible implementation of latent factor analysis via dynamical
        systems", 2023, https://arxiv.org/abs/2309.01230.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import new_hdf5, open_hdf5
from radiata_latents.data.population import heldin_first, population
from radiata_latents.data.submission import check_unit

__all__ = ["is_lfads", "load_lfads", "save_lfads"]

_PARTS = {"train": "train", "valid": "validation", "test": "test"}


def is_lfads(keys: set[str]) -> bool:
    """Whether a file with these keys is one of the two dialects."""
    return bool(keys & {"train_data", "train_encod_data"})


def load_lfads(path: Path, bin_s: float | None = None, *, drop_silent: bool = False) -> xr.Dataset:
    """The population of a file, splits kept.

    Args:
        path: The file.
        bin_s: Width of a bin, s; by default the file's own `dt`.
        drop_silent: Leave out neurons without a spike.

    Raises:
        InputError: no such file, a broken one, missing keys, parts that do not fit, truth in another unit.
    """
    found = _read(Path(path))
    with foreign(f"expected arrays of an LFADS file in {path}; got others", "Write the file again."):
        return _assembled(found, Path(path), bin_s, drop_silent)


def _assembled(
    found: Mapping[str, np.ndarray], path: Path, bin_s: float | None, drop_silent: bool
) -> xr.Dataset:
    """The population of the arrays of a file."""
    if not is_lfads(set(found)):
        raise InputError(
            f"expected train_data or train_encod_data in {Path(path).name}; got {', '.join(sorted(found)[:8])}. Is it an "
            "LFADS file?"
        )
    width = bin_s if bin_s is not None else float(np.ravel(found["dt"])[0]) if "dt" in found else None
    if width is None:
        raise InputError(
            f"expected the width of a bin; {Path(path).name} does not say it. Pass --bin, such as 20ms."
        )
    arrays = _encoded(found) if "train_encod_data" in found else _run_manager(found)
    if drop_silent:
        fires = np.nansum(arrays["counts"], axis=(0, 1)) > 0
        arrays["neurons"] = [str(i) for i in np.flatnonzero(fires)]
        for name in ("counts", "rates"):
            if arrays.get(name) is not None:
                arrays[name] = arrays[name][..., fires]
        if arrays.get("heldout") is not None:
            arrays["heldout"] = arrays["heldout"][fires]
    withheld = arrays.pop("withheld", None)
    made = population(bin_s=width, source=Path(path).name, **arrays)
    if made.get("rates") is not None:
        check_unit(made["rates"].values, made["counts"].values, "truth divided by conversion_factor")
    return made if withheld is None else made.assign_coords(withheld=("trial", withheld))


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"expected an LFADS file; got no such file: {path}. Check the path.")
    with foreign(f"expected HDF5; got {path}, which cannot be read"), open_hdf5(path, whole=True) as file:
        return {key: item[()] for key, item in file.items() if isinstance(item, h5py.Dataset)}


def _run_manager(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    parts = [part for part in _PARTS if f"{part}_data" in found]
    counts = _stacked([found[f"{part}_data"] for part in parts], parts, "data")
    rates = None
    if all(f"{part}_truth" in found for part in parts):
        factor = float(np.ravel(found.get("conversion_factor", 1.0))[0])
        if not factor > 0:
            raise InputError(f"expected a conversion_factor > 0; got {factor:g}. Write the file again.")
        rates = _stacked([found[f"{part}_truth"] / factor for part in parts], parts, "truth")
    split = np.repeat([_PARTS[part] for part in parts], [len(found[f"{part}_data"]) for part in parts])
    order = np.arange(len(counts))
    if all(f"{part}_inds" in found for part in parts):
        places = np.concatenate([np.ravel(found[f"{part}_inds"]) for part in parts])
        if len(places) != len(counts) or len(np.unique(places)) != len(places):
            raise InputError(
                f"expected an index a trial, each once; got {len(places)} for {len(counts)} trials, "
                f"{len(np.unique(places))} different ones. Repair train_inds and valid_inds, or leave them out."
            )
        order = np.argsort(places)
    return {
        "counts": counts[order],
        "rates": None if rates is None else rates[order],
        "split": split[order].tolist(),
    }


def _encoded(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    parts = [part for part in _PARTS if f"{part}_encod_data" in found]
    seen = found["train_encod_data"].shape
    whole = found.get("train_recon_data", found["train_encod_data"]).shape
    if len(seen) != 3 or len(whole) != 3 or whole[1] < seen[1] or whole[2] < seen[2]:
        raise InputError(
            f"expected (trial, time, neuron), and no fewer bins and neurons in train_recon_data than in train_encod_data; "
            f"got {whole} and {seen}. Write the file again."
        )
    counts, behaviour, withheld = [], [], []
    for part in parts:
        encod = np.asarray(found[f"{part}_encod_data"], float)
        full = np.full((len(encod), *whole[1:]), np.nan)
        full[:, : seen[1]] = 0.0
        recon = found.get(f"{part}_recon_data")
        if recon is None and whole == seen:
            recon = encod
        if encod.shape[1:] != seen[1:] or (recon is not None and recon.shape != full.shape):
            raise InputError(
                f"expected {part}_encod_data of (trial, {seen[1]}, {seen[2]}) and {part}_recon_data of {full.shape}; got "
                f"{encod.shape} and {None if recon is None else recon.shape}. Write the file again."
            )
        full[:, : seen[1], : seen[2]] = encod
        if recon is not None:
            if not np.array_equal(recon[:, : seen[1], : seen[2]], encod, equal_nan=True):
                raise InputError(
                    f"expected {part}_recon_data to begin with {part}_encod_data (neurons held in come first); they differ."
                )
            full = np.asarray(recon, float)
        counts.append(full)
        withheld.append(np.full(len(encod), recon is None and whole[2] > seen[2]))
        behaviour.append(found.get(f"{part}_behavior"))
    hidden = np.concatenate(withheld)
    return {
        "counts": np.concatenate(counts),
        "split": np.repeat([_PARTS[part] for part in parts], [len(c) for c in counts]).tolist(),
        "heldout": np.arange(whole[2]) >= seen[2],
        "forward_bins": whole[1] - seen[1],
        "behaviour": _behaviour(behaviour, [len(c) for c in counts], (seen[1], whole[1])),
        "withheld": hidden if hidden.any() else None,
    }


def _behaviour(found: list[Any], trials: list[int], bins: tuple[int, int]) -> np.ndarray | None:
    """Behaviour of all bins, NaN where a part or the forward window has none."""
    known = [b for b in found if b is not None]
    if not known:
        return None
    for part in known:
        if part.ndim != 3 or part.shape[1] not in bins or part.shape[2] != known[0].shape[2]:
            raise InputError(
                f"expected behaviour as long as the spikes, (trial, {bins[0]}, channel); got {part.shape}. Cut or resample "
                "it to the same bins."
            )
    out = [np.full((n, bins[1], known[0].shape[2]), np.nan) for n in trials]
    for full, part in zip(out, found, strict=True):
        if part is not None:
            if len(part) != len(full):
                raise InputError(
                    f"expected behaviour of {len(full)} trials; got {len(part)}. Write the file again."
                )
            full[:, : part.shape[1]] = part
    return np.concatenate(out)


def _stacked(arrays: list[np.ndarray], parts: list[str], what: str) -> np.ndarray:
    shapes = [np.shape(a) for a in arrays]
    if any(len(shape) != 3 or shape[1:] != shapes[0][1:] for shape in shapes):
        raise InputError(
            f"expected {what} of (trial, time, neuron) with the same bins and neurons in {' and '.join(parts)}; got "
            f"{', '.join(map(str, shapes))}. Write the file again."
        )
    return np.concatenate([np.asarray(a, float) for a in arrays])


def save_lfads(dataset: xr.Dataset, path: Path, *, encoded: bool = False) -> None:
    """Write a population as LFADS has it, whole or not at all.

    Args:
        dataset: The population; test trials become a third part.
        path: Ends in .h5.
        encoded: lfads-torch's keys, held-in neurons first, with held-out neurons, forward bins and behaviour; otherwise
            the run manager's, with rates where they are known, and then the population must have neither.

    Raises:
        InputError: another name, or what the dialect cannot hold.
    """
    if Path(path).suffix != ".h5":
        raise InputError(f"expected a name ending in .h5; got {path}. Rename it.")
    ahead = dataset["forward"].values.astype(bool)
    held = dataset["heldout"].values.astype(bool)
    if not encoded and (ahead.any() or held.any()):
        raise InputError(
            f"expected no held-out neurons and no forward bins in this dialect; got {int(held.sum())} and "
            f"{int(ahead.sum())}. Write lfads-torch's (encoded=True)."
        )
    if not dataset["observed"].values.all():
        raise InputError(
            f"expected bins that were all observed; {dataset.attrs['masked_bins']} were not, and LFADS' files have no mask. "
            "Leave those trials out."
        )
    order = heldin_first(dataset)
    counts = dataset["counts"].values[..., order].astype(np.float32)
    out: dict[str, Any] = {"dt": float(dataset.attrs["bin_s"])}
    for part, word in _PARTS.items():
        rows = np.flatnonzero(dataset["split"].values == word)
        if not len(rows):
            continue
        if encoded:
            out[f"{part}_encod_data"] = counts[rows][:, ~ahead][..., : int((~held).sum())]
            out[f"{part}_recon_data"] = counts[rows]
            if "behaviour" in dataset:
                out[f"{part}_behavior"] = dataset["behaviour"].values[rows]
        else:
            out |= {f"{part}_data": counts[rows], f"{part}_inds": rows, "conversion_factor": 1.0}
            if "rates" in dataset:
                out[f"{part}_truth"] = dataset["rates"].values[rows][..., order]
    with atomic_path(path) as partial, new_hdf5(partial) as file:
        for key, value in out.items():
            file.create_dataset(key, data=value, compression="gzip" if np.ndim(value) == 3 else None)
