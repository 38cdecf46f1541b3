"""The category decoder against scikit-learn, against chance, and against leaks from the held-out run."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from radiata_core.errors import InputError
from radiata_decode.model.category_decoder import decode_categories

RUNS = np.repeat(np.arange(6), 8)
LABELS = np.tile(np.array(["a", "b", "c", "d"]), 12)


@pytest.fixture
def responses(rng: np.random.Generator) -> np.ndarray:
    pattern = rng.normal(size=(4, 30))
    return pattern[np.unique(LABELS, return_inverse=True)[1]] + 1.6 * rng.normal(size=(48, 30))


def by_hand(responses: np.ndarray, alpha: float) -> np.ndarray:
    """Leave-one-run-out with scikit-learn, voxels standardised by training."""
    predicted = np.empty(len(LABELS), LABELS.dtype)
    for run in np.unique(RUNS):
        train, test = run != RUNS, run == RUNS
        mean, sd = responses[train].mean(0), responses[train].std(0, ddof=1)
        model = RidgeClassifier(alpha).fit((responses[train] - mean) / sd, LABELS[train])
        predicted[test] = model.predict((responses[test] - mean) / sd)
    return predicted


@pytest.mark.parametrize("alpha", [1.0, 30.0])
def test_one_option_is_scikit_learns_ridge_classifier(
    responses: np.ndarray, rng: np.random.Generator, alpha: float
) -> None:
    found = decode_categories({"x": responses}, LABELS, RUNS, rng, alphas=[alpha], permutations=0)
    assert np.array(found.categories)[found.predicted].tolist() == by_hand(responses, alpha).tolist()
    assert found.accuracy == (by_hand(responses, alpha) == LABELS).mean() and found.chance == 0.25
    assert found.confusion.trace() == (found.predicted == found.truth).sum() and found.confusion.sum() == 48


def test_the_better_preparation_is_chosen(responses: np.ndarray, rng: np.random.Generator) -> None:
    found = decode_categories(
        {"noise": rng.normal(size=responses.shape), "signal": responses}, LABELS, RUNS, rng, permutations=0
    )
    assert {name for name, _ in found.chosen.values()} == {"signal"}


def test_the_held_out_run_has_no_part_in_any_choice(responses: np.ndarray, rng: np.random.Generator) -> None:
    """What was chosen for a run, and its scores up to that run's own data, do not move when its labels do."""
    other = LABELS.copy()
    other[RUNS == 2] = other[RUNS == 2][::-1]
    candidates = {"x": responses, "y": responses + rng.normal(size=responses.shape)}
    a, b = (
        decode_categories(candidates, words, RUNS, np.random.default_rng(0), permutations=0)
        for words in (LABELS, other)
    )
    assert a.chosen[2] == b.chosen[2]
    np.testing.assert_array_equal(a.scores[RUNS == 2], b.scores[RUNS == 2])


def test_probabilities_are_calibrated_enough_to_beat_guessing(
    responses: np.ndarray, rng: np.random.Generator
) -> None:
    found = decode_categories({"x": responses}, LABELS, RUNS, rng, permutations=0)
    np.testing.assert_allclose(found.probability.sum(1), 1)
    assert (found.probability.argmax(1) == found.predicted).all()
    assert -np.log(found.probability[np.arange(48), found.truth]).mean() < np.log(4) - 0.2


def test_p_is_small_for_signal_and_uniform_for_none(responses: np.ndarray) -> None:
    """Of 20 noise data sets no more than 4 reach p <= .05: happens by chance with probability .003."""
    signal = decode_categories(
        {"x": responses}, LABELS, RUNS, np.random.default_rng(1), alphas=[30.0], permutations=99
    )
    assert signal.p == 0.01 and signal.null.mean() == pytest.approx(0.25, abs=0.05)
    low = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = decode_categories(
            {"x": rng.normal(size=(48, 5))}, LABELS, RUNS, rng, alphas=[10.0], permutations=39
        )
        low += found.p <= 0.05
    assert low <= 4


def test_permutations_stay_within_runs_and_follow_the_seed(responses: np.ndarray) -> None:
    """With one category a run, shuffling within runs changes nothing: every permutation is as accurate, p = 1."""
    words = np.array(["a", "b", "a", "b", "a", "b"])[RUNS]
    found = decode_categories(
        {"x": responses}, words, RUNS, np.random.default_rng(0), alphas=[10.0], permutations=9
    )
    assert found.p == 1.0 and (found.null == found.accuracy).all()


@pytest.mark.parametrize(
    ("labels", "runs", "words"),
    [
        (LABELS, RUNS % 2, "three runs"),
        (np.repeat("a", 48), RUNS, "two categories"),
        (np.where(RUNS == 0, "only", LABELS), RUNS, "got only in run 0 only"),
        (LABELS[:-1], RUNS, "47 trials"),
    ],
)
def test_bad_input(
    responses: np.ndarray, rng: np.random.Generator, labels: np.ndarray, runs: np.ndarray, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        decode_categories({"x": responses}, labels, runs, rng, permutations=0)


def test_nan_is_refused(responses: np.ndarray, rng: np.random.Generator) -> None:
    responses[3, 4] = np.nan
    with pytest.raises(InputError, match=r"NaN or infinity in x"):
        decode_categories({"x": responses}, LABELS, RUNS, rng)
