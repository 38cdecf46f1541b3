r"""Spikes of cells that know where an animal looks: a latent on a ring, with its turning known.

$$\dot\theta = \omega, \qquad d\omega = -\gamma\omega\,dt + \sqrt{2\gamma}\,s\,dW, \qquad
  \lambda_i = \bar\lambda\,\frac{e^{\kappa\cos(\theta - \theta_i)}}{I_0(\kappa)}$$

The heading is a free particle with friction (exact steps, `radiata_core.oscillators`), its start uniform; preferred
headings are evenly spaced, tuning curves von Mises', and the mean rate of every cell is lambda-bar. `behaviour` is the
cosine and sine of the heading at the centre of each bin, `rates` are E[count].

Then $E\cos(\theta_{t+h} - \theta_t) = e^{-V/2}$ with $V = 2 s^2 (\gamma h - 1 + e^{-\gamma h})/\gamma^2$.

References:
    Taube, "The head direction signal: origins and sensory-motor integration", 2007,
        https://doi.org/10.1146/annurev.neuro.29.051605.112854.
"""

import math

import numpy as np
import torch
import xarray as xr
from scipy.special import i0e

from radiata_core.errors import InputError
from radiata_core.langevin import Bath, PhasePoint, oscillator, simulate
from radiata_core.seeds import generator_of, noise_of, rng_of
from radiata_latents.data.population import population

__all__ = ["headings", "ring_population"]

_PATH, _START, _SPIKES = 21, 22, 23


def headings(
    rows: int, *, bins: int, bin_s: float, turning: float = 1.5, friction: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Headings (row, time), rad, not wrapped; row k depends on (seed, k).

    Args:
        rows: How many.
        bins: Times, >= 2.
        bin_s: Between them, s.
        turning: Standard deviation s of the angular velocity, rad/s, > 0.
        friction: gamma, 1/s, > 0.
        seed: Of the paths.

    Raises:
        InputError: sizes or parameters out of range.
    """
    if rows < 1 or bins < 2 or not (bin_s > 0 and turning > 0 and friction > 0):
        raise InputError(
            f"expected rows >= 1, bins >= 2, and a bin, turning and friction > 0; got {rows}, {bins}, {bin_s:g}, "
            f"{turning:g} and {friction:g}. Change the options."
        )
    step = oscillator(bin_s, 0.0, Bath(friction, turning**2))
    streams = [generator_of(seed, _PATH, row) for row in range(rows)]
    start = torch.tensor([rng_of(seed, _START, row).uniform(0, 2 * math.pi) for row in range(rows)])
    speed = turning * noise_of(streams, (1,), torch.float64)
    noise = noise_of(streams, (bins - 1, step.draws, 1), torch.float64).transpose(0, 1)
    first = PhasePoint(start.double()[:, None], speed)
    return simulate(None, first, step, bins - 1, noise=noise).position[..., 0].T.numpy()


def ring_population(
    *,
    neurons: int = 24,
    trials: int = 400,
    bins: int = 100,
    bin_s: float = 0.02,
    turning: float = 1.5,
    sharpness: float = 3.0,
    mean_hz: float = 10.0,
    seed: int = 0,
) -> xr.Dataset:
    """Counts with `rates`, and cosine and sine of the heading as `behaviour`.

    Args:
        neurons: How many.
        trials: How many; trial k depends on (seed, k) only, and every fifth validates.
        bins: Bins a trial, >= 2.
        bin_s: Their width, s.
        turning: Standard deviation of the angular velocity, rad/s.
        sharpness: kappa of the tuning curves, >= 0; 0: no tuning.
        mean_hz: Mean rate of every neuron, Hz.
        seed: Of paths and spikes.

    Raises:
        InputError: sizes or parameters out of range.
    """
    if min(neurons, trials) < 1 or not (sharpness >= 0 and mean_hz > 0):
        raise InputError(
            f"expected neurons and trials >= 1, a sharpness >= 0 and a mean rate > 0 Hz; got {neurons}, {trials}, "
            f"{sharpness:g} and {mean_hz:g}. Change the options."
        )
    theta = headings(trials, bins=bins, bin_s=bin_s, turning=turning, seed=seed)
    preferred = 2 * math.pi * np.arange(neurons) / neurons
    tuning = np.exp(sharpness * (np.cos(theta[..., None] - preferred) - 1)) / i0e(sharpness)
    rates = mean_hz * bin_s * tuning
    return population(
        np.stack([rng_of(seed, _SPIKES, k).poisson(rates[k]) for k in range(trials)]),
        bin_s,
        split=["validation" if k % 5 == 0 else "train" for k in range(trials)],
        behaviour=np.stack([np.cos(theta), np.sin(theta)], 2),
        channels=("cos(heading)", "sin(heading)"),
        rates=rates,
        source="synthetic: ring",
        seed=seed,
    )
