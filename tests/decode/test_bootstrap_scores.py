"""Intervals of two-way identification: the mean they belong to, their coverage, and what they ignore."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.bootstrap_scores import pair_interval
from radiata_decode.model.identification import correlation_matrix, two_way


def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    truth = rng.normal(size=(count, 6))
    return correlation_matrix(truth, truth + 2.0 * rng.normal(size=truth.shape))


def test_the_mean_is_that_of_two_way(rng: np.random.Generator) -> None:
    r = drawn(rng, 30)
    found = pair_interval(r, rng, draws=200)
    assert found.mean == pytest.approx(two_way(r).mean())
    assert found.low < found.mean < found.high and (found.cases, found.left_out) == (30, 0)


def test_intervals_cover_the_score_of_the_population(rng: np.random.Generator) -> None:
    """150 test sets of 25 stimuli: at 90 %, 135 ± 3.7 cover; at least 122 and not all are asked for (3.5 sd)."""
    true = np.mean([two_way(drawn(rng, 400)).mean() for _ in range(4)])
    covered = 0
    for _ in range(150):
        found = pair_interval(drawn(rng, 25), rng, level=0.9, draws=200)
        covered += found.low <= true <= found.high
    assert 122 <= covered < 150


def test_a_picture_drawn_twice_is_not_its_own_distractor(rng: np.random.Generator) -> None:
    """A perfect decoder stays perfect in every draw, though duplicates tie with themselves."""
    found = pair_interval(np.eye(10), rng, draws=500)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


def test_missing_pictures_are_counted(rng: np.random.Generator) -> None:
    r = drawn(rng, 12)
    r[:, 3] = np.nan
    found = pair_interval(r, rng, draws=50)
    assert (found.cases, found.left_out) == (11, 1)
    assert found.mean == pytest.approx(np.nanmean(two_way(r)))


def test_refuses(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"n by n pictures, n of 2 or more; got \(1, 1\)"):
        pair_interval(np.eye(1), rng)
    with pytest.raises(InputError, match=r"a level in \(0, 1\); got 95"):
        pair_interval(np.eye(4), rng, level=95)
