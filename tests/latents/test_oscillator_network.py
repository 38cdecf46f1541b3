"""Oscillators of known frequency: latents against the closed form, spikes against their rates, trials by their number."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.langevin import Bath, autocovariance
from radiata_latents.data.oscillator_network import oscillator_latents, oscillator_population
from radiata_latents.data.population import load_population, save_population

FREQUENCIES, DAMPING, BIN_S = np.array([0.8, 1.6, 2.9]), np.array([0.08, 0.3, 1.5]), 0.02


def test_latents_have_the_closed_autocovariance() -> None:
    """24 numbers over 6000 independent rows, each within 4 standard errors (false alarm below 0.2 %)."""
    rows = 6000
    drawn = oscillator_latents(
        rows, frequencies_hz=FREQUENCIES, damping=DAMPING, bins=41, bin_s=BIN_S, seed=3
    )
    omega = torch.from_numpy(2 * np.pi * FREQUENCIES)
    bath = Bath(2 * torch.from_numpy(DAMPING) * omega, 1.0, omega**-2)
    for lag in (0, 5, 17, 40):
        closed = autocovariance(lag * BIN_S, omega, bath).numpy()
        products = drawn[:, 0, :3] * drawn[:, lag, :3]
        error = products.std(0) / np.sqrt(rows)
        np.testing.assert_array_less(abs(products.mean(0) - closed), 4 * error)
        # at rest, v / omega is standard normal and uncorrelated with q, in every bin
        crossed = drawn[:, lag, :3] * drawn[:, lag, 3:]
        np.testing.assert_array_less(abs(crossed.mean(0)), 4 * crossed.std(0) / np.sqrt(rows))
    np.testing.assert_allclose(drawn[:, -1].var(0), 1.0, atol=4 * np.sqrt(2 / rows))


def test_a_long_path_has_its_peak_at_the_frequency() -> None:
    """Damping 0.02: the largest line of the averaged spectrum is f sqrt(1 - 2 zeta²), to the resolution of 0.05 Hz."""
    for f in (0.8, 2.9):
        drawn = oscillator_latents(200, frequencies_hz=[f], damping=0.02, bins=1000, bin_s=BIN_S, seed=1)
        power = (abs(np.fft.rfft(drawn[..., 0], axis=1)) ** 2).mean(0)
        line = np.fft.rfftfreq(1000, BIN_S)[power.argmax()]
        assert line == pytest.approx(f * np.sqrt(1 - 2 * 0.02**2), abs=0.05)


def test_rates_and_spikes() -> None:
    """Log-rates have the asked spread, the mean count is the mean rate times the bin, spikes are Poisson around `rates`."""
    made = oscillator_population(trials=600, bins=20, neurons=12, damping=0.4, mean_hz=15.0, seed=2)
    rates, counts = made["rates"].values.astype(float), made["counts"].values.astype(float)
    assert np.log(rates).std((0, 1)) == pytest.approx(np.full(12, 0.7), rel=0.1)
    assert rates.mean() == pytest.approx(15.0 * 0.02, rel=0.05)
    z = (counts - rates).sum() / np.sqrt(rates.sum())
    assert abs(z) < 4
    assert ((counts - rates) ** 2 / rates).mean() == pytest.approx(1.0, abs=0.05)
    logs = np.log(rates).reshape(-1, 12)
    latents = np.column_stack([made["behaviour"].values.reshape(len(logs), -1), np.ones(len(logs))])
    residual = logs - latents @ np.linalg.lstsq(latents, logs, rcond=None)[0]
    assert abs(residual).max() < 1e-4  # linear in q and v / omega
    assert (made["split"].values == "validation").mean() == 0.2


def test_a_trial_depends_on_its_number_only() -> None:
    few, many = (oscillator_population(trials=n, bins=15, neurons=8, mean_hz=90.0) for n in (4, 7))
    np.testing.assert_array_equal(few["counts"].values, many["counts"].values[:4])
    np.testing.assert_array_equal(few["rates"].values, many["rates"].values[:4])
    other = oscillator_population(trials=4, bins=15, neurons=8, mean_hz=90.0, seed=1)
    assert (few["rates"].values != other["rates"].values).all()
    short = oscillator_population(trials=4, bins=1, neurons=8, mean_hz=90.0)
    np.testing.assert_array_equal(short["rates"].values, few["rates"].values[:, :1])


def test_conditions_repeat_a_trajectory() -> None:
    made = oscillator_population(trials=9, bins=10, neurons=8, conditions=4)
    assert made["condition"].values.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    np.testing.assert_array_equal(made["rates"].values[1], made["rates"].values[5])
    assert (made["counts"].values[1] != made["counts"].values[5]).any()
    assert set(oscillator_population(trials=4, bins=10)["condition"].values) == {-1}


def test_the_truth_survives_the_file(tmp_path: Path) -> None:
    save_population(oscillator_population(trials=5, bins=60, damping=(0.1, 0.2, 0.3)), tmp_path / "a.h5")
    found = load_population(tmp_path / "a.h5").attrs
    np.testing.assert_array_equal(found["frequencies_hz"], [0.8, 1.6, 2.9])
    np.testing.assert_array_equal(found["damping"], [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frequencies_hz": (1.0, -2.0)}, "frequencies > 0 Hz"),
        ({"frequencies_hz": ()}, "list of frequencies"),
        ({"frequencies_hz": (1.0, 25.0)}, "below 25 Hz"),
        ({"damping": (0.1, 0.1)}, "or one each"),
        ({"damping": 0.0}, "damping > 0"),
        ({"bins": 0}, "bins >= 1"),
        ({"neurons": 0}, "neurons and trials >= 1"),
        ({"mean_hz": 0.0}, "mean rate > 0"),
        ({"conditions": 500}, "1 to 400 conditions"),
    ],
)
def test_bad_input(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        oscillator_population(**change)
