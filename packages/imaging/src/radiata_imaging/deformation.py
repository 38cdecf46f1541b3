r"""Smooth invertible deformations: the exponential of a stationary velocity field.

A velocity field v (mm) on a regular grid generates the flow d phi_s / ds = v(phi_s), phi_0 = identity; phi_1 = exp(v) is a
diffeomorphism whenever v is smooth enough for the grid. It is computed by scaling and squaring,
exp(v) = exp(v / 2^n) o ... o exp(v / 2^n), and it is *checked*: the Jacobian determinant of the sampled map has to be
positive everywhere, since a folded head is not an anatomy.

Fields have shape `(3, x, y, z)`; component i is along array axis i, in millimetres; spacing is isotropic.

References:
    Arsigny, Commowick, Pennec & Ayache, "A Log-Euclidean Framework for Statistics on Diffeomorphisms", MICCAI 2006.
    Ashburner, "A fast diffeomorphic image registration algorithm", NeuroImage 2007, section 2.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

__all__ = [
    "compose",
    "exponential",
    "jacobian_determinant",
    "random_velocity",
    "sample_field",
    "sample_volume",
    "upsampled_planes",
]


def sample_field(field: Tensor, positions: Tensor) -> Tensor:
    """Values of `field` `(channels, x, y, z)` at `positions` `(3, *grid)` in voxel units, trilinear, edges extended."""
    sizes = torch.tensor(field.shape[1:], dtype=positions.dtype, device=positions.device).view(3, 1, 1, 1)
    unit = 2.0 * positions / (sizes - 1) - 1.0
    grid = unit.flip(0).movedim(0, -1)[None]  # grid_sample wants the last axis first
    return F.grid_sample(field[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]


def sample_volume(volume: Tensor, positions: Tensor) -> Tensor:
    """`sample_field` of one volume `(x, y, z)`, two voxels an axis or more, below 2^31 in all.

    Eight reads of neighbours and seven interpolations, each over all positions: several times as fast where these fit the
    processor's cache, so give positions in pieces (`upsampled_planes`).
    """
    place = torch.zeros(positions[0].numel(), dtype=torch.int32)
    fractions = []
    for line, n in zip(positions.flatten(1), volume.shape, strict=True):
        line = line.clamp(0, n - 1)
        low = line.floor().clamp_(max=n - 2)
        place.mul_(n).add_(low.to(torch.int32))
        fractions.append(line.sub_(low))
    flat, (_, n_y, n_z) = volume.ravel(), volume.shape
    x, y, z = fractions

    def between(first: int) -> Tensor:
        return torch.lerp(flat[first:].index_select(0, place), flat[first + 1 :].index_select(0, place), z)

    near, far = (torch.lerp(between(i), between(i + n_z), y) for i in (0, n_y * n_z))
    return torch.lerp(near, far, x).view(positions.shape[1:])


def upsampled_planes(field: Tensor, shape: tuple[int, int, int]) -> Iterator[Tensor]:
    """The x-planes `(channels, y, z)` of `field` interpolated to `shape`, one after another; the next overwrites the last.

    They are those of `torch.nn.functional.interpolate` (trilinear, `align_corners=False`) to rounding; the products are in
    its order, so that on the grids of cohorts at 2 and 4 mm they are its bits. The whole, which may be a hundred times the
    field, is never held.
    """
    rows = F.interpolate(field, size=shape[1:], mode="bilinear", align_corners=False)
    plane = torch.empty_like(rows[:, 0])
    for i in range(shape[0]):
        position = max(0.0, (i + 0.5) * field.shape[1] / shape[0] - 0.5)
        low = min(int(position), field.shape[1] - 1)
        weight = position - low
        torch.mul(rows[:, min(low + 1, field.shape[1] - 1)], weight, out=plane)
        yield plane.add_(rows[:, low], alpha=1.0 - weight)


def _identity(shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def compose(outer: Tensor, inner: Tensor, spacing: float) -> Tensor:
    """Displacement of `outer o inner`: u(p) = inner(p) + outer(p + inner(p)); both in mm on one grid."""
    positions = _identity(inner.shape[1:], inner) + inner / spacing
    return inner + sample_field(outer, positions)


def exponential(velocity: Tensor, spacing: float, squarings: int = 6) -> Tensor:
    """Displacement exp(v) - identity in mm, by `squarings` doublings.

    Args:
        velocity: Stationary velocity, `(3, x, y, z)`, mm.
        spacing: Grid spacing, mm, > 0.
        squarings: Number of doublings n; the first step is v / 2^n.
    """
    displacement = velocity / 2.0**squarings
    for _ in range(squarings):
        displacement = compose(displacement, displacement, spacing)
    return displacement


def jacobian_determinant(displacement: Tensor, spacing: float) -> Tensor:
    """det(I + du/dp) on the grid `(x, y, z)`, by central differences; positive where the map keeps orientation."""
    rows = torch.stack([torch.stack(torch.gradient(u, spacing=spacing)) for u in displacement])
    matrix = rows.permute(2, 3, 4, 0, 1) + torch.eye(3, dtype=rows.dtype, device=rows.device)
    return torch.linalg.det(matrix)


def random_velocity(
    shape: tuple[int, int, int], spacing: float, *, amplitude: float, length: float, rng: np.random.Generator
) -> np.ndarray:
    """A stationary Gaussian velocity field `(3, x, y, z)`, float32: sd `amplitude` mm a component, correlation `length` mm.

    White noise on a grid of spacing `length / 2` is smoothed by a Gaussian and interpolated linearly, so the cost does
    not grow with the resolution of the output.
    """
    step = max(length / 2.0, spacing)
    coarse = tuple(int(np.ceil(n * spacing / step)) + 5 for n in shape)
    sigma = length / step / np.sqrt(2.0)
    noise = rng.standard_normal((3, *coarse), dtype=np.float32)
    smooth = np.stack([gaussian_filter(component, sigma, mode="wrap") for component in noise])
    smooth *= amplitude * (2.0 * np.sqrt(np.pi) * sigma) ** 1.5  # the kernel's l2 norm in three dimensions
    offset = rng.uniform(0.0, 1.0, 3)
    positions = np.stack(
        np.meshgrid(
            *[
                2.0 + o + np.arange(n, dtype=np.float32) * spacing / step
                for n, o in zip(shape, offset, strict=True)
            ],
            indexing="ij",
        )
    ).astype(np.float32)
    return sample_field(torch.from_numpy(smooth), torch.from_numpy(positions)).numpy()
