"""Standardising: statistics of training trials alone, the same for one trial as for a thousand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from radiata_core.errors import InputError
from radiata_decode.data.normalisation import Standardiser, standardiser, subject_standardiser
from radiata_decode.data.subject import write_subject


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    return (rng.normal(size=(60, 6)) * [1, 2, 0.1, 30, 1, 1] + [0, 5, -4, 900, 0, 1e4]).astype(np.float32)


@pytest.mark.parametrize("block", [7, 60])
def test_as_scikit_learn(values: np.ndarray, block: int) -> None:
    """scikit-learn divides by n, the field by n - 1."""
    found = standardiser(values[i : i + block] for i in range(0, 60, block))
    reference = StandardScaler().fit(values.astype(np.float64))
    np.testing.assert_allclose(found.mean, reference.mean_, rtol=1e-5)
    np.testing.assert_allclose(found.sd, reference.scale_ * np.sqrt(60 / 59), rtol=1e-5)
    standard = found.apply(values)
    np.testing.assert_allclose(standard[:, :5].std(0, ddof=1), 1, rtol=1e-4)


def test_a_session_uses_its_own_training_trials(values: np.ndarray) -> None:
    sessions = np.repeat([1, 2, 3], 20)
    values[sessions == 2] = values[sessions == 2] * 3 + 100
    found = standardiser([values[:50]], "session", sessions[:50])
    z = found.apply(values, sessions)
    for session in (1, 2):
        np.testing.assert_allclose(z[sessions == session].mean(0), 0, atol=2e-3)
        np.testing.assert_allclose(z[sessions == session].std(0, ddof=1), 1, rtol=1e-3)
    np.testing.assert_allclose(z[40:50].mean(0), 0, atol=2e-3)
    unknown = found.apply(values[:2], np.array([9, 9]))
    np.testing.assert_allclose(unknown, (values[:2] - found.mean) / found.sd, rtol=1e-6)


@pytest.mark.parametrize("rule", ["none", "train", "session"])
def test_test_trials_change_nothing(tmp_path: Path, values: np.ndarray, rule: str) -> None:
    """Whatever is to be decoded, statistics and every single trial's numbers stay the same."""
    trials = pd.DataFrame(
        {
            "stimulus": [f"{i}" for i in range(60)],
            "session": np.arange(60) % 2 + 1,
            "split": ["train"] * 40 + ["validation"] * 5 + ["test"] * 15,
        }
    )
    first = write_subject(tmp_path / "a", values, trials)
    values[40:] *= 1000
    second = write_subject(tmp_path / "b", values, trials)
    one, two = subject_standardiser(first, rule), subject_standardiser(second, rule)
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, two.arrays()[name])
    sessions = trials["session"].to_numpy()
    together = one.apply(values, sessions)
    alone = np.concatenate([one.apply(values[i : i + 1], sessions[i : i + 1]) for i in range(60)])
    np.testing.assert_array_equal(together, alone)
    again = Standardiser.from_arrays(rule, one.arrays())
    np.testing.assert_array_equal(again.apply(values, sessions), together)


def test_a_voxel_that_never_changes_is_not_divided(values: np.ndarray) -> None:
    values[:, 0], values[:, 1] = 0.0, 0.1
    z = standardiser([values]).apply(values)
    assert np.isfinite(z).all() and np.abs(z[:, :2]).max() < 1e-6


def test_refuses(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="a rule of none, train, session; got zscore"):
        standardiser([values], "zscore")
    with pytest.raises(InputError, match="at least two training trials; got 1"):
        standardiser([values[:1]])
    found = standardiser([values], "session", np.ones(60))
    with pytest.raises(InputError, match=r"\(trial, 6 voxels\); got \(60, 5\)"):
        found.apply(values[:, :5], np.ones(60))
    with pytest.raises(InputError, match="the session of each of 60 trials"):
        found.apply(values)
