"""A recording as files have it, spike times and traces on one clock, and the trials that are cut from it.

    Recording (spikes, intervals, behaviour; seconds)  →  windows(…)  →  a population

Times are seconds on the recording's clock, sorted; a clock that runs backwards is refused, not repaired, since no one knows
what it means. A bin is [start, start + width): each spike falls into one bin, or none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import population

__all__ = ["Recording", "Trace", "consecutive_events", "trace_named", "windows"]


@dataclass(frozen=True, eq=False)
class Trace:
    """A measured quantity: times (sample,) in s, values (sample, channel), names of channels, unit."""

    times: np.ndarray
    values: np.ndarray
    channels: tuple[str, ...]
    unit: str = ""

    def __post_init__(self) -> None:
        values = self.values if self.values.ndim == 2 else self.values[:, None]
        object.__setattr__(self, "values", values)
        if len(self.times) != len(values) or len(self.channels) != values.shape[1]:
            raise InputError(
                f"expected a time a sample and a name a channel; got {len(self.times)} times, values {values.shape} and "
                f"{len(self.channels)} names."
            )
        _check_clock(self.times, "a trace")


@dataclass(frozen=True, eq=False)
class Recording:
    """Spikes and what was measured beside them.

    Attributes:
        spikes: Name → spike times of the unit, s.
        intervals: Times when units were observed, (interval, 2), s; empty if nothing is known.
        heldout: Names of the units that the data set holds out.
        events: Column → one value a trial: times in s, or labels.
        traces: Name → behaviour.
        source: Where it comes from.
    """

    spikes: Mapping[str, np.ndarray]
    intervals: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    heldout: frozenset[str] = frozenset()
    events: Mapping[str, np.ndarray] = field(default_factory=dict)
    traces: Mapping[str, Trace] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if not self.spikes:
            raise InputError(f"expected units with spikes; got none in {self.source or 'the recording'}.")
        for name, times in self.spikes.items():
            _check_clock(times, f"unit {name}")


def _check_clock(times: np.ndarray, what: str) -> None:
    if len(times) and not np.isfinite(times).all():
        raise InputError(f"expected finite times of {what}; got NaN or infinity. Repair the file.")
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        i = int(back[0])
        raise InputError(
            f"expected times of {what} in order; got {times[i + 1]:.6g} s after {times[i]:.6g} s (sample {i + 1}). Sort "
            "it, or mend the clock, before use."
        )


def consecutive_events(recording: Recording, length_s: float) -> np.ndarray:
    """Starts of windows laid end to end over the observed time (or from the first spike to the last), s.

    Raises:
        InputError: nothing was observed for so long.
    """
    if not length_s > 0:
        raise InputError(f"expected a window longer than 0 s; got {length_s}.")
    spans = recording.intervals
    if not len(spans):
        fired = [t for t in recording.spikes.values() if len(t)]
        spans = np.array([[min(t[0] for t in fired), max(t[-1] for t in fired)]])
    starts = [start + length_s * np.arange(int((stop - start) / length_s + 1e-9)) for start, stop in spans]
    found = np.concatenate(starts)
    if not len(found):
        raise InputError(
            f"expected {length_s:g} s of recording at a stretch; the longest is shorter. Use a shorter window."
        )
    return found


def windows(
    recording: Recording,
    events: np.ndarray,
    window: tuple[float, float],
    bin_s: float,
    *,
    forward_s: float = 0.0,
    behaviour: str | None = None,
    lag_s: float = 0.0,
    heldout: frozenset[str] | None = None,
    condition: np.ndarray | None = None,
    drop_silent: bool = False,
    overlap: bool = False,
) -> xr.Dataset:
    """The population of trials around events.

    Args:
        recording: Spikes on a clock.
        events: Times that trials are aligned to, s; NaN for a trial without the event, which is left out.
        window: Beginning and end around the event, s; the forward window comes after the end.
        bin_s: Width of a bin, s; the window is a whole number of them.
        forward_s: Length of the forward window, s.
        behaviour: Name of a trace; it is averaged in each bin, or interpolated where it is slower than the bins.
        lag_s: The behaviour of a bin is that of `lag_s` later.
        heldout: Names of the neurons held out; by default those of the recording.
        condition: Label a trial.
        drop_silent: Leave out neurons without a spike in any trial.
        overlap: Trials may share time.

    Raises:
        InputError: a window that is no whole number of bins, trials that overlap or lie outside the recording, unknown
            names.
    """
    bins = _bins(window[1] - window[0], bin_s, "the window")
    ahead = _bins(forward_s, bin_s, "the forward window") if forward_s else 0
    events = np.asarray(events, float)
    known = np.isfinite(events)
    events = events[known]
    if condition is not None:
        condition = np.asarray(condition)[known]
    starts = events + window[0]
    _check_windows(starts, (bins + ahead) * bin_s, overlap)
    edges = starts[:, None] + bin_s * np.arange(bins + ahead + 1)
    names = list(recording.spikes)
    counts = np.stack(
        [np.diff(np.searchsorted(recording.spikes[n], edges, "left"), axis=1) for n in names], 2
    )
    if drop_silent:
        fires = counts.sum((0, 1)) > 0
        counts, names = counts[..., fires], [n for n, f in zip(names, fires, strict=True) if f]
    held = recording.heldout if heldout is None else heldout
    if not held <= set(recording.spikes):
        raise InputError(
            f"expected units of the recording; got {', '.join(sorted(held - set(recording.spikes)))}."
        )
    observed = _observed(recording.intervals, edges)
    if not observed.any():
        raise InputError(
            "expected trials inside the observed intervals; none is. Check the clock of events and intervals."
        )
    values, channels = None, None
    if behaviour is not None:
        trace = trace_named(recording, behaviour)
        values, channels = _resampled(trace, edges + lag_s), trace.channels
    return population(
        np.where(observed[..., None], counts, np.nan),
        bin_s,
        start_s=window[0],
        forward_bins=ahead,
        neurons=names,
        heldout=np.array([n in held for n in names]),
        condition=condition,
        behaviour=values,
        channels=channels,
        source=recording.source,
        lag_s=lag_s,
    )


def _bins(length_s: float, bin_s: float, what: str) -> int:
    bins = round(length_s / bin_s) if bin_s > 0 else 0
    if bins < 1 or abs(bins * bin_s - length_s) > 1e-6:
        raise InputError(
            f"expected {what} to be a whole number of bins; got {length_s:g} s and bins of {bin_s:g} s. Change one of them."
        )
    return bins


def _check_windows(starts: np.ndarray, length_s: float, overlap: bool) -> None:
    if not len(starts):
        raise InputError("expected trials; no event has a time. Check the name of --align.")
    near = np.diff(np.sort(starts)) < length_s - 1e-6
    if near.any() and not overlap:
        raise InputError(
            f"expected trials apart from each other; {int(near.sum())} of {len(starts)} begin within {length_s:g} s of "
            "another. Shorten the window, or pass --overlap (and never split such trials by chance)."
        )


def _observed(intervals: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Whether each bin lies in one interval, (trial, bin)."""
    if not len(intervals):
        return np.ones((len(edges), edges.shape[1] - 1), bool)
    order = np.argsort(intervals[:, 0])
    begin, end = intervals[order].T
    at = np.searchsorted(begin, edges[:, :-1] + 1e-9, "right") - 1
    inside = (at >= 0) & (edges[:, 1:] <= end[np.maximum(at, 0)] + 1e-9)
    return inside


