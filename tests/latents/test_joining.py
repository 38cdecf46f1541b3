"""Files of one recording as one: interleaved in time, units by name, what a file lacks said."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.joining import WITHHELD, joined
from radiata_latents.data.recordings import Recording, Trace


def part(spans: list[list[float]], units: str, source: str, **more: object) -> Recording:
    rng = np.random.default_rng(len(units))
    times = np.concatenate([np.sort(rng.uniform(a, b, 50)) for a, b in sorted(spans)])
    return Recording(dict.fromkeys(units, times), np.array(spans), frozenset("c"), source=source, **more)  # type: ignore[arg-type]


def test_interleaved_files_are_one_recording() -> None:
    trace = Trace(np.array([0.0, 1.0, 5.0]), np.arange(3.0), ("x",))
    train = part(
        [[0.0, 1.0], [4.0, 5.0]], "abc", "train",
        events={"start_time": np.array([0.0, 4.0]), "split": np.array(["train", "val"], object),
                "kind": np.array([7.0, 8.0])},
        traces={"hand": trace},
    )  # fmt: skip
    test = part(
        [[2.0, 3.0]], "ab", "test",
        events={"start_time": np.array([2.0]), "split": np.array(["test"], object)},
    )  # fmt: skip
    whole = joined([train, test])
    assert whole.events["split"].tolist() == ["train", "test", "val"]
    assert whole.events[WITHHELD].tolist() == [False, True, False]
    np.testing.assert_array_equal(whole.events["kind"], [7.0, np.nan, 8.0])
    np.testing.assert_array_equal(whole.intervals, [[0, 1], [2, 3], [4, 5]])
    assert {name: len(times) for name, times in whole.spikes.items()} == {"a": 150, "b": 150, "c": 100}
    assert whole.heldout == {"c"} and whole.source == "train + test"
    np.testing.assert_array_equal(whole.traces["hand"].times, trace.times)
    assert joined([train]) is train


def test_what_does_not_belong_together_is_refused() -> None:
    first = part([[0.0, 2.0]], "abc", "one")
    with pytest.raises(InputError, match="one and two overlap at 1 s"):
        joined([first, part([[1.0, 3.0]], "abc", "two")])
    with pytest.raises(InputError, match="two lacks b"):
        joined([first, part([[3.0, 4.0]], "ac", "two")])
    silent = Recording({"a": np.array([0.5, 1.0]), "b": np.zeros(0), "c": np.zeros(0)}, source="three")
    with pytest.raises(InputError, match="overlap"):  # no intervals: from its first spike to its last
        joined([first, silent])
