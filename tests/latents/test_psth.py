"""Trial averages."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from radiata_core.errors import InputError
from radiata_latents.model.psth import psth_r2, smoothed_psth

MEMBERS = [np.array([0, 3, 5]), np.array([1, 2]), np.array([], int)]


def test_histogram_is_the_average_of_smoothed_trials(rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (6, 80, 2)).astype(float)
    found = smoothed_psth(counts, MEMBERS, bin_s=0.02, kernel_ms=40)
    reference = gaussian_filter1d(counts[[0, 3, 5]].mean(0), 2.0, axis=0, truncate=8)
    np.testing.assert_allclose(found[0, 17:-17], reference[17:-17], rtol=1e-8)
    assert np.isnan(found[2]).all()


def test_the_histogram_itself_is_perfect_and_its_mean_is_zero(rng: np.random.Generator) -> None:
    psth = rng.uniform(0, 1, (3, 30, 4))
    rates = np.empty((6, 30, 4))
    rates[[0, 3, 5]], rates[[1, 2]], rates[4] = psth[0], psth[1], 99.0  # trial 4 has no condition
    assert psth_r2(psth, rates, MEMBERS) == pytest.approx(1, abs=1e-12)
    mean = np.broadcast_to(psth[:2].mean((0, 1)), rates.shape)
    assert psth_r2(psth, mean, MEMBERS) == pytest.approx(0, abs=1e-12)


def test_only_averages_count(rng: np.random.Generator) -> None:
    psth = rng.uniform(0, 1, (1, 30, 4))
    off = rng.standard_normal((30, 4))
    assert psth_r2(psth, np.stack([psth[0] + off, psth[0] - off]), [np.arange(2)]) == pytest.approx(
        1, abs=1e-12
    )


def test_jitter_is_undone(rng: np.random.Generator) -> None:
    """Trials cut 2 bins late and 3 early; the histogram has NaN where a moved trial has no bin."""
    psth = rng.uniform(0, 1, (1, 30, 4))
    late, early = np.roll(psth[0], -2, 0), np.roll(psth[0], 3, 0)
    psth[:, :2] = psth[:, 27:] = np.nan
    rates = np.stack([late, early])
    assert psth_r2(psth, rates, [np.arange(2)], np.array([2, -3])) == pytest.approx(1, abs=1e-12)
    assert psth_r2(psth, rates, [np.arange(2)]) < 0.5


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    psth, rates = np.ones((3, 5, 2)), np.ones((6, 5, 2))
    with pytest.raises(InputError, match="bins and neurons"):
        psth_r2(psth[:, :4], rates, MEMBERS)
    with pytest.raises(InputError, match="every bin"):
        psth_r2(psth, rates, MEMBERS, np.ones(6, int))
    with pytest.raises(InputError, match="no condition"):
        psth_r2(psth[:1], rates, [np.array([], int)])
    with pytest.raises(InputError, match="bin > 0"):
        smoothed_psth(rates, MEMBERS, bin_s=0, kernel_ms=50)
