"""Splits: whole stimuli, runs and clusters on one side, and a report of what the test shares with training."""

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.splits import (
    cluster_held_out,
    clusters_of,
    overlap,
    run_held_out,
    shared,
    validation_from,
)


@pytest.fixture
def trials() -> pd.DataFrame:
    """40 stimuli twice, in 4 runs of 20 trials; repeats within a run."""
    names = [f"{i:02d}" for i in range(40) for _ in range(2)]
    return pd.DataFrame({"stimulus": names, "session": 1, "run": np.arange(80) // 20 + 1})


def test_shared_pictures_are_the_test(trials: pd.DataFrame) -> None:
    words = shared(trials, {"03", "17", "never shown"})
    assert trials["stimulus"][words == "test"].tolist() == ["03", "03", "17", "17"]
    with pytest.raises(InputError, match="hold none of them"):
        shared(trials, {"x"})


def test_whole_runs(trials: pd.DataFrame) -> None:
    words = run_held_out(trials, [(1, 2), (1, 4)])
    assert set(trials["run"][words == "test"]) == {2, 4} and (words == "test").sum() == 40
    with pytest.raises(InputError, match=r"got \(1, 5\), which is not there"):
        run_held_out(trials, [(1, 5)])
    trials.loc[79, "stimulus"] = "00"
    with pytest.raises(InputError, match=r"got 1 in several of test, train \(00\)"):
        run_held_out(trials, [(1, 4)])


def test_whole_clusters(trials: pd.DataFrame, rng: np.random.Generator) -> None:
    """Four separated clouds are found, and no cloud lies on both sides."""
    cloud = np.arange(40) % 4
    features = rng.normal(size=(40, 8)) * 0.1 + 5 * np.eye(8)[cloud]
    clusters = clusters_of(features, 4, rng)
    assert len(set(zip(cloud.tolist(), clusters.tolist(), strict=True))) == 4
    names = [f"{i:02d}" for i in range(40)]
    words = cluster_held_out(trials, names, clusters, 0.3, rng)
    sides = pd.DataFrame({"cluster": np.repeat(clusters, 2), "side": words}).drop_duplicates()
    assert len(sides) == 4 and (words == "test").sum() == 40
    split = trials.assign(split=words)
    groups = dict(zip(names, map(str, clusters), strict=True))
    held = overlap(split, groups, names, features)
    mixed = overlap(trials.assign(split=shared(trials, set(names[:20]))), groups, names, features)
    assert (held.both, held.groups, mixed.groups) == (0, 0.0, 1.0)
    assert held.nearest < 0.2 < 0.9 < mixed.nearest
    assert mixed.nearest_within > 0.9
    with pytest.raises(InputError, match="the cluster of each stimulus; got none of 39"):
        cluster_held_out(trials, names[:-1], clusters[:-1], 0.3, rng)
    with pytest.raises(InputError, match="2 to 40 clusters"):
        clusters_of(features, 41, rng)


def test_the_same_generator_makes_the_same_split(trials: pd.DataFrame) -> None:
    features = np.random.default_rng(1).normal(size=(40, 3))
    names = [f"{i:02d}" for i in range(40)]
    one, two = (
        cluster_held_out(trials, names, clusters_of(features, 8, rng), 0.2, rng)
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    np.testing.assert_array_equal(one, two)


def test_validation_takes_stimuli_from_training(trials: pd.DataFrame, rng: np.random.Generator) -> None:
    words = validation_from(trials, shared(trials, {"00", "01"}), 0.25, rng)
    counts = pd.Series(words).value_counts()
    assert (counts["test"], counts["validation"], counts["train"]) == (4, 20, 56)
    assert overlap(trials.assign(split=words)).both == 0
    assert pd.DataFrame({"s": trials["stimulus"], "w": words}).drop_duplicates().shape[0] == 40
    with pytest.raises(InputError, match="from 0 to below 1"):
        validation_from(trials, words, 1.0, rng)
