"""The benchmark's files: DMFC's windows, test files without held-out units, conditions as its columns have them."""

import json

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.benchmark import benchmark_population
from radiata_latents.data.joining import joined
from radiata_latents.data.recordings import Recording


@pytest.fixture
def dmfc(rng: np.random.Generator) -> Recording:
    """30 trials of 4 s: set cue at 1 to 1.4 s, go 0.7 to 1.3 s after it."""
    trials = np.arange(30)
    begin, wait, produced = 4.0 * trials, 1.8 + 0.01 * trials, 0.7 + 0.02 * trials
    spikes = {f"{i}": np.sort(rng.uniform(0, 122, 2000)) for i in range(6)}
    return Recording(
        spikes,
        np.array([[0.0, 122.0]]),
        frozenset({"4", "5"}),
        events={
            "start_time": begin,
            "set_time": begin + wait,
            "go_time": begin + wait + produced,
            "split": np.array(["train"] * 20 + ["val"] * 6 + ["test"] * 3 + ["none"]),
            "is_eye": trials % 2,
            "theta": np.zeros(30),
            "is_short": trials % 2,
            "ts": 500.0 + 100 * (trials % 2),
        },
    )


def test_dmfc_is_scored_from_set_to_go(dmfc: Recording) -> None:
    """Bins of evaluated trials before the set cue are not observed; those of training trials are."""
    plain = benchmark_population(dmfc, "dmfc_rsg", 20)
    made = benchmark_population(dmfc, "dmfc_rsg", 20, set_to_go=True)
    assert plain["observed"].values.all() and made.sizes["trial"] == 29 and made.sizes["time"] == 85
    begin = made["time"].values - 0.01
    for trial in range(29):
        produced = 0.7 + 0.02 * trial
        expected = np.ones(85, bool) if trial < 20 else begin >= -produced - 1e-9
        np.testing.assert_array_equal(made["observed"].values[trial], expected)
        np.testing.assert_array_equal(
            made["counts"].values[trial], plain["counts"].values[trial] * expected[:, None]
        )
    assert made.attrs["masked_bins"] == int((~made["observed"].values).sum()) > 0
    assert json.loads(made.attrs["condition_labels"]) == ["0 0.0 0 500.0", "1 0.0 1 600.0"]
    np.testing.assert_array_equal(made["condition"].values, np.arange(29) % 2)


def test_jitter_shifts_windows_later_by_whole_bins_as_far_as_set(dmfc: Recording) -> None:
    plain = benchmark_population(dmfc, "dmfc_rsg", 20)
    made = benchmark_population(dmfc, "dmfc_rsg", 20, jitter=3, set_to_go=True)
    shift = made["shift_s"].values
    most = np.minimum(0.3, 1.5 - (0.7 + 0.02 * np.arange(29)))
    assert (shift >= 0).all() and (shift <= most + 1e-9).all() and shift[:20].max() > 0.2
    np.testing.assert_allclose(shift / 0.02, np.round(shift / 0.02), atol=1e-9)
    assert (shift[made["split"].values == "test"] == 0).all() and (shift[20:26] > 0).any()
    trial = int(np.argmax(shift[:20]))
    steps = round(shift[trial] / 0.02)
    np.testing.assert_array_equal(
        made["counts"].values[trial, :-steps], plain["counts"].values[trial, steps:]
    )
    for trial in range(20, 29):  # the set cue moves with the window
        first = made["time"].values[made["observed"].values[trial]][0] - 0.01
        assert first == pytest.approx(-(0.7 + 0.02 * trial) - shift[trial], abs=0.0201)
    again = benchmark_population(dmfc, "dmfc_rsg", 20, jitter=3)
    np.testing.assert_array_equal(again["shift_s"].values, shift)
    other = benchmark_population(dmfc, "dmfc_rsg", 20, jitter=4)
    assert (other["shift_s"].values != shift).any()


def test_only_dmfc_has_them(dmfc: Recording) -> None:
    for change in ({"jitter": 0}, {"set_to_go": True}):
        with pytest.raises(InputError, match="expected the preset dmfc_rsg"):
            benchmark_population(dmfc, "mc_rtt", 20, **change)
    lacking = Recording(dmfc.spikes, dmfc.intervals, events={"go_time": dmfc.events["go_time"]})
    with pytest.raises(InputError, match="trials with set_time"):
        benchmark_population(lacking, "dmfc_rsg", 20, set_to_go=True)


def test_a_test_file_lacks_what_it_withholds(rng: np.random.Generator) -> None:
    """Held-out units and conditions of a second file are unknown there, and the trials say so."""

    def part(units: str, spans: np.ndarray, split: list[str], **more: np.ndarray) -> Recording:
        times = np.concatenate([np.sort(rng.uniform(a, b, 200)) for a, b in spans])
        events = {"start_time": spans[:, 0], "move_onset_time": spans[:, 0] + 0.5, "split": np.array(split)}
        return Recording(dict.fromkeys(units, times), spans, frozenset("d"), events | more, source=split[0])

    begin = 2.0 * np.arange(10)
    spans = np.stack([begin, begin + 1.6], 1)
    train = part("abcd", spans[::2], ["train"] * 4 + ["val"], trial_type=np.array([3.0, 1, 3, 1, 3]))
    made = benchmark_population(joined([train, part("abc", spans[1::2], ["test"] * 5)]), "mc_maze_small", 20)
    assert made["split"].values.tolist() == [
        w for pair in zip(["train"] * 4 + ["validation"], ["test"] * 5, strict=True) for w in pair
    ]
    np.testing.assert_array_equal(made["withheld"].values, np.arange(10) % 2 == 1)
    assert made["condition"].values[::2].tolist() == [1, 0, 1, 0, 1]
    assert (made["condition"].values[1::2] == -1).all()
    assert json.loads(made.attrs["condition_labels"]) == ["1.0", "3.0"]
    assert made["counts"].values[made["withheld"].values][..., 3].sum() == 0
