r"""Motion during a scan: each block of phase-encode lines sees the head somewhere else.

    y = sum over shots s of  P_s E_s F R_s x

In shot s the head is turned by R_s and moved by d_s, and the lines P_s of k-space are read. A translation is a phase in
k-space, E_s = exp(-2 pi i k . d_s), exact for any fraction of a voxel. A rotation in a plane is three shears,

    R(theta) = S_a(-tan theta/2) S_b(sin theta) S_a(-tan theta/2),

each a shift of lines by a fraction of a voxel and so a phase in the Fourier transform along one axis. Shears, phases and F
are all unitary: the adjoint is exact, the norm is near 1, and a shot without its lines can be turned back without loss.
Everything is periodic: an image needs an empty margin as wide as it moves. Images are complex, or real (the adjoint ends in
a real part).

The motion is given; estimating it alternates between solving for the image and for the motion, through which this is
differentiable too.

References:
    Unser, Thévenaz & Yaroslavsky, "Convolution-based interpolation for fast, high-quality rotation of images", 1995,
        https://doi.org/10.1109/83.465105 (three shears).
    Cordero-Grande et al., "Sensitivity encoding for aligned multishot magnetic resonance reconstruction", 2016,
        https://doi.org/10.1109/TCI.2016.2557069 (this model, with these rotations).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import from_kspace, to_kspace
from radiata_core.masking import Masking
from radiata_core.operators import LinearOperator
from radiata_core.types import Signal

__all__ = ["Motion", "MovingSampling", "random_motion", "rotated", "shots_of_lines"]

_PLANES = {1: ((-2, -1),), 3: ((-2, -1), (-1, -3), (-3, -2))}
"""Planes of rotation: the one of an image; around the first, second and third axis of a volume."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the head is in each shot.

    Attributes:
        shifts: In voxels, an axis of space each, (shots, 2 or 3).
        turns: In degrees, within 45: in the plane, (shots, 1), or around each axis, the first first, (shots, 3).

    Raises:
        InputError: shapes do not fit, or a turn is too large.
    """

    shifts: Float[Tensor, "shots axes"]
    turns: Float[Tensor, "shots turns"]

    def __post_init__(self) -> None:
        expected = {2: 1, 3: 3}.get(self.shifts.shape[1])
        if len(self.shifts) < 1 or tuple(self.turns.shape) != (len(self.shifts), expected):
            raise InputError(
                "expected shifts (shots, 2) with turns (shots, 1), or (shots, 3) with (shots, 3); got "
                f"{tuple(self.shifts.shape)} and {tuple(self.turns.shape)}. One row a shot."
            )
        if not bool(torch.isfinite(self.shifts).all()) or not bool((self.turns.abs() <= 45).all()):
            raise InputError(
                "expected finite shifts and turns within 45 degrees; got others. Turn the image before the scan."
            )


class MovingSampling(LinearOperator):
    """K-space of a head that moves, (channel, samples).

    Args:
        motion: Of each shot.
        shots: Which shot reads each line, (lines,), zero frequency in the middle.
        event_shape: Shape of one event, channels first.
        axis: The phase-encode axis, from the end: lines lie across it.
        mask: True where k-space is measured, over the axes of space; None: everywhere.
        real: The image is real.

    Raises:
        InputError: shapes do not fit, or a line belongs to no shot.
    """

    def __init__(
        self,
        motion: Motion,
        shots: Tensor,
        event_shape: Sequence[int],
        *,
        axis: int = -2,
        mask: Tensor | None = None,
        real: bool = False,
    ) -> None:
        shape, axes = tuple(event_shape), motion.shifts.shape[1]
        if not -min(axes, len(shape)) <= axis < 0 or tuple(shots.shape) != (shape[axis],):
            raise InputError(
                f"expected an axis from {-axes} to -1 and a shot for each of its lines in {shape}; got axis {axis} and "
                f"{tuple(shots.shape)}. Use shots_of_lines."
            )
        count = len(motion.shifts)
        if shots.dtype != torch.int64 or not bool(((shots >= 0) & (shots < count)).all()):
            raise InputError(
                f"expected shots as whole numbers from 0 to {count - 1}; got others. Motion has a row a shot."
            )
        mask = torch.ones(shape[-axes:], dtype=torch.bool, device=shots.device) if mask is None else mask
        self.masking = Masking(mask, shape)
        if mask.ndim != axes:
            raise InputError(f"expected a mask over {axes} axes; got {mask.ndim}. Repeat it along the lines.")
        super().__init__(shape, self.masking.measurement_shape, shots.device)
        self.motion, self.axis, self.axes, self.real = motion, axis, tuple(range(-axes, 0)), real
        self.complex_event, self.complex_measurement = not real, True
        self.lines = [(shots == shot).nonzero()[:, 0] for shot in range(count)]

    def _forward(self, x: Tensor) -> Tensor:
        image = x.to(x.dtype.to_complex())
        parts = [
            self._phases(shot, image) * to_kspace(self._turned(image, shot, False), self.axes)
            for shot in range(len(self.lines))
        ]
        taken = [p.index_select(self.axis, n.to(p.device)) for p, n in zip(parts, self.lines, strict=True)]
        order = torch.cat(self.lines).argsort().to(x.device)
        return self.masking._forward(torch.cat(taken, self.axis).index_select(self.axis, order))

    def _adjoint(self, y: Tensor) -> Tensor:
        kspace = self.masking._adjoint(y)
        image = torch.zeros_like(kspace)
        for shot, lines in enumerate(self.lines):
            own = torch.zeros(kspace.shape[self.axis], dtype=kspace.dtype.to_real(), device=y.device)
            own[lines.to(y.device)] = 1
            part = self._phases(shot, kspace).conj() * kspace * own.reshape(-1, *(1,) * (-self.axis - 1))
            image = image + self._turned(from_kspace(part, self.axes), shot, True)
        return image.real if self.real else image

    def _phases(self, shot: int, like: Tensor) -> Tensor:
        """exp(-2 pi i k . d) on the grid of k-space, zero frequency in the middle."""
        turns = torch.zeros((), dtype=torch.float64, device=like.device)
        for axis, shift in zip(self.axes, self.motion.shifts[shot].to(like.device).double(), strict=True):
            frequencies = torch.fft.fftshift(_frequencies(like.shape[axis], like))
            turns = turns + (frequencies * shift).reshape(-1, *(1,) * (-axis - 1))
        return torch.polar(torch.ones_like(turns), -2 * math.pi * turns).to(like.dtype)

    def _turned(self, image: Tensor, shot: int, back: bool) -> Tensor:
        turns = self.motion.turns[shot].to(image.device).double()
        pairs = list(zip(_PLANES[len(turns)], turns, strict=True))
        for plane, degrees in reversed(pairs) if back else pairs:
            image = rotated(image, -degrees if back else degrees, plane)
        return image


def rotated(image: Signal, degrees: Tensor | float, plane: tuple[int, int] = (-2, -1)) -> Signal:
    """The image turned around the middle of a plane by three shears, complex and periodic: unitary, and undone by -degrees.

    Args:
        image: (batch, *event).
        degrees: Within 45, from the first axis of the plane to the second.
        plane: Two axes, from the end.
    """
    theta = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64, device=image.device))
    first, second = plane
    slant = -torch.tan(theta / 2)
    image = image.to(image.dtype.to_complex())
    if not theta.requires_grad and float(theta) == 0:
        return image
    image = _sheared(image, first, second, slant)
    image = _sheared(image, second, first, torch.sin(theta))
    return _sheared(image, first, second, slant)


def _sheared(image: Tensor, along: int, across: int, slant: Tensor) -> Tensor:
    """Line b across moves by slant (b - middle) voxels along."""
    length = image.shape[across]
    moves = slant * (torch.arange(length, dtype=torch.float64, device=image.device) - (length - 1) / 2)
    frequencies = _frequencies(image.shape[along], image)
    turns = frequencies.reshape(-1, *(1,) * (-along - 1)) * moves.reshape(-1, *(1,) * (-across - 1))
    phases = torch.polar(torch.ones_like(turns), -2 * math.pi * turns).to(image.dtype)
    return torch.fft.ifft(torch.fft.fft(image, dim=along) * phases, dim=along)


def _frequencies(length: int, like: Tensor) -> Tensor:
    return torch.fft.fftfreq(length, dtype=torch.float64, device=like.device)


def shots_of_lines(lines: int, shots: int, *, interleaved: bool = False) -> Int[Tensor, "lines"]:
    """The shot that reads each line: in blocks from one side to the other, or in turn.

    Raises:
        InputError: not 1 <= shots <= lines.
    """
    if not 1 <= shots <= lines:
        raise InputError(f"expected 1 to {lines} shots; got {shots}. Each reads a line or more.")
    return torch.arange(lines) % shots if interleaved else torch.arange(lines) * shots // lines


def random_motion(
    shots: int, axes: int, generator: torch.Generator, *, shift: float = 2.0, turn: float = 3.0
) -> Motion:
    """A random place for each shot, the first one at rest.

    Args:
        shots: >= 1.
        axes: 2 or 3.
        generator: Of the motion.
        shift: Standard deviation along each axis in voxels, >= 0.
        turn: Standard deviation of each angle in degrees, >= 0; cut at 45.

    Raises:
        InputError: a number out of range.
    """
    if shots < 1 or axes not in (2, 3) or not (shift >= 0 and turn >= 0):
        raise InputError(
            f"expected a shot or more, 2 or 3 axes, shift and turn >= 0; got {shots}, {axes}, {shift}, {turn}. "
            "In voxels and degrees."
        )
    size = (shots, axes + (1 if axes == 2 else 3))
    drawn = torch.randn(size, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    drawn[0] = 0
    return Motion(shift * drawn[:, :axes], (turn * drawn[:, axes:]).clamp(-45, 45))
