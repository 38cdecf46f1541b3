r"""Fitting a field of Gaussians to a volume: centres where there is detail, shapes by Adam, amplitudes by least squares.

    min over (mu, s, R, a) of mean over voxels p of |f(p) - v(p)|^2,         f: `gaussian_field.GaussianField`

Centres are drawn among voxels with a probability that grows with the gradient of the volume, so that borders get more
Gaussians than what is even. Each step takes some voxels at random. f is linear in its amplitudes: before and after, these
are the solution of the normal equations (with a small ridge; of some voxels before, of all after), not of a descent.

A field of K Gaussians holds 11 K numbers in three dimensions. Round ones (`isotropic`) hold 5 K.

References:
    Kerbl et al., "3D Gaussian splatting for real-time radiance field rendering", 2023, https://arxiv.org/abs/2308.04079,
        section 5 (there the number of Gaussians changes on the way; here it does not).
"""

import math

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.gaussian_field import GaussianField, Points, voxel_centres
from radiata_core.types import Batch

__all__ = ["field_optimiser", "fit_field", "initial_field", "solve_amplitudes"]


def fit_field(
    volume: Batch,
    affine: Tensor,
    count: int,
    generator: torch.Generator,
    *,
    steps: int = 400,
    points: int = 4096,
    rate: float = 0.05,
    isotropic: bool = False,
) -> GaussianField:
    """A field of `count` Gaussians near a volume.

    Args:
        volume: v, (1, channel, *grid), of one, two or three axes.
        affine: Voxel to world, mm.
        count: K.
        generator: Of the centres, and of the voxels of each step; on the CPU.
        steps: Of Adam, >= 0.
        points: Voxels a step, >= 1.
        rate: First step size, in logarithms of the standard deviation; it falls to 0.
        isotropic: Round Gaussians.

    Raises:
        InputError: not one volume, a number out of range, or more Gaussians than voxels.
    """
    if steps < 0 or points < 1 or not 0 < rate < math.inf:
        raise InputError(
            f"expected steps >= 0, points >= 1 and a rate > 0; got {steps}, {points} and {rate}."
        )
    field = initial_field(volume, affine, count, generator, isotropic=isotropic)
    places = voxel_centres(volume.shape[2:], affine.to(volume.device)).to(volume.dtype)
    values = volume.detach().flatten(2)[0].mT
    some = torch.randperm(len(places), generator=generator)[: 4 * points].to(places.device)
    solve_amplitudes(field, places[some], values[some])
    optimiser = field_optimiser(field, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for _ in range(steps):
        rows = torch.randint(len(places), (points,), generator=generator).to(places.device)
        loss = (field(places[rows]) - values[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    solve_amplitudes(field, places, values)
    return field


def initial_field(
    volume: Batch, affine: Tensor, count: int, generator: torch.Generator, *, isotropic: bool = False
) -> GaussianField:
    """Gaussians at different voxels, drawn by the size of the gradient, as wide as they are apart; amplitudes 0.

    Args:
        volume: (1, channel, *grid).
        affine: Voxel to world, mm.
        count: Up to the number of voxels.
        generator: On the CPU.
        isotropic: Round Gaussians.

    Raises:
        InputError: not one volume, or a number out of range.
    """
    space = volume.ndim - 2
    if space not in (1, 2, 3) or len(volume) != 1:
        raise InputError(
            f"expected one volume (1, channel, *grid); got {tuple(volume.shape)}. Index the batch."
        )
    voxels = math.prod(volume.shape[2:])
    if not 1 <= count <= voxels:
        raise InputError(f"expected 1 to {voxels} Gaussians, one a voxel at most; got {count}. Take fewer.")
    detail = _gradient_size(volume.detach().double().cpu())
    weight = detail + 0.05 * detail.mean() + 1e-12
    # Exponential races: the smallest of E_i/w_i are a draw without replacement.
    race = -torch.log1p(-torch.rand(voxels, generator=generator, dtype=torch.float64)) / weight
    rows = race.argsort()[:count].to(affine.device)
    places = voxel_centres(volume.shape[2:], affine)
    edge = float(affine.double()[:space, :space].det().abs()) ** (1 / space)
    # Gaussians share what has detail, at least a voxel each.
    effective = float(weight.sum().square() / weight.square().sum())
    width = max(0.6 * edge * (effective / count) ** (1 / space), 0.5 * edge)
    like = volume.detach()
    return GaussianField(
        places[rows].to(like),
        torch.full((count, 1 if isotropic else space), math.log(width)).to(like),
        like.new_zeros(count, like.shape[1]),
    )


@torch.no_grad()
def solve_amplitudes(
    field: GaussianField, points: Points, values: Tensor, ridge: float = 1e-4, chunk: int = 2**22
) -> None:
    """Sets the amplitudes to argmin sum |f(p) - v(p)|^2 + ridge tr(B^T B)/K |a|^2, B the basis at the points.

    Args:
        field: Its amplitudes are overwritten.
        points: mm, (points, space).
        values: v, (points, channel).
        ridge: > 0, relative to the mean squared norm of a Gaussian.
        chunk: Pairs of a point and a Gaussian at a time.

    Raises:
        InputError: not one row of values a point, or a ridge that is not positive.
    """
    if values.shape != (len(points), field.amplitudes.shape[1]) or not 0 < ridge < math.inf:
        raise InputError(
            f"expected values ({len(points)}, {field.amplitudes.shape[1]}) and a ridge > 0; got {tuple(values.shape)} and "
            f"{ridge}. One row a point."
        )
    rows = max(1, chunk // len(field))
    gram = torch.zeros(len(field), len(field), dtype=torch.float64, device=values.device)
    moments = torch.zeros(len(field), values.shape[1], dtype=torch.float64, device=values.device)
    for places, part in zip(points.split(rows), values.split(rows), strict=True):
        basis = field.basis(places)
        gram += (basis.mT @ basis).double()
        moments += (basis.mT @ part.to(basis)).double()
    diagonal = gram.diagonal()
    diagonal += ridge * diagonal.mean()
    field.amplitudes.copy_(torch.linalg.solve(gram, moments))


def field_optimiser(field: GaussianField, rate: float = 0.05) -> torch.optim.Adam:
    """Adam with step sizes in the units of each parameter.

    Args:
        field: Whose parameters it moves.
        rate: Of log-scales and rotations; centres move by this part of a mean standard deviation, amplitudes of theirs.
    """
    width = float(field.log_scales.detach().mean().exp())
    size = max(float(field.amplitudes.detach().abs().mean()), 1e-3)
    groups = [
        {"params": [field.centres], "lr": rate * width},
        {"params": [field.log_scales, field.rotations], "lr": rate},
        {"params": [field.amplitudes], "lr": rate * size},
    ]
    return torch.optim.Adam(groups, betas=(0.9, 0.99))


def _gradient_size(volume: Tensor) -> Tensor:
    """Length of the gradient, mean over channels, (voxels,)."""
    total = torch.zeros_like(volume[0, 0])
    for axis in range(2, volume.ndim):
        if volume.shape[axis] > 1:
            total = total + torch.gradient(volume, dim=axis)[0].square().mean((0, 1))
    return total.sqrt().flatten()
