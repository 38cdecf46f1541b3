r"""Which samples of k-space a fast scan measures: lines, points in a plane, spokes.

Masks are Bool on the grid of the image, True where measured, with the zero frequency in the middle, at n // 2, and follow
from their arguments and a generator alone. *Acceleration* R is voxels over samples: each mask measures round(n / R) lines or
points, its fully sampled middle counted, so that R is kept whatever the middle is.

| mask | for | artefact |
|---|---|---|
| `equispaced_lines` | two-dimensional scans, parallel imaging | few coherent copies |
| `random_lines` | two-dimensional scans | incoherent along one axis |
| `random_points` | three-dimensional scans, two phase-encode axes | incoherent in a plane |
| `radial_spokes` | projections through the middle, on the grid | streaks |

References:
    Lustig, Donoho & Pauly, "Sparse MRI", 2007, https://doi.org/10.1002/mrm.21391 (variable density).
    Winkelmann et al., "An optimal radial profile order based on the golden ratio", 2007,
        https://doi.org/10.1109/TMI.2006.885337.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["equispaced_lines", "radial_spokes", "random_lines", "random_points"]

Mask = Bool[Tensor, "*space"]
GOLDEN_ANGLE = 180 * (math.sqrt(5) - 1) / 2
"""Degrees from spoke to spoke, 111.25: any number of them in a row is nearly even."""


def equispaced_lines(
    shape: Sequence[int],
    acceleration: float | int,
    *,
    axis: int = -1,
    middle: float | int = 0.08,
    offset: int = 0,
) -> Mask:
    """Every R'-th line and the middle, with R' such that round(n / acceleration) lines are measured in all.

    Args:
        shape: Of the grid.
        acceleration: R > 1.
        axis: The phase-encode axis: lines lie across it.
        middle: Share of the lines that is measured without gaps around the zero frequency, in [0, 1 / acceleration].
        offset: Moves the comb, in lines.

    Raises:
        InputError: acceleration, middle or axis out of range.
    """
    length, lines, inner = _budget(shape, acceleration, axis, middle)
    measured = _centre(length, inner)
    rest = (~measured).nonzero()[:, 0]
    if (wanted := lines - inner) > 0:
        steps = (torch.arange(wanted, dtype=torch.float64) + 0.5) * len(rest) / wanted
        measured[rest.roll(-offset)[steps.long()]] = True
    return _lines(measured, shape, axis)


def random_lines(
    shape: Sequence[int],
    acceleration: float | int,
    generator: torch.Generator,
    *,
    axis: int = -1,
    middle: float | int = 0.08,
    decay: float | int = 1.0,
) -> Mask:
    """Lines at random without replacement, denser around the middle, which is measured without gaps.

    Args:
        shape: Of the grid.
        acceleration: R > 1.
        generator: Of the lines.
        axis: The phase-encode axis.
        middle: Share of the lines that is measured without gaps, in [0, 1 / acceleration].
        decay: A line at distance r in [0, 1] from the middle is drawn with a weight (1 - r)^decay + 0.01, >= 0; 0: evenly.

    Raises:
        InputError: acceleration, middle, axis or decay out of range.
    """
    length, lines, inner = _budget(shape, acceleration, axis, middle)
    measured = _centre(length, inner)
    radius = (torch.arange(length, dtype=torch.float64) - length // 2).abs() / (length / 2)
    measured |= _drawn(radius, measured, lines - inner, generator, decay)
    return _lines(measured, shape, axis)


def random_points(
    shape: Sequence[int],
    acceleration: float | int,
    generator: torch.Generator,
    *,
    axes: tuple[int, int] = (-2, -1),
    middle: float | int = 0.01,
    decay: float | int = 2.0,
) -> Mask:
    """Points of a plane of phase encodes at random, denser around the middle; each is a line of a three-dimensional scan.

    Args:
        shape: Of the grid.
        acceleration: R > 1.
        generator: Of the points.
        axes: The two phase-encode axes.
        middle: Share of the points in the disc that is measured without gaps, in [0, 1 / acceleration].
        decay: A point at distance r from the middle has a weight (1 - r)^decay + 0.01.

    Raises:
        InputError: acceleration, middle, axes or decay out of range.
    """
    first, second = (a % len(shape) if -len(shape) <= a < len(shape) else -1 for a in axes)
    if first == second or min(first, second) < 0:
        raise InputError(f"expected two different axes of {tuple(shape)}; got {axes}. Lines lie across both.")
    total, points, inner = _budget((shape[first] * shape[second],), acceleration, 0, middle)
    lines = [(torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in (shape[first], shape[second])]
    radius = torch.hypot(lines[0][:, None], lines[1][None]).flatten()
    measured = torch.zeros(total, dtype=torch.bool)
    measured[radius.argsort(stable=True)[:inner]] = True
    measured |= _drawn(radius.clamp_max(1), measured, points - inner, generator, decay)
    plane = measured.reshape(shape[first], shape[second])
    plane = plane if first < second else plane.T
    view = [n if i in (first, second) else 1 for i, n in enumerate(shape)]
    return plane.reshape(view).expand(tuple(shape)).clone()


def radial_spokes(
    shape: Sequence[int], spokes: int, *, first: float | int = 0.0, golden: bool = True
) -> Mask:
    """Spokes through the middle of the last two axes, on the nearest points of the grid.

    Args:
        shape: Of the grid; further axes repeat the plane (a stack of stars).
        spokes: Their number, >= 1.
        first: Angle of the first to the last axis but one, in degrees.
        golden: By the golden angle; else evenly over 180 degrees.

    Raises:
        InputError: no spoke, or fewer than two axes.
    """
    if len(shape) < 2 or spokes < 1:
        raise InputError(
            f"expected two or more axes and a spoke or more; got {tuple(shape)} and {spokes}. Use a plane or a volume."
        )
    height, width = shape[-2:]
    turns = torch.arange(spokes, dtype=torch.float64) * (GOLDEN_ANGLE if golden else 180 / spokes)
    angles = torch.deg2rad(first + turns)[:, None]
    reach = torch.arange(-2 * max(height, width), 2 * max(height, width) + 1, dtype=torch.float64) / 4
    rows = (height // 2 + reach * height / max(height, width) * angles.cos()).round().long()
    columns = (width // 2 + reach * width / max(height, width) * angles.sin()).round().long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    plane = torch.zeros(height, width, dtype=torch.bool)
    plane[rows[inside], columns[inside]] = True
    return plane.expand(tuple(shape)).clone()


def _budget(
    shape: Sequence[int], acceleration: float | int, axis: int, middle: float | int
) -> tuple[int, int, int]:
    """Lines along the axis, how many are measured, how many of them in the middle."""
    if not -len(shape) <= axis < len(shape):
        raise InputError(f"expected an axis of {tuple(shape)}; got {axis}. Count from 0, or from the end.")
    length = shape[axis]
    if not 1 < acceleration <= length:
        raise InputError(
            f"expected an acceleration above 1 and up to {length}; got {acceleration}. A whole scan needs no restoring."
        )
    if not 0 <= middle <= 1 / acceleration + 1e-9:
        raise InputError(
            f"expected a middle in [0, {1 / acceleration:.3g}], the share that is measured; got {middle}. Lower it."
        )
    lines = max(1, round(length / acceleration))
    return length, lines, min(lines, round(middle * length))


def _centre(length: int, inner: int) -> Tensor:
    measured = torch.zeros(length, dtype=torch.bool)
    start = length // 2 - inner // 2
    measured[start : start + inner] = True
    return measured


def _drawn(
    radius: Tensor, taken: Tensor, count: int, generator: torch.Generator, decay: float | int
) -> Tensor:
    """`count` places that are not taken, by weights, without replacement (the largest of log u / w: exponential races)."""
    if not decay >= 0:
        raise InputError(f"expected a decay >= 0; got {decay}. 0 draws evenly.")
    weights = (1 - radius).clamp_min(0) ** decay + 0.01
    drawn = torch.rand(len(radius), generator=generator, dtype=torch.float64, device=generator.device)
    race = drawn.cpu().clamp_min(1e-300).log() / weights
    chosen = torch.zeros_like(taken)
    chosen[race.masked_fill(taken, -math.inf).topk(count).indices] = True
    return chosen


def _lines(measured: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return measured.reshape(view).expand(tuple(shape)).clone()
