"""Several files of one recording as one: a training file with behaviour and a test file without, on one clock.

The files must not overlap in time: a clock that starts again is another recording, and no one can tell its spikes apart.
Units go by name. A file that lacks units (the benchmark's test files lack those held out) marks its trials in the event
column `withheld`: counts of those units there are 0 and mean nothing.
"""

from collections.abc import Sequence

import numpy as np

from radiata_core.errors import InputError
from radiata_latents.data.recordings import Recording, Trace

__all__ = ["WITHHELD", "joined"]

WITHHELD = "withheld"
"""Event column: whether the file of a trial lacks units."""


def joined(recordings: Sequence[Recording]) -> Recording:
    """One recording of all, trials in order of time where they have `start_time`, else in the files' order.

    Raises:
        InputError: files that overlap in time, or whose held-in units differ.
    """
    if len(recordings) == 1:
        return recordings[0]
    held = frozenset[str]().union(*(r.heldout for r in recordings))
    names = list(dict.fromkeys(name for r in recordings for name in r.spikes))
    for r in recordings:
        lacking = [n for n in names if n not in r.spikes and n not in held]
        if lacking:
            raise InputError(
                f"expected the same units in all files; {r.source} lacks {', '.join(lacking[:5])}, which no file holds out. "
                "Prepare the files apart."
            )
    return Recording(
        spikes={
            n: np.sort(np.concatenate([r.spikes[n] for r in recordings if n in r.spikes])) for n in names
        },
        intervals=_intervals(recordings),
        heldout=held,
        events=_events(recordings, names),
        traces=_traces(recordings),
        source=" + ".join(r.source for r in recordings),
    )


def _intervals(recordings: Sequence[Recording]) -> np.ndarray:
    spans = [(_spans(r), r.source) for r in recordings]
    rows = np.concatenate([span for span, _ in spans])
    owner = np.repeat(np.arange(len(spans)), [len(span) for span, _ in spans])
    order = np.argsort(rows[:, 0], kind="stable")
    rows, owner = rows[order], owner[order]
    clash = np.flatnonzero((rows[1:, 0] < rows[:-1, 1] - 1e-9) & (owner[1:] != owner[:-1]))
    if len(clash):
        k = int(clash[0])
        raise InputError(
            f"expected files of one recording, on one clock; {spans[owner[k]][1]} and {spans[owner[k + 1]][1]} overlap at "
            f"{rows[k + 1, 0]:g} s. Prepare them apart."
        )
    return rows


def _spans(recording: Recording) -> np.ndarray:
    """When it was observed; from its first spike to its last where it does not say."""
    if len(recording.intervals):
        return recording.intervals
    fired = [t for t in recording.spikes.values() if len(t)]
    return np.array([[min(t[0] for t in fired), max(t[-1] for t in fired)]]) if fired else np.zeros((0, 2))


def _events(recordings: Sequence[Recording], names: list[str]) -> dict[str, np.ndarray]:
    columns = list(dict.fromkeys(name for r in recordings for name in r.events))
    counts = [len(next(iter(r.events.values()))) if r.events else 0 for r in recordings]
    found = {}
    for column in columns:
        parts = []
        words = any(
            np.asarray(r.events[column]).dtype.kind in "OSU" for r in recordings if column in r.events
        )
        for r, count in zip(recordings, counts, strict=True):
            if column in r.events:
                parts.append(np.asarray(r.events[column], dtype=object if words else float))
            else:
                parts.append(np.full(count, "" if words else np.nan, dtype=object if words else float))
        found[column] = np.concatenate(parts)
    if not columns:
        return {}
    found[WITHHELD] = np.repeat([not set(names) <= set(r.spikes) for r in recordings], counts)
    if "start_time" in found:
        order = np.argsort(found["start_time"].astype(float), kind="stable")
        found = {column: values[order] for column, values in found.items()}
    return found


def _traces(recordings: Sequence[Recording]) -> dict[str, Trace]:
    found = {}
    for name in dict.fromkeys(name for r in recordings for name in r.traces):
        parts = [r.traces[name] for r in recordings if name in r.traces]
        if any(part.channels != parts[0].channels or part.unit != parts[0].unit for part in parts):
            raise InputError(f"expected one unit and the same channels of {name} in all files; they differ.")
        times = np.concatenate([part.times for part in parts])
        order = np.argsort(times, kind="stable")
        values = np.concatenate([part.values for part in parts])[order]
        found[name] = Trace(times[order], values, parts[0].channels, parts[0].unit)
    return found
