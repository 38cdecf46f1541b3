"""From the sources and options of `prepare` to a population, and notes of what was left out."""

import dataclasses
import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.runs import Progress
from radiata_latents.data.arrays import load_arrays
from radiata_latents.data.benchmark import PRESETS, benchmark_population
from radiata_latents.data.chaotic_rnn import chaotic_population
from radiata_latents.data.joining import joined
from radiata_latents.data.lfads_files import load_lfads
from radiata_latents.data.lorenz import LorenzVariant, lorenz_population, split_conditions, split_trials
from radiata_latents.data.matlab import read_matlab, read_positions
from radiata_latents.data.nwb import read_nwb
from radiata_latents.data.oscillator_network import oscillator_population
from radiata_latents.data.population import check_population
from radiata_latents.data.recordings import Recording, consecutive_events, windows
from radiata_latents.data.ring import ring_population
from radiata_latents.data.sources import SourceKind, kind_of
from radiata_latents.data.splits import SplitBy, resplit, with_heldout
from radiata_latents.data.tracking import as_points, frozen_spans, outside, stacked_traces
from radiata_latents.experiment.durations import seconds_of
from radiata_latents.experiment.prepare import Prepare

__all__ = ["SIMULATIONS", "cut"]

SIMULATIONS = (*(v.value for v in LorenzVariant), "chaotic-rnn", "oscillators", "ring")
_TRIAL_OPTIONS = ("align", "window", "behaviour", "condition", "positions")
_CUT_OPTIONS = (*_TRIAL_OPTIONS, "angle", "parked", "complete", "overlap", "pixels_per_cm")
_SIMULATION_OPTIONS = ("trials", "conditions", "neurons")
_LABELS = 1000
"""More different values in a column than this, and it is no condition."""


def cut(asked: Prepare) -> tuple[xr.Dataset, dict[str, Any]]:
    """The population, and how many windows and neurons were left out.

    Args:
        asked: The options of `prepare`.

    Raises:
        InputError: sources or options that cannot be used, or that do not fit each other.
    """
    notes: dict[str, Any] = {}
    bin_s = None if asked.bin is None else seconds_of(asked.bin, "--bin")
    if bin_s is not None and not bin_s > 0:
        raise InputError(f"expected a bin longer than 0 s; got --bin {asked.bin}. Use 20ms, say.")
    if asked.preset in SIMULATIONS:
        made, usual = _simulated(asked, bin_s), None
    else:
        made, usual = _read(asked, bin_s, notes)
    made = _thinned(asked, made, notes)
    if asked.holdout:
        made = with_heldout(made, _holdout(asked.holdout), asked.seed)
    given = (asked.split_by, asked.validation, asked.test) != (None, None, None)
    if given or usual:
        made = resplit(
            made,
            asked.split_by or usual or SplitBy.TRIAL,
            validation=0.2 if asked.validation is None else asked.validation,
            test=asked.test or 0.0,
            seed=asked.seed,
        )
    return made.assign_attrs(synthetic=int(asked.preset in SIMULATIONS)), notes


def _refuse(asked: Prepare, names: tuple[str, ...], why: str) -> None:
    """Options that mean nothing here are said, not ignored."""
    defaults = {f.name: f.default for f in dataclasses.fields(Prepare)}
    given = [name for name in names if getattr(asked, name) != defaults[name]]
    if given:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(f"expected no {words} with {why}. Leave it out.")


def _simulated(asked: Prepare, bin_s: float | None) -> xr.Dataset:
    name = str(asked.preset)
    if asked.source:
        raise InputError(
            f"expected no files with the simulation {name}; got {asked.source[0]}. Leave one out."
        )
    _refuse(asked, (*_CUT_OPTIONS, "forward", "jitter", "set_to_go"), f"the simulation {name}")
    size = {key: getattr(asked, key) for key in _SIMULATION_OPTIONS if getattr(asked, key) is not None}
    if name == "ring":
        _refuse(asked, ("conditions",), "the simulation ring")
    if name in ("oscillators", "ring"):
        made: Callable[..., xr.Dataset] = oscillator_population if name == "oscillators" else ring_population
        return made(**size, **({} if bin_s is None else {"bin_s": bin_s}), seed=asked.seed)
    fixed = 0.01 if name == "chaotic-rnn" else 0.02
    if bin_s is not None and abs(bin_s - fixed) > 1e-9:
        raise InputError(f"expected bins of {fixed:g} s, as {name} has; got --bin {asked.bin}. Leave it out.")
    if name == "chaotic-rnn":
        return chaotic_population(**size, seed=asked.seed)
    drawn = lorenz_population(LorenzVariant(name), **size, seed=asked.seed)
    if name == LorenzVariant.LORENZ and drawn["condition"].values[-1] > 0:
        return split_conditions(drawn, seed=asked.seed)
    return split_trials(drawn)


