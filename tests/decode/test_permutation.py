"""Permutation tests: their error rate, their runs, and the false discovery rate."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.permutation import false_discovery_rates, permutation_test, permuted_rows


def test_stays_within_runs(rng: np.random.Generator) -> None:
    runs = np.array(["a", "b", "a", "c", "b", "a", "c"])
    seen = set()
    for _ in range(50):
        order = permuted_rows(7, runs, rng)
        assert (runs[order] == runs).all() and sorted(order) == list(range(7))
        seen.add(tuple(order.tolist()))
    assert len(seen) > 15  # of 3! 2! 2! = 24


def test_every_permutation_is_equally_likely(rng: np.random.Generator) -> None:
    """Six permutations of three, 3000 draws: each within 4.5 standard deviations of 500 (error rate below 1e-4)."""
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        order = tuple(permuted_rows(3, None, rng).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and all(abs(n - 500) < 4.5 * np.sqrt(3000 * 5 / 36) for n in counts.values())


def test_p_is_uniform_where_there_is_nothing(rng: np.random.Generator) -> None:
    """200 tests of noise at the level .1: 20 expected, sd 4.2; 4 sd are 17."""
    p = np.array([permutation_test(rng.normal(size=(12, 12)), rng, draws=49).p for _ in range(200)])
    assert 3 <= (p <= 0.1).sum() <= 37
    assert p.min() >= 1 / 50


def test_finds_what_is_there_and_counts_as_phipson_and_smyth(rng: np.random.Generator) -> None:
    found = permutation_test(np.eye(8), rng, draws=199)
    assert found.observed == 1 and found.p == (1 + (found.null >= 1).sum()) / 200
    exact = permutation_test(np.ones((5, 5)), rng, draws=99)
    assert exact.p == 1.0


def test_drift_between_runs_is_no_information(rng: np.random.Generator) -> None:
    """Pictures of a run resemble one another, and decoded pictures only know the run: significant unless runs are kept."""
    runs = np.repeat(np.arange(4), 5)
    scores = (runs[:, None] == runs).astype(float) + 0.1 * rng.normal(size=(20, 20))
    assert permutation_test(scores, rng, draws=199).p == 1 / 200
    assert permutation_test(scores, rng, runs, draws=199).p > 0.05


def test_missing_pairs_are_left_out(rng: np.random.Generator) -> None:
    scores = np.eye(6)
    scores[:, 2] = np.nan
    assert permutation_test(scores, rng, draws=199).observed == 1
    assert np.isnan(permutation_test(np.full((6, 6), np.nan), rng, draws=9).p)


def test_false_discovery_rates_as_benjamini_and_hochberg() -> None:
    """The p-values of the paper's own example; 4 of 15 are significant at .05."""
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    named = {f"roi{i}": value for i, value in enumerate(p)} | {"empty": float("nan")}
    found = false_discovery_rates(named)
    assert [name for name, q in found.items() if q <= 0.05] == ["roi0", "roi1", "roi2", "roi3"]
    assert found["roi0"] == pytest.approx(0.0001 * 15) and np.isnan(found["empty"])
    assert false_discovery_rates({}) == {}


def test_refuses(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="a run of at least two stimuli to permute; got 3 in 3 runs"):
        permutation_test(np.eye(3), rng, [1, 2, 3])
    with pytest.raises(InputError, match="the run of each of 3 stimuli; got 2"):
        permutation_test(np.eye(3), rng, [1, 1])
    with pytest.raises(InputError, match="p-values from 0 to 1"):
        false_discovery_rates({"a": 1.2})
