r"""Spikes of neurons that K noisy oscillators drive: dynamics whose frequencies and damping are known.

$$dq_k = v_k\,dt, \qquad dv_k = -\omega_k^2 q_k\,dt - 2\zeta_k\omega_k v_k\,dt + \sqrt{4\zeta_k\omega_k^3}\;dW_k,
  \qquad \omega_k = 2\pi f_k$$

is underdamped Langevin motion in one bath, scaled such that q and v/omega are standard normal at rest. Steps from bin to
bin are exact (`radiata_core.oscillators`), so the autocovariance of q_k is the closed form whatever the bin. Any quadratic
coupling is diagonal in its normal modes: the q_k are those modes, and the read-out mixes them,

$$\log \lambda_i = b_i + s\; w_i \cdot (q, v/\omega), \qquad \lvert w_i\rvert = 1, \qquad
  b_i = \log(\bar\lambda\,\Delta) - s^2/2,$$

so that no neuron follows one oscillator, log-rates have standard deviation s, and the expected count of every bin is the
mean rate times its width. Spikes are Poisson: `rates` are E[count]. The latents (q, v/omega) of the centres of bins are the
`behaviour`. What a model may be asked here, and not on recordings: are its frequencies right?

References:
    Wang & Uhlenbeck, "On the theory of the Brownian motion II", 1945, https://doi.org/10.1103/RevModPhys.17.323.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.langevin import Bath, PhasePoint, oscillator, simulate
from radiata_core.seeds import generator_of, noise_of, rng_of
from radiata_latents.data.population import population

__all__ = ["oscillator_latents", "oscillator_population"]

_PATH, _READOUT, _SPIKES = 1, 2, 3


def oscillator_latents(
    rows: int,
    *,
    frequencies_hz: Sequence[float],
    damping: float | Sequence[float],
    bins: int,
    bin_s: float,
    seed: int,
) -> np.ndarray:
    """Trajectories at rest, (row, time, 2 K): K positions q, then K velocities v / omega; row k depends on (seed, k).

    Args:
        rows: How many.
        frequencies_hz: Undamped frequencies f, Hz, > 0.
        damping: Ratio zeta = gamma / (2 omega), > 0: one, or one an oscillator. Below 1 it oscillates.
        bins: Times.
        bin_s: Between them, s.
        seed: Of the paths.

    Raises:
        InputError: frequencies, damping or sizes out of range.
    """
    frequencies = np.asarray(frequencies_hz, float)
    ratios = np.asarray(damping, float)
    if ratios.ndim == 0:
        ratios = np.full(frequencies.shape, float(ratios))
    _check(frequencies, ratios, rows, bins, bin_s)
    omega = torch.from_numpy(2 * math.pi * frequencies)
    bath = Bath(2 * torch.from_numpy(ratios) * omega, 1.0, omega**-2)
    step = oscillator(bin_s, omega, bath)
    streams = [generator_of(seed, _PATH, row) for row in range(rows)]
    start = noise_of(streams, (2, len(frequencies)), torch.float64)
    first = PhasePoint(start[:, 0], start[:, 1] * omega)
    path = torch.stack([first.position, first.velocity / omega])[:, None]
    if bins > 1:
        noise = noise_of(streams, (bins - 1, step.draws, len(frequencies)), torch.float64).transpose(0, 1)
        found = simulate(None, first, step, bins - 1, noise=noise)
        path = torch.stack([found.position, found.velocity / omega])
    return path.permute(2, 1, 0, 3).reshape(rows, bins, -1).numpy()


def oscillator_population(
    *,
    frequencies_hz: Sequence[float] = (0.8, 1.6, 2.9),
    damping: float | Sequence[float] = 0.08,
    neurons: int = 30,
    trials: int = 400,
    bins: int = 100,
    bin_s: float = 0.02,
    modulation: float = 0.7,
    mean_hz: float = 10.0,
    conditions: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Counts with `rates`, the latents as `behaviour`, and `frequencies_hz` and `damping` as attributes.

    Args:
        frequencies_hz: Undamped frequencies of the oscillators, Hz, > 0.
        damping: Ratio gamma / (2 omega), > 0: one, or one an oscillator.
        neurons: How many.
        trials: How many; trial k depends on (seed, k) only, and every fifth validates.
        bins: Bins a trial.
        bin_s: Their width, s.
        modulation: Standard deviation of log-rates, >= 0.
        mean_hz: Mean rate of every neuron, Hz, > 0.
        conditions: So many different trajectories, trial k on number k modulo that; by default every trial has its own.
        seed: Of paths, read-out and spikes.

    Raises:
        InputError: frequencies, damping or sizes out of range.
    """
    if min(neurons, trials) < 1 or not (modulation >= 0 and mean_hz > 0):
        raise InputError(
            f"expected neurons and trials >= 1, a modulation >= 0 and a mean rate > 0 Hz; got {neurons}, {trials}, "
            f"{modulation:g} and {mean_hz:g}. Change the options."
        )
    if conditions is not None and not 1 <= conditions <= trials:
        raise InputError(f"expected 1 to {trials} conditions; got {conditions}. At most one a trial.")
    latents = oscillator_latents(
        conditions or trials,
        frequencies_hz=frequencies_hz,
        damping=damping,
        bins=bins,
        bin_s=bin_s,
        seed=seed,
    )
    weights = rng_of(seed, _READOUT).standard_normal((neurons, latents.shape[2]))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    rates = np.exp(math.log(mean_hz * bin_s) - modulation**2 / 2 + modulation * latents @ weights.T)
    of_trial = np.arange(trials) % len(latents)
    counts = np.stack([rng_of(seed, _SPIKES, k).poisson(rates[c]) for k, c in enumerate(of_trial)])
    size = latents.shape[2] // 2
    made = population(
        counts,
        bin_s,
        split=["validation" if k % 5 == 0 else "train" for k in range(trials)],
        condition=None if conditions is None else of_trial,
        behaviour=latents[of_trial],
        channels=[f"q{k}" for k in range(size)] + [f"v{k}/omega" for k in range(size)],
        rates=rates[of_trial],
        source="synthetic: oscillators",
        seed=seed,
    )
    ratios = np.broadcast_to(np.asarray(damping, float), (size,))
    return made.assign_attrs(
        frequencies_hz=[float(f) for f in frequencies_hz], damping=[float(ratio) for ratio in ratios]
    )


def _check(frequencies: np.ndarray, ratios: np.ndarray, rows: int, bins: int, bin_s: float) -> None:
    if min(rows, bins) < 1 or not bin_s > 0:
        raise InputError(
            f"expected rows and bins >= 1 and a bin > 0 s; got {rows}, {bins} and {bin_s:g}. Change the options."
        )
    if frequencies.ndim != 1 or not len(frequencies) or ratios.shape != frequencies.shape:
        raise InputError(
            f"expected a list of frequencies and one damping, or one each; got {frequencies.tolist()} Hz and "
            f"{ratios.tolist()}."
        )
    if not (np.isfinite(frequencies).all() and (frequencies > 0).all() and (ratios > 0).all()):
        raise InputError(
            f"expected frequencies > 0 Hz and damping > 0; got {frequencies.tolist()} and {ratios.tolist()}. "
            "Without damping nothing comes to rest."
        )
    fastest = 0.5 / bin_s
    if (frequencies >= fastest).any():
        raise InputError(
            f"expected frequencies below {fastest:g} Hz, half the rate of bins; got {frequencies.max():g}. Use shorter bins."
        )
