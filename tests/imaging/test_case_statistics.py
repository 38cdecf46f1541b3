"""Intervals over cases: coverage of the truth, people instead of scans, error rate of the paired test."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.case_statistics import mean_interval, paired_difference


@pytest.mark.parametrize("n", [8, 24])
def test_intervals_cover_the_truth(n: int, rng: np.random.Generator) -> None:
    """400 experiments: a 95 % interval holds the mean in 95 ± 3.3 % of them (3 standard errors), even for 8 cases."""
    hits = [
        found.low <= 2.0 <= found.high
        for found in (mean_interval(rng.normal(2.0, 1.0, n), None, rng, draws=400) for _ in range(400))
    ]
    assert abs(np.mean(hits) - 0.95) < 0.033


def test_people_are_the_sample(rng: np.random.Generator) -> None:
    """Ten scans of each of six people are six units: the interval is that of six means, not of sixty scans."""
    means = rng.normal(size=6)
    values = np.repeat(means, 10) + 1e-3 * rng.normal(size=60)
    people = np.repeat(list("abcdef"), 10)
    by_person = mean_interval(values, people, np.random.default_rng(0))
    alone = mean_interval(means, None, np.random.default_rng(0))
    assert (by_person.cases, by_person.people) == (60, 6)
    assert by_person.low == pytest.approx(alone.low, abs=0.01)
    naive = mean_interval(values, None, np.random.default_rng(0))
    assert by_person.high - by_person.low > 2 * (naive.high - naive.low)


def test_what_is_not_finite_is_left_out_and_counted(rng: np.random.Generator) -> None:
    found = mean_interval([1.0, float("nan"), 3.0, float("inf")], None, rng)
    assert (found.mean, found.cases, found.left_out) == (2.0, 2, 2)
    none = mean_interval([float("nan")], None, rng)
    assert np.isnan([none.mean, none.low]).all() and none.cases == 0
    assert np.isnan(mean_interval([1.0], None, rng).low), "one case has no interval"


def test_paired_test_keeps_its_error_rate_and_sees_a_small_shift(rng: np.random.Generator) -> None:
    """Cases differ by far more than methods: only pairing sees the shift; without one, p < 0.05 in 5 ± 3.3 %."""
    cases = rng.normal(0, 10, 16)
    better = paired_difference(cases + 0.5 + 0.3 * rng.normal(size=16), cases, None, rng)
    assert better.p < 0.01 and better.difference.low > 0
    alarms = [
        paired_difference(rng.normal(size=12), rng.normal(size=12), None, rng, draws=300).p < 0.05
        for _ in range(400)
    ]
    assert np.mean(alarms) < 0.05 + 0.033


def test_a_pair_counts_only_if_both_are_finite(rng: np.random.Generator) -> None:
    found = paired_difference([1, float("inf"), 2, 5], [0, float("inf"), float("nan"), 2], None, rng)
    assert found.difference.cases == 2 and found.difference.left_out == 2
    assert found.difference.mean == 2.0


def test_bad_input(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="same cases"):
        paired_difference([1.0], [1.0, 2.0], None, rng)
    with pytest.raises(InputError, match="person for each"):
        mean_interval([1.0, 2.0], ["a"], rng)
    with pytest.raises(InputError, match=r"level in \(0, 1\)"):
        mean_interval([1.0, 2.0], None, rng, level=95)
