r"""Rotary positions on physical coordinates: attention that knows how far apart two tokens are, in millimetres.

A head of d channels is d/2 pairs. Each pair belongs to one axis of space and turns by an angle that grows with the token's
coordinate p along that axis,

$$(q_{2i}, q_{2i+1}) \leftarrow R(\omega_i p)\,(q_{2i}, q_{2i+1}), \qquad \omega_i = \theta^{-i/n_a}, \; 0 \le i < n_a,$$

in queries and keys alike. Because $R(a)^\top R(b) = R(b - a)$, the logits depend on differences of coordinates alone: a crop
of an image is attended to as it is in the whole, wherever its origin lies. Coordinates are physical: millimetres over the
`unit` in which the network counts (as a rule the edge of a patch at the spacing of training). So anisotropic voxels, finer
voxels and larger fields of view are *inputs* and not other networks: twice the resolution over the same head keeps the
phases between two places.

$\theta = 100$ and not the 10 000 of text: grids have tens of tokens an axis, and the slowest pair should turn noticeably
over them. Pairs that do not divide by the axes go to the last axes (64 channels over three axes: 20 + 22 + 22).

Reading order: `token_coordinates`, `rotation_at`, `rotated`.

References:
    Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021, https://arxiv.org/abs/2104.09864,
        section 3.2 (one axis).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["Rotation", "rotated", "rotation_at", "token_coordinates", "widths_of_axes"]

Rotation = tuple[Float[Tensor, "rows 1 tokens head"], Float[Tensor, "rows 1 tokens head"]]
"""Cosine and sine of each channel's angle; one row for all samples, or one a sample."""


def widths_of_axes(head: int, axes: int) -> tuple[int, ...]:
    """Channels of a head that belong to each axis, all even: 64 over 3 axes is (20, 22, 22).

    Raises:
        InputError: fewer than two channels an axis.
    """
    pairs = head // 2
    if axes < 1 or pairs < axes:
        raise InputError(
            f"expected heads of at least 2 channels an axis; got {head} channels for {axes} axes. Use wider heads."
        )
    spare = pairs % axes
    return tuple(2 * (pairs // axes + (axis >= axes - spare)) for axis in range(axes))


def _rows(values: Sequence[float] | Tensor | None, default: float, axes: int, name: str) -> Tensor:
    """`(rows, axes)`, float64."""
    if values is None:
        return torch.full((1, axes), default, dtype=torch.float64)
    given = torch.as_tensor(values, dtype=torch.float64)
    if given.ndim not in (1, 2) or given.shape[-1] != axes or not given.isfinite().all():
        raise InputError(
            f"expected {name} of {axes} finite numbers, one an axis; got shape {tuple(given.shape)}, {given.tolist()}. "
            "Geometry is no condition that may be left out: for guidance wrap the network in `Placed`."
        )
    if name == "spacing" and given.min() <= 0:
        raise InputError(f"expected a spacing > 0 mm; got {given.tolist()}. A flipped axis is flipped data.")
    return given.reshape(-1, axes)


def token_coordinates(
    grid: Sequence[int],
    patch: Sequence[int] | None = None,
    spacing: Sequence[float] | Tensor | None = None,
    origin: Sequence[float] | Tensor | None = None,
) -> Float[Tensor, "rows tokens axes"]:
    """Centres of the patches of a grid in millimetres, float64, last axis fastest; one row for all samples or one a sample.

    Args:
        grid: Tokens along each axis, >= 1.
        patch: Voxels of a token along each axis; None for 1.
        spacing: Millimetres from voxel to voxel along each axis, `(axes,)` or `(batch, axes)`, > 0; None for 1.
        origin: Coordinate of the centre of the first voxel in mm, `(axes,)` or `(batch, axes)`; None for 0.

    Raises:
        InputError: a spacing that is not positive, or numbers that are not one an axis.
    """
    axes = len(grid)
    step, first = _rows(spacing, 1.0, axes, "spacing"), _rows(origin, 0.0, axes, "origin")
    edges = (1,) * axes if patch is None else tuple(patch)
    lines = [
        torch.arange(n, dtype=torch.float64, device=step.device) * p + (p - 1) / 2
        for n, p in zip(grid, edges, strict=True)
    ]
    voxels = torch.stack([line.flatten() for line in torch.meshgrid(*lines, indexing="ij")], -1)
    return first.to(step.device)[:, None] + step[:, None] * voxels


def rotation_at(
    coordinates: Float[Tensor, "rows tokens axes"],
    head: int,
    theta: float = 100.0,
    dtype: torch.dtype = torch.float32,
) -> Rotation:
    """Cosines and sines of the angles of every channel, made in float64, each `(rows, 1, tokens, head)`.

    Args:
        coordinates: In the network's unit of length (cells of the grid of training), `(rows, tokens, axes)`.
        head: Width of a head; channels that are left over do not turn.
        theta: Ratio of the fastest to just beyond the slowest frequency, > 1; the fastest is one radian a unit.
        dtype: Of the result; float32 or finer.
    """
    angles = []
    for axis, width in enumerate(widths_of_axes(head, coordinates.shape[-1])):
        index = torch.arange(0, width, 2, dtype=torch.float64, device=coordinates.device)
        angles.append(coordinates[..., axis, None].double() * theta ** (-index / width))
    turned = F.pad(
        torch.cat(angles, -1).repeat_interleave(2, -1), (0, head - 2 * sum(a.shape[-1] for a in angles))
    )
    return turned.cos().to(dtype)[:, None], turned.sin().to(dtype)[:, None]


def rotated(part: Float[Tensor, "batch heads tokens head"], rotation: Rotation) -> Tensor:
    """Queries or keys after their turn, in their own dtype; norms of all pairs stay as they were."""
    cosine, sine = rotation
    even = 2 * (part.shape[-1] // 2)
    first, second = part[..., 0:even:2], part[..., 1:even:2]
    quarter = torch.stack([-second, first], -1).flatten(-2)  # every pair turned by 90 degrees
    return (part * cosine + F.pad(quarter, (0, part.shape[-1] - even)) * sine).to(part.dtype)
