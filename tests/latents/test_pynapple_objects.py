"""Pynapple's objects as a recording: stand-ins with the same attributes, and the real ones where they are installed."""

from types import SimpleNamespace

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.pynapple_objects import from_pynapple
from radiata_latents.data.recordings import windows


class Old:
    """An object of the time when times were called, not looked up."""

    def __init__(self, times: list[float]) -> None:
        self.kept = times

    def times(self) -> list[float]:
        return self.kept


def test_units_epochs_trials_and_traces() -> None:
    support = SimpleNamespace(start=np.array([0.0, 20.0]), end=np.array([10.0, 40.0]))
    group = {3: SimpleNamespace(t=np.array([0.5, 1.5, 25.0])), 7: Old([0.2, 39.0])}
    frame = SimpleNamespace(t=np.arange(3.0), values=np.arange(6.0).reshape(3, 2), columns=["x", "y"])
    angle = SimpleNamespace(t=np.arange(3.0), d=np.array([0.0, 0.1, 0.2]))
    trials = SimpleNamespace(start=[1.0, 21.0], end=[2.0, 22.0])
    found = from_pynapple(group, support, {"position": frame, "head": angle}, trials=trials)
    assert {name: times.tolist() for name, times in found.spikes.items()} == {
        "3": [0.5, 1.5, 25.0],
        "7": [0.2, 39.0],
    }
    assert found.intervals.tolist() == [[0.0, 10.0], [20.0, 40.0]]
    assert found.events["start_time"].tolist() == [1.0, 21.0]
    assert found.traces["position"].channels == ("x", "y") and found.traces["head"].channels == ("head",)
    np.testing.assert_array_equal(found.traces["head"].values[:, 0], [0.0, 0.1, 0.2])
    assert from_pynapple(group).intervals.shape == (0, 2)


def test_bad_input() -> None:
    ts = SimpleNamespace(t=[0.5])
    for call, words in (
        (lambda: from_pynapple([ts]), "expected a TsGroup"),
        (lambda: from_pynapple({1: 3.0}), "with times"),
        (lambda: from_pynapple({1: ts}, epochs=[[0, 1]]), "IntervalSet"),
        (lambda: from_pynapple({1: ts}, traces={"a": ts}), "Ts has no values"),
        (
            lambda: from_pynapple({1: ts}, traces={"a": SimpleNamespace(t=[0], values=np.zeros((1, 2, 2)))}),
            "Reduce it",
        ),
        (lambda: from_pynapple({1: SimpleNamespace(t=[2.0, 1.0])}), "in order"),
        (lambda: from_pynapple({}), "got none"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_the_real_objects(rng: np.random.Generator) -> None:
    """Counts of the windows are those that pynapple itself bins."""
    nap = pytest.importorskip("pynapple")
    times = {i: np.sort(rng.uniform(0, 100, 300)) for i in range(3)}
    support = nap.IntervalSet(start=[0.0], end=[100.0])
    group = nap.TsGroup({i: nap.Ts(t=t) for i, t in times.items()}, time_support=support)
    head = nap.Tsd(t=np.arange(0, 100, 0.01), d=np.sin(np.arange(0, 100, 0.01)))
    found = from_pynapple(group, traces={"head": head})
    np.testing.assert_allclose(found.intervals, [[0.0, 100.0]])
    made = windows(found, np.array([0.0, 50.0]), (0.0, 50.0), 0.5, behaviour="head")
    counts = np.asarray(group.count(0.5))
    np.testing.assert_array_equal(made["counts"].values.reshape(200, 3), counts)
