"""STAPLE against a second implementation voxel by voxel, against known raters, and against SimpleITK if installed."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_medical.model.staple import majority_vote, staple


def raters_of(truth: np.ndarray, confusions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What raters with these confusion matrices (rater, said, true) say."""
    uniform = rng.random((len(confusions), *truth.shape))
    cumulative = confusions.cumsum(1)[:, :, truth]
    return (uniform[:, None] > cumulative).sum(1).astype(np.uint8)


def one_good_among_bad(classes: int, good: float, bad: float, count: int) -> np.ndarray:
    diagonal = np.array([good] + [bad] * (count - 1))
    off = (1 - diagonal) / (classes - 1)
    return off[:, None, None] + (diagonal - off)[:, None, None] * np.eye(classes)


def written_out(ratings: np.ndarray, count: int, rounds: int, start: float) -> tuple[np.ndarray, np.ndarray]:
    """The two steps with loops over voxels, raters and classes, in plain products: posterior (voxel, class) and theta."""
    raters, voxels = ratings.shape
    prior = np.array([(ratings == k).mean() for k in range(count)])
    theta = np.full((raters, count, count), (1 - start) / (count - 1))
    for k in range(count):
        theta[:, k, k] = start
    for _ in range(rounds + 1):
        w = np.zeros((voxels, count))
        for i in range(voxels):
            for s in range(count):
                w[i, s] = prior[s]
                for j in range(raters):
                    w[i, s] *= theta[j, ratings[j, i], s]
            w[i] /= w[i].sum()
        if _ == rounds:
            return w, theta
        for j in range(raters):
            for said in range(count):
                theta[j, said] = w[ratings[j] == said].sum(0) / w.sum(0)
    raise AssertionError


@pytest.mark.parametrize("count", [2, 3])
def test_the_same_as_the_equations_written_out(count, rng):
    truth = rng.integers(0, count, 60)
    ratings = raters_of(truth, one_good_among_bad(count, 0.95, 0.7, 4), rng)
    found = staple(ratings, count, rounds=7, tolerance=0.0, start=0.9)
    posterior, theta = written_out(ratings, count, 7, 0.9)
    np.testing.assert_allclose(found.confusion, theta, atol=1e-10)
    for k in range(count):
        np.testing.assert_allclose(found.probability(k), posterior[:, k], atol=1e-6)
    assert np.array_equal(found.classes, posterior.argmax(1))


def test_known_raters_are_found_and_the_vote_is_beaten(rng):
    """20 000 voxels, one good rater and four poor ones: confusion within .03; fewer errors than the majority makes."""
    truth = (rng.random(20_000) < 0.35).astype(np.int64)
    confusions = one_good_among_bad(2, 0.97, 0.7, 5)
    ratings = raters_of(truth, confusions, rng).reshape(5, 100, 200)
    found = staple(ratings, 2, estimate_prior=True)
    assert found.converged and abs(found.prior[1] - 0.35) < 0.02
    told = staple(ratings, 2, prior=(0.65, 0.35))
    np.testing.assert_allclose(told.confusion, confusions, atol=0.03)
    np.testing.assert_allclose(found.confusion, confusions, atol=0.03)
    np.testing.assert_allclose(found.sensitivity[:, 1], confusions[:, 1, 1], atol=0.03)
    np.testing.assert_allclose(found.specificity[:, 1], confusions[:, 0, 0], atol=0.03)
    errors = [(fused.ravel() != truth).mean() for fused in (found.classes, majority_vote(ratings, 2))]
    assert errors[0] < 0.6 * errors[1]


def test_several_labels_with_a_rater_who_swaps_two(rng):
    """A rater who always exchanges two labels is worth as much as a good one: the exchange is in the matrix."""
    truth = rng.integers(0, 4, 20_000)
    confusions = one_good_among_bad(4, 0.85, 0.85, 4)
    confusions[3] = confusions[3][[0, 2, 1, 3]]
    found = staple(raters_of(truth, confusions, rng), 4)
    np.testing.assert_allclose(found.confusion, confusions, atol=0.03)


