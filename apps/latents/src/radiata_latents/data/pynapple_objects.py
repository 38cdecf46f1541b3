"""Objects of pynapple as a recording, without importing pynapple.

    TsGroup      unit → Ts       spikes
    IntervalSet  epochs          when units were observed; by default the group's own time support
    IntervalSet  trials          events start_time and stop_time
    Tsd, TsdFrame                traces

Only what these objects offer is used: mappings, `.t` or `.times()`, `.values` or `.d`, `.columns`, `.start` and `.end`; any
object with the same will do. Times are seconds, as pynapple's are.

References:
    Viejo et al., "Pynapple, a toolbox for data analysis in neuroscience", 2023, https://doi.org/10.7554/eLife.85786.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_latents.data.recordings import Recording, Trace

__all__ = ["from_pynapple"]


def from_pynapple(
    group: Any,
    epochs: Any = None,
    traces: Mapping[str, Any] | None = None,
    *,
    trials: Any = None,
    source: str = "pynapple",
) -> Recording:
    """The recording that the objects hold.

    Args:
        group: TsGroup, or any mapping of unit → Ts.
        epochs: IntervalSet; by default the time support of the group, if it has one.
        traces: Name → Tsd or TsdFrame.
        trials: IntervalSet: its starts and ends become the columns `start_time` and `stop_time`.
        source: Where it comes from.

    Raises:
        InputError: an object without what is needed of it, no units, a clock out of order.
    """
    try:
        spikes = {str(unit): _times(group[unit]) for unit in group.keys()}  # noqa: SIM118 - a TsGroup iterates otherwise
    except AttributeError as error:
        raise InputError(
            f"expected a TsGroup, unit → Ts; got {type(group).__name__} ({error}). Wrap a single Ts in a dict."
        ) from error
    if epochs is None:
        epochs = getattr(group, "time_support", None)
    events = {}
    if trials is not None:
        start, stop = _intervals(trials).T
        events = {"start_time": start, "stop_time": stop}
    return Recording(
        spikes=spikes,
        intervals=np.zeros((0, 2)) if epochs is None else _intervals(epochs),
        events=events,
        traces={name: _trace(name, trace) for name, trace in (traces or {}).items()},
        source=source,
    )


def _times(thing: Any) -> np.ndarray:
    """Times of a Ts or Tsd, s."""
    if hasattr(thing, "t"):
        return np.asarray(thing.t, float)
    if hasattr(thing, "times"):
        return np.asarray(thing.times(), float)
    raise InputError(
        f"expected an object with times (.t or .times()); got {type(thing).__name__}. Give a Ts or Tsd."
    )


def _intervals(epochs: Any) -> np.ndarray:
    """Starts and ends of an IntervalSet, (interval, 2), s."""
    if not (hasattr(epochs, "start") and hasattr(epochs, "end")):
        raise InputError(
            f"expected an IntervalSet with .start and .end; got {type(epochs).__name__}. Give pynapple's."
        )
    return np.stack([np.asarray(epochs.start, float).ravel(), np.asarray(epochs.end, float).ravel()], 1)


def _trace(name: str, thing: Any) -> Trace:
    values = thing.values if hasattr(thing, "values") else getattr(thing, "d", None)
    if values is None:
        raise InputError(
            f"expected a Tsd or TsdFrame as trace {name}; got {type(thing).__name__}. A Ts has no values."
        )
    values = np.asarray(values, float)
    if values.ndim not in (1, 2):
        raise InputError(
            f"expected a Tsd or TsdFrame as trace {name}; got values of shape {values.shape}. Reduce it to columns."
        )
    columns = getattr(thing, "columns", None)
    channels = tuple(str(c) for c in columns) if columns is not None and values.ndim == 2 else None
    if channels is None:
        channels = (name,) if values.ndim == 1 else tuple(str(i) for i in range(values.shape[1]))
    return Trace(_times(thing), values, channels)
