"""Gaussian-process factor analysis against direct densities, and against what was simulated."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal

from radiata_core.errors import InputError
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.gpfa import JITTER, Gpfa, fit_gpfa, fit_gpfa_rates


def kernel(tau: float, bins: int) -> np.ndarray:
    lags = np.subtract.outer(np.arange(bins), np.arange(bins))
    return (1 - JITTER) * np.exp(-(lags**2) / (2 * tau**2)) + JITTER * np.eye(bins)


def joint(model: Gpfa, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Cov(y) and Cov(x, y) of one trial, entries ordered (time, neuron) and (time, latent), entry by entry."""
    count, size = len(model.timescales), len(model.offset)
    states = np.zeros((bins, count, bins, count))
    for i, tau in enumerate(model.timescales):
        states[:, i, :, i] = kernel(tau, bins)
    cross = np.einsum("tisj,nj->tisn", states, model.loadings)
    whole = np.einsum("mi,tisn->tmsn", model.loadings, cross).reshape(bins * size, -1)
    return whole + np.kron(np.eye(bins), np.diag(model.noise)), cross.reshape(bins * count, -1)


@pytest.fixture
def tiny(rng: np.random.Generator) -> Gpfa:
    return Gpfa(
        rng.standard_normal((3, 2)), rng.standard_normal(3), rng.uniform(0.2, 1, 3), np.array([1.5, 4.0])
    )


def simulated(rng: np.random.Generator, model: Gpfa, trials: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    factors = [np.linalg.cholesky(kernel(tau, bins)) for tau in model.timescales]
    latents = np.stack([rng.standard_normal((trials, bins)) @ f.T for f in factors], 2)
    noise = np.sqrt(model.noise) * rng.standard_normal((trials, bins, len(model.offset)))
    return latents, latents @ model.loadings.T + model.offset + noise


def test_log_likelihood_is_that_of_the_joint_normal(rng: np.random.Generator, tiny: Gpfa) -> None:
    observations = rng.standard_normal((4, 5, 3))
    direct = multivariate_normal(np.tile(tiny.offset, 5), joint(tiny, 5)[0]).logpdf(
        observations.reshape(4, -1)
    )
    assert tiny.log_likelihood(observations) == pytest.approx(direct.sum(), rel=1e-10)


def test_latents_are_the_conditional_mean(rng: np.random.Generator, tiny: Gpfa) -> None:
    observations = rng.standard_normal((4, 5, 3))
    whole, cross = joint(tiny, 5)
    direct = np.linalg.solve(whole, (observations - tiny.offset).reshape(4, -1).T).T @ cross.T
    np.testing.assert_allclose(tiny.latents(observations), direct.reshape(4, 5, 2), rtol=1e-8, atol=1e-10)


def test_the_likelihood_never_falls(rng: np.random.Generator) -> None:
    observations = np.sqrt(rng.poisson(0.7, (20, 15, 6)))
    history = np.array(fit_gpfa(observations, 2, iterations=25, tolerance=0).history)
    assert len(history) == 26
    assert (np.diff(history) > -1e-9 * np.abs(history[1:])).all() and history[-1] > history[0] + 1


def test_recovers_what_was_simulated(rng: np.random.Generator) -> None:
    """Subspace within 5 degrees, private variances within 10 %, time constants within 15 % (80 trials, 40 bins)."""
    loadings = np.linalg.qr(rng.standard_normal((12, 2)))[0] * np.array([3.0, 2.0])
    truth = Gpfa(loadings, rng.standard_normal(12), rng.uniform(0.3, 0.8, 12), np.array([2.0, 8.0]))
    latents, observations = simulated(rng, truth, 80, 40)
    fitted = fit_gpfa(observations, 2, iterations=60)
    assert np.degrees(subspace_angles(truth.loadings, fitted.loadings).max()) < 5
    np.testing.assert_allclose(np.sort(fitted.timescales), truth.timescales, rtol=0.15)
    np.testing.assert_allclose(fitted.noise, truth.noise, rtol=0.1)
    # parameters with more likelihood than the truth, by no more than there are parameters
    gain = fitted.history[-1] - truth.log_likelihood(observations)
    assert -1 < gain < 12 * 4
    predicted = fitted.latents(observations) @ fitted.loadings.T
    shared = latents @ truth.loadings.T
    assert ((predicted - shared) ** 2).mean() < 0.15 * shared.var()


@pytest.mark.parametrize("start", [1.0, 20.0])
def test_time_constants_are_found_from_afar(rng: np.random.Generator, start: float) -> None:
    """Noise of four times the signal's variance, where expectation-maximisation alone stays at its start; within 20 %."""
    truth = Gpfa(np.ones((8, 1)), np.zeros(8), np.full(8, 4.0), np.array([5.0]))
    fitted = fit_gpfa(simulated(rng, truth, 150, 40)[1], 1, iterations=10, timescale=start)
    assert fitted.timescales[0] == pytest.approx(5.0, rel=0.2)


def test_rates_of_neurons_not_seen(rng: np.random.Generator) -> None:
    """Counts a bin, and half or more of the bits that the truth has, in trials not fitted."""
    truth = Gpfa(0.6 * rng.standard_normal((14, 2)), np.full(14, -0.7), np.zeros(14), np.array([4.0, 8.0]))
    rates = np.exp(simulated(rng, truth, 120, 30)[1])
    counts = rng.poisson(rates).astype(float)
    fitted = fit_gpfa_rates(counts[:90, :, :10], counts[:90, :, 10:], latents=2, iterations=15)
    found = fitted.rates(counts[90:, :, :10])
    assert found.shape == (30, 30, 14)
    np.testing.assert_allclose(found.mean((0, 1)), counts.mean((0, 1)), rtol=0.25)
    best = bits_per_spike(rates[90:, :, 10:], counts[90:, :, 10:])
    assert bits_per_spike(found[..., 10:], counts[90:, :, 10:]) > 0.5 * best


def test_what_cannot_be_fitted_is_refused(rng: np.random.Generator, tiny: Gpfa) -> None:
    good = rng.standard_normal((4, 5, 3))
    with pytest.raises(InputError, match="1 to 2 latents"):
        fit_gpfa(good, 3)
    with pytest.raises(InputError, match="finite"):
        fit_gpfa(good * np.nan, 1)
    still = good.copy()
    still[..., 1] = 2.0
    with pytest.raises(InputError, match="number 1 never does"):
        fit_gpfa(still, 1)
    with pytest.raises(InputError, match="counts >= 0"):
        fit_gpfa_rates(good)
    with pytest.raises(InputError, match="that it was fitted on"):
        tiny.latents(good[..., :2])
