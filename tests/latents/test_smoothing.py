"""Smoothing as a kernel, and as a baseline with a chosen width."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from radiata_core.errors import InputError
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.smoothing import choose_width, fit_smoothed_rates, smooth


def population(
    rng: np.random.Generator, trials: int = 60, neurons: int = 12, slow: float = 4.0
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and rates of neurons that share two latents, smooth over `slow` bins."""
    latents = gaussian_filter1d(rng.standard_normal((trials, 50, 2)), slow, axis=1)
    latents /= latents.std()
    rates = 0.4 * np.exp(0.7 * latents @ rng.standard_normal((2, neurons)))
    return rng.poisson(rates).astype(float), rates


def test_no_width_gives_the_counts_and_a_wide_one_the_trial_mean(rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (3, 20, 2)).astype(float)
    np.testing.assert_array_equal(smooth(counts, 0), counts)
    np.testing.assert_allclose(smooth(counts, 0.05), counts, atol=1e-12)
    np.testing.assert_allclose(
        smooth(counts, 1e6), np.broadcast_to(counts.mean(1, keepdims=True), counts.shape)
    )


def test_equals_scipy_away_from_the_edges_and_keeps_constants_at_them(rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (3, 60, 2)).astype(float)
    reference = gaussian_filter1d(counts, 2.0, axis=1, truncate=8)
    np.testing.assert_allclose(smooth(counts, 2.0)[:, 17:-17], reference[:, 17:-17], rtol=1e-8)
    np.testing.assert_allclose(smooth(np.ones((1, 10, 1)), 3.0), 1.0)


def test_width_chosen_is_near_that_of_the_latents(rng: np.random.Generator) -> None:
    """Neither the narrowest nor the widest, and held-out bits of unseen trials are a good part of the truth's."""
    counts, rates = population(rng, 150)
    widths = (0.5, 2.0, 4.0, 16.0)
    found = choose_width(counts[..., :9], counts[..., 9:], widths)
    assert max(found, key=lambda w: found[w]) in (2.0, 4.0)
    fitted = fit_smoothed_rates(
        counts[:120, :, :9], counts[:120, :, 9:], bin_s=0.02, widths_s=[0.02 * w for w in widths]
    )
    got = bits_per_spike(fitted.rates(counts[120:, :, :9])[..., 9:], counts[120:, :, 9:])
    assert 0.35 * bits_per_spike(rates[120:, :, 9:], counts[120:, :, 9:]) < got


def test_smoothed_counts_are_in_counts_a_bin(rng: np.random.Generator) -> None:
    counts, _ = population(rng)
    fitted = fit_smoothed_rates(counts, bin_s=0.02, widths_s=(0.04, 0.1))
    assert fitted.rates(counts).shape == counts.shape
    for made in (fitted.rates(counts), fitted.smoothed(counts)):
        np.testing.assert_allclose(made.mean((0, 1)), counts.mean((0, 1)), rtol=0.05)


def test_what_cannot_be_smoothed_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="width of 0 or more"):
        smooth(np.ones((2, 3, 1)), -1)
    with pytest.raises(InputError, match="five trials"):
        choose_width(np.ones((3, 4, 8)), None, (1.0,))
    with pytest.raises(InputError, match="fire"):
        choose_width(np.ones((10, 4, 3)), np.zeros((10, 4, 1)), (1.0,))
    with pytest.raises(InputError, match="bin > 0"):
        fit_smoothed_rates(np.ones((10, 4, 3)), bin_s=0)
