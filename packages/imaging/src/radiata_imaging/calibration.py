r"""Is a segmentation right as often as it says? Reliability in bins of confidence, and the expected calibration error.

Voxels are put into bins of their confidence (the probability of the winning label); in bin b the mean confidence is
c_b, the share that is right a_b, the share of voxels w_b:

$$ \mathrm{ECE} = \sum_b w_b |a_b - c_b|, \qquad \mathrm{MCE} = \max_b |a_b - c_b| $$

The bins are counted by MONAI, in pieces (its sums are float32, which cannot count past 2^24), and add up over cases.
Air is right and sure of it, and hides everything: give the voxels of the head, or those near a border.

References:
    C. Guo et al. (2017). On calibration of modern neural networks. arXiv:1706.04599, equations 3 and 5.
"""

from dataclasses import dataclass

import numpy as np
import torch

from radiata_core.errors import InputError

__all__ = ["Reliability", "reliability"]

_PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class Reliability:
    """Counts in bins of equal width on [0, 1].

    Attributes:
        count: Voxels, (bins,).
        confidence: Sum of their confidences, (bins,).
        correct: How many of them are right, (bins,).
    """

    count: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def __add__(self, other: "Reliability") -> "Reliability":
        """Bins of both sets of voxels together."""
        return Reliability(
            self.count + other.count, self.confidence + other.confidence, self.correct + other.correct
        )

    @property
    def mean_confidence(self) -> np.ndarray:
        """c_b; NaN in an empty bin."""
        return self.confidence / np.where(self.count > 0, self.count, np.nan)

    @property
    def accuracy(self) -> np.ndarray:
        """a_b; NaN in an empty bin."""
        return self.correct / np.where(self.count > 0, self.count, np.nan)

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]; NaN without voxels."""
        total = self.count.sum()
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")

    @property
    def mce(self) -> float:
        """Largest calibration error of a bin that is not empty, in [0, 1]; NaN without voxels."""
        gaps = np.abs(self.accuracy - self.mean_confidence)
        return float(np.nanmax(gaps)) if self.count.any() else float("nan")


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> Reliability:
    """Bins of voxels.

    Args:
        confidence: Probability of the label that was given, in [0, 1], any shape.
        correct: Whether it was the true one, booleans of the same shape.
        bins: Number of bins, >= 1.

    Raises:
        InputError: shapes that differ, or confidences outside [0, 1].
    """
    from monai.metrics.calibration import calibration_binning

    if confidence.shape != correct.shape or bins < 1:
        raise InputError(
            f"expected confidences and outcomes of one shape, and at least one bin; got {confidence.shape}, "
            f"{correct.shape} and {bins}."
        )
    if confidence.size and not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-5):
        raise InputError(
            f"expected confidences in [0, 1]; got {confidence.min():.4g} to {confidence.max():.4g}. Give probabilities."
        )
    p, y = confidence.reshape(-1), correct.reshape(-1)
    total = np.zeros((3, bins))
    for start in range(0, p.size, _PIECE):
        piece = [
            torch.from_numpy(np.ascontiguousarray(one[start : start + _PIECE], dtype=np.float32))[None, None]
            for one in (p, y)
        ]
        mean_p, mean_y, count = (
            one[0, 0].double().numpy() for one in calibration_binning(*piece, num_bins=bins)
        )
        total += np.stack([count, np.nan_to_num(mean_p) * count, np.nan_to_num(mean_y) * count])
    return Reliability(*total)
