"""From a recording to trials: every spike in its bin, what was not observed, behaviour on the same bins."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.recordings import Recording, Trace, consecutive_events, windows


@pytest.fixture
def recording(rng: np.random.Generator) -> Recording:
    spikes = {name: np.sort(rng.uniform(0, 100, n)) for name, n in (("a", 3000), ("b", 700), ("c", 1500))}
    times = np.arange(0, 100, 0.005)
    trace = Trace(times, np.stack([times, np.sin(times)], 1), ("x", "y"), "cm")
    return Recording(spikes, traces={"processing/behavior/hand": trace}, source="made")


def test_every_spike_falls_into_its_bin(recording: Recording) -> None:
    """The same as numpy's histogram, trial by trial; windows laid end to end hold every spike once."""
    events = np.array([20.013, 33.3, 61.0])
    made = windows(recording, events, (-0.3, 0.7), 0.02)
    for k, event in enumerate(events):
        edges = event - 0.3 + 0.02 * np.arange(51)
        for j, times in enumerate(recording.spikes.values()):
            np.testing.assert_array_equal(made["counts"].values[k, :, j], np.histogram(times, edges)[0])
    whole = Recording(recording.spikes, np.array([[0.0, 100.0]]))
    laid = windows(whole, consecutive_events(whole, 1.0), (0.0, 1.0), 0.02)
    assert laid.sizes["trial"] == 100
    assert laid["counts"].values.sum() == 5200


def test_a_spike_on_an_edge_belongs_to_the_later_bin() -> None:
    spikes = {"a": np.array([0.0, 0.25, 0.5, 1.0]), "b": np.array([0.1, 1.1])}
    made = windows(Recording(spikes), np.array([0.0, 1.0]), (0.0, 0.5), 0.25)
    np.testing.assert_array_equal(made["counts"].values[:, :, 0], [[1, 1], [1, 0]])


def test_bins_outside_the_observed_intervals_are_masked(recording: Recording) -> None:
    partly = Recording(recording.spikes, np.array([[50.0, 90.0], [0.0, 20.5]]))
    made = windows(partly, np.array([20.0, 60.0]), (0.0, 1.0), 0.25)
    np.testing.assert_array_equal(made["observed"].values, [[True, True, False, False], [True] * 4])
    assert made["counts"].values[0, 2:].sum() == 0
    assert made.attrs["masked_bins"] == 2
    with pytest.raises(InputError, match="inside the observed"):
        windows(partly, np.array([30.0, 95.0]), (0.0, 1.0), 0.25)
    np.testing.assert_allclose(consecutive_events(partly, 20.0), [50.0, 70.0, 0.0])


def test_behaviour_is_the_mean_of_each_bin_and_lagged(recording: Recording) -> None:
    """x is the time itself: its mean in a bin is the bin's centre (half a sample early), `lag_s` later."""
    made = windows(recording, np.array([10.0, 40.0]), (0.0, 1.0), 0.05, behaviour="hand", lag_s=0.1)
    centres = np.array([10.0, 40.0])[:, None] + 0.1 + 0.05 * (np.arange(20) + 0.5)
    np.testing.assert_allclose(made["behaviour"].values[..., 0], centres - 0.0025, atol=1e-4)
    np.testing.assert_allclose(made["behaviour"].values[..., 1], np.sin(centres), atol=4e-3)
    assert made["channel"].values.tolist() == ["x", "y"]


def test_slow_behaviour_is_interpolated_and_gaps_stay_gaps() -> None:
    times = np.concatenate([np.arange(0, 5, 0.1), np.arange(7, 10, 0.1)])
    spikes = {"a": np.linspace(0, 10, 500), "b": np.linspace(0.01, 9, 300)}
    recording = Recording(spikes, traces={"x": Trace(times, 3 * times, ("x",))})
    made = windows(recording, np.array([1.0, 5.5, 9.5]), (0.0, 1.0), 0.02, behaviour="x")
    centres = 1.0 + 0.02 * (np.arange(50) + 0.5)
    np.testing.assert_allclose(
        made["behaviour"].values[0, :, 0], 3 * centres, atol=0.16
    )  # a sample within the bin stands for it
    assert np.isnan(made["behaviour"].values[1]).all()
    assert np.isnan(made["behaviour"].values[2, 25:]).all()
    assert np.isfinite(made["behaviour"].values[2, :15]).all()


def test_forward_bins_follow_the_window(recording: Recording) -> None:
    made = windows(recording, np.array([10.0, 40.0]), (-0.2, 0.4), 0.02, forward_s=0.2)
    assert made.sizes["time"] == 40
    np.testing.assert_array_equal(made["forward"].values, np.arange(40) >= 30)
    longer = windows(recording, np.array([10.0, 40.0]), (-0.2, 0.6), 0.02)
    np.testing.assert_array_equal(made["counts"].values, longer["counts"].values)


def test_trials_without_the_event_are_left_out(recording: Recording) -> None:
    made = windows(recording, np.array([10.0, np.nan, 40.0]), (0.0, 0.5), 0.1, condition=np.array([5, 6, 7]))
    np.testing.assert_array_equal(made["condition"].values, [5, 7])


def test_bad_input(recording: Recording) -> None:
    good = {"events": np.array([10.0, 20.0]), "window": (0.0, 0.5), "bin_s": 0.1}
    for change, words in (
        ({"bin_s": 0.15}, "whole number of bins"),
        ({"bin_s": 0.0}, "whole number of bins"),
        ({"events": np.array([np.nan])}, "no event has a time"),
        ({"events": np.array([10.0, 10.2])}, "1 of 2 begin within 0.5 s"),
        ({"behaviour": "foot"}, "There are: processing/behavior/hand"),
        ({"heldout": frozenset({"z"})}, "got z"),
        ({"events": np.array([150.0, 160.0])}, "neurons that fire"),
    ):
        with pytest.raises(InputError, match=words):
            windows(recording, **(good | change))
    assert (
        windows(recording, np.array([10.0, 10.2]), (0.0, 0.5), 0.1, overlap=True, drop_silent=True).sizes[
            "trial"
        ]
        == 2
    )
    with pytest.raises(InputError, match=r"got 0.2 s after 0.3 s \(sample 2\)"):
        Recording({"a": np.array([0.1, 0.3, 0.2])})
    with pytest.raises(InputError, match="NaN or infinity"):
        Recording({"a": np.array([0.1, np.nan])})
    with pytest.raises(InputError, match="got none"):
        Recording({})
    with pytest.raises(InputError, match="a time a sample"):
        Trace(np.arange(3.0), np.zeros((4, 1)), ("x",))
    with pytest.raises(InputError, match="at a stretch"):
        consecutive_events(Recording(recording.spikes, np.array([[0.0, 1.0]])), 2.0)


def test_silent_neurons_are_dropped_only_when_asked(recording: Recording) -> None:
    spikes = dict(recording.spikes) | {"quiet": np.array([99.0])}
    with pytest.raises(InputError, match="--drop-silent"):
        windows(Recording(spikes), np.array([10.0, 20.0]), (0.0, 0.5), 0.1)
    made = windows(Recording(spikes), np.array([10.0, 20.0]), (0.0, 0.5), 0.1, drop_silent=True)
    assert made["neuron"].values.tolist() == ["a", "b", "c"]
