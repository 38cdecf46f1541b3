"""What trackers say: angles wrap, frozen trackers are found, windows that touch them left out."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.recordings import Recording, Trace, windows
from radiata_latents.data.tracking import as_points, frozen_spans, outside, stacked_traces


def test_an_angle_that_wraps_is_averaged_on_the_circle() -> None:
    times = np.arange(0, 2, 0.01)
    angle = np.where(np.arange(200) % 2, 0.1, 2 * np.pi - 0.1)  # around 0, never near pi
    points = as_points(Trace(times, angle, ("h",), "radians"))
    assert points.channels == ("cos(h)", "sin(h)")
    spikes = {"a": times, "b": times}
    made = windows(
        Recording(spikes, traces={"p": points}), np.array([0.0, 1.0]), (0.0, 1.0), 0.1, behaviour="p"
    )
    np.testing.assert_allclose(made["behaviour"].values[..., 0], np.cos(0.1), rtol=1e-6)
    np.testing.assert_allclose(made["behaviour"].values[..., 1], 0.0, atol=0.02)  # a bin may have 9 samples
    with pytest.raises(InputError, match="got 359 degrees"):
        as_points(Trace(times, np.full(200, 359.0), ("h",), "degrees"))


def test_frozen_trackers_are_found() -> None:
    times = np.arange(0, 60, 0.1)
    x = np.sin(times)
    x[100:200] = 3.0  # 10 s to the last digit
    x[300:320] = 1.0  # 2 s: an animal that rests
    spans = frozen_spans(Trace(times, np.stack([x, x], 1), ("x", "y")))
    np.testing.assert_allclose(spans, [[10.0, 19.9]])
    starts = np.array([5.0, 9.5, 15.0, 19.95, 30.0])
    assert outside(starts, 1.0, spans).tolist() == [True, False, False, True, True]
    assert outside(starts, 1.0, np.zeros((0, 2))).all()
    assert len(frozen_spans(Trace(np.zeros(0), np.zeros((0, 1)), ("x",)))) == 0


def test_traces_stand_side_by_side() -> None:
    times = np.arange(3.0)
    traces = {
        "acq/Position/x": Trace(times, times, ("0",), "cm"),
        "acq/Position/z": Trace(times, 2 * times, ("0",), "cm"),
        "acq/hand": Trace(times, np.stack([times, times], 1), ("u", "v"), "cm"),
        "acq/slow": Trace(times + 1, times, ("0",)),
    }
    recording = Recording({"a": times}, traces=traces)
    both = stacked_traces(recording, ["Position/x", "z", "hand"])
    assert both.channels == ("x", "z", "hand/u", "hand/v") and both.unit == "cm"
    np.testing.assert_array_equal(both.values[:, 1], 2 * times)
    assert stacked_traces(recording, ["hand"]).channels == ("u", "v")
    assert stacked_traces(recording, ["Position/z"]).channels == ("z",)
    with pytest.raises(InputError, match="at the same times; slow and x"):
        stacked_traces(recording, ["x", "slow"])
    with pytest.raises(InputError, match="got 'y'"):
        stacked_traces(recording, ["y"])
