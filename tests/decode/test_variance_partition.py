"""Parts of explained variance: they add up to the whole, and are what was put in."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.model.variance_partition import partitioned, unique_tests, variance_partition


def test_parts_of_two_spaces_by_hand() -> None:
    r2 = {("a",): np.array([0.3]), ("b",): np.array([0.4]), ("a", "b"): np.array([0.55])}
    parts = partitioned(r2)
    assert parts["a",][0] == pytest.approx(0.15)
    assert parts["b",][0] == pytest.approx(0.25)
    assert parts["a", "b"][0] == pytest.approx(0.15)


def test_parts_of_three_spaces_are_the_areas_of_a_venn_diagram(rng: np.random.Generator) -> None:
    """R² of a subset is the area that it covers: the areas come back, negative ones too."""
    names = ("a", "b", "c")
    subsets = [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), names]
    areas = {subset: rng.normal(size=4) for subset in subsets}
    r2 = {s: sum(area for key, area in areas.items() if set(key) & set(s)) for s in subsets}
    parts = partitioned(r2)
    for subset in subsets:
        np.testing.assert_allclose(parts[subset], areas[subset], atol=1e-12)
    np.testing.assert_allclose(sum(parts.values()), r2[names])


def world(rng: np.random.Generator, samples: int):
    """Voxels 0-9 answer to what only a has, 10-19 to what only b has, 20-29 to what both have."""
    a_only, b_only, both = rng.normal(size=(3, samples, 5))
    weights = np.random.default_rng(2).normal(size=(5, 10))
    signal = np.concatenate([part @ weights for part in (a_only, b_only, both)], 1)
    spaces = {"a": np.concatenate([a_only, both], 1), "b": np.concatenate([b_only, both], 1)}
    return spaces, (signal + rng.normal(size=signal.shape)).astype(np.float32)


def test_unique_and_shared_parts_are_found(rng: np.random.Generator) -> None:
    (train, y), (test, measured) = world(rng, 300), world(rng, 150)
    found = variance_partition(train, y, test, measured)
    np.testing.assert_allclose(sum(found.parts.values()), found.r2["a", "b"], atol=1e-12)
    means = {key: part.reshape(3, 10).mean(1) for key, part in found.parts.items()}
    assert means["a",][0] > 0.6
    assert means["b",][1] > 0.6
    assert means["a", "b"][2] > 0.6
    others = [means["a",][1:], means["b",][[0, 2]], means["a", "b"][:2]]
    assert max(abs(value) for part in others for value in part) < 0.1
    regions = {name: np.arange(30) // 10 == k for k, name in enumerate(("A", "B", "C"))}
    tests = {
        (one.region, one.space): one
        for one in unique_tests(found, measured, regions | {"no": regions["A"] & False}, rng)
    }
    assert len(tests) == 6
    assert tests["A", "a"].q < 0.01
    assert tests["A", "a"].gain.low > 0
    assert tests["B", "b"].q < 0.01
    assert all(tests[key].gain.mean < 0.05 for key in (("A", "b"), ("B", "a"), ("C", "a"), ("C", "b")))
    assert all(one.q >= one.p for one in tests.values())


def test_spaces_that_cannot_be_partitioned(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="every subset"):
        partitioned({("a",): np.zeros(1), ("a", "b"): np.zeros(1)})
    spaces, y = world(rng, 20)
    with pytest.raises(InputError, match="two or three"):
        variance_partition({"a": spaces["a"]}, y, {"a": spaces["a"]}, y)
