"""Fields of Gaussians against scipy's densities, numerical line integrals and rigid motions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.gaussian_field import GaussianField, voxel_centres
from radiata_core.seeds import generator_of

ROTATIONS = {1: 0, 2: 1, 3: 4}


def drawn(count: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator_of(count, *shape), dtype=torch.float64)


def field_of(space: int, count: int = 5, channels: int = 2, far: float = 0.0) -> GaussianField:
    return GaussianField(
        drawn(1, count, space, scale=8.0) + far,
        drawn(2, count, space, scale=0.4) + 1.0,
        drawn(3, count, channels),
        drawn(4, count, ROTATIONS[space]),
    )


@pytest.mark.parametrize("space", [1, 2, 3])
def test_field_is_a_sum_of_densities(space: int) -> None:
    """Against scipy's multivariate normal density, whose peak is divided out; covariances by an independent formula."""
    field, points = field_of(space), drawn(5, 40, space, scale=10.0)
    expected = np.zeros((40, 2))
    for k in range(len(field)):
        r, s = field.axes()[k].detach().numpy(), field.log_scales[k].detach().exp().numpy()
        covariance = sum(s[i] ** 2 * np.outer(r[:, i], r[:, i]) for i in range(space))
        law = multivariate_normal(field.centres[k].detach().numpy(), covariance)
        bump = law.pdf(points.numpy()) / law.pdf(law.mean)
        expected += bump[:, None] * field.amplitudes[k].detach().numpy()
    torch.testing.assert_close(field(points).detach(), torch.from_numpy(expected))


def test_axes_are_rotations_and_a_quaternion_is_its_axis_and_angle() -> None:
    """w = cos(angle/2) about z; of any length, and -q is q."""
    axes = field_of(3).axes().detach()
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).double().expand(5, -1, -1))
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(5).double())
    angle = 0.7
    q = torch.tensor([[math.cos(angle / 2), 0, 0, math.sin(angle / 2)]]).double()
    c, s = math.cos(angle), math.sin(angle)
    expected = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]).double()
    for rotation in (q, -3 * q):
        one = GaussianField(
            torch.zeros(1, 3).double(), torch.zeros(1, 3).double(), torch.ones(1, 1).double(), rotation
        )
        torch.testing.assert_close(one.axes()[0].detach(), expected)


@pytest.mark.parametrize(
    ("space", "direction"), [(2, (1.0, 0.0)), (3, (0.0, 0.0, 2.0)), (3, (1.0, -2.0, 0.5))]
)
def test_line_integrals_are_those_of_numbers(space: int, direction: tuple[float, ...]) -> None:
    """Trapezoids of 0.05 mm, whose error is below rounding for Gaussians this wide."""
    field, points = field_of(space), drawn(6, 12, space, scale=6.0)
    u = torch.tensor(direction).double()
    s = torch.arange(-120, 120, 0.05, dtype=torch.float64)
    along = points[:, None] + s[:, None] * (u / u.norm())
    with torch.no_grad():
        summed = field(along.reshape(-1, space)).reshape(12, len(s), -1).sum(1) * 0.05
        torch.testing.assert_close(field.line_integrals(points, direction), summed)


def test_a_rigid_motion_of_the_world_moves_the_field() -> None:
    """Turned axes and moved centres at moved points give the same values: there is no grid in it."""
    field, points = field_of(3), drawn(7, 30, 3, scale=9.0)
    turn = torch.linalg.qr(drawn(8, 3, 3)).Q
    turn = turn * torch.linalg.det(turn).sign()
    shift = torch.tensor([3.0, -7.0, 50.0]).double()
    moved = field_of(3)
    with torch.no_grad():
        moved.centres.copy_(field.centres @ turn.mT + shift)
        precisions = turn @ field.precisions() @ turn.mT
        moved.precisions = lambda: precisions  # type: ignore[method-assign]
        torch.testing.assert_close(moved(points @ turn.mT + shift), field(points))


def test_chunks_change_memory_only() -> None:
    """Values and gradients are the same whole and in pieces of a few points."""
    points = drawn(9, 50, 3, scale=9.0)
    found = []
    for chunk in (2**22, 35):
        field = field_of(3)
        value = field(points, chunk=chunk)
        value.square().sum().backward()
        found.append([value.detach(), *[p.grad for p in field.parameters()]])
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(whole, pieces)


def test_single_precision_far_from_the_origin() -> None:
    """A field 100 mm from the origin, asked within it: errors below 1e-4 of amplitudes near 1."""
    exact = field_of(3, far=100.0)
    points = exact.centres.detach() + drawn(10, 5, 3, scale=3.0)
    single = field_of(3, far=100.0).float()
    error = (single(points.float()).double() - exact(points)).detach().abs().max()
    assert float(error) < 1e-4


def test_round_gaussians_are_the_same_field_with_equal_axes() -> None:
    base, points = field_of(3), drawn(11, 20, 3, scale=9.0)
    one = base.log_scales.detach()[:, :1]
    round_ = GaussianField(base.centres.detach(), one, base.amplitudes.detach())
    same = GaussianField(
        base.centres.detach(), one.expand(-1, 3), base.amplitudes.detach(), base.rotations.detach()
    )
    torch.testing.assert_close(round_(points), same(points))
    assert (round_.numbers, same.numbers) == (5 * (3 + 1 + 2), 5 * (3 + 3 + 4 + 2))


def test_voxel_centres_follow_the_affine() -> None:
    affine = torch.tensor([[0.0, -2, 0, 10], [3, 0, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    places = voxel_centres((2, 3, 4), affine).reshape(2, 3, 4, 3)
    torch.testing.assert_close(places[1, 2, 3], torch.tensor([10.0 - 4, 20 + 3, 30 + 12]).double())
    assert voxel_centres((3, 2), torch.eye(3)).tolist()[-1] == [2, 1]


def test_bad_input_is_explained() -> None:
    three, amplitudes = torch.zeros(2, 3), torch.ones(2, 1)
    with pytest.raises(InputError, match="One row a Gaussian"):
        GaussianField(three, torch.zeros(2, 2), amplitudes)
    with pytest.raises(InputError, match="1, 2 or 3"):
        GaussianField(torch.zeros(2, 4), torch.zeros(2, 4), amplitudes)
    with pytest.raises(InputError, match="finite parameters"):
        GaussianField(three / 0, torch.zeros(2, 3), amplitudes)
    field = GaussianField(three, torch.zeros(2, 3), amplitudes)
    with pytest.raises(InputError, match=r"points \(points, 3\)"):
        field(torch.zeros(4, 2))
    with pytest.raises(InputError, match="3 numbers and a length > 0"):
        field.line_integrals(three, (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="Voxel to world"):
        voxel_centres((2, 2, 2), torch.eye(3))
