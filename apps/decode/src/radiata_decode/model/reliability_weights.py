r"""How much a trial and a voxel count in a regression, from repeats and noise ceilings.

An average of r repeats has noise of variance 1/r in units of a single trial's noise; with the signal-to-noise ratio `ncsnr`
its signal has variance ncsnr². A linear decoder's residual grows with what is not predictable in its input, so a trial is
weighted by the inverse of a variance, $1/(1/r + \text{ncsnr}^2)$, scaled to a mean of 1. With little signal the weight is
proportional to r, with much signal it is 1 for all: repeats of what is already clear add nothing.

Voxels count with the root of their noise ceiling: the variance that a z-scored voxel adds to the Gram matrix is then the
share of it that the stimulus explains.
"""

import numpy as np

from radiata_core.errors import InputError

__all__ = ["repeat_weights", "voxel_weights"]


def repeat_weights(repeats: np.ndarray, ncsnr: np.ndarray | float = 0.5) -> np.ndarray:
    """Weight of each averaged trial, (n,) float64, mean 1.

    Args:
        repeats: Trials in each average, (n,), ≥ 1.
        ncsnr: Signal-to-noise ratio of single trials, ≥ 0; of an array of voxels the mean square is taken.

    Raises:
        InputError: a number of repeats below 1, or a ratio that is negative or not finite.
    """
    counts, ratio = np.asarray(repeats, np.float64), np.asarray(ncsnr, np.float64)
    if counts.ndim != 1 or not len(counts) or not (counts >= 1).all():
        raise InputError("expected a number of repeats ≥ 1 for each stimulus; got fewer. Leave those out.")
    if not np.isfinite(ratio).all() or (ratio < 0).any():
        raise InputError(
            "expected signal-to-noise ratios ≥ 0; got a negative or unknown one. Leave those out."
        )
    weights = 1.0 / (1.0 / counts + float(np.mean(ratio**2)))
    return weights / weights.mean()


def voxel_weights(noise_ceiling: np.ndarray) -> np.ndarray:
    """√NC of each voxel, (v,) float32; 0 where the ceiling is not known.

    Args:
        noise_ceiling: Share of variance that the stimulus explains, (v,), 0 to 1, NaN where not known.
    """
    ceiling = np.nan_to_num(np.asarray(noise_ceiling, np.float64), nan=0.0)
    return np.sqrt(np.clip(ceiling, 0.0, 1.0)).astype(np.float32)
