r"""Gaussian smoothing of spikes, and rates of all neurons read out from it: the first two baselines of every table.

$$\hat r_t = \frac{\sum_s e^{-(t-s)^2 / 2w^2}\, n_s}{\sum_s e^{-(t-s)^2 / 2w^2}}$$

over the bins of the trial: at its edges the kernel is cut and normalised, nothing is padded. The width w is chosen inside
the training trials, by bits a spike of neurons that were not smoothed (co-smoothing): of smoothed neurons themselves, less
smoothing always scores better, because they contain the spikes that they predict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.poisson_glm import PoissonReadout, fit_poisson_readout

__all__ = ["WIDTHS_S", "SmoothedRates", "choose_width", "fit_smoothed_rates", "smooth"]

WIDTHS_S = (0.02, 0.04, 0.06, 0.08, 0.12, 0.2)
"""Standard deviations tried, s."""


def smooth(counts: np.ndarray, width_bins: float) -> np.ndarray:
    """Counts under a Gaussian kernel within each trial (the equation of this module); expected counts a bin.

    Args:
        counts: (trial, time, neuron).
        width_bins: Standard deviation in bins, >= 0; at 0 the counts themselves come out.

    Raises:
        InputError: a negative width, or counts of another rank.
    """
    counts = np.asarray(counts, float)
    if counts.ndim != 3 or not width_bins >= 0:
        raise InputError(
            f"expected counts of (trial, time, neuron) and a width of 0 or more bins; got {counts.shape} and {width_bins}."
        )
    if width_bins == 0:
        return counts
    lags = np.subtract.outer(np.arange(counts.shape[1]), np.arange(counts.shape[1]))
    kernel = np.exp(-0.5 * (lags / width_bins) ** 2)
    return np.matmul(kernel / kernel.sum(1, keepdims=True), counts)


@dataclass(frozen=True)
class SmoothedRates:
    """Smoothing, and a Poisson regression from it to all neurons.

    Attributes:
        width_bins: Kernel's standard deviation.
        readout: To held-in and held-out neurons, in this order.
        chosen_bits: Bits a spike, inside the training trials, of each width tried.
    """

    width_bins: float
    readout: PoissonReadout
    chosen_bits: dict[float, float]

    def rates(self, heldin: np.ndarray) -> np.ndarray:
        """Expected counts a bin of held-in, then held-out neurons; (trial, time, neuron) from held-in counts."""
        return self.readout.rates(smooth(heldin, self.width_bins))

    def smoothed(self, counts: np.ndarray) -> np.ndarray:
        """The kernel alone, of any neurons; the baseline without a regression."""
        return smooth(counts, self.width_bins)


def choose_width(
    heldin: np.ndarray, heldout: np.ndarray | None, widths_bins: Sequence[float], penalty: float = 1e-4
) -> dict[float, float]:
    """Width → co-smoothing bits a spike of every fifth training trial, after a fit on the others.

    Args:
        heldin: (trial, time, neuron) counts of training trials, at least five.
        heldout: Those of neurons to predict; without them, every fourth held-in neuron is predicted from the others.
        widths_bins: Standard deviations, >= 0.
        penalty: Of the regression.

    Raises:
        InputError: too few trials or neurons, or no width.
    """
    heldin = np.asarray(heldin, float)
    if heldout is None:
        every = np.arange(heldin.shape[-1]) % 4 == 3
        heldin, heldout = heldin[..., ~every], heldin[..., every]
    if len(heldin) < 5 or not len(widths_bins) or not heldout.shape[-1]:
        raise InputError(
            f"expected five trials or more, a width, and a neuron to predict (one in four); got {len(heldin)} trials, "
            f"{len(widths_bins)} widths, {heldout.shape[-1]} neurons. Give the width, or more data."
        )
    scored = np.arange(len(heldin)) % 5 == 4
    fires = heldout[scored].sum((0, 1)) > 0
    if not fires.any():
        raise InputError("expected held-out neurons that fire in training; none does. Hold out others.")
    found = {}
    for width in widths_bins:
        features = smooth(heldin, width)
        readout = fit_poisson_readout(features[~scored], heldout[~scored][..., fires], penalty)
        found[float(width)] = bits_per_spike(readout.rates(features[scored]), heldout[scored][..., fires])
    return found


def fit_smoothed_rates(
    heldin: np.ndarray,
    heldout: np.ndarray | None = None,
    *,
    bin_s: float,
    widths_s: Sequence[float] = WIDTHS_S,
    penalty: float = 1e-4,
) -> SmoothedRates:
    """The baseline, its width chosen by `choose_width` and its regression fitted on all training trials.

    Args:
        heldin: (trial, time, neuron) counts of training trials.
        heldout: Those of held-out neurons, if there are any.
        bin_s: Width of a bin, s, > 0.
        widths_s: Kernels tried, s; a single one is taken as it is.
        penalty: Of the regression.

    Raises:
        InputError: as `choose_width`, or a bin that has no width.
    """
    if not bin_s > 0 or not len(widths_s):
        raise InputError(f"expected a bin > 0 s and a kernel; got {bin_s} and {len(widths_s)} kernels.")
    widths = [width / bin_s for width in widths_s]
    found = choose_width(heldin, heldout, widths, penalty) if len(widths) > 1 else {}
    best = max(found, key=lambda width: found[width]) if found else widths[0]
    everything = heldin if heldout is None else np.concatenate([heldin, heldout], -1)
    return SmoothedRates(best, fit_poisson_readout(smooth(heldin, best), everything, penalty), found)
