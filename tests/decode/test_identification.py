"""Identification against the published code's loops, brute-force draws, and chance."""

from itertools import combinations

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.identification import (
    correlation_distance,
    correlation_matrix,
    cosine_matrix,
    n_way,
    retrieval,
    two_way,
    wins,
)


@pytest.fixture
def features(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.normal(size=(9, 20))
    return truth, truth + 1.5 * rng.normal(size=truth.shape)


def test_similarities_are_numpys_and_scipys(features: tuple[np.ndarray, np.ndarray]) -> None:
    from scipy.spatial.distance import cdist, correlation

    truth, decoded = features
    np.testing.assert_allclose(
        correlation_matrix(truth, decoded), np.corrcoef(truth, decoded)[:9, 9:], atol=1e-12
    )
    np.testing.assert_allclose(cosine_matrix(truth, decoded), 1 - cdist(truth, decoded, "cosine"), atol=1e-12)
    expected = [correlation(a, b) for a, b in zip(truth, decoded, strict=True)]
    np.testing.assert_allclose(correlation_distance(truth, decoded), expected, atol=1e-12)


def test_two_way_as_published(features: tuple[np.ndarray, np.ndarray]) -> None:
    """The field's definition in loops: for each decoded picture, the share of other truths that are less similar."""
    r = correlation_matrix(*features)
    expected = [np.mean([r[i, j] < r[j, j] for i in range(9) if i != j]) for j in range(9)]
    np.testing.assert_allclose(two_way(r), expected)


def test_ties_are_lost() -> None:
    assert two_way(np.ones((4, 4))).tolist() == [0, 0, 0, 0]
    assert two_way(np.array([[1.0, 0.0], [1.0, 1.0]])).tolist() == [0, 1]


def test_the_mean_picture_is_at_chance(rng: np.random.Generator) -> None:
    """One and the same prediction for all: exactly 1/2 on average, whatever it is."""
    truth = rng.normal(size=(50, 30))
    r = correlation_matrix(truth, np.repeat(truth.mean(0, keepdims=True), 50, 0))
    assert two_way(r).mean() == pytest.approx(0.5, abs=1e-12)


def test_wins_off_the_diagonal_are_two_way_of_that_pairing(features: tuple[np.ndarray, np.ndarray]) -> None:
    truth, decoded = features
    table = wins(correlation_matrix(truth, decoded))
    order = np.array([3, 1, 0, 2, 8, 7, 6, 5, 4])
    np.testing.assert_allclose(table[order, np.arange(9)], two_way(correlation_matrix(truth[order], decoded)))


@pytest.mark.parametrize("ways", [2, 4, 9])
def test_n_way_is_the_mean_over_all_sets_of_distractors(
    features: tuple[np.ndarray, np.ndarray], ways: int
) -> None:
    r = correlation_matrix(*features)
    for j in range(9):
        others = [i for i in range(9) if i != j]
        hits = [all(r[i, j] < r[j, j] for i in chosen) for chosen in combinations(others, ways - 1)]
        assert n_way(r, ways)[j] == pytest.approx(np.mean(hits))


def test_retrieval_agrees_with_the_exact_n_way(rng: np.random.Generator) -> None:
    """Pools of 20 of 60, 400 draws: the mean of draws is within .01 of the closed form (four standard errors)."""
    truth = rng.normal(size=(60, 15))
    r = cosine_matrix(truth, truth + 1.2 * rng.normal(size=truth.shape))
    found = retrieval(r, rng, pool=20, draws=400)
    assert found.forward.mean() == pytest.approx(n_way(r, 20).mean(), abs=0.01)
    assert found.backward.mean() == pytest.approx(n_way(r.T, 20).mean(), abs=0.01)
    with pytest.raises(InputError, match="a pool of 2 to 60 for 60 pictures"):
        retrieval(r, rng)


def test_order_of_the_test_set_does_not_matter(
    features: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    truth, decoded = features
    order = rng.permutation(9)
    np.testing.assert_array_equal(
        two_way(correlation_matrix(truth, decoded))[order],
        two_way(correlation_matrix(truth[order], decoded[order])),
    )


def test_constant_features_are_nan_and_no_distractor(features: tuple[np.ndarray, np.ndarray]) -> None:
    truth, decoded = features
    whole = two_way(correlation_matrix(np.delete(truth, 4, 0), np.delete(decoded, 4, 0)))
    truth[4], decoded[4] = 0.7, 0.7
    found = two_way(correlation_matrix(truth, decoded))
    assert np.isnan(found[4])
    np.testing.assert_allclose(np.delete(found, 4), whole)
    assert np.isnan(n_way(correlation_matrix(truth, decoded), 3)[4])


def test_refuses(features: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InputError, match="cannot be identified among others"):
        two_way(np.ones((1, 1)))
    with pytest.raises(InputError, match="2 to 9 ways for 9 pictures; got 10"):
        n_way(correlation_matrix(*features), 10)
    with pytest.raises(InputError, match="as many features of both; got 20 and 19"):
        correlation_matrix(features[0], features[1][:, 1:])
