"""Within what pairings are permuted: runs where stimuli have one, sessions or everything where their repeats are spread."""

import pandas as pd

from radiata_decode.experiment.comparison import run_labels


def trials(rows: list[tuple[str, int, int]], split: str = "test") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["stimulus", "session", "run"]).assign(split=split)


def test_a_stimulus_of_one_run_keeps_it() -> None:
    table = trials([("a", 1, 1), ("b", 1, 1), ("c", 1, 2), ("d", 1, 2), ("a", 1, 1)])
    labels, within = run_labels(table, "test", ["d", "a", "b", "c"])
    assert within == "within runs"
    assert labels == ["1/2", "1/1", "1/1", "1/2"]


def test_run_numbers_of_two_sessions_are_two_runs() -> None:
    labels, within = run_labels(
        trials([("a", 1, 1), ("b", 1, 1), ("c", 2, 1), ("d", 2, 1)]), "test", list("abcd")
    )
    assert within == "within runs" and labels[0] == labels[1] != labels[2] == labels[3]


def test_repeats_in_several_runs_are_permuted_within_sessions() -> None:
    rows = [(name, session, run) for session in (1, 2) for run, name in enumerate("abcd")]
    labels, within = run_labels(trials(rows), "test", list("abcd"))
    assert within == "within sessions" and set(labels) == {"1 2"}


def test_stimuli_with_nothing_in_common_are_permuted_over_all() -> None:
    labels, within = run_labels(trials([(name, k, 1) for k, name in enumerate("abcd")]), "test", list("abcd"))
    assert labels == ["all"] * 4 and within.startswith("over all")


def test_nobody_is_left_alone() -> None:
    """Two that are alone in their runs are exchanged with one another, a single one joins a run."""
    rows = [("a", 1, 1), ("b", 1, 1), ("c", 1, 1), ("d", 1, 1), ("e", 1, 2), ("f", 1, 3)]
    labels, _ = run_labels(trials(rows), "test", list("abcdef"))
    assert min(labels.count(label) for label in labels) == 2
    labels, _ = run_labels(trials(rows[:5]), "test", list("abcde"))
    assert labels == ["1/1"] * 5


def test_trials_of_other_splits_do_not_matter() -> None:
    table = pd.concat([trials([("a", 1, 1), ("b", 1, 1)]), trials([("a", 9, 9)], "train")])
    assert run_labels(table, "test", ["a", "b"])[0] == ["1/1", "1/1"]
