"""The one-axis operators against what they promise: polynomials, averages, the fine grid, the way back."""

import numpy as np
import pytest
import torch

from radiata_imaging.interpolation import Axis, Interpolation, apply_axes, gaussian_matrix


@pytest.mark.parametrize(
    ("kind", "degree"), [(Interpolation.NEAREST, 0), (Interpolation.LINEAR, 1), (Interpolation.CUBIC, 2)]
)
def test_polynomials_are_reproduced(kind: Interpolation, degree: int) -> None:
    """Keys' kernel to degree 2, linear to 1, away from the ends."""
    axis = Axis(30, 40, 4.3, 0.51)
    positions = 4.3 + 0.51 * np.arange(40)
    for power in range(degree + 1):
        np.testing.assert_allclose(
            axis.matrix(kind) @ (np.arange(30.0) / 10) ** power, (positions / 10) ** power, atol=1e-12
        )


def test_rows_sum_to_one_inside_and_zero_outside() -> None:
    sums = Axis(20, 60, -20.0, 1.0 / 1.0).matrix().sum(1)
    np.testing.assert_array_equal(sums, [0] * 20 + [1] * 20 + [0] * 20)
    np.testing.assert_allclose(Axis(20, 5, 1.5, 4.0).matrix().sum(1), 1)


def test_samples_are_kept_exactly_where_positions_are_voxels() -> None:
    matrix = Axis(12, 5, 3.0, 2.0).matrix(antialias=False)
    np.testing.assert_array_equal(matrix, np.eye(12)[3:13:2])


def test_the_smoothing_has_the_variance_of_the_larger_voxel() -> None:
    """Box of width 4 = box of width 1 * Gaussian in the second moment: 1/12 + σ² = 16/12."""
    kernel = gaussian_matrix(101, np.sqrt((4**2 - 1) / 12))[50]
    offsets = np.arange(101) - 50
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * offsets**2).sum() + 1 / 12 == pytest.approx(16 / 12, rel=2e-3)


def test_a_coarser_grid_averages_noise_and_does_not_alias() -> None:
    """White noise keeps less than half its sd at a step of 4 (an average of 4 voxels: 0.5); stripes vanish."""
    matrix = Axis(400, 100, 1.5, 4.0).matrix()
    inner = matrix[10:-10]
    assert np.sqrt((inner**2).sum(1)).max() < 0.5
    stripes = (-1.0) ** np.arange(400)
    assert np.abs(inner @ stripes).max() < 1e-3
    assert (
        np.abs(
            Axis(400, 100, 1.5, 4.0).matrix(antialias=False)[10:-10]
            @ np.roll(np.tile([1, 1, -1, -1.0], 100), 1)
        ).max()
        > 0.9
    )


def test_an_axis_and_its_inverse_place_the_same_voxels() -> None:
    axis = Axis(30, 12, 2.5, 1.75)
    back = axis.inverse
    assert (back.source, back.target) == (12, 30)
    assert back.start + back.step * (axis.start + axis.step * 7) == pytest.approx(7)


def test_three_axes_are_the_kronecker_product(rng: np.random.Generator) -> None:
    """Against the triple sum written out by einsum, with a crop, a pad and an interpolated axis."""
    array = rng.normal(size=(7, 8, 9))
    axes = [Axis(7, 9, -1.0, 1.0), Axis(8, 5, 0.4, 1.3), Axis(9, 4, 2.0, 1.0)]
    expected = np.einsum("ai,bj,ck,ijk->abc", *[axis.matrix() for axis in axes], array)
    np.testing.assert_allclose(apply_axes(torch.from_numpy(array), axes).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_how_the_array_lies_in_memory_does_not_matter(
    rng: np.random.Generator, order: tuple[int, ...]
) -> None:
    """Every axis by its own matrix, as a plain sum over voxels says it: NIfTI lies the other way round."""
    shape, axes = (5, 7, 9), (Axis(5, 8, 0.2, 0.6), Axis(7, 4, 1.0, 1.0), Axis(9, 4, 0.5, 2.0))
    values = rng.standard_normal(shape)
    lying = torch.from_numpy(np.ascontiguousarray(values.transpose(order))).permute(
        *np.argsort(order).tolist()
    )
    expected = np.einsum("ai,bj,ck,ijk->abc", *(axis.matrix() for axis in axes), values)
    np.testing.assert_allclose(apply_axes(lying, axes).numpy(), expected, atol=1e-12)
