"""Shapes, named once. Axes: `batch` rows, `event` whatever one sample is (trace, image, volume, tokens).

Annotations are jaxtyping's; they are documentation at run time and are checked by beartype in the tests.
"""

from jaxtyping import Float
from torch import Tensor

Batch = Float[Tensor, "batch *event"]
Event = Float[Tensor, "*event"]
Row = Float[Tensor, "batch"]
Times = Float[Tensor, "times"]
Time = Float[Tensor, ""] | Float[Tensor, "batch"]
Scalar = Float[Tensor, ""]

__all__ = ["Batch", "Event", "Row", "Scalar", "Time", "Times"]
