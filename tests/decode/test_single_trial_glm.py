"""Single-trial responses are those of ordinary least squares refitted trial by trial, and recover what was put in."""

import re

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.single_trial_glm import nuisances, trial_betas, trial_regressors

TIMES = 1.5 * np.arange(120)


@pytest.fixture
def run(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Series, regressors, nuisances and conditions of a fast event-related run."""
    onsets = np.sort(rng.uniform(0, 155, 24))
    x = trial_regressors(onsets, np.full(24, 2.0), TIMES)
    n = nuisances(TIMES, rng.normal(size=(len(TIMES), 4)))
    series = (
        100
        + x @ rng.normal(2, 1, (24, 7))
        + rng.normal(size=(len(TIMES), 7))
        + n[:, :3] @ rng.normal(size=(3, 7))
    )
    return series, x, n, [f"c{k % 3}" for k in range(24)]


def refit(series: np.ndarray, columns: list[np.ndarray]) -> np.ndarray:
    return np.linalg.lstsq(np.column_stack(columns), series, rcond=None)[0][0]


def test_all_is_one_ordinary_least_squares_fit(run) -> None:
    series, x, n, _ = run
    expected = np.linalg.lstsq(np.column_stack([x, n]), series, rcond=None)[0][: x.shape[1]]
    np.testing.assert_allclose(trial_betas(series, x, n, "all").betas, expected, rtol=1e-5, atol=1e-5)


def test_separate_is_one_refit_a_trial(run) -> None:
    """The trial beside one regressor for all others (LS-S), each fitted on its own, float64 inside to 1e-6."""
    series, x, n, _ = run
    expected = [refit(series, [x[:, k], np.delete(x, k, 1).sum(1), n]) for k in range(x.shape[1])]
    np.testing.assert_allclose(trial_betas(series, x, n).betas, expected, rtol=1e-6, atol=1e-6)


def test_separate_by_condition_is_one_refit_a_trial(run) -> None:
    """The others of each condition have a regressor; a condition shown once has none."""
    series, x, n, conditions = run
    words = np.array([*conditions[:-1], "alone"])
    expected = []
    for k, word in enumerate(words):
        others = [x[:, (words == w) & (np.arange(len(words)) != k)].sum(1) for w in np.unique(words)]
        others = [column for column in others if np.abs(column).max() > 0]
        expected.append(refit(series, [x[:, k], *others, n]))
        assert len(others) == (3 if word == "alone" else 4)
    found = trial_betas(series, x, n, conditions=list(words)).betas
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_ridge_is_the_closed_form_and_goes_to_all(run) -> None:
    series, x, n, _ = run
    q = np.linalg.qr(n)[0]
    clean, y = x - q @ (q.T @ x), series - q @ (q.T @ series)
    gram = clean.T @ clean
    expected = np.linalg.solve(gram + 0.3 * np.trace(gram) / len(gram) * np.eye(len(gram)), clean.T @ y)
    np.testing.assert_allclose(
        trial_betas(series, x, n, "ridge", shrinkage=0.3).betas, expected, rtol=1e-5, atol=1e-5
    )
    near = trial_betas(series, x, n, "ridge", shrinkage=1e-9).betas
    np.testing.assert_allclose(near, trial_betas(series, x, n, "all").betas, atol=1e-3)


def test_regressors_and_nuisances_are_nilearns(rng: np.random.Generator) -> None:
    """The whole design against `make_first_level_design_matrix`, each trial a condition."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    onsets, confounds = np.array([4.0, 30.0, 61.0]), rng.normal(size=(len(TIMES), 2))
    events = pd.DataFrame({"onset": onsets, "duration": 3.0, "trial_type": ["a", "b", "c"]})
    design = make_first_level_design_matrix(
        TIMES, events, hrf_model="spm", high_pass=0.01, add_regs=confounds, add_reg_names=["u", "v"]
    )
    ours = trial_regressors(onsets, np.full(3, 3.0), TIMES, "spm")
    np.testing.assert_allclose(ours, design[["a", "b", "c"]], atol=1e-10)
    series = rng.normal(size=(len(TIMES), 3))
    theirs = np.linalg.lstsq(design.to_numpy(), series, rcond=None)[0][
        [list(design.columns).index(c) for c in "abc"]
    ]
    np.testing.assert_allclose(
        trial_betas(series, ours, nuisances(TIMES, confounds), "all").betas, theirs, atol=1e-6
    )


def test_noise_free_responses_come_back(rng: np.random.Generator) -> None:
    """`all` inverts the forward model; the baseline is the mean; nuisances do not matter."""
    x = trial_regressors(np.arange(5, 150, 9.0), np.full(17, 1.0), TIMES)
    n = nuisances(TIMES)
    truth = rng.normal(size=(17, 4))
    found = trial_betas((x @ truth + n @ rng.normal(size=(n.shape[1], 4))).astype(np.float32), x, n, "all")
    np.testing.assert_allclose(found.betas, truth, atol=2e-3)


def test_overlapping_trials_have_low_efficiency() -> None:
    """One trial alone is at 1; two that start 1 s apart can hardly be told apart."""
    x = trial_regressors(np.array([20.0, 21.0, 100.0]), np.full(3, 1.0), TIMES)
    found = trial_betas(np.zeros((len(TIMES), 1)), x, nuisances(TIMES), "all").efficiency
    assert found[2] > 0.95 and found[:2].max() < 0.3


def test_gaps_of_derivatives_do_not_reach_the_fit(rng: np.random.Generator) -> None:
    """fMRIPrep leaves the first row of a derivative empty."""
    confounds = rng.normal(size=(len(TIMES), 2))
    confounds[0, 1] = np.nan
    found = nuisances(TIMES, confounds)
    assert np.isfinite(found).all() and found[0, -1] == pytest.approx(np.nanmean(confounds[:, 1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"estimator": "lsa"}, "expected an estimator of all, separate, ridge; got lsa"),
        ({"conditions": ["a"]}, "condition of each of 24 trials"),
        ({"series": np.zeros((5, 2))}, "one length; got 5, 120 and 120"),
        ({"nuisance": np.eye(120)}, "more volumes than regressors"),
    ],
)
def test_bad_input(run, change: dict, words: str) -> None:
    series, x, n, _ = run
    given = {"series": series, "regressors": x, "nuisance": n} | change
    with pytest.raises(InputError, match=re.escape(words)):
        trial_betas(**given)


def test_trials_that_cannot_be_told_apart(run) -> None:
    series, x, n, _ = run
    twins = np.column_stack([x, x[:, 3]])
    with pytest.raises(InputError, match=r"told apart"):
        trial_betas(series, twins, n, "all")
    with pytest.raises(InputError, match=re.escape("got trial 1 at 500 s, which it does not see")):
        trial_regressors(np.array([0.0, 500.0]), np.ones(2), TIMES)