def _read(asked: Prepare, bin_s: float | None, notes: dict[str, Any]) -> tuple[xr.Dataset, SplitBy | None]:
    """The population of the sources, and how it is split by default: None where they do it themselves."""
    preset = (asked.preset or "").removeprefix("nlb:")
    if preset and preset not in PRESETS:
        names = [*SIMULATIONS, *(f"nlb:{name}" for name in PRESETS)]
        near = difflib.get_close_matches(asked.preset or "", names, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else "Choose one."
        raise InputError(f"expected --preset {', '.join(names)}; got {asked.preset!r}. {hint}")
    if not asked.source:
        raise InputError(f"expected the NWB files of {preset}; got none. Name them before --preset.")
    _refuse(asked, _SIMULATION_OPTIONS, "files")
    kinds = {kind_of(path) for path in asked.source}
    if len(asked.source) > 1 and kinds != {SourceKind.NWB}:
        raise InputError(
            "expected one file, or several NWB files of one recording; got several others. Prepare them apart."
        )
    kind = kinds.pop()
    if kind in (SourceKind.LFADS, SourceKind.ARRAYS):
        if preset:
            raise InputError(
                f"expected NWB files for {asked.preset}; got {asked.source[0].name}. Leave --preset out."
            )
        _refuse(asked, (*_TRIAL_OPTIONS, "forward", "lag", "angle", "parked", "jitter", "set_to_go"),
                f"{asked.source[0].name}: its trials are cut already")  # fmt: skip
        load = load_lfads if kind is SourceKind.LFADS else load_arrays
        made = load(asked.source[0], bin_s, drop_silent=asked.drop_silent or asked.least_spikes > 0)
        return made, _usual(made)
    recording = _recording(asked, kind)
    if preset:
        _refuse(asked, (*_CUT_OPTIONS, "forward", "lag"), f"{asked.preset}: it says how trials are cut")
        made = benchmark_population(
            recording, preset, round(1000 * (bin_s or 0.005)), jitter=asked.seed if asked.jitter else None,
            set_to_go=asked.set_to_go,
        )  # fmt: skip
        return made, _usual(made)
    _refuse(asked, ("jitter", "set_to_go"), "anything but nlb:dmfc_rsg")
    neighbours = asked.overlap or asked.align is None
    return _trials(asked, recording, bin_s or 0.02, notes), SplitBy.BLOCK if neighbours else SplitBy.TRIAL


def _usual(made: xr.Dataset) -> SplitBy | None:
    return None if len(set(made["split"].values.tolist())) > 1 else SplitBy.TRIAL


def _recording(asked: Prepare, kind: SourceKind) -> Recording:
    if kind is SourceKind.NWB:
        _refuse(asked, ("positions", "variable", "pixels_per_cm"), "NWB files")
        with Progress(len(asked.source), "reading", unit="file") as bar:
            found = []
            for path in asked.source:
                found.append(read_nwb(path))
                bar.update()
        return joined(found)
    recording = read_matlab(asked.source[0], asked.variable)
    if asked.positions is None:
        _refuse(asked, ("pixels_per_cm",), "no --positions")
        return recording
    track = read_positions(Path(asked.positions), asked.pixels_per_cm)
    return dataclasses.replace(recording, traces={"position": track})


def _trials(asked: Prepare, recording: Recording, bin_s: float, notes: dict[str, Any]) -> xr.Dataset:
    """Windows around events or end to end, with behaviour."""
    if asked.align is not None and asked.window is None:
        raise InputError(
            "expected --window with --align; got none. Give its beginning and end around the event, in s."
        )
    begin, end = asked.window or (0.0, 1.0)
    if not begin < end:
        raise InputError(f"expected --window with a beginning before its end; got {begin:g} and {end:g} s.")
    ahead = seconds_of(asked.forward, "--forward")
    if ahead < 0:
        raise InputError(f"expected --forward of 0 or more; got {asked.forward}. It comes after the window.")
    length = end - begin + ahead
    if asked.align is None:
        _refuse(asked, ("condition",), "windows end to end (no --align)")
        events = consecutive_events(recording, length) - begin
    else:
        events = _column(recording, asked.align)
    names = asked.behaviour or (("position",) if asked.positions else ())
    if names:
        trace = stacked_traces(recording, names)
        trace = as_points(trace) if asked.angle else trace
        recording = dataclasses.replace(recording, traces={"behaviour": trace})
    else:
        _refuse(asked, ("lag", "angle", "complete", "parked"), "no --behaviour")
    labels, codes = _conditions(recording, asked.condition)
    if asked.parked:
        free = outside(events + begin, length, frozen_spans(trace))
        notes["windows_parked"] = int((~free & np.isfinite(events)).sum())
        events = np.where(free, events, np.nan)
    made = windows(
        recording, events, (begin, end), bin_s, forward_s=ahead, behaviour="behaviour" if names else None,
        lag_s=seconds_of(asked.lag, "--lag"), condition=codes, overlap=asked.overlap,
        drop_silent=asked.drop_silent or asked.least_spikes > 0, heldout=frozenset() if asked.holdout else None,
    )  # fmt: skip
    _check_behaviour(made)
    return made.assign_attrs(condition_labels=json.dumps(labels)) if labels else made


def _check_behaviour(made: xr.Dataset) -> None:
    if "behaviour" in made and not np.isfinite(made["behaviour"].values).any():
        raise InputError(
            "expected behaviour during the trials; it was measured in none of their bins. Check its clock, or --align."
        )


def _column(recording: Recording, name: str) -> np.ndarray:
    """Times of an event, one a trial."""
    column = name.removeprefix("trials.").removeprefix("intervals/trials/")
    values = recording.events.get(column)
    if values is not None:
        try:
            return np.asarray(values, float)
        except ValueError:
            pass
    times = [k for k, v in recording.events.items() if np.asarray(v).dtype.kind == "f"]
    raise InputError(
        f"expected a column of times of {recording.source} for --align; got {name!r}. There are: "
        f"{', '.join(sorted(times)) or 'none: leave --align out'}."
    )


def _conditions(recording: Recording, name: str | None) -> tuple[list[str], np.ndarray | None]:
    """Labels and their number a trial; -1 where the label is empty."""
    if name is None:
        return [], None
    column = name.removeprefix("trials.").removeprefix("intervals/trials/")
    if column not in recording.events:
        raise InputError(
            f"expected a column of {recording.source} for --condition; got {name!r}. There are: "
            f"{', '.join(sorted(recording.events)) or 'none'}."
        )
    words = np.array([str(value) for value in recording.events[column]])
    labels = sorted(set(words.tolist()) - {"", "nan"})
    if len(labels) > _LABELS or len(labels) == len(words) > 2:
        raise InputError(
            f"expected a column whose values repeat for --condition; {name} has {len(labels)} in {len(words)} trials."
        )
    return labels, np.array([labels.index(word) if word in labels else -1 for word in words])


def _holdout(words: tuple[str, ...]) -> float | list[str]:
    """A share, if it is one number with a point; else names."""
    if len(words) == 1 and "." in words[0]:
        try:
            return float(words[0])
        except ValueError:
            pass
    return list(words)


def _thinned(asked: Prepare, made: xr.Dataset, notes: dict[str, Any]) -> xr.Dataset:
    """Without windows that are incomplete and neurons that fire too rarely in what is left."""
    if asked.complete:
        if "behaviour" not in made:
            raise InputError("expected behaviour with --complete; the source has none. Name --behaviour.")
        known = np.isfinite(made["behaviour"].values).all((1, 2))
        if not known.any():
            raise InputError(
                "expected windows in which the behaviour is known throughout; there is none. Leave out --complete."
            )
        notes["windows_incomplete"] = int((~known).sum())
        made = made.isel(trial=np.flatnonzero(known))
        made = made.assign_attrs(masked_bins=int((~made["observed"].values).sum()))
    least = max(asked.least_spikes, int(asked.drop_silent))
    if least:
        enough = made["counts"].values.sum((0, 1), dtype=np.int64) >= least
        if not enough.any():
            raise InputError(f"expected neurons with {least} spikes or more; none has. Lower --least-spikes.")
        made = made.isel(neuron=np.flatnonzero(enough))
        notes["neurons_left_out"] = int((~enough).sum())
    return check_population(made)
