r"""A scalar field as a sum of anisotropic Gaussians in the world: compact, continuous, with line integrals in closed form.

    f(p) = sum over k of a_k exp(-1/2 (p - mu_k)^T L_k (p - mu_k)),      L_k = R_k diag(s_k^-2) R_k^T

Positions are millimetres of the world, so that a field has no grid: it can be asked at any point, on a finer or a turned
grid, and a rigid motion of it is a motion of its centres. Intensities *add*. There is no opacity and no compositing along a
ray, which belong to light and surfaces; a scan is a density. A Gaussian in three dimensions has 11 numbers: centre 3, log
standard deviation along its axes 3, rotation 4 (a quaternion, of any length), amplitude 1; in two dimensions 6 (rotation:
one angle).

**One matrix product.** The exponent is linear in the monomials of p, phi(p) = (p_i p_j for i <= j, p_i, 1), ten in three
dimensions, so P points and K Gaussians cost one product (P x 10)(10 x K). Positions are taken from the middle of the
centres, which keeps single precision. Points go in chunks whose graph is made again on the way back.

**Line integrals.** Along a direction u, with L' = L - L u u^T L / (u^T L u),

    integral of f(p + s u) ds = sum over k of a_k sqrt(2 pi / (u^T L_k u)) exp(-1/2 (p - mu_k)^T L'_k (p - mu_k)),

in units of the field times mm: tomography without a grid, by the same product.

Read next: `field_fits` (initialising and fitting), `slice_distillation` (refining under a measurement and a
prior).

References:
    Kerbl et al., "3D Gaussian splatting for real-time radiance field rendering", 2023, https://arxiv.org/abs/2308.04079,
        section 4 (the parameters; the field here is additive, without their opacity).
    Guo et al., "StableDreamer", 2023, https://arxiv.org/abs/2312.02189 (anisotropic Gaussians as the second stage).
"""

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from radiata_core.errors import InputError

__all__ = ["GaussianField", "Points", "voxel_centres"]

Points = Float[Tensor, "points space"]
_ROTATIONS = {1: 0, 2: 1, 3: 4}
"""Numbers of a rotation, by dimension: none, an angle in radians, a quaternion."""


