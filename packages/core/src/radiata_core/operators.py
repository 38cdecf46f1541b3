r"""Linear operators: what a scanner, a mask or a blur does to an image, with everything that inverting it needs.

A measurement is y = A x + noise. An operator A maps (batch, *event) to (batch, *measurement) and answers six questions:

    A(x)                      the measurement without noise
    A.adjoint(y)              A^T y, where Re <A x, y> = Re <x, A^T y>
    A.norm                    the largest singular value
    A.pseudo_inverse(y)       A^+ y, of all that fit y best the one of least norm
    A.solve(b, rho)           (A^T A + rho I)^{-1} b
    A.prox(x, y, rho)         argmin over z of |A z - y|^2 / 2 + rho |z - x|^2 / 2

In closed form where there is one. It then comes from one method: a `SpectralOperator` knows f(A^T A) x for functions f of
the squared singular values l,

    f(A^T A) x = V f(l) V^T x;       solve: f = 1 / (l + rho),     pseudo-inverse: f = 1/l (0 where l is 0), then A^T,

with V the pixels (masks), the waves (blur, k-space) or a small basis for each axis (slices). Everything else is solved by
`conjugate_gradients`. Operators compose, `A @ B`, and stack (`operator_algebra`).

Images may be real or complex, and so may measurements; the inner product is always the real one, so the adjoint of an
operator from real images to complex k-space ends in a real part. An operator holds its tensors as they were given and
follows the dtype (float32 or float64) and the device of what it is called with. Everything is differentiable.

References:
    Hansen, "Discrete inverse problems: insight and algorithms", 2010, https://doi.org/10.1137/1.9780898718836,
        chapters 3 and 4 (singular values, ridge solutions).
    Parikh & Boyd, "Proximal algorithms", 2014, https://doi.org/10.1561/2400000003, section 1.1 (prox).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from jaxtyping import Inexact
from torch import Tensor

from radiata_core.conjugate_gradients import least_norm_solve, ridge_solve
from radiata_core.errors import InputError
from radiata_core.lanczos import largest_eigenvalue
from radiata_core.types import Measurement, Signal

__all__ = ["LinearOperator", "SpectralOperator"]


class LinearOperator(ABC):
    """A linear map of events to measurements.

    Args:
        event_shape: Shape of one event, channels first: (channel, x, y), say.
        measurement_shape: Shape of its measurement.
        device: Where the operator's own tensors are, and `norm` is computed.

    Attributes:
        complex_event: Whether events are complex; None: either, and the measurement is like the event.
        complex_measurement: Whether measurements are complex; None: like the event.
        tolerance: Of the relative residual of conjugate gradients; None: 1e-10 in double precision, 1e-5 in single.
        iterations: Of conjugate gradients, at most.
        norm_tolerance: Relative error of a `norm` that is not known exactly; it is then from below, in single precision.
    """

    complex_event: bool | None = None
    complex_measurement: bool | None = None
    tolerance: float | None = None
    iterations: int = 200
    norm_tolerance: float = 1e-3

    def __init__(
        self,
        event_shape: Sequence[int],
        measurement_shape: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self.event_shape, self.measurement_shape = tuple(event_shape), tuple(measurement_shape)
        self.device = torch.device(device)
        self._cache: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        if min(self.event_shape, default=0) < 1:
            raise InputError(
                f"expected the shape of an event, numbers >= 1, channels first; got {self.event_shape}. "
                "Give x.shape[1:]."
            )

    # What a family of operators says ------------------------------------------------------------------------------------

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """A x, of a checked event."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """A^T y, of a checked measurement."""

    def _norm(self) -> float:
        """The largest singular value; by Lanczos' recursion where no closed form overrides it."""
        dtype = torch.complex64 if self.complex_event else torch.float32
        generator = torch.Generator().manual_seed(0)
        start = torch.randn((1, *self.event_shape), generator=generator, dtype=dtype).to(self.device)
        return math.sqrt(largest_eigenvalue(self._normal, start, self.norm_tolerance))

    def _normal(self, x: Tensor) -> Tensor:
        """A^T A x, of a checked event."""
        return self._adjoint(self._forward(x))

    def _solve(self, b: Tensor, rho: Tensor, start: Tensor | None) -> Tensor:
        """(A^T A + rho I)^{-1} b, of checked input; rho has as many axes as b."""
        return ridge_solve(
            self._normal, b, rho, start=start, tolerance=self.tolerance, iterations=self.iterations
        )

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        """A^+ y, of a checked measurement."""
        return least_norm_solve(
            self._normal, self._adjoint(y), tolerance=self.tolerance, iterations=self.iterations
        )

    # What everybody calls -----------------------------------------------------------------------------------------------

    def __call__(self, x: Signal) -> Measurement:
        """The measurement A x, (batch, *measurement).

        Raises:
            InputError: x is no batch of events of this operator.
        """
        _check(x, self.event_shape, self.complex_event, "events")
        return self._forward(x)

    def adjoint(self, y: Measurement) -> Signal:
        """A^T y, (batch, *event).

        Raises:
            InputError: y is no batch of measurements of this operator.
        """
        _check(y, self.measurement_shape, self.complex_measurement, "measurements")
        return self._adjoint(y)

    @cached_property
    def norm(self) -> float:
        """The largest singular value, >= 0: exact where it is known, else from below, to `norm_tolerance`."""
        return self._norm()

    def normal(self, x: Signal) -> Signal:
        """A^T A x, (batch, *event)."""
        _check(x, self.event_shape, self.complex_event, "events")
        return self._normal(x)

    def solve(self, b: Signal, rho: float | int | Tensor, *, start: Tensor | None = None) -> Signal:
        """(A^T A + rho I)^{-1} b, (batch, *event).

        Args:
            b: Right-hand side, (batch, *event).
            rho: Weight of the identity, > 0, a number or one a row, (batch,).
            start: First guess of conjugate gradients; closed forms need none.

        Raises:
            InputError: shapes do not fit, or rho is not positive.
        """
        _check(b, self.event_shape, self.complex_event, "events")
        if start is not None and start.shape != b.shape:
            raise InputError(
                f"expected a start of the shape {tuple(b.shape)}; got {tuple(start.shape)}. "
                "Leave it out to start at 0."
            )
        return self._solve(b, _weights(rho, b), start)

    def prox(self, x: Signal, y: Inexact[Tensor, "rows *measurement"], rho: float | int | Tensor) -> Signal:
        """argmin over z of |A z - y|^2 / 2 + rho |z - x|^2 / 2, (batch, *event).

        It is x + (A^T A + rho I)^{-1} A^T (y - A x), which conjugate gradients start at x. With noise of standard deviation
        sigma in y and a prior N(x, r^2) it is the posterior mean for rho = sigma^2 / r^2.

        Args:
            x: Where to stay near, (batch, *event).
            y: The measurement, (batch, *measurement), or (1, *measurement) for all rows.
            rho: Weight of staying, > 0, a number or one a row, (batch,).

        Raises:
            InputError: shapes do not fit, or rho is not positive.
        """
        _check(x, self.event_shape, self.complex_event, "events")
        _check(y, self.measurement_shape, self.complex_measurement, "measurements")
        if len(y) not in (1, len(x)):
            raise InputError(
                f"expected one measurement a row, {len(x)}, or one for all; got {len(y)}. Repeat x or y."
            )
        return x + self._solve(self._adjoint(y - self._forward(x)), _weights(rho, x), None)

    def pseudo_inverse(self, y: Measurement) -> Signal:
        """A^+ y, (batch, *event): the least-squares solution of least norm.

        Without a closed form it comes from conjugate gradients; of an ill-conditioned operator their tolerance, and the
        number of `iterations`, leave the faintest directions out.

        Raises:
            InputError: y is no batch of measurements of this operator.
        """
        _check(y, self.measurement_shape, self.complex_measurement, "measurements")
        return self._pseudo_inverse(y)

    def __matmul__(self, inner: "LinearOperator") -> "LinearOperator":
        """First `inner`, then this operator.

        Raises:
            InputError: what comes out of the first does not fit the second.
        """
        from radiata_core.operator_algebra import Composition

        return Composition(self, inner)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.event_shape} -> {self.measurement_shape})"

    def _like(self, name: str, x: Tensor) -> Tensor:
        """The operator's tensor of that name on the device and in the precision of x, converted once."""
        held: Tensor = getattr(self, name)
        dtype = x.dtype.to_real()
        dtype = dtype.to_complex() if held.is_complex() else dtype
        if held.requires_grad or (held.device == x.device and held.dtype == dtype):
            return held.to(x.device, dtype)
        key = (name, x.device, dtype)
        if key not in self._cache:
            self._cache[key] = held.to(x.device, dtype)
        return self._cache[key]


