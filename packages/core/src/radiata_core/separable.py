r"""Operators that are one small matrix along each axis, A = M_1 x M_2 x ... (Kronecker): slices, resampling, blur.

    M_a = U_a S_a V_a^T for each axis,      A^T A = V diag(l) V^T,      V = V_1 x V_2 x ...,      l = s_1^2 x s_2^2 x ...

An axis has a few hundred voxels, so its matrix is decomposed once in no time, and the whole operator, on a volume of any
number of axes and with any boundary, slice profile or rational factor, has its norm, pseudo-inverse and prox in closed form
at the price of two small matrix products an axis. Here is Gaussian blur with a boundary; `downsampling` has the rest.

References:
    Van Loan, "The ubiquitous Kronecker product", 2000, https://doi.org/10.1016/S0377-0427(00)00393-9.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from radiata_core.convolution import Boundary, continued, gaussian_kernel
from radiata_core.errors import InputError
from radiata_core.operators import SpectralOperator
from radiata_core.types import Signal

__all__ = ["Separable", "blur_matrix", "gaussian_blur"]


class Separable(SpectralOperator):
    """A matrix along each of the last axes.

    Args:
        matrices: (measured, voxels) each, real, finite; None: that axis stays. One for each axis of space.
        event_shape: Shape of one event, channels first.

    Raises:
        InputError: a matrix does not fit its axis.
    """

    def __init__(self, matrices: Sequence[Tensor | None], event_shape: Sequence[int]) -> None:
        space = tuple(event_shape)[len(event_shape) - len(matrices) :] if matrices else ()
        widths = [n if m is None else m.shape[-1] for m, n in zip(matrices, space, strict=False)]
        wrong = len(matrices) > len(event_shape) or any(m is not None and m.ndim != 2 for m in matrices)
        if not matrices or wrong or tuple(widths) != space:
            raise InputError(
                f"expected a matrix (measured, voxels) or None for each last axis of {tuple(event_shape)}; got "
                f"{[None if m is None else tuple(m.shape) for m in matrices]}. Order them as the axes."
            )
        heights = [n if m is None else m.shape[0] for m, n in zip(matrices, space, strict=True)]
        given = [m for m in matrices if m is not None]
        super().__init__(
            event_shape,
            (*tuple(event_shape)[: len(event_shape) - len(space)], *heights),
            given[0].device if given else "cpu",
        )
        self.axes = [i - len(space) for i, m in enumerate(matrices) if m is not None]
        self.values = torch.ones((1,) * len(space), dtype=torch.float64, device=self.device)
        for axis, matrix in zip(self.axes, given, strict=True):
            self._decompose(axis, matrix.double())

    def _decompose(self, axis: int, matrix: Tensor) -> None:
        if not bool(torch.isfinite(matrix).all()):
            raise InputError(f"expected finite numbers in the matrix of axis {axis}; got others. Check it.")
        _, s, v = torch.linalg.svd(matrix, full_matrices=True)
        squares = torch.cat([s.square(), s.new_zeros(matrix.shape[1] - len(s))])
        self.values = self.values * squares.reshape(-1, *(1,) * (-axis - 1))
        setattr(self, f"matrix{-axis}", matrix)
        setattr(self, f"basis{-axis}", v)  # V^T, (voxels, voxels)

    def _forward(self, x: Tensor) -> Tensor:
        for axis in self.axes:
            x = _along(x, axis, self._like(f"matrix{-axis}", x))
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        for axis in self.axes:
            y = _along(y, axis, self._like(f"matrix{-axis}", y).mT)
        return y

    def spectral(self, function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
        for axis in self.axes:
            x = _along(x, axis, self._like(f"basis{-axis}", x))
        values = self._like("values", x)
        x = function(values.reshape((1,) * (x.ndim - values.ndim) + values.shape)) * x
        for axis in self.axes:
            x = _along(x, axis, self._like(f"basis{-axis}", x).mT)
        return x

    @property
    def largest(self) -> float:
        return float(self.values.max())


def blur_matrix(kernel: Tensor, voxels: int, boundary: Boundary) -> Tensor:
    """Convolution along a line with a boundary as a matrix, (voxels, voxels), float64.

    Args:
        kernel: (k,), its middle at k // 2.
        voxels: Of the line.
        boundary: What lies beyond its ends.

    Raises:
        InputError: a mirror image is asked to reach further than the line.
    """
    half = len(kernel) // 2
    source = continued(voxels, half, half, boundary)
    matrix = torch.zeros(voxels, voxels, dtype=torch.float64)
    for j, weight in enumerate(kernel.tolist()):
        seen = source[torch.arange(voxels) + half + half - j]
        rows = (seen >= 0).nonzero()[:, 0]
        matrix.index_put_((rows, seen[rows]), torch.full((len(rows),), weight, dtype=torch.float64), True)
    return matrix


def gaussian_blur(
    sigma: Sequence[float | int], event_shape: Sequence[int], boundary: Boundary = Boundary.REFLECT
) -> Separable:
    """Gaussian blur with a boundary over the last axes, in closed form.

    Args:
        sigma: Standard deviation along each of the last axes in voxels, >= 0.
        event_shape: Shape of one event, channels first.
        boundary: What lies beyond the edge.

    Raises:
        InputError: sigma is negative, or reaches further than the image.
    """
    space = tuple(event_shape)[len(event_shape) - len(sigma) :]
    lines = [gaussian_kernel([s]) for s in sigma]
    matrices = [
        None if s == 0 else blur_matrix(line, n, boundary)
        for s, line, n in zip(sigma, lines, space, strict=True)
    ]
    return Separable(matrices, event_shape)


def _along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """The matrix times the lines along an axis."""
    matrix = matrix.to(x.dtype)  # complex images: a real matrix does not multiply them
    if axis == -2:
        return matrix @ x
    return (x.movedim(axis, -1) @ matrix.mT).movedim(-1, axis)
