r"""The logarithm of the mean squared error of each row, as a loss: decibels, on average over unlike problems.

10 log10 of it is minus the peak signal-to-noise ratio, but for a constant. A mean over rows of squared errors is a mean over
those rows that are hard; a mean of logarithms is what a table of decibels averages.
"""

import math
from dataclasses import dataclass

import torch

from radiata_core.errors import InputError
from radiata_core.specs import buildable
from radiata_core.types import Batch, Row

__all__ = ["LogSquaredError"]


@buildable("log-squared-error")
@dataclass(frozen=True)
class LogSquaredError:
    """log(mean squared error + floor) of each row: the peak signal-to-noise ratio as a loss.

    Operators differ by a hundred in the error that they leave, and a mean of squared errors hears the worst of them only.
    The gradient of the logarithm is that of the squared error over the squared error, so every row counts alike.

    Attributes:
        floor: Squared error below which a row counts less (an empty slice), in squared units of the data, > 0.
    """

    floor: float | int = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.floor < math.inf:
            raise InputError(f"expected a floor > 0; got {self.floor}. 1e-4 suits data of order 1.")

    def __call__(self, prediction: Batch, target: Batch) -> Row:
        fine = torch.promote_types(target.dtype, torch.float32)
        return ((prediction.to(fine) - target.to(fine)).square().flatten(1).mean(1) + self.floor).log()
