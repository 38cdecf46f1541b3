r"""Accelerated MRI: some samples of k-space, by one coil or by several.

    one coil        y = M F x                  A^T y = F^H M^T y
    several         y_c = M F (S_c x)          A^T y = sum over c of S_c^* F^H M^T y_c

F is the orthonormal Fourier transform over the axes of space, M keeps the samples of a mask, S_c is the sensitivity of coil
c. Masks have the zero frequency in the middle, at n // 2, as pictures of k-space do; voxel 0 is the origin of the image, so
k-space of a file that counts from the middle differs by signs. Noise is white in k-space: sigma in the real and in the
imaginary part.

Images are complex, or real (`real=True`): a prior of magnitude images then meets complex data, the adjoint takes the real
part, and A^T A = F^H (m(k) + m(-k))/2 F, since a sample at k says as much about -k. One coil is thus in closed form either
way, with norm 1 (or sqrt(1/2), where no measured k has its -k). Several coils are solved by conjugate gradients; with
sum |S_c|^2 = 1 their norm is at most 1.

References:
    Pruessmann et al., "SENSE: sensitivity encoding for fast MRI", 1999, and "Advances in sensitivity encoding with arbitrary
        k-space trajectories", 2001, https://doi.org/10.1002/mrm.1241 (conjugate gradients).
    Lustig, Donoho & Pauly, "Sparse MRI", 2007, https://doi.org/10.1002/mrm.21391.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.masking import Masking
from radiata_core.operators import LinearOperator, SpectralOperator
from radiata_core.types import Measurement, Signal

__all__ = ["FourierSampling", "MultiCoilSampling", "coil_sensitivities", "from_kspace", "to_kspace"]


def to_kspace(image: Signal, axes: Sequence[int]) -> Tensor:
    """The orthonormal Fourier transform over these axes with the zero frequency in the middle, n // 2, complex."""
    return torch.fft.fftshift(torch.fft.fftn(image, dim=tuple(axes), norm="ortho"), dim=tuple(axes))


def from_kspace(kspace: Signal, axes: Sequence[int]) -> Tensor:
    """The inverse, and adjoint, of `to_kspace`, complex."""
    return torch.fft.ifftn(torch.fft.ifftshift(kspace, dim=tuple(axes)), dim=tuple(axes), norm="ortho")


class _KSpace(LinearOperator):
    """What both have: a mask over the last axes, complex measurements, images that are real or complex."""

    def __init__(self, mask: Tensor, event_shape: Sequence[int], coils: tuple[int, ...], real: bool) -> None:
        leading = len(event_shape) - mask.ndim
        self.masking = Masking(mask, (*tuple(event_shape)[: max(leading, 0)], *coils, *mask.shape))
        if leading < 0 or tuple(event_shape)[leading:] != tuple(mask.shape):
            raise InputError(
                f"expected a mask of the last axes of {tuple(event_shape)}; got {tuple(mask.shape)}. "
                "A mask of lines is repeated along the line."
            )
        super().__init__(event_shape, self.masking.measurement_shape, mask.device)
        self.mask, self.real, self.axes = mask, real, tuple(range(-mask.ndim, 0))
        self.complex_event, self.complex_measurement = not real, True

    def observe(self, kspace: Signal) -> Measurement:
        """The samples of a whole k-space, zero frequency in the middle: what a file holds becomes a measurement."""
        return self.masking.observe(kspace)

    def fill(self, y: Measurement) -> Signal:
        """The whole k-space with zeros where nothing was measured."""
        return self.masking.adjoint(y)

    def _part(self, x: Tensor) -> Tensor:
        return x.real if self.real else x


