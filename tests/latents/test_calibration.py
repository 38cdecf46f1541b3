"""Calibration against its closed form: true rates have dispersion 1 and uniform transforms, at the stated error rate."""

import numpy as np
import pytest
from scipy.stats import poisson

from radiata_core.errors import InputError
from radiata_latents.model.calibration import CELLS, calibration, dispersion, randomised_pit


def truth(rng: np.random.Generator) -> np.ndarray:
    """Rates as of real neurons: 0.004 to 4 expected counts a bin, half of them below 0.1."""
    return np.exp(rng.uniform(np.log(0.004), np.log(4.0), (20, 15, 6)))


def test_true_rates_have_dispersion_one() -> None:
    """z over 400 data sets of true rates: mean 0 and standard deviation 1, each within 4 of its standard errors
    (0.05 and 0.05 with the skew of z; error rate of the test below 1 in 1000)."""
    rng = np.random.default_rng(0)
    rates = truth(rng)
    z = np.array([dispersion(rates, rng.poisson(rates))[1] for _ in range(400)])
    assert abs(z.mean()) < 0.2
    assert abs(z.std() - 1) < 0.2


def test_p_value_of_true_rates_is_uniform() -> None:
    """400 data sets: below 0.05 in 20 of them; 8 to 34 is within three standard deviations, error rate 0.3 %."""
    rng = np.random.default_rng(1)
    rates = truth(rng)
    p = np.array([calibration(rates, rng.poisson(rates), rng, draws=20).p_value for _ in range(400)])
    assert 8 <= (p < 0.05).sum() <= 34
    assert abs(p.mean() - 0.5) < 0.06  # four standard errors


def test_wrong_rates_are_found() -> None:
    """Rates too smooth: dispersion above 1 and a cup; copied counts: dispersion below 1; Hz: a slope."""
    rng = np.random.default_rng(2)
    rates = np.exp(rng.normal(-1, 1.0, (60, 20, 6)))
    counts = rng.poisson(rates).astype(float)
    smooth = calibration(np.broadcast_to(rates.mean((0, 1)), rates.shape), counts, rng)
    assert smooth.dispersion.low > 1.2 and smooth.z > 10 and smooth.p_value < 1e-10
    copied = calibration(0.5 * counts + 0.5 * rates, counts, rng)
    assert copied.dispersion.high < 0.9 and copied.z < -5
    doubled = calibration(2 * rates, counts, rng)
    assert doubled.pit[: CELLS // 2].sum() > 0.6 and doubled.distance > 0.1
    right = calibration(rates, counts, rng)
    assert right.distance < 0.02 and right.dispersion.low < 1 < right.dispersion.high


def test_negative_binomial_counts_have_their_fano_factor() -> None:
    """Variance r + r²/4 at r = 2: dispersion 1.5, within 4 standard errors of 60 000 counts (0.03)."""
    rng = np.random.default_rng(3)
    rates = np.full((100, 100, 6), 2.0)
    counts = rng.poisson(rng.gamma(4.0, 0.5, rates.shape))
    assert dispersion(rates, counts)[0] == pytest.approx(1.5, abs=0.06)


def test_transform_lies_in_its_step(rng: np.random.Generator) -> None:
    """u is between F(n - 1) and F(n) of scipy's Poisson law."""
    rates = truth(rng)
    counts = rng.poisson(rates)
    u = randomised_pit(rates, counts, rng).reshape(rates.shape)
    assert (poisson.cdf(counts - 1, rates) <= u).all() and (u <= poisson.cdf(counts, rates)).all()


def test_what_was_not_recorded_does_not_count(rng: np.random.Generator) -> None:
    rates = truth(rng)
    counts = rng.poisson(rates).astype(float)
    holes = counts.copy()
    holes[:3] = np.nan
    spoiled = rates.copy()
    spoiled[:3] = np.nan
    assert dispersion(spoiled, holes) == dispersion(rates[3:], counts[3:])
    with pytest.raises(InputError, match="a rate a count"):
        dispersion(rates[1:], counts)
    with pytest.raises(InputError, match="counts to compare"):
        dispersion(rates, np.full(rates.shape, np.nan))
