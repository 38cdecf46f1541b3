"""The Neural Latents Benchmark's file of predictions.

    {data set}{suffix}/                  suffix: nothing at 5 ms, "_20" at 20 ms
        train_rates_heldin               (trial, time, neuron), float32, gzip
        train_rates_heldout              the same trials, held-out neurons
        eval_rates_heldin                evaluated trials
        eval_rates_heldout
        eval_rates_heldin_forward        optional: the forward window
        eval_rates_heldout_forward

One file may hold several data sets. Rates are **expected counts a bin**. A file in spikes a second is 200 times too large at
5 ms and scores hundreds of bits below nothing, so the mean rate is compared with the mean count wherever counts are known,
on writing and on scoring (`check_unit`): within a factor of `FACTOR`, or it is refused.

References:
    Pei et al., "Neural Latents Benchmark '21", 2021, https://arxiv.org/abs/2109.04463; format of https://neurallatents.github.io.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import new_hdf5, open_hdf5
from radiata_latents.data.benchmark import BENCHMARK_BINS_MS, PRESETS

__all__ = ["FORWARD_KEYS", "REQUIRED_KEYS", "check_unit", "group_name", "load_submission", "save_submission"]

REQUIRED_KEYS = ("train_rates_heldin", "train_rates_heldout", "eval_rates_heldin", "eval_rates_heldout")
FORWARD_KEYS = ("eval_rates_heldin_forward", "eval_rates_heldout_forward")
FACTOR = 5.0
"""How far a mean rate may be from the mean count. Hz would be 50 or 200 times too large."""


def group_name(name: str, bin_ms: int) -> str:
    """Name of a data set's group.

    Raises:
        InputError: the benchmark has no such data set or bin.
    """
    if name not in PRESETS or bin_ms not in BENCHMARK_BINS_MS:
        raise InputError(
            f"expected one of {', '.join(PRESETS)} at 5 or 20 ms; got {name!r} at {bin_ms} ms. Choose a preset."
        )
    return name if bin_ms == 5 else f"{name}_{bin_ms}"


def check_unit(rates: np.ndarray, counts: np.ndarray, what: str) -> None:
    """Refuse rates whose mean is far from the mean count.

    Args:
        rates: Predictions, any shape.
        counts: What was recorded; NaN is left out.
        what: Name of the part, for the message.

    Raises:
        InputError: the means differ by more than `FACTOR`.
    """
    rate, count = float(np.nanmean(rates)), float(np.nanmean(counts))
    if not count / FACTOR <= rate <= count * FACTOR:
        raise InputError(
            f"expected {what} in expected counts a bin; their mean is {rate:.3g} where {count:.3g} were recorded "
            f"({rate / count if count else np.inf:.3g} times). Multiply rates in Hz by the bin's width in s."
        )


def save_submission(
    path: Path,
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    counts: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    card: tuple[Path, Callable[[Path], Any]] | None = None,
) -> None:
    """Write it, whole or not at all.

    Args:
        path: Ends in .h5.
        predictions: Group (`group_name`) → key → rates (trial, time, neuron), expected counts a bin.
        counts: The same with "spikes" for "rates" in the keys, wherever they are known; their unit is then checked.
        card: Of the file, as `radiata_core.files.atomic_path` takes it.

    Raises:
        InputError: unknown groups or keys, parts that do not fit together, negative or infinite rates, or rates in Hz.
    """
    if Path(path).suffix != ".h5":
        raise InputError(f"expected a name ending in .h5; got {path}. Rename --submission.")
    if not predictions:
        raise InputError("expected predictions of a data set; got none.")
    for group, parts in predictions.items():
        _check_group(group, parts)
        for key, known in (counts or {}).get(group, {}).items():
            rates_key = key.replace("spikes", "rates")
            if rates_key in parts:
                check_unit(parts[rates_key], known, f"{group}/{rates_key}")
    with atomic_path(path, card) as part, new_hdf5(part) as file:
        for group, parts in predictions.items():
            for key, rates in parts.items():
                file.create_dataset(f"{group}/{key}", data=np.asarray(rates, np.float32), compression="gzip")


def load_submission(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Group → key → rates, checked.

    Raises:
        InputError: no such file, a broken one, or one that does not keep the format.
    """
    if not Path(path).is_file():
        raise InputError(f"expected a submission; got no such file: {path}. Check the path.")
    with (
        foreign(f"expected a submission; got {path}, which cannot be read", "Write it again."),
        open_hdf5(path, whole=True) as file,
    ):
        flat = [name for name in file if not isinstance(file[name], h5py.Group)]
        if flat:
            raise InputError(
                f"expected a submission, one group a data set; got {path}, which holds {', '.join(flat[:4])}. Write one "
                "by infer --submission."
            )
        found = {group: {key: file[group][key][()] for key in file[group]} for group in file}
    if not found:
        raise InputError(
            f"expected a submission with a data set; got {path}, which is empty. Write it again."
        )
    for group, parts in found.items():
        _check_group(group, parts)
    return found


def _check_group(group: str, parts: Mapping[str, np.ndarray]) -> None:
    names = [group_name(name, bin_ms) for name in PRESETS for bin_ms in BENCHMARK_BINS_MS]
    if group not in names:
        raise InputError(f"expected groups {', '.join(names)}; got {group!r}. Name it as the benchmark does.")
    missing = set(REQUIRED_KEYS) - set(parts)
    if set(FORWARD_KEYS) & set(parts):
        missing |= set(FORWARD_KEYS) - set(parts)
    unknown = set(parts) - {*REQUIRED_KEYS, *FORWARD_KEYS}
    if missing or unknown:
        raise InputError(
            f"expected {', '.join(REQUIRED_KEYS)} in {group}, and both forward parts or none; missing: "
            f"{', '.join(sorted(missing)) or 'none'}, unknown: {', '.join(sorted(unknown)) or 'none'}."
        )
    for key, rates in parts.items():
        rates = np.asarray(rates)
        if (
            rates.dtype.kind not in "fiu"
            or rates.ndim != 3
            or not rates.size
            or not (np.isfinite(rates).all() and (rates >= 0).all())
        ):
            raise InputError(
                f"expected finite rates >= 0 of (trial, time, neuron) in {group}/{key}; got shape {rates.shape}, "
                "or negative or NaN values."
            )
    _check_fit(group, {key: np.shape(rates) for key, rates in parts.items()})


def _check_fit(group: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Trials of train and eval, bins, and neurons held in and out agree."""
    for key, shape in shapes.items():
        part = key.split("_")[0]
        whole = "heldin" if "heldin" in key else "heldout"
        # same trials as their held-in part, same neurons as the evaluated part
        trials, neurons = shapes[f"{part}_rates_heldin"][0], shapes[f"eval_rates_{whole}"][2]
        other = key.replace(whole, "heldout" if whole == "heldin" else "heldin")
        if shape[0] != trials or shape[2] != neurons or shape[1] != shapes[other][1]:
            raise InputError(
                f"expected {group}/{key} of {trials} trials, {shapes[other][1]} bins, {neurons} neurons, as its other "
                f"parts; got {shape}."
            )