class FourierSampling(_KSpace, SpectralOperator):
    """Samples of the k-space of an image, (channel, samples), in closed form.

    Args:
        mask: True where measured, over the last axes, zero frequency in the middle.
        event_shape: Shape of one event, channels first.
        real: The image is real.

    Raises:
        InputError: the mask is of another shape or type, or measures nothing.
    """

    def __init__(self, mask: Tensor, event_shape: Sequence[int], *, real: bool = False) -> None:
        super().__init__(mask, event_shape, (), real)
        weights = torch.fft.ifftshift(mask.double())
        if real:
            mirrored = weights.flip(self.axes).roll([1] * mask.ndim, self.axes)
            weights = (weights + mirrored) / 2
        self.weights = weights
        self.half = weights[..., : mask.shape[-1] // 2 + 1].contiguous()

    def _forward(self, x: Tensor) -> Tensor:
        return self.masking._forward(to_kspace(x, self.axes))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._part(from_kspace(self.masking._adjoint(y), self.axes))

    def _normal(self, x: Tensor) -> Tensor:
        return self.spectral(lambda values: values, x)

    def spectral(self, function: Callable[[Tensor], Tensor], x: Signal) -> Signal:
        values = self._like("half" if self.real else "weights", x)
        factor = function(values.reshape((1,) * (x.ndim - values.ndim) + values.shape))
        if self.real:
            sizes = [x.shape[axis] for axis in self.axes]
            return torch.fft.irfftn(factor * torch.fft.rfftn(x, dim=self.axes), s=sizes, dim=self.axes)
        return torch.fft.ifftn(factor * torch.fft.fftn(x, dim=self.axes), dim=self.axes)

    @property
    def largest(self) -> float:
        return float(self.weights.max())


class MultiCoilSampling(_KSpace):
    """Samples of the k-space of an image as several coils see it, (channel, coil, samples).

    Args:
        mask: True where measured, over the last axes, zero frequency in the middle, the same for all coils.
        sensitivities: Of the coils, complex, (coil, *space).
        event_shape: Shape of one event, channels first.
        real: The image is real.

    Raises:
        InputError: mask or sensitivities do not fit.
    """

    def __init__(
        self, mask: Tensor, sensitivities: Tensor, event_shape: Sequence[int], *, real: bool = False
    ) -> None:
        if tuple(sensitivities.shape[1:]) != tuple(mask.shape) or len(sensitivities) < 1:
            raise InputError(
                f"expected sensitivities (coil, {', '.join(map(str, mask.shape))}), as the mask; got "
                f"{tuple(sensitivities.shape)}. One map a coil, on the grid of the image."
            )
        if not sensitivities.is_complex() or not bool(torch.isfinite(sensitivities).all()):
            raise InputError(
                f"expected finite complex sensitivities; got {sensitivities.dtype}. A real map has phase 0."
            )
        super().__init__(mask, event_shape, (len(sensitivities),), real)
        self.sensitivities = sensitivities

    def _forward(self, x: Tensor) -> Tensor:
        maps = self._like("sensitivities", x)
        return self.masking._forward(to_kspace(maps * x.unsqueeze(-1 - self.mask.ndim), self.axes))

    def _adjoint(self, y: Tensor) -> Tensor:
        maps = self._like("sensitivities", y)
        images = from_kspace(self.masking._adjoint(y), self.axes)
        return self._part((maps.conj() * images).sum(-1 - self.mask.ndim))


def coil_sensitivities(
    shape: Sequence[int], coils: int, *, distance: float | int = 1.2, width: float | int = 0.5
) -> Tensor:
    """Simulated smooth sensitivities, (coil, *space), complex128, with sum over coils of |S|^2 = 1 everywhere.

    Coils stand on a circle around the last two axes (in space alternately before and behind the middle of the first), each
    with a Lorentzian fall-off of its magnitude and a phase of its own that turns by a radian across a half-width. They are
    smooth and different, and no model of a real array.

    Args:
        shape: Of the grid, two or more axes.
        coils: Their number, >= 1.
        distance: Of a coil from the middle, in half-widths of the grid, > 0.
        width: Of the fall-off, in half-widths of the grid, > 0.

    Raises:
        InputError: a number is out of range.
    """
    if len(shape) < 2 or coils < 1 or not (distance > 0 and width > 0):
        raise InputError(
            f"expected two or more axes, a coil or more, distance and width > 0; got {tuple(shape)}, {coils}, "
            f"{distance}, {width}. Eight coils at 1.2 are usual."
        )
    lines = [(2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n for n in shape]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    maps = []
    for coil in range(coils):
        angle = torch.tensor(2 * torch.pi * coil / coils, dtype=torch.float64)
        at = torch.zeros(len(shape), dtype=torch.float64)
        at[-2], at[-1] = distance * angle.cos(), distance * angle.sin()
        if len(shape) > 2:
            at[0] = 0.5 * (-1) ** coil
        away = places - at
        magnitude = 1 / (1 + away.square().sum(-1) / width**2)
        phase = angle + places[..., -2] * angle.cos() + places[..., -1] * angle.sin()
        maps.append(torch.polar(magnitude, phase))
    stacked = torch.stack(maps)
    return stacked / stacked.abs().square().sum(0, keepdim=True).sqrt()
