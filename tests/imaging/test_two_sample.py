import numpy as np
import pytest
from scipy.stats import binom, energy_distance

from radiata_core.errors import InputError
from radiata_imaging.two_sample import (
    EnergyKernel,
    PolynomialKernel,
    RBFKernel,
    compare,
    median_length,
    mmd2,
    permutation_p_value,
    units_of,
)


def by_loops(x, y, kernel):
    """The definition, written a second time: two sums over different rows and one over all pairs."""
    n, m = len(x), len(y)
    k = lambda a, b: float(kernel(a[None], b[None])[0, 0])  # noqa: E731
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize(
    "kernel", [PolynomialKernel(), RBFKernel(1.7), EnergyKernel()], ids=lambda k: type(k).__name__
)
def test_mmd_equals_the_double_loop(kernel, rng):
    x, y = rng.standard_normal((9, 4)), rng.standard_normal((7, 4)) + 0.5
    ours = compare(x, y, kernel, rng, permutations=0, bootstraps=0)
    assert ours.value == pytest.approx(by_loops(x, y, kernel), abs=1e-12)


def test_energy_distance_agrees_with_scipy(rng):
    """scipy's is the biased (V) version: put the zero diagonal back into the averages."""
    x, y = rng.standard_normal(30), rng.standard_normal(20) * 2
    n, m = len(x), len(y)
    within_x = np.abs(x[:, None] - x).sum()
    within_y = np.abs(y[:, None] - y).sum()
    ours = compare(x[:, None], y[:, None], EnergyKernel(), rng, permutations=0, bootstraps=0).value
    biased = ours + within_x * (1 / (n * (n - 1)) - 1 / n**2) + within_y * (1 / (m * (m - 1)) - 1 / m**2)
    assert np.sqrt(biased) == pytest.approx(energy_distance(x, y), rel=1e-10)


@pytest.mark.parametrize("kernel", [PolynomialKernel(), RBFKernel(2.0)], ids=["KID", "RBF"])
def test_unbiased_under_the_null(kernel, rng):
    """Mean zero within 4 standard errors over 2000 pairs of samples from one distribution: false alarm 6e-5."""
    values = [
        mmd2(kernel(z, z), 6)
        for z in (rng.standard_normal((14, 3)) + rng.exponential(size=(14, 1)) for _ in range(2000))
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_size_of_the_permutation_test(rng):
    """200 null experiments at 5 %: rejections inside the central 99.9 % of Binomial(200, .05)."""
    p = [
        compare(
            rng.standard_normal((12, 3)),
            rng.standard_normal((15, 3)),
            RBFKernel(2.0),
            rng,
            permutations=99,
            bootstraps=0,
        ).p_value
        for _ in range(200)
    ]
    low, high = binom.interval(0.999, 200, 0.05)
    assert low <= np.sum(np.array(p) <= 0.05) <= high


def test_power_under_a_shift(rng):
    p = [
        compare(
            rng.standard_normal((30, 3)),
            rng.standard_normal((30, 3)) + 1.0,
            PolynomialKernel(),
            rng,
            permutations=99,
        ).p_value
        for _ in range(10)
    ]
    assert np.mean(np.array(p) <= 0.05) >= 0.9


def test_people_are_the_units(rng):
    """Copies of a person's scan add nothing: value and counts are those of one scan a person."""
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((8, 3))
    plain = compare(x, y, RBFKernel(1.0), np.random.default_rng(0))
    names = np.repeat(list("abcdef"), 5).tolist()
    copied = compare(np.repeat(x, 5, axis=0), y, RBFKernel(1.0), np.random.default_rng(0), blocks_x=names)
    assert copied.value == pytest.approx(plain.value, abs=1e-12)
    assert (copied.n_x, copied.n_y, copied.p_value) == (6, 8, plain.p_value)


def test_many_scans_of_few_people_do_not_make_a_finding(rng):
    """Two groups of 6 people, 20 scans each, one population: with people as units the test keeps its size at 5 %."""

    def group():
        return np.repeat(rng.standard_normal((6, 2)), 20, axis=0) + 0.1 * rng.standard_normal((120, 2))

    names = np.repeat(np.arange(6), 20).tolist()
    options = {"permutations": 99, "bootstraps": 0}
    blocked = options | {"blocks_x": names, "blocks_y": names}
    p = [compare(group(), group(), RBFKernel(1.5), rng, **blocked).p_value for _ in range(100)]
    naive = [compare(group(), group(), RBFKernel(1.5), rng, **options).p_value for _ in range(5)]
    assert np.sum(np.array(p) <= 0.05) <= binom.ppf(0.9995, 100, 0.05)
    assert np.mean(np.array(naive) <= 0.05) == 1.0  # what scans as units would have claimed


def test_interval_covers_the_distance(rng):
    """Truth by 1e6 draws' worth of algebra: the energy distance of N(0,1) and N(1,1) is 2(2 E|Z1 - Z2 - 1| ...)."""
    from scipy.stats import norm

    def mean_abs(mu, sd):
        return sd * np.sqrt(2 / np.pi) * np.exp(-(mu**2) / (2 * sd**2)) + mu * (1 - 2 * norm.cdf(-mu / sd))

    truth = 2 * mean_abs(1, np.sqrt(2)) - 2 * mean_abs(0, np.sqrt(2))
    covered = 0
    for _ in range(100):
        x, y = rng.standard_normal((40, 1)), rng.standard_normal((40, 1)) + 1
        low, high = compare(x, y, EnergyKernel(), rng, permutations=0, bootstraps=200).interval
        covered += low <= truth <= high
    assert covered >= 85  # nominal 95; a percentile bootstrap of 40 people is a little short


def test_p_value_is_never_zero():
    assert permutation_p_value(10.0, np.zeros(99)) == pytest.approx(0.01)
    assert permutation_p_value(0.0, np.zeros(99)) == 1.0


def test_units_average_their_rows():
    np.testing.assert_allclose(units_of(["b", "a", "b"], 3), [[0.5, 0, 0.5], [0, 1, 0]])


def test_median_length_is_positive_even_for_copies():
    assert median_length(np.ones((4, 2))) == 1.0


@pytest.mark.parametrize(
    ("x", "blocks"),
    [
        (np.zeros((3, 2)), None),
        (np.zeros((3, 3)), ["a"] * 3),
        (np.full((3, 3), np.nan), None),
        (np.zeros((3, 3)), ["a"]),
    ],
    ids=["columns", "one person", "nan", "labels"],
)
def test_unusable_samples_are_refused(x, blocks, rng):
    with pytest.raises(InputError, match="expected"):
        compare(x, np.zeros((4, 3)), EnergyKernel(), rng, blocks_x=blocks)
