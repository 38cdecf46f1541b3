r"""Operators of operators: one after another, several of the same image.

    Composition      A B x,                              (A B)^T y = B^T A^T y
    Stacked          (A_1 x, A_2 x, ...) side by side,   A^T A = sum of A_i^T A_i

Both are solved by conjugate gradients. Measurements with different noise belong together after division by their standard
deviations: `Stacked(Scaling(1 / sigma_1, ...) @ A_1, Scaling(1 / sigma_2, ...) @ A_2)`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator
from radiata_core.types import Measurement

__all__ = ["Composition", "Stacked"]


class Composition(LinearOperator):
    """First `inner`, then `outer`: also written `outer @ inner`.

    Args:
        outer: Of the measurements of `inner`.
        inner: Of the events.

    Raises:
        InputError: what comes out of the first does not fit the second.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        super().__init__(inner.event_shape, outer.measurement_shape, inner.device)
        between = inner.complex_measurement
        if outer.event_shape != inner.measurement_shape:
            raise InputError(
                f"expected the outer operator to take {inner.measurement_shape}, which the inner one gives; "
                f"got one for {outer.event_shape}. A @ B applies B first."
            )
        if None not in (between, outer.complex_event) and between != outer.complex_event:
            raise InputError(
                f"expected both operators real or both complex between them; got {inner} and {outer}. "
                "Make the outer one for complex events."
            )
        self.outer, self.inner = outer, inner
        follows = inner.complex_event is None and between is None
        self.complex_event = outer.complex_event if follows else inner.complex_event
        self.complex_measurement = between if outer.complex_measurement is None else outer.complex_measurement

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _normal(self, x: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._normal(self.inner._forward(x)))


class Stacked(LinearOperator):
    """Several measurements of one event as one vector, (batch, total); `split` takes it apart.

    Args:
        operators: At least one, for the same events; all measurements real, or all complex.

    Raises:
        InputError: they do not fit together.
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise InputError("expected at least one operator; got none. Stack measurements of one event.")
        shapes = {operator.event_shape for operator in operators}
        events = {operator.complex_event for operator in operators} - {None}
        measured = {operator.complex_measurement for operator in operators}
        if len(shapes) > 1 or len(events) > 1 or (len(measured) > 1 and measured != {None, *events}):
            raise InputError(
                "expected operators for the same events with all measurements real, or all complex; got "
                f"{', '.join(map(repr, operators))}. Make them for one shape and one kind of numbers."
            )
        self.operators = operators
        self.sizes = [_size(operator) for operator in operators]
        super().__init__(operators[0].event_shape, (sum(self.sizes),), operators[0].device)
        self.complex_event = next(iter(events), None)
        self.complex_measurement = next(iter(measured - {None}), None)

    def split(self, y: Measurement) -> list[Tensor]:
        """The measurement of each operator, (batch, *its measurement), out of the long vector.

        Raises:
            InputError: the vector has another length.
        """
        if tuple(y.shape[1:]) != self.measurement_shape:
            raise InputError(
                f"expected (batch, {self.measurement_shape[0]}); got {tuple(y.shape)}. Use join, or the operator."
            )
        parts = y.split(self.sizes, dim=1)
        return [
            part.reshape(len(y), *operator.measurement_shape)
            for part, operator in zip(parts, self.operators, strict=True)
        ]

    def join(self, measurements: Sequence[Tensor]) -> Measurement:
        """The long vector, (batch, total), of one measurement for each operator.

        Raises:
            InputError: their number or a shape is another.
        """
        shapes = [tuple(part.shape[1:]) for part in measurements]
        wanted = [operator.measurement_shape for operator in self.operators]
        if shapes != wanted:
            raise InputError(
                f"expected measurements of shapes {wanted}; got {shapes}. Give them in this order."
            )
        return torch.cat([part.flatten(1) for part in measurements], 1)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([operator._forward(x).flatten(1) for operator in self.operators], 1)

    def _adjoint(self, y: Tensor) -> Tensor:
        pairs = zip(self.operators, self.split(y), strict=True)
        return torch.stack([operator._adjoint(part) for operator, part in pairs]).sum(0)

    def _normal(self, x: Tensor) -> Tensor:
        return torch.stack([operator._normal(x) for operator in self.operators]).sum(0)


def _size(operator: LinearOperator) -> int:
    size = 1
    for length in operator.measurement_shape:
        size *= length
    return size
