r"""Blur: convolution with a kernel, on a circle or with a boundary.

    (A x)_i = sum over j of k_j x_(i + c - j),      c the middle of the kernel

On a circle it is a product in Fourier space, A = F^H k̂ F, and everything has a closed form: A^T A has the eigenvalues
|k̂|^2. With a boundary the image is continued (by zeros, or by its mirror image with the edge voxel repeated), blurred on the
larger circle and cut to its size again, A = C F^H k̂ F P, whose adjoint P^T F^H k̂* F C^T folds the margin back. That has no
closed form, and is solved by conjugate gradients; a *separable* kernel with a boundary has one again, in
`separable.gaussian_blur`.

References:
    Hansen, Nagy & O'Leary, "Deblurring images: matrices, spectra and filtering", 2006,
        https://doi.org/10.1137/1.9780898718874, chapters 3 and 4 (boundaries, spectra).
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator, SpectralOperator
from radiata_core.types import Signal

__all__ = ["Boundary", "CircularBlur", "KernelBlur", "continued", "gaussian_kernel"]


class Boundary(StrEnum):
    """How an image goes on beyond its edge."""

    ZERO = "zero"
    REFLECT = "reflect"
    """The mirror image, with the edge voxel repeated: c b a | a b c."""


def gaussian_kernel(sigma: Sequence[float | int], reach: float | int = 4.0) -> Tensor:
    """A sampled Gaussian of sum 1, odd along each axis, float64.

    Args:
        sigma: Standard deviation along each axis in voxels, >= 0; 0: no blur along it.
        reach: Half-width of the kernel, in standard deviations, rounded up to voxels, > 0.

    Raises:
        InputError: sigma is negative, or there is none.
    """
    if not sigma or not all(0 <= s < math.inf for s in sigma) or not 0 < reach < math.inf:
        raise InputError(
            f"expected sigma >= 0 along each axis and a reach > 0; got {tuple(sigma)}, {reach}. In voxels: "
            "full width at half maximum / 2.355 / spacing."
        )
    kernel = torch.ones((1,) * len(sigma), dtype=torch.float64)
    for axis, s in enumerate(sigma):
        half = math.ceil(reach * s)
        at = torch.arange(-half, half + 1, dtype=torch.float64)
        line = torch.exp(-(at**2) / (2 * s * s)) if s > 0 else torch.ones(1, dtype=torch.float64)
        kernel = kernel * (line / line.sum()).reshape(*(-1 if i == axis else 1 for i in range(len(sigma))))
    return kernel


class CircularBlur(SpectralOperator):
    """Convolution on a circle over the last axes, in closed form.

    Args:
        kernel: Real, finite, not 0 everywhere, an axis for each axis of space, no longer than the image.
        event_shape: Shape of one event, channels first.

    Raises:
        InputError: the kernel does not fit.
    """

    def __init__(self, kernel: Tensor, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape, event_shape, kernel.device)
        space = _space(kernel, self.event_shape)
        if any(k > n for k, n in zip(kernel.shape, space, strict=True)):
            raise InputError(
                f"expected a kernel no longer than the image, {space}; got {tuple(kernel.shape)}. Cut it off."
            )
        self.kernel = kernel
        self.axes = tuple(range(-kernel.ndim, 0))
        self.transfer = _transfer(kernel, space)
        self.half = _halved(self.transfer)

    def _forward(self, x: Tensor) -> Tensor:
        return self._filtered(x, False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._filtered(y, True)

    def _filtered(self, x: Tensor, backwards: bool) -> Tensor:
        transfer = self._like("transfer" if x.is_complex() else "half", x)
        return _product(x, transfer.conj() if backwards else transfer, self.axes)

    def spectral(self, function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
        transfer = self._like("transfer" if x.is_complex() else "half", x)
        values = transfer.abs().square()
        return _product(x, function(values.reshape((1,) * (x.ndim - values.ndim) + values.shape)), self.axes)

    @property
    def largest(self) -> float:
        return float(self.transfer.abs().max()) ** 2


class KernelBlur(LinearOperator):
    """Convolution with a boundary over the last axes, of the size of the image.

    Args:
        kernel: Real, finite, not 0 everywhere, an axis for each axis of space.
        event_shape: Shape of one event, channels first.
        boundary: What lies beyond the edge.

    Raises:
        InputError: the kernel does not fit; a mirror image reaches no further than the image.
    """

    def __init__(
        self, kernel: Tensor, event_shape: Sequence[int], boundary: Boundary = Boundary.REFLECT
    ) -> None:
        super().__init__(event_shape, event_shape, kernel.device)
        space = _space(kernel, self.event_shape)
        self.kernel, self.boundary = kernel, Boundary(boundary)
        self.axes = tuple(range(-kernel.ndim, 0))
        self.sources = [
            continued(n, k // 2, k // 2, self.boundary) for n, k in zip(space, kernel.shape, strict=True)
        ]
        self.transfer = _transfer(kernel, [len(source) for source in self.sources])
        self.half = _halved(self.transfer)
        self.margins = [k // 2 for k in kernel.shape]

    def _forward(self, x: Tensor) -> Tensor:
        for axis, source in zip(self.axes, self.sources, strict=True):
            x = _taken(x, axis, source)
        x = self._filtered(x, False)
        for axis, margin, n in zip(self.axes, self.margins, self.event_shape[self.axes[0] :], strict=True):
            x = x.narrow(axis, margin, n)
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        for axis, margin in zip(self.axes, self.margins, strict=True):
            zeros = [0, 0] * (-axis - 1) + [margin, margin]
            y = torch.nn.functional.pad(y, zeros)
        y = self._filtered(y, True)
        for axis, source, n in zip(self.axes, self.sources, self.event_shape[self.axes[0] :], strict=True):
            y = _folded(y, axis, source, n)
        return y

    def _filtered(self, x: Tensor, backwards: bool) -> Tensor:
        transfer = self._like("transfer" if x.is_complex() else "half", x)
        return _product(x, transfer.conj() if backwards else transfer, self.axes)


def continued(length: int, before: int, after: int, boundary: Boundary) -> Tensor:
    """Where each voxel of a continued line comes from, (before + length + after,), int64; -1: it is 0.

    Args:
        length: Of the line.
        before: Voxels added at its low end, >= 0.
        after: Voxels added at its high end, >= 0.
        boundary: What they are.

    Raises:
        InputError: a mirror image is asked to reach further than the line.
    """
    at = torch.arange(-before, length + after)
    if boundary == Boundary.ZERO:
        return torch.where((at >= 0) & (at < length), at, -1)
    if max(before, after) > length:
        raise InputError(
            f"expected a kernel that reaches no further than the {length} voxels of the image; got "
            f"{max(before, after)}. Cut it off, or use Boundary.ZERO."
        )
    at = torch.where(at < 0, -1 - at, at)
    return torch.where(at >= length, 2 * length - 1 - at, at)


def _taken(x: Tensor, axis: int, source: Tensor) -> Tensor:
    taken = x.index_select(axis, source.clamp_min(0).to(x.device))
    inside = (source >= 0).to(x.device, x.dtype.to_real())
    return taken * inside.reshape(-1, *(1,) * (-axis - 1))


def _folded(y: Tensor, axis: int, source: Tensor, length: int) -> Tensor:
    kept = (source >= 0).nonzero()[:, 0]
    shape = list(y.shape)
    shape[axis] = length
    part = y.index_select(axis, kept.to(y.device))
    return y.new_zeros(shape).index_add(axis, source[kept].to(y.device), part)


def _space(kernel: Tensor, event_shape: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= kernel.ndim <= len(event_shape) or kernel.is_complex():
        raise InputError(
            f"expected a real kernel with an axis for each axis of space of {event_shape}; got {kernel.dtype} of "
            f"{tuple(kernel.shape)}. Channels are not blurred."
        )
    if not bool(torch.isfinite(kernel).all()) or not bool((kernel != 0).any()):
        raise InputError("expected a finite kernel that is not 0; got another. Normalise it to a sum of 1.")
    return event_shape[len(event_shape) - kernel.ndim :]


def _transfer(kernel: Tensor, space: Sequence[int]) -> Tensor:
    """The Fourier transform of the kernel with its middle at the origin of a circle, complex128."""
    padding = [
        number for n, k in zip(reversed(space), reversed(kernel.shape), strict=True) for number in (0, n - k)
    ]
    placed = torch.nn.functional.pad(kernel.double(), padding)
    placed = placed.roll([-(k // 2) for k in kernel.shape], tuple(range(kernel.ndim)))
    return torch.fft.fftn(placed)


def _halved(transfer: Tensor) -> Tensor:
    """The half of a spectrum that real images need."""
    return transfer[..., : transfer.shape[-1] // 2 + 1].contiguous()


def _product(x: Tensor, transfer: Tensor, axes: tuple[int, ...]) -> Tensor:
    if x.is_complex():
        return torch.fft.ifftn(transfer * torch.fft.fftn(x, dim=axes), dim=axes)
    sizes = [x.shape[axis] for axis in axes]
    return torch.fft.irfftn(transfer * torch.fft.rfftn(x, dim=axes), s=sizes, dim=axes)