class GaussianField(nn.Module):
    """f(p), the sum of K Gaussians in one, two or three dimensions.

    Args:
        centres: mu, mm, (K, space).
        log_scales: Logarithm of the standard deviations in mm, (K, space); (K, 1) for round Gaussians, without a rotation.
        amplitudes: a, units of the field, (K, channel).
        rotations: (K, 4), quaternions (w, x, y, z); (K, 1), angles, in two dimensions; None: the identity, to be learnt.

    Raises:
        InputError: shapes that do not belong together, or numbers that are not finite.
    """

    def __init__(
        self,
        centres: Points,
        log_scales: Float[Tensor, "points axes"],
        amplitudes: Float[Tensor, "points channel"],
        rotations: Float[Tensor, "points rotation"] | None = None,
    ) -> None:
        super().__init__()
        count, space = centres.shape
        if space not in _ROTATIONS or count < 1:
            raise InputError(f"expected centres (K, 1, 2 or 3), K >= 1; got {tuple(centres.shape)}. In mm.")
        self.isotropic = log_scales.shape[1] == 1 and space > 1
        turned = 0 if self.isotropic else _ROTATIONS[space]
        if rotations is None:
            rotations = centres.new_zeros(count, turned)
            rotations[:, : int(turned == 4)] = 1.0
        shapes = [tuple(p.shape) for p in (log_scales, amplitudes, rotations)]
        axes = 1 if self.isotropic else space
        if shapes != [(count, axes), (count, amplitudes.shape[1]), (count, turned)]:
            raise InputError(
                f"expected log_scales ({count}, {space} or 1), amplitudes ({count}, channels) and rotations "
                f"({count}, {turned}); got {', '.join(map(str, shapes))}. One row a Gaussian."
            )
        if not all(bool(torch.isfinite(p).all()) for p in (centres, log_scales, amplitudes, rotations)):
            raise InputError(
                "expected finite parameters; got NaN or infinity. Check the volume they come from."
            )
        self.centres, self.log_scales = nn.Parameter(centres), nn.Parameter(log_scales)
        self.rotations, self.amplitudes = nn.Parameter(rotations), nn.Parameter(amplitudes)

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def numbers(self) -> int:
        """How many numbers describe the field."""
        return sum(p.numel() for p in self.parameters())

    def axes(self) -> Float[Tensor, "points space space"]:
        """R, whose columns are the axes of each Gaussian."""
        count, space = self.centres.shape
        if self.isotropic or space == 1:
            return torch.eye(space, dtype=self.centres.dtype, device=self.centres.device).expand(
                count, -1, -1
            )
        if space == 2:
            c, s = self.rotations[:, 0].cos(), self.rotations[:, 0].sin()
            return torch.stack([c, -s, s, c], 1).reshape(-1, 2, 2)
        w, x, y, z = nn.functional.normalize(self.rotations, dim=1).unbind(1)
        rows = [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ]  # fmt: skip
        return torch.stack(rows, 1).reshape(-1, 3, 3)

    def precisions(self) -> Float[Tensor, "points space space"]:
        """L = R diag(s^-2) R^T, 1/mm^2."""
        axes = self.axes()
        inverse = torch.exp(-2 * self.log_scales).expand(-1, axes.shape[-1])
        return (axes * inverse[:, None]) @ axes.mT

    def forward(self, points: Points, chunk: int = 2**22) -> Float[Tensor, "points channel"]:
        """The field at points of the world, (points, channel).

        Args:
            points: mm, (points, space).
            chunk: Pairs of a point and a Gaussian at a time: memory, not the result.

        Raises:
            InputError: points of another dimension.
        """
        return self._summed(points, self.precisions(), self.amplitudes, chunk)

    def line_integrals(
        self, points: Points, direction: Sequence[float], chunk: int = 2**22
    ) -> Float[Tensor, "points channel"]:
        """Integrals of the field along the lines through points in a direction, units of the field times mm.

        Args:
            points: One on each line, mm, (points, space).
            direction: u, of any length > 0.
            chunk: As in `forward`.

        Raises:
            InputError: points or a direction of another dimension, or a direction of no length.
        """
        space = self.centres.shape[1]
        u = torch.tensor(tuple(direction), dtype=self.centres.dtype, device=self.centres.device)
        if u.shape != (space,) or not 0 < float(u.norm()) < math.inf:
            raise InputError(
                f"expected a direction of {space} numbers and a length > 0; got {tuple(direction)}."
            )
        precisions = self.precisions()
        along = precisions @ (u / u.norm())
        size = along @ (u / u.norm())
        flat = precisions - along[:, :, None] * along[:, None, :] / size[:, None, None]
        return self._summed(points, flat, self.amplitudes * (2 * math.pi / size).sqrt()[:, None], chunk)

    def basis(self, points: Points) -> Float[Tensor, "points gaussians"]:
        """exp(-1/2 (p - mu_k)^T L_k (p - mu_k)) of every point and Gaussian: the field is linear in its amplitudes."""
        middle = self.centres.detach().mean(0)
        return _bumps(
            points.to(self.centres) - middle, _coefficients(self.precisions(), self.centres - middle)
        )

    def _summed(self, points: Tensor, precisions: Tensor, amplitudes: Tensor, chunk: int) -> Tensor:
        if points.ndim != 2 or points.shape[1] != self.centres.shape[1]:
            raise InputError(
                f"expected points (points, {self.centres.shape[1]}) in mm; got {tuple(points.shape)}. See voxel_centres."
            )
        middle = self.centres.detach().mean(0)
        table = _coefficients(precisions, self.centres - middle)
        parts = (points.to(self.centres) - middle).split(max(1, chunk // len(self)))
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([_bumps(part, table) @ amplitudes for part in parts])
        return torch.cat(
            [
                checkpoint(_chunk, part, table, amplitudes, use_reentrant=False, preserve_rng_state=False)
                for part in parts
            ]
        )


def voxel_centres(shape: Sequence[int], affine: Tensor) -> Points:
    """Positions in the world of the voxels of a grid in the order of the grid, mm, float64, (voxels, space).

    Args:
        shape: Of the grid.
        affine: Voxel to world, mm, (space + 1, space + 1): `docs/notation.md`.

    Raises:
        InputError: an affine of another size.
    """
    space = len(shape)
    if affine.shape != (space + 1, space + 1):
        raise InputError(
            f"expected an affine ({space + 1}, {space + 1}) for a grid of {space} axes; got {tuple(affine.shape)}. "
            "Voxel to world, in mm."
        )
    lines = [torch.arange(n, dtype=torch.float64, device=affine.device) for n in shape]
    index = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(-1, space)
    return index @ affine.double()[:space, :space].mT + affine.double()[:space, space]


def _monomials(points: Tensor) -> Tensor:
    """phi(p): products p_i p_j for i <= j, then p_i, then 1."""
    pairs = combinations_with_replacement(range(points.shape[1]), 2)
    products = [points[:, i] * points[:, j] for i, j in pairs]
    return torch.cat([torch.stack(products, 1), points, torch.ones_like(points[:, :1])], 1)


def _coefficients(precisions: Tensor, centres: Tensor) -> Tensor:
    """Of phi in -1/2 (p - mu)^T L (p - mu), (monomials, Gaussians)."""
    pairs = combinations_with_replacement(range(centres.shape[1]), 2)
    squares = [precisions[:, i, j] * (-0.5 if i == j else -1.0) for i, j in pairs]
    pulled = (precisions @ centres[:, :, None])[:, :, 0]
    constant = -0.5 * (pulled * centres).sum(1)
    return torch.cat([torch.stack(squares), pulled.mT, constant[None]])


def _bumps(points: Tensor, table: Tensor) -> Tensor:
    # An exponent is never positive; rounding far from the middle might make it so.
    return (_monomials(points) @ table).clamp_max(0.0).exp()


def _chunk(points: Tensor, table: Tensor, amplitudes: Tensor) -> Tensor:
    return _bumps(points, table) @ amplitudes
