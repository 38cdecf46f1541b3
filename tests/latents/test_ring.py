"""Cells on a ring: how far the heading turns, in closed form, and tuning whose mean is the asked one."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.ring import headings, ring_population


def test_turning_has_the_closed_form() -> None:
    """E cos of the turn after 4 lags, over 5000 rows, each within 4 standard errors (false alarm below 0.03 %)."""
    friction, turning, bin_s = 0.7, 2.0, 0.05
    drawn = headings(5000, bins=61, bin_s=bin_s, turning=turning, friction=friction, seed=5)
    for lag in (1, 10, 30, 60):
        h = friction * lag * bin_s
        variance = 2 * turning**2 * (h - 1 + np.exp(-h)) / friction**2
        cosines = np.cos(drawn[:, lag] - drawn[:, 0])
        assert abs(cosines.mean() - np.exp(-variance / 2)) < 4 * cosines.std() / np.sqrt(5000)


def test_every_cell_has_the_mean_rate_and_its_heading() -> None:
    made = ring_population(trials=1500, bins=20, neurons=8, mean_hz=12.0, seed=1)
    rates, counts = made["rates"].values.astype(float), made["counts"].values.astype(float)
    per_trial = rates.mean(1)
    error = per_trial.std(0) / np.sqrt(1500)
    np.testing.assert_array_less(abs(per_trial.mean(0) - 12.0 * 0.02), 4 * error)
    assert abs((counts - rates).sum() / np.sqrt(rates.sum())) < 4
    theta = np.arctan2(made["behaviour"].values[..., 1], made["behaviour"].values[..., 0])
    for neuron in (0, 3):
        weight = counts[..., neuron]
        mean = np.angle((weight * np.exp(1j * theta)).sum())
        assert np.cos(mean - 2 * np.pi * neuron / 8) > 0.99


def test_a_trial_depends_on_its_number_only() -> None:
    few, many = (ring_population(trials=n, bins=60, neurons=5, mean_hz=60.0, seed=2) for n in (3, 6))
    np.testing.assert_array_equal(few["counts"].values, many["counts"].values[:3])


@pytest.mark.parametrize("change", [{"bins": 1}, {"neurons": 0}, {"sharpness": -1.0}, {"turning": 0.0}])
def test_bad_input(change: dict) -> None:
    with pytest.raises(InputError, match="Change the options"):
        ring_population(**change)
