r"""Operators that multiply: identity (denoising), a scale, a smooth bias field.

    A x = d * x,      A^T y = conj(d) y,      (A^T A + rho)^{-1} b = b / (|d|^2 + rho)

with d a number or a field of the shape of the image, the same for all channels. The field of a coil or of an inhomogeneous
magnet multiplies and is smooth; `bias_field` makes one from a few waves, b = exp(sum of c_k phi_k), which is linear in the
image for a given field and known to be positive.

References:
    Van Leemput et al., "Automated model-based bias field correction of MR images of the brain", 1999,
        https://doi.org/10.1109/42.811268 (few smooth basis functions, in the logarithm).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import SpectralOperator
from radiata_core.types import Signal

__all__ = ["Identity", "Multiplication", "Scaling", "bias_field", "smooth_waves"]


class Multiplication(SpectralOperator):
    """A field times the image, over its last axes: a bias field, weights.

    Args:
        field: Finite, real or complex, any number of axes up to that of the event; a complex one asks for complex events.
        event_shape: Shape of one event, channels first; its last axes are those of the field.

    Raises:
        InputError: the field has another shape, or is not finite.
    """

    def __init__(self, field: Tensor, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape, event_shape, field.device)
        if tuple(field.shape) != self.event_shape[len(self.event_shape) - field.ndim :]:
            raise InputError(
                f"expected a field of the last axes of {self.event_shape}; got {tuple(field.shape)}. Resample it."
            )
        if not bool(torch.isfinite(field.detach()).all()):
            raise InputError("expected a finite field; got NaN or infinity. Look at its coefficients.")
        self.field = field
        self.complex_event = self.complex_measurement = True if field.is_complex() else None

    def _forward(self, x: Tensor) -> Tensor:
        return self._like("field", x) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._like("field", y).conj() * y

    def spectral(self, function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
        values = self._like("field", x).abs().square()
        return function(values.reshape((1,) * (x.ndim - values.ndim) + values.shape)) * x

    @property
    def largest(self) -> float:
        return float(self.field.detach().abs().max()) ** 2


class Scaling(Multiplication):
    """A number times the image.

    Args:
        factor: Finite.
        event_shape: Shape of one event.
    """

    def __init__(self, factor: float | int, event_shape: Sequence[int]) -> None:
        super().__init__(torch.tensor(float(factor), dtype=torch.float64), event_shape)


class Identity(Scaling):
    """The image itself: denoising.

    Args:
        event_shape: Shape of one event.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(1.0, event_shape)

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y


def smooth_waves(shape: Sequence[int], order: int) -> Tensor:
    r"""Cosine waves of few periods on a grid, (wave, *shape), float64, the constant left out.

    Products over the axes of $\cos(\pi k (i + 1/2)/n)$ with $1 \le \sum k \le$ order, each of variance 1 over the grid.

    Args:
        shape: Of the grid.
        order: Largest sum of the k, >= 1: 3 gives 9 waves in the plane and 19 in space.

    Raises:
        InputError: the order is below 1.
    """
    if order < 1:
        raise InputError(f"expected an order >= 1; got {order}. Order 3 is a usual bias field.")
    counts = torch.cartesian_prod(*[torch.arange(order + 1)] * len(shape)).reshape(-1, len(shape))
    chosen = counts[(counts.sum(1) >= 1) & (counts.sum(1) <= order)]
    waves = torch.ones(len(chosen), *shape, dtype=torch.float64)
    for axis, length in enumerate(shape):
        k = chosen[:, axis, None].double()
        wave = torch.cos(math.pi * k * (torch.arange(length, dtype=torch.float64) + 0.5) / length)
        wave = wave * (1 + (k > 0).double()).sqrt()
        waves = waves * wave.reshape(len(chosen), *(length if i == axis else 1 for i in range(len(shape))))
    return waves


def bias_field(
    shape: Sequence[int], generator: torch.Generator, strength: float | int = 0.2, order: int = 3
) -> Tensor:
    """A smooth positive field b = exp(c . waves), of the given shape, float64; its logarithm has mean 0.

    Args:
        shape: Of the grid.
        generator: Of the coefficients: one field a generator.
        strength: Standard deviation of log b over the grid, >= 0; 0.2 is 20 %.
        order: Of `smooth_waves`.

    Raises:
        InputError: strength or order out of range.
    """
    if not 0 <= strength < math.inf:
        raise InputError(f"expected a strength >= 0; got {strength}. 0.2 is a usual one.")
    waves = smooth_waves(shape, order)
    coefficients = torch.randn(
        len(waves), generator=generator, dtype=torch.float64, device=generator.device
    ).cpu()
    logarithm = torch.tensordot(coefficients, waves, 1)
    logarithm = logarithm - logarithm.mean()
    return torch.exp(strength * logarithm / logarithm.square().mean().sqrt().clamp_min(1e-300))
