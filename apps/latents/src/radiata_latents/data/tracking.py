"""What a tracker measured, made ready to be binned: several traces as one, angles as points, times when it stood still.

An angle has no mean on a line: between 359° and 1° lies 0°, not 180°. `as_points` gives its cosine and sine, which are
averaged and decoded like any other behaviour.

A tracker that has lost its animal repeats its last position to the last digit, for minutes; taken as behaviour it scores
parking. `frozen_spans` finds where it does.
"""

from collections.abc import Sequence

import numpy as np

from radiata_core.errors import InputError
from radiata_latents.data.recordings import Recording, Trace, trace_named

__all__ = ["as_points", "frozen_spans", "outside", "stacked_traces"]

STILL_S = 5.0
"""Longer without any change, and it is the tracker that rests: the longest of a rat on its track was 2.4 s."""


def stacked_traces(recording: Recording, names: Sequence[str]) -> Trace:
    """Traces side by side as one.

    Raises:
        InputError: an unknown name, or traces that were not measured at the same times.
    """
    found = [trace_named(recording, name) for name in names]
    if not found:
        raise InputError("expected the name of a trace; got none. Name --behaviour.")
    for name, trace in zip(names, found, strict=True):
        if trace.times.shape != found[0].times.shape or not np.allclose(
            trace.times, found[0].times, atol=1e-6
        ):
            raise InputError(
                f"expected traces measured at the same times; {name} and {names[0]} were not. Name one of them."
            )
    ends = [name.split("/")[-1] for name in names]
    channels = tuple(
        end if len(trace.channels) == 1 else channel if len(found) == 1 else f"{end}/{channel}"
        for end, trace in zip(ends, found, strict=True)
        for channel in trace.channels
    )
    unit = found[0].unit if len({trace.unit for trace in found}) == 1 else ""
    return Trace(found[0].times, np.concatenate([trace.values for trace in found], 1), channels, unit)


def as_points(trace: Trace) -> Trace:
    """Cosine and sine of every channel, which are angles in radians.

    Raises:
        InputError: values that are no radians.
    """
    largest = float(np.nanmax(abs(trace.values))) if np.isfinite(trace.values).any() else 0.0
    if largest > 2 * np.pi + 1e-3:
        raise InputError(
            f"expected angles in radians, at most 2 pi; got {largest:g}{f' {trace.unit}' if trace.unit else ''}. Leave out "
            "--angle, or convert them."
        )
    values = np.concatenate([np.cos(trace.values), np.sin(trace.values)], 1)
    channels = tuple(f"{f}({c})" for f in ("cos", "sin") for c in trace.channels)
    return Trace(trace.times, values, channels)


def frozen_spans(trace: Trace, least_s: float = STILL_S) -> np.ndarray:
    """Beginnings and ends of stretches in which no channel changed for so long, (stretch, 2), s."""
    if not len(trace.times):
        return np.zeros((0, 2))
    changed = np.flatnonzero((np.diff(trace.values, axis=0) != 0).any(1)) + 1
    first = np.concatenate([[0], changed])
    last = np.concatenate([changed - 1, [len(trace.times) - 1]])
    spans = np.stack([trace.times[first], trace.times[last]], 1)
    return spans[spans[:, 1] - spans[:, 0] >= least_s]


def outside(starts: np.ndarray, length_s: float, spans: np.ndarray) -> np.ndarray:
    """Whether each window [start, start + length) touches none of the spans, (window,) bool."""
    touches = (starts[:, None] < spans[None, :, 1]) & (starts[:, None] + length_s > spans[None, :, 0])
    return np.asarray(~touches.any(1))