def trace_named(recording: Recording, name: str) -> Trace:
    """The trace of that path, or the only one whose path ends so.

    Raises:
        InputError: there is none, or more than one.
    """
    if name in recording.traces:
        return recording.traces[name]
    ends = [path for path in recording.traces if path.endswith(f"/{name}")]
    if len(ends) == 1:
        return recording.traces[ends[0]]
    raise InputError(
        f"expected a behaviour of the recording; got {name!r}. There are: {', '.join(sorted(recording.traces)) or 'none'}."
    )


def _resampled(trace: Trace, edges: np.ndarray) -> np.ndarray:
    """(trial, bin, channel): mean of the finite samples of each bin, interpolated where a bin has none.

    NaN outside the trace, and in gaps wider than a bin and than three sample intervals.
    """
    trials, bins = edges.shape[0], edges.shape[1] - 1
    out = np.full((trials, bins, trace.values.shape[1]), np.nan)
    period = float(np.median(np.diff(trace.times))) if len(trace.times) > 1 else np.inf
    width = float(edges[0, 1] - edges[0, 0])
    at = np.searchsorted(trace.times, edges, "left")
    first, last = at[:, :-1], at[:, 1:]
    for c in range(trace.values.shape[1]):
        values = trace.values[:, c].astype(float)
        finite = np.isfinite(values)
        sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
        counts = np.concatenate([[0], np.cumsum(finite)])
        many = counts[last] - counts[first]
        with np.errstate(invalid="ignore", divide="ignore"):
            out[..., c] = (sums[last] - sums[first]) / many
        lone = many == 0
        if lone.any() and finite.any():
            times = trace.times[finite]
            centre = 0.5 * (edges[:, :-1] + edges[:, 1:])[lone]
            after = np.searchsorted(times, centre)
            inside = (after > 0) & (after < len(times))
            gap = np.full(len(centre), np.inf)
            gap[inside] = times[after[inside]] - times[after[inside] - 1]
            value = np.interp(centre, times, values[finite])
            out[..., c][lone] = np.where(gap <= max(3 * period, width), value, np.nan)
    return out
