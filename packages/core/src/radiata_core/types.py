"""Shapes, named once. Axes: `batch` rows, `event` whatever one sample is (trace, image, volume, tokens).

Annotations are jaxtyping's; they are documentation at run time and are checked by beartype in the tests.
"""

from jaxtyping import Float, Inexact
from torch import Tensor

Batch = Float[Tensor, "batch *event"]
Signal = Inexact[Tensor, "batch *event"]
"""Samples that may be complex, as images of MRI are."""
Measurement = Inexact[Tensor, "batch *measurement"]
Event = Float[Tensor, "*event"]
Row = Float[Tensor, "batch"]
Times = Float[Tensor, "times"]
Time = Float[Tensor, ""] | Float[Tensor, "batch"]
Scalar = Float[Tensor, ""]

__all__ = ["Batch", "Event", "Measurement", "Row", "Scalar", "Signal", "Time", "Times"]
