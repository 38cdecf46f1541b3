"""Lorenz populations against the published file's histogram, closed forms of their spikes, and what each split leaks."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.lorenz import (
    LorenzVariant,
    lorenz_population,
    lorenz_trajectories,
    split_conditions,
    split_trials,
)

PUBLISHED = np.array([1875993, 281981, 62317, 21210, 9442, 4780]) / 2_262_000
"""Shares of bins with 0 to 5 spikes in `lfads_lorenz.h5`, as printed in a public notebook that loads it."""


def distance(variant: LorenzVariant) -> np.ndarray:
    """The published shares in standard deviations of eight seeds; they depend on trajectories and readout, not on trials."""
    shares = []
    for seed in range(1, 9):
        counts = lorenz_population(variant, trials=2, seed=seed)["counts"].values
        shares.append([(counts == k).mean() for k in range(len(PUBLISHED))])
    return (PUBLISHED - np.mean(shares, 0)) / np.std(shares, 0, ddof=1)


def test_only_the_recipe_of_2017_has_the_published_histogram() -> None:
    assert np.abs(distance(LorenzVariant.LFADS_DEMO_2017)).max() < 2
    for other in (LorenzVariant.LFADS_DEMO_2019, LorenzVariant.LORENZ):
        assert np.abs(distance(other)).max() > 3


@pytest.mark.parametrize("variant", LorenzVariant)
def test_spikes_have_the_expected_counts(variant: LorenzVariant) -> None:
    """Mean of 200 trials against `expected` in each of 3000 bins: z-scores are standard normal (their variance within 4.5
    standard errors), and the rate itself is refused where at most one spike a ms is drawn."""
    data = lorenz_population(variant, conditions=4, trials=200, neurons=15)
    counts = data["counts"].values.reshape(4, 200, 50, 15).astype(float)
    expected = data["expected"].values.reshape(4, 200, 50, 15)[:, 0]
    variance = counts.var(1, ddof=1)
    busy = expected > 0.2
    z = (counts.mean(1) - expected)[busy] / np.sqrt(variance[busy] / 200)
    assert (
        abs(np.mean(z**2) - 1) < 4.5 * np.sqrt(2 / z.size) + 0.02
    )  # the t law of 199 degrees has variance 1.01
    assert abs(z.mean()) < 4.5 / np.sqrt(z.size)
    if variant is not LorenzVariant.LORENZ:
        rates = data["rates"].values.reshape(4, 200, 50, 15)[:, 0]
        assert (expected <= rates + 1e-6).all()
        assert expected.max() <= 20
        loud = expected > 2
        wrong = (counts.mean(1) - rates)[loud] / np.sqrt(variance[loud] / 200)
        assert np.mean(wrong**2) > 3


def test_trajectories_are_those_of_lorenz() -> None:
    """The correct variant solves the equations (against scipy at 1e-10) and is centred with largest value 1."""
    from scipy.integrate import solve_ivp

    start = np.random.default_rng([7, 0, 0]).standard_normal(3) + np.array([0, 0, 25])

    def field(_: float, s: np.ndarray) -> list[float]:
        x, y, z = s
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    times = 0.006 * np.arange(700)
    solved = solve_ivp(field, (0, times[-1]), start, t_eval=times, rtol=1e-11, atol=1e-11).y.T[500:]
    found = lorenz_trajectories(LorenzVariant.LORENZ, 1, 7)[0]
    scale = np.ptp(solved[:150], axis=0) / np.ptp(found[:150], axis=0)
    shift = solved[0] - scale * found[0]
    np.testing.assert_allclose(scale * found[:150] + shift, solved[:150], atol=2e-4 * np.abs(solved).max())
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(found.max(0), 1)


def test_a_trial_depends_on_its_own_seed() -> None:
    small = lorenz_population(conditions=3, trials=2, neurons=5)["counts"].values.reshape(3, 2, 50, 5)
    large = lorenz_population(conditions=4, trials=5, neurons=5)["counts"].values.reshape(4, 5, 50, 5)
    np.testing.assert_array_equal(small, large[:3, :2])
    assert (small[0, 0] != small[0, 1]).any()


def test_splits_leak_conditions_or_not() -> None:
    data = lorenz_population(conditions=10, trials=5, neurons=5)
    for split, shared in ((split_trials, 10), (split_conditions, 0)):
        parts = split(data)
        kinds = [set(parts["condition"].values[parts["split"].values == w]) for w in ("train", "validation")]
        assert len(kinds[0] & kinds[1]) == shared
        assert 0 < (parts["split"].values == "validation").mean() < 0.5
    with pytest.raises(InputError, match="both sides"):
        split_conditions(data, 0.01)