def test_each_round_raises_the_likelihood(rng):
    ratings = raters_of(rng.integers(0, 3, 500), one_good_among_bad(3, 0.9, 0.6, 5), rng)
    trace = staple(ratings, 3, rounds=40).log_likelihood
    assert (np.diff(trace) > -1e-9 * abs(trace[0])).all() and trace[-1] > trace[0]


def test_many_raters_and_classes_do_not_overflow(rng):
    """30 raters of 9 labels: 9^30 patterns do not fit in an integer, and products of 30 small numbers vanish."""
    truth = rng.integers(0, 9, 400)
    found = staple(raters_of(truth, one_good_among_bad(9, 0.6, 0.6, 30), rng), 9)
    assert (found.classes == truth).mean() > 0.99 and np.isfinite(found.confusion).all()


def test_draws_of_one_law_are_equal_and_their_vote_is_as_good(rng):
    """What the page says of draws of a sampler: equal raters; the fusion differs from the mean in few voxels."""
    p = np.clip(rng.beta(0.4, 0.4, 5000), 0.01, 0.99)
    draws = (rng.random((8, 5000)) < p).astype(np.uint8)
    found = staple(draws, 2)
    assert np.ptp(found.sensitivity[:, 1]) < 0.05
    disagreement = (found.classes != (draws.mean(0) > 0.5)) & (draws.mean(0) != 0.5)
    assert disagreement.mean() < 0.03


def test_a_mask_takes_the_background_away(rng):
    """Outside the mask the majority stands; inside the prior is that of the mask."""
    truth = np.zeros((40, 40), np.int64)
    truth[18:22, 18:22] = 1
    ratings = raters_of(truth, one_good_among_bad(2, 0.9, 0.9, 3), rng)
    mask = np.zeros((40, 40), bool)
    mask[14:26, 14:26] = True
    found = staple(ratings, 2, mask=mask)
    np.testing.assert_allclose(found.prior[1], ratings[:, mask].mean())
    assert np.array_equal(found.classes[~mask], majority_vote(ratings, 2)[~mask])
    assert set(np.unique(found.probability(1)[~mask])) <= {0.0, 1.0}


def test_a_class_nobody_names_stays_unnamed(rng):
    found = staple(rng.integers(0, 2, (3, 100)), 3)
    assert not (found.classes == 2).any() and np.isfinite(found.confusion).all()


def test_the_majority_breaks_ties_downwards():
    assert majority_vote(np.array([[0, 2, 1], [1, 2, 2]]), 3).tolist() == [0, 2, 1]


def test_the_same_as_simpleitk(rng):
    sitk = pytest.importorskip("SimpleITK")
    truth = (rng.random((20, 20, 20)) < 0.4).astype(np.int64)
    ratings = raters_of(truth, one_good_among_bad(2, 0.95, 0.8, 4), rng)
    filter_ = sitk.STAPLEImageFilter()
    filter_.SetForegroundValue(1)
    image = filter_.Execute([sitk.GetImageFromArray(rating) for rating in ratings])
    found = staple(ratings, 2, start=0.99999)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), found.probability(1), atol=1e-3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: staple(np.zeros((1, 4), int), 2), "at least 2 raters"),
        (lambda: staple(np.zeros((2, 4)), 2), "whole classes"),
        (lambda: staple(np.full((2, 4), 3), 3), "expected classes 0 … 2"),
        (lambda: staple(np.zeros((2, 4), int), 2, prior=(1.0,)), "prior of 2 numbers"),
        (lambda: staple(np.zeros((2, 4), int), 2, mask=np.zeros(4, bool)), "with a voxel in it"),
        (lambda: staple(np.zeros((2, 4), int), 2, start=0.3), "start in"),
    ],
)
def test_bad_input_in_one_line(call, said):
    with pytest.raises(InputError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
