r"""Motion during a scan: each block of phase-encode lines sees the head somewhere else.

    y = sum over shots s of  P_s E_s F R_s x

In shot s the head is turned by R_s and moved by d_s, and the lines P_s of k-space are read. A translation is a phase in
k-space, E_s = exp(-2 pi i k . d_s), exact for any fraction of a voxel. A rotation in a plane is three shears,

    R(theta) = S_a(-tan theta/2) S_b(sin theta) S_a(-tan theta/2),

each a shift of lines by a fraction of a voxel and so a phase in the Fourier transform along one axis. Shears, phases and F
are all unitary: the adjoint is exact, the norm is 1 at rest and at most the square root of the number of shots.
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

Shears = list[tuple[int, Tensor]]
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
        self._kept: dict[tuple[int, torch.device, torch.dtype], tuple[Shears, Tensor]] = {}
        self.lines = [(shots == shot).nonzero()[:, 0] for shot in range(count)]

    def _forward(self, x: Tensor) -> Tensor:
        image = x.to(x.dtype.to_complex())
        taken = []
        for shot, lines in enumerate(self.lines):
            shears, shift = self._placed(shot, image)
            turned = shift * to_kspace(_sheared(image, shears), self.axes)
            taken.append(turned.index_select(self.axis, lines.to(x.device)))
        order = torch.cat(self.lines).argsort().to(x.device)
        return self.masking._forward(torch.cat(taken, self.axis).index_select(self.axis, order))

    def _adjoint(self, y: Tensor) -> Tensor:
        kspace = self.masking._adjoint(y)
        image = torch.zeros_like(kspace)
        for shot, lines in enumerate(self.lines):
            shears, shift = self._placed(shot, kspace)
            own = torch.zeros(kspace.shape[self.axis], dtype=kspace.dtype.to_real(), device=y.device)
            own[lines.to(y.device)] = 1
            part = shift.conj() * kspace * own.reshape(-1, *(1,) * (-self.axis - 1))
            back = [(axis, phases.conj()) for axis, phases in reversed(shears)]
            image = image + _sheared(from_kspace(part, self.axes), back)
        return image.real if self.real else image

    def _placed(self, shot: int, like: Tensor) -> tuple[Shears, Tensor]:
        """The shears of a shot and the phases of its shift, exp(-2 pi i k . d), made once a precision and device."""
        key = shot, like.device, like.dtype
        if key in self._kept:
            return self._kept[key]
        turns = self.motion.turns[shot].double()
        shears = [
            shear
            for plane, degrees in zip(_PLANES[len(turns)], turns, strict=True)
            for shear in _shears(like, degrees, plane)
        ]
        shift = torch.zeros((), dtype=torch.float64, device=turns.device)
        for axis, distance in zip(self.axes, self.motion.shifts[shot].double(), strict=True):
            frequencies = torch.fft.fftshift(_frequencies(like.shape[axis], turns.device))
            shift = shift + (frequencies * distance).reshape(-1, *(1,) * (-axis - 1))
        placed = shears, _phases(shift, like)
        if not (self.motion.turns.requires_grad or self.motion.shifts.requires_grad):
            self._kept[key] = placed
        return placed


def rotated(image: Signal, degrees: Tensor | float | int, plane: tuple[int, int] = (-2, -1)) -> Signal:
    """The image turned around the middle of a plane by three shears, complex and periodic: unitary.

    Turning by -degrees undoes it, to rounding, and is its adjoint.

    Args:
        image: (batch, *event).
        degrees: Within 45, from the first axis of the plane to the second.
        plane: Two axes, from the end.
    """
    image = image.to(image.dtype.to_complex())
    angle = torch.as_tensor(degrees, dtype=torch.float64)
    return _sheared(image, _shears(image, angle, plane))


def _shears(like: Tensor, degrees: Tensor, plane: tuple[int, int]) -> Shears:
    """Three shears that are a rotation, each as an axis and phases in the Fourier transform along it."""
    if not degrees.requires_grad and float(degrees) == 0:
        return []
    theta = torch.deg2rad(degrees)
    found = []
    for along, across, slant in (
        (*plane, -torch.tan(theta / 2)),
        (*plane[::-1], torch.sin(theta)),
        (*plane, -torch.tan(theta / 2)),
    ):
        length = like.shape[across]
        moves = slant * (torch.arange(length, dtype=torch.float64, device=degrees.device) - (length - 1) / 2)
        frequencies = _frequencies(like.shape[along], degrees.device)
        turns = frequencies.reshape(-1, *(1,) * (-along - 1)) * moves.reshape(-1, *(1,) * (-across - 1))
        found.append((along, _phases(turns, like)))
    return found


def _sheared(image: Tensor, shears: Shears) -> Tensor:
    for axis, phases in shears:
        image = torch.fft.ifft(torch.fft.fft(image, dim=axis) * phases, dim=axis)
    return image


def _phases(turns: Tensor, like: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns).to(like.device, like.dtype)


def _frequencies(length: int, device: torch.device) -> Tensor:
    return torch.fft.fftfreq(length, dtype=torch.float64, device=device)


def shots_of_lines(lines: int, shots: int, *, interleaved: bool = False) -> Int[Tensor, "lines"]:
    """The shot that reads each line: in blocks from one side to the other, or in turn.

    Raises:
        InputError: not 1 <= shots <= lines.
    """
    if not 1 <= shots <= lines:
        raise InputError(f"expected 1 to {lines} shots; got {shots}. Each reads a line or more.")
    return torch.arange(lines) % shots if interleaved else torch.arange(lines) * shots // lines


def random_motion(
    shots: int, axes: int, generator: torch.Generator, *, shift: float | int = 2.0, turn: float | int = 3.0
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
