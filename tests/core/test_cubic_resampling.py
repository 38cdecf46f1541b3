"""Cubic up-sampling against parabolas, values it goes through, where slices are."""

import pytest
import torch

from radiata_core.cubic_resampling import cubic_matrix, cubic_upsampling
from radiata_core.downsampling import AveragePooling, slice_profile, thick_slices
from radiata_core.errors import InputError
from radiata_core.pointwise import Identity
from radiata_core.separable import gaussian_blur


def test_lines_come_back_and_parabolas_up_to_the_mean_over_a_block() -> None:
    """Blocks of f of a parabola measure it plus (f^2 - 1)/12; cubic interpolation adds nothing of its own inside."""
    at = torch.arange(48, dtype=torch.float64)
    x = torch.stack([2 * at + 1, at**2])[:, None, None].expand(2, 1, 16, 48)
    operator = AveragePooling([1, 4], (1, 16, 48))
    found = cubic_upsampling(operator, operator(x))
    inside = found[..., 8:40] - x[..., 8:40]
    torch.testing.assert_close(inside[0], torch.zeros_like(inside[0]), atol=1e-10, rtol=0)
    torch.testing.assert_close(inside[1], torch.full_like(inside[1], 15 / 12), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("spacing", "thickness"), [(3, 3), (4, 6), (5, 2), (2.5, 2.5)])
def test_slices_are_put_where_they_are(spacing: float, thickness: float) -> None:
    """A ramp across slices comes back, whatever their gaps and overlaps, except next to the border.

    Where the spacing is no whole number the centres of mass jump between voxels, by a tenth of one.
    """
    x = torch.arange(60, dtype=torch.float64).reshape(1, 1, 60, 1).expand(1, 1, 60, 8)
    operator = thick_slices((1, 60, 8), -2, spacing, thickness)
    found = cubic_upsampling(operator, operator(x))
    torch.testing.assert_close(
        found[:, :, 12:48], x[:, :, 12:48], atol=1e-6 if spacing == int(spacing) else 0.2, rtol=0
    )


def test_rows_sum_to_one_and_go_through_the_measured_values() -> None:
    matrix = slice_profile(45, 3, 3)
    up = cubic_matrix(matrix)
    torch.testing.assert_close(up.sum(1), torch.ones(45, dtype=torch.float64))
    torch.testing.assert_close(up[1::3], torch.eye(15, dtype=torch.float64))


def test_volumes_and_float32() -> None:
    operator = AveragePooling([2, 2, 2], (1, 16, 16, 16))
    y = torch.ones(2, *operator.measurement_shape)
    found = cubic_upsampling(operator, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.ones(2, 1, 16, 16, 16))


def test_other_operators_and_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="pseudo_inverse"):
        cubic_upsampling(Identity((1, 16, 16)), torch.zeros(1, 1, 16, 16))
    with pytest.raises(InputError, match="measurements"):
        cubic_upsampling(gaussian_blur([1, 1], (1, 16, 16)), torch.zeros(1, 1, 16, 8))
    with pytest.raises(InputError, match="order"):
        cubic_matrix(torch.eye(4).flip(0))
