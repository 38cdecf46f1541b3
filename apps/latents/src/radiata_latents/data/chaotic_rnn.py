r"""Spikes of neurons in a chaotic random network: dynamics with no low-dimensional attractor to guess.

$$\tau\,\dot y = -y + W\tanh y, \qquad W_{ij} \sim \mathcal N(0, g^2/N), \qquad
  \lambda = \tfrac12(1 + \tanh y)\,\lambda_{\max}$$

N = 50 units, all of them read, g = 1.5 (chaotic above 1), tau = 25 ms, Euler steps of 10 ms, which are the bins; 130 starts
from $\mathcal N(0, I)$ are the conditions, 10 draws of Poisson spikes each, 1 s, at most 30 Hz. Every fifth trial
validates. The options are those of the set that NDT is measured on; its file is not reproduced bit by bit.

References:
    Sussillo et al., 2016, https://arxiv.org/abs/1608.06315, section 4.3.
    Ye & Pandarinath, "Representation learning for neural population activity with Neural Data Transformers", 2021,
        https://doi.org/10.51628/001c.27358.
"""

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import population

__all__ = ["chaotic_population"]

TIME_CONSTANT_S, BIN_S, HIGHEST_HZ = 0.025, 0.01, 30.0


def chaotic_population(
    *,
    conditions: int = 130,
    trials: int = 10,
    neurons: int = 50,
    bins: int = 100,
    gain: float = 1.5,
    seed: int = 5,
) -> xr.Dataset:
    """Counts in bins of 10 ms with `rates`, which are E[count] too.

    Args:
        conditions: Starts.
        trials: Draws of spikes a start; trial k of condition c depends on (seed, c, k) only.
        neurons: Units of the network.
        bins: Of 10 ms.
        gain: g; the network is silent below 1 and chaotic above.
        seed: Of network, starts and spikes.

    Raises:
        InputError: less than one of something, or a gain that is not positive.
    """
    if min(conditions, trials, neurons, bins) < 1 or not gain > 0:
        raise InputError(
            "expected at least one condition, trial, neuron and bin, and a gain > 0. Change the options."
        )
    weights = np.random.default_rng([seed, 0]).standard_normal((neurons, neurons)) * gain / np.sqrt(neurons)
    state = np.stack(
        [np.random.default_rng([seed, 1, c]).standard_normal(neurons) for c in range(conditions)]
    )
    share = BIN_S / TIME_CONSTANT_S
    states = np.empty((conditions, bins, neurons))
    for k in range(bins):
        states[:, k] = state
        state = (1 - share) * state + share * np.tanh(state) @ weights.T
    rates = 0.5 * (1 + np.tanh(states)) * HIGHEST_HZ * BIN_S
    counts = np.stack(
        [
            np.random.default_rng([seed, 2, c, k]).poisson(rates[c])
            for c in range(conditions)
            for k in range(trials)
        ]
    )
    split = np.where(np.arange(len(counts)) % 5 == 0, "validation", "train")
    return population(
        counts,
        BIN_S,
        split=split.tolist(),
        condition=np.repeat(np.arange(conditions), trials),
        rates=np.repeat(rates, trials, 0),
        source="synthetic: chaotic RNN",
        seed=seed,
    )
