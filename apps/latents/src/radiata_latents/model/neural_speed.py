r"""Does the population's speed foretell the produced interval? tp-corr of the time-interval task (dmfc_rsg).

$$v_k = \frac1{T-1}\sum_t \lVert r_{t+1} - r_t \rVert, \qquad
  \mathrm{tp\ corr} = \frac1C\sum_c \operatorname{corr}_{k \in c}(v_k, t_{p,k})$$

between set and go, the bins whose held-out counts are not NaN. Faster dynamics end sooner, so a good model is near -1.

References:
    Pei et al., "Neural Latents Benchmark '21", 2021, https://arxiv.org/abs/2109.04463, section 3.3 (tp-corr).
    Sohn et al., "Bayesian computation through cortical latent dynamics", 2019.
"""

import numpy as np
from scipy.stats import pearsonr

from radiata_core.errors import InputError

__all__ = ["speed_interval_correlation"]

CONDITION_COLUMNS = 3
"""Of the benchmark's columns is_eye, theta, is_short, ts, tp: ts is left out, since few trials share it."""


def speed_interval_correlation(counts_heldout: np.ndarray, rates: np.ndarray, trials: np.ndarray) -> float:
    """Mean correlation of speed and produced interval over conditions; near -1 is good.

    Args:
        counts_heldout: (trial, time, neuron), NaN outside set to go.
        rates: (trial, time, neuron) of all neurons, expected counts a bin.
        trials: (trial, column): response, direction, prior, ..., produced interval last, NaN for outliers.

    Raises:
        InputError: arrays that do not fit together, or a condition with fewer than two trials.
    """
    counts_heldout, rates, trials = (np.asarray(a, float) for a in (counts_heldout, rates, trials))
    if counts_heldout.shape[:2] != rates.shape[:2] or trials.ndim != 2 or len(trials) != len(rates):
        raise InputError(
            f"expected counts, rates, columns of equal length; got {counts_heldout.shape}, {rates.shape} and {trials.shape}."
        )
    inside = ~np.isnan(counts_heldout[..., 0])
    speeds = np.array(
        [np.mean(np.linalg.norm(np.diff(r[i], axis=0), axis=1)) for r, i in zip(rates, inside, strict=True)]
    )
    columns = trials[:, :CONDITION_COLUMNS]
    conditions = np.unique(columns, axis=0)
    found = []
    for condition in conditions[~np.isnan(conditions).all(1)]:
        own = (columns == condition).all(1)
        if own.sum() < 2:
            raise InputError(f"expected two trials or more a condition; {condition} has {int(own.sum())}.")
        found.append(pearsonr(speeds[own], trials[own, -1])[0])
    return float(np.mean(found))
