"""Velocity fields: exponentials that invert, Jacobians with a known value, spectra with the stated spread."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from radiata_imaging.deformation import (
    compose,
    exponential,
    jacobian_determinant,
    random_velocity,
    sample_field,
    sample_volume,
    upsampled_planes,
)


def _grid(shape: tuple[int, int, int], spacing: float) -> torch.Tensor:
    axes = [(torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * spacing for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def test_exponential_of_a_linear_field_is_the_matrix_exponential() -> None:
    """For v = B p the flow is exp(B) p; away from the edges the grid version agrees to interpolation error."""
    positions = _grid((25, 27, 23), 2.0)
    matrix = torch.tensor([[0.05, 0.08, 0.0], [-0.08, -0.02, 0.03], [0.0, -0.03, 0.04]], dtype=torch.float64)
    displacement = exponential(torch.einsum("ij,jxyz->ixyz", matrix, positions), 2.0, squarings=9)
    exact = torch.einsum("ij,jxyz->ixyz", torch.linalg.matrix_exp(matrix), positions) - positions
    middle = (slice(None), *[slice(6, -6)] * 3)
    assert (displacement - exact)[middle].abs().max() < 2e-3
    det = jacobian_determinant(displacement, 2.0)[6:-6, 6:-6, 6:-6]
    assert torch.allclose(det, torch.linalg.matrix_exp(matrix).det(), atol=1e-3)


def test_exponential_of_minus_v_inverts(rng: np.random.Generator) -> None:
    field = random_velocity((32, 32, 32), 3.0, amplitude=2.0, length=24.0, rng=rng)
    velocity = torch.from_numpy(field).double()
    forth, back = exponential(velocity, 3.0), exponential(-velocity, 3.0)
    residual = compose(back, forth, 3.0)[:, 6:-6, 6:-6, 6:-6]
    assert residual.abs().max() < 0.12  # mm; the displacement itself reaches several
    assert forth.abs().max() > 2.0
    assert jacobian_determinant(forth, 3.0).min() > 0


def test_folding_is_seen() -> None:
    """A field that turns an axis over has a negative determinant there."""
    positions = _grid((9, 9, 9), 1.0)
    displacement = torch.zeros_like(positions)
    displacement[0] = -2.0 * positions[0]
    assert torch.allclose(jacobian_determinant(displacement, 1.0), torch.tensor(-1.0, dtype=torch.float64))


def test_random_velocity_has_the_stated_spread_and_length() -> None:
    """Pooled over 24 fields: sd within 10 %; correlation at the stated length near exp(-1/2) ... 0.6 of its scale."""
    fields = np.stack(
        [
            random_velocity((24, 24, 24), 4.0, amplitude=3.0, length=20.0, rng=np.random.default_rng(seed))
            for seed in range(24)
        ]
    )
    assert abs(fields.std() / 3.0 - 1.0) < 0.1
    lag = 5  # 20 mm
    correlation = (fields[:, :, lag:] * fields[:, :, :-lag]).mean() / fields.var()
    assert 0.45 < correlation < 0.75  # exp(-d^2 / 2 L^2) = 0.61 at d = L


def test_sampling_at_voxel_centres_returns_the_field(generator: torch.Generator) -> None:
    field = torch.randn(2, 5, 6, 7, generator=generator, dtype=torch.float64)
    index = torch.stack(
        torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (5, 6, 7)], indexing="ij")
    )
    assert torch.allclose(sample_field(field, index), field, atol=1e-12)


def test_a_volume_is_sampled_as_a_field_is(generator: torch.Generator) -> None:
    """Beside `sample_field` and scipy's linear interpolation, far outside the volume too."""
    volume = torch.randn(6, 2, 9, generator=generator, dtype=torch.float64)
    positions = 14.0 * torch.rand(3, 11, 7, generator=generator, dtype=torch.float64) - 3.0
    given = positions.clone()
    values = sample_volume(volume, positions)
    assert torch.equal(positions, given)
    expected = map_coordinates(volume.numpy(), positions.numpy(), order=1, mode="nearest")
    assert np.allclose(values, expected, atol=1e-12)
    assert torch.allclose(values, sample_field(volume[None], positions[:, None])[0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        ((12, 14, 12), (48, 56, 48)),
        ((6, 7, 5), (12, 14, 10)),
        ((5, 7, 6), (17, 12, 1)),
        ((1, 2, 3), (4, 4, 4)),
    ],
)
def test_planes_are_those_of_the_whole(
    coarse: tuple[int, ...], fine: tuple[int, int, int], generator: torch.Generator
) -> None:
    field = torch.randn(3, *coarse, generator=generator)
    whole = torch.nn.functional.interpolate(field[None], size=fine, mode="trilinear", align_corners=False)[0]
    planes = torch.stack([plane.clone() for plane in upsampled_planes(field, fine)], dim=1)
    assert (planes - whole).abs().max() < 1e-5
