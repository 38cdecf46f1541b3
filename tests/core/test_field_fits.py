"""Fits of fields: amplitudes against numpy's least squares, a field that is one, and round against turned Gaussians."""

import numpy as np
import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.field_fits import fit_field, initial_field, solve_amplitudes
from radiata_core.gaussian_field import GaussianField, voxel_centres
from radiata_core.seeds import generator_of

AFFINE = torch.diag(torch.tensor([2.0, 2.0, 1.0])).double()


def plane(seed: int = 0) -> tuple[Tensor, GaussianField]:
    """Six narrow turned Gaussians on 24 x 20 pixels of 2 mm: synthetic."""
    g = generator_of(seed, 4)
    centres = torch.rand(6, 2, generator=g).double() * torch.tensor([30.0, 24.0]) + 8
    scales = torch.tensor([[1.8, 0.7]]).double().expand(6, -1) + 0.1 * torch.rand(6, 2, generator=g)
    field = GaussianField(
        centres,
        scales,
        1 + torch.rand(6, 1, generator=g).double(),
        3 * torch.rand(6, 1, generator=g).double(),
    )
    with torch.no_grad():
        values = field(voxel_centres((24, 20), AFFINE))
    return values.mT.reshape(1, 1, 24, 20), field


def psnr(field: GaussianField, volume: Tensor) -> float:
    with torch.no_grad():
        found = field(voxel_centres(volume.shape[2:], AFFINE)).reshape(volume.shape)
    return float(-10 * torch.log10((found - volume).square().mean() / volume.max() ** 2))


def test_amplitudes_are_least_squares() -> None:
    """Against numpy's solver of the stacked system (B; sqrt(ridge)), in pieces of any size."""
    volume, field = plane()
    points, values = voxel_centres((24, 20), AFFINE), volume.flatten(2)[0].mT
    basis = field.basis(points).detach().numpy()
    ridge = 0.01 * np.trace(basis.T @ basis) / 6
    stacked = np.concatenate([basis, np.sqrt(ridge) * np.eye(6)])
    expected = np.linalg.lstsq(stacked, np.concatenate([values.numpy(), np.zeros((6, 1))]), rcond=None)[0]
    solve_amplitudes(field, points, values, ridge=0.01, chunk=600)
    torch.testing.assert_close(field.amplitudes.detach(), torch.from_numpy(expected))


def test_fit_finds_a_field_of_gaussians() -> None:
    """A volume that is a field is fitted to 40 dB by thrice its Gaussians; 20 dB more than where the fit starts."""
    volume, _ = plane()
    first = fit_field(volume, AFFINE, 18, generator_of(0), steps=0)
    last = fit_field(volume, AFFINE, 18, generator_of(0), steps=250, points=480)
    assert psnr(last, volume) > max(40.0, psnr(first, volume) + 10)


def test_turned_gaussians_beat_round_ones_at_equal_numbers() -> None:
    """6 a Gaussian against 4: 12 turned and 18 round ones of a plane of oblique stripes."""
    volume, _ = plane(1)
    turned = fit_field(volume, AFFINE, 12, generator_of(1), steps=250, points=480)
    round_ = fit_field(volume, AFFINE, 18, generator_of(1), steps=250, points=480, isotropic=True)
    assert turned.numbers == round_.numbers == 72
    assert psnr(turned, volume) > psnr(round_, volume) + 2


def test_fit_is_a_function_of_its_generator_and_of_the_world() -> None:
    """Twice the same; and a volume moved by the affine has its centres moved, nothing else."""
    volume, _ = plane()
    one, two = (fit_field(volume, AFFINE, 8, generator_of(3), steps=5, points=50) for _ in range(2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    affine = AFFINE.clone()
    affine[:2, 2] += torch.tensor([100.0, -40.0])
    moved = fit_field(volume, affine, 8, generator_of(3), steps=5, points=50)
    torch.testing.assert_close(
        moved.centres - one.centres, torch.tensor([[100.0, -40.0]]).double().expand(8, -1)
    )
    torch.testing.assert_close(moved.log_scales, one.log_scales)


def test_centres_go_where_there_is_detail() -> None:
    """A disc on nothing: nine of ten centres within two voxels of its border, all different, amplitudes 0."""
    at = voxel_centres((32, 32), torch.eye(3))
    radius = (at - 15.5).norm(dim=1)
    volume = (radius < 8).double().reshape(1, 1, 32, 32)
    field = initial_field(volume, torch.eye(3), 60, generator_of(5))
    near = ((field.centres.detach() - 15.5).norm(dim=1) - 8).abs() < 2
    assert float(near.double().mean()) > 0.85
    assert len(field.centres.detach().unique(dim=0)) == 60
    assert not field.amplitudes.any()


def test_bad_input_is_explained() -> None:
    volume, field = plane()
    with pytest.raises(InputError, match="expected one volume"):
        initial_field(volume.expand(2, -1, -1, -1), AFFINE, 3, generator_of(0))
    with pytest.raises(InputError, match="1 to 480 Gaussians"):
        fit_field(volume, AFFINE, 481, generator_of(0))
    with pytest.raises(InputError, match="steps >= 0"):
        fit_field(volume, AFFINE, 4, generator_of(0), steps=-1)
    with pytest.raises(InputError, match="One row a point"):
        solve_amplitudes(field, torch.zeros(3, 2).double(), torch.zeros(3, 2).double())
