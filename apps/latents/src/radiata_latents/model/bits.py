r"""Bits a spike: how much better rates predict counts than each neuron's mean does.

$$\mathrm{nll}(r, n) = \sum r - n\log r + \log n!, \qquad
  \mathrm{bits} = \frac{\mathrm{nll}(\bar n, n) - \mathrm{nll}(r, n)}{\log 2\ \sum n}$$

The null model knows the *evaluated* counts: $\bar n$ is each neuron's mean over their trials and bins, so 0 is not free. Of
neurons that the model never saw it is co-smoothing (co-bps), of bins after the observed window forward prediction (fp-bps,
held-in and held-out neurons together). Of neurons that a model was fed with it means nothing: copying the input beats the
truth. Counts that are NaN are left out; a rate of 0 counts as `LEAST`.

References:
    Pei et al., "Neural Latents Benchmark '21: evaluating latent variable models of neural population activity", 2021,
        https://arxiv.org/abs/2109.04463, section 3.3.
"""

import numpy as np
from scipy.special import gammaln

from radiata_core.errors import InputError

__all__ = ["LEAST", "bits_per_spike", "forward_bits_per_spike", "null_rates", "total_poisson_nll"]

LEAST = 1e-9
"""What a predicted rate of 0 is taken for, expected counts a bin; the benchmark's value."""


def total_poisson_nll(rates: np.ndarray, counts: np.ndarray) -> float:
    r"""$\sum r - n \log r + \log n!$ in nats, over counts that are not NaN.

    Args:
        rates: Expected counts a bin, any shape, >= 0.
        counts: Spikes a bin, of the same shape; NaN where nothing was recorded.

    Raises:
        InputError: shapes differ, or a rate is negative or not finite where a count is scored.
    """
    rates, counts = np.asarray(rates, float), np.asarray(counts, float)
    if rates.shape != counts.shape:
        raise InputError(
            f"expected a rate a count; got rates {rates.shape} and counts {counts.shape}. Cut them alike."
        )
    missing = np.isnan(counts)
    if missing.any():
        rates, counts = rates[~missing], counts[~missing]
    wrong = ~(np.isfinite(rates) & (rates >= 0))
    if wrong.any():
        raise InputError(
            f"expected finite rates >= 0; got {rates[wrong][0]:g} and {int(wrong.sum()) - 1} more. Give expected counts a "
            "bin, not their logarithms."
        )
    rates = np.where(rates == 0, LEAST, rates)
    return float(np.sum(rates - counts * np.log(rates) + gammaln(counts + 1.0)))


def null_rates(counts: np.ndarray) -> np.ndarray:
    """Each neuron's mean count over trials and bins that are not NaN, in the shape of `counts`."""
    counts = np.asarray(counts, float)
    means = np.nanmean(counts, axis=tuple(range(counts.ndim - 1)), keepdims=True)
    return np.tile(means, (*counts.shape[:-1], 1))


def bits_per_spike(rates: np.ndarray, counts: np.ndarray) -> float:
    """Bits a spike above each neuron's mean (the equation of this module); 0 for the mean itself, no upper bound.

    Args:
        rates: Predictions, expected counts a bin, (trial, time, neuron), >= 0.
        counts: What was recorded, of the same shape; NaN is left out.

    Raises:
        InputError: as `total_poisson_nll`, or there is no spike.

    References:
        Pei et al., 2021, section 3.3.
    """
    counts = np.asarray(counts, float)
    model = total_poisson_nll(rates, counts)
    spikes = np.nansum(counts)
    if not spikes > 0:
        raise InputError("expected spikes to predict; got none. Score neurons that fire in these trials.")
    return float((total_poisson_nll(null_rates(counts), counts) - model) / spikes / np.log(2))


def forward_bits_per_spike(
    rates_heldin: np.ndarray, rates_heldout: np.ndarray, counts_heldin: np.ndarray, counts_heldout: np.ndarray
) -> float:
    """fp-bps: bits a spike of the forward window, held-in and held-out neurons together.

    Args:
        rates_heldin: (trial, time, neuron) of the forward window, as all others.
        rates_heldout: The same for held-out neurons.
        counts_heldin: What was recorded.
        counts_heldout: The same for held-out neurons.

    Raises:
        InputError: trials or bins differ, or as `bits_per_spike`.
    """
    _check_alike(rates_heldin, rates_heldout)
    _check_alike(counts_heldin, counts_heldout)
    return bits_per_spike(
        np.concatenate([rates_heldin, rates_heldout], -1), np.concatenate([counts_heldin, counts_heldout], -1)
    )


def _check_alike(one: np.ndarray, two: np.ndarray) -> None:
    if np.shape(one)[:-1] != np.shape(two)[:-1]:
        raise InputError(
            f"expected the same trials and bins held in and held out; got {np.shape(one)} and {np.shape(two)}. Align them."
        )