class SpectralOperator(LinearOperator):
    """An operator whose singular vectors are known, so that norm, solve and pseudo-inverse have closed forms."""

    @abstractmethod
    def spectral(self, function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
        """f(A^T A) x = V f(l) V^T x, (batch, *event).

        Args:
            function: Of the eigenvalues l >= 0 of A^T A, a tensor with as many axes as x, the first of size 1; it answers
                with real numbers that broadcast with it, the first axis 1 or batch.
            x: (batch, *event).
        """

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest eigenvalue of A^T A."""

    def _norm(self) -> float:
        return math.sqrt(self.largest)

    def _solve(self, b: Tensor, rho: Tensor, start: Tensor | None) -> Tensor:
        return self.spectral(lambda values: 1 / (values + rho), b)

    def _pseudo_inverse(self, y: Tensor) -> Tensor:
        """Singular values below the rounding of the largest count as 0."""
        elements = max(math.prod(self.event_shape), math.prod(self.measurement_shape))
        floor = (elements * torch.finfo(y.dtype).eps) ** 2 * self.largest

        def inverse(values: Tensor) -> Tensor:
            kept = values > floor
            return torch.where(kept, 1 / torch.where(kept, values, 1), 0)

        return self.spectral(inverse, self._adjoint(y))


def _check(x: Tensor, shape: tuple[int, ...], is_complex: bool | None, what: str) -> None:
    if x.shape[1:] != shape or x.ndim != len(shape) + 1:
        raise InputError(
            f"expected {what} of shape (batch, {', '.join(map(str, shape))}); got {tuple(x.shape)}. "
            "Make the operator for this shape, or add the axis of the batch."
        )
    if not (x.is_floating_point() or x.is_complex()) or x.is_complex() not in (
        is_complex,
        x.is_complex() if is_complex is None else is_complex,
    ):
        kind = {None: "real or complex", True: "complex", False: "real"}[is_complex]
        raise InputError(f"expected {kind} {what}; got {x.dtype}. Convert them, or make the operator for it.")


def _weights(rho: float | int | Tensor, x: Tensor) -> Tensor:
    """rho with as many axes as x, (1 or batch, 1, ..., 1), in its real precision."""
    weights = torch.as_tensor(rho, dtype=x.dtype.to_real(), device=x.device)
    if weights.ndim > 1 or (weights.ndim == 1 and len(weights) not in (1, len(x))):
        raise InputError(
            f"expected rho as a number or one a row, {len(x)}; got the shape {tuple(weights.shape)}. Give one of both."
        )
    if not bool((weights > 0).all()):
        raise InputError(
            f"expected rho > 0; got {float(weights.min())}. For data without noise use pseudo_inverse."
        )
    return weights.reshape(-1, *(1,) * (x.ndim - 1))
