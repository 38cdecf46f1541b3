"""The chaotic network: its equation, its spikes, its chaos."""

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.chaotic_rnn import BIN_S, HIGHEST_HZ, TIME_CONSTANT_S, chaotic_population


def states_of(rates: np.ndarray) -> np.ndarray:
    return np.arctanh(2 * rates.astype(float) / (HIGHEST_HZ * BIN_S) - 1)


def test_rates_follow_the_network() -> None:
    """From the rates alone: the step of y is linear in tanh y with one matrix for all conditions (residual 1e-3 of it)."""
    data = chaotic_population(conditions=20, trials=1, neurons=12, seed=3)
    y = states_of(data["rates"].values)
    share = BIN_S / TIME_CONSTANT_S
    left = (y[:, 1:] - (1 - share) * y[:, :-1]).reshape(-1, 12)
    right = np.tanh(y[:, :-1]).reshape(-1, 12)
    weights, *_ = np.linalg.lstsq(right, left, rcond=None)
    assert np.abs(right @ weights - left).max() < 1e-3 * np.abs(left).max()
    assert np.std(weights / share) == pytest.approx(1.5 / np.sqrt(12), rel=0.2)


def test_gain_decides_between_silence_and_chaos() -> None:
    late = {
        g: states_of(chaotic_population(conditions=5, trials=1, gain=g)["rates"].values)[:, -1]
        for g in (0.5, 1.5)
    }
    assert np.abs(late[0.5]).max() < 0.02
    assert np.abs(late[1.5]).mean() > 0.3


def test_counts_are_poisson_around_their_rates() -> None:
    """Mean and variance of 300 draws: z-scores with variance 1, Fano factor 1 (4.5 standard errors)."""
    data = chaotic_population(conditions=2, trials=300, neurons=10, bins=20)
    counts = data["counts"].values.reshape(2, 300, 20, 10).astype(float)
    rate = data["rates"].values.reshape(2, 300, 20, 10)[:, 0]
    z = (counts.mean(1) - rate) / np.sqrt(rate / 300)
    assert abs(np.mean(z**2) - 1) < 4.5 * np.sqrt(2 / z.size)
    fano = (counts.var(1, ddof=1).sum() / rate.sum()) - 1
    assert abs(fano) < 4.5 * np.sqrt((2 / 299 + 1 / (299 * rate.mean())) / rate.size) + 1e-3
    assert set(data["split"].values) == {"train", "validation"}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="gain > 0"):
        chaotic_population(gain=0.0)
