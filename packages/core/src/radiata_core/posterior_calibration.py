r"""Is a posterior sampler's spread the size of its error? Variance over error, and coverage of intervals.

Of K exact draws x_k and the truth x, all K + 1 are alike given the measurement. So, whatever the posterior is,

    ratio      = (1 + 1/K) mean (variance of the draws) / mean (mean of the draws - x)^2      is 1 but for chance,
    coverage   = P(x between the j-th smallest and the j-th largest draw)                     is (K + 1 - 2j)/(K + 1).

Both are averages over elements, and measured over many images. A ratio below 1 is a sampler that is too sure. Means
(relaxed, deterministic) have small ratios, and should not be read as samples.

`widened` scales the deviations from the mean by one factor; sqrt(1/ratio) on validation images makes the ratio 1 there.

References:
    Leutbecher & Palmer, "Ensemble forecasting", 2008, https://doi.org/10.1016/j.jcp.2007.02.014 (spread and error).
    Hamill, "Interpretation of rank histograms for verifying ensemble forecasts", 2001 (ranks).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.types import Batch

__all__ = ["Calibration", "calibration", "widened"]

Draws = Float[Tensor, "draws batch *event"]


@dataclass(frozen=True)
class Calibration:
    """Spread against error.

    Attributes:
        ratio: Variance of the draws over squared error of their mean, with the factor 1 + 1/K; 1 is calibrated.
        coverage: Share of elements whose truth lies within the interval, in [0, 1].
        nominal: What that share is for exact draws; the level that K draws can express next to the one asked for.
        rmse: Root mean square error of the mean of the draws, in units of the data.
        rmse_draw: The same of a single draw; sqrt(2 K/(K + 1)) times larger for exact draws.
    """

    ratio: float
    coverage: float
    nominal: float
    rmse: float
    rmse_draw: float


def calibration(
    draws: Draws, truth: Batch, level: float = 0.9, mask: Bool[Tensor, "batch *event"] | None = None
) -> Calibration:
    """How the spread of draws compares with their error.

    Args:
        draws: (draws, batch, *event), at least 2; 19 draws express 90 % exactly.
        truth: (batch, *event).
        level: Of the central interval, in (0, 1).
        mask: Elements that count, (batch, *event): a hole, the brain. None: all.

    Raises:
        InputError: fewer than 2 draws, too few for the level, or shapes that differ.
    """
    count = len(draws)
    if draws.shape[1:] != truth.shape or count < 2:
        raise InputError(
            f"expected at least 2 draws of the shape {tuple(truth.shape)}; got {tuple(draws.shape)}. "
            "Stack the draws along a first axis."
        )
    cut = round((1 - level) / 2 * (count + 1))
    if not 0 < level < 1 or cut < 1:
        raise InputError(
            f"expected a level that {count} draws can express, at most {1 - 2 / (count + 1):.3f}; got {level}. "
            f"Draw more, or lower the level."
        )
    draws, truth = draws.double(), truth.double()
    kept = torch.ones_like(truth, dtype=torch.bool) if mask is None else mask
    mean, variance = draws.mean(0), draws.var(0)
    error = (mean - truth).square()[kept].mean()
    rank = (draws < truth).sum(0)[kept]
    return Calibration(
        ratio=float((1 + 1 / count) * variance[kept].mean() / error),
        coverage=float(((rank >= cut) & (rank <= count - cut)).double().mean()),
        nominal=(count + 1 - 2 * cut) / (count + 1),
        rmse=float(error.sqrt()),
        rmse_draw=float((draws - truth).square()[:, kept].mean().sqrt()),
    )


def widened(draws: Draws, factor: float) -> Draws:
    """Draws with their deviations from the mean multiplied by a factor > 0.

    Raises:
        InputError: the factor is not positive.
    """
    if not factor > 0:
        raise InputError(f"expected a factor > 0; got {factor}. Use sqrt(1/ratio) of validation images.")
    mean = draws.mean(0)
    return mean + factor * (draws - mean)
