"""Separable operators are Kronecker products; a separable kernel agrees with the one that is not known to be."""

import pytest
import torch
from scipy import ndimage

from radiata_core.convolution import Boundary, KernelBlur, gaussian_kernel
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_core.separable import Separable, blur_matrix, gaussian_blur


def _of(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def test_matrices_along_axes_are_a_kronecker_product() -> None:
    a, b, x = _of(3, 5), _of(2, 4, seed=2), _of(2, 2, 5, 3, 4, seed=3)
    operator = Separable([a, None, b], (2, 5, 3, 4))
    whole = torch.kron(torch.kron(a, torch.eye(3, dtype=torch.float64)), b)
    torch.testing.assert_close(operator(x).flatten(2), x.flatten(2) @ whole.T)
    assert operator.norm == pytest.approx(float(torch.linalg.matrix_norm(whole, 2)))


@pytest.mark.parametrize("boundary", list(Boundary))
def test_gaussian_blur_is_that_of_its_kernel_and_of_scipy(boundary: Boundary) -> None:
    x, sigma = _of(2, 1, 12, 9, 10), [0.8, 0.0, 1.1]
    blurred = gaussian_blur(sigma, (1, 12, 9, 10), boundary)(x)
    torch.testing.assert_close(blurred, KernelBlur(gaussian_kernel(sigma), (1, 12, 9, 10), boundary)(x))
    mode = {Boundary.ZERO: "constant", Boundary.REFLECT: "reflect"}[boundary]
    for row, expected in zip(blurred, x, strict=True):
        # scipy's kernel is rounded to voxels, ours rounded up
        lines = expected[0].numpy()
        for axis in (0, 2):
            lines = ndimage.convolve1d(lines, gaussian_kernel([sigma[axis]]).numpy(), axis=axis, mode=mode)
        torch.testing.assert_close(row[0], torch.as_tensor(lines))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("boundary", list(Boundary))
def test_blur_matrix_against_scipy_column_by_column(side: int, boundary: Boundary) -> None:
    kernel = _of(side, seed=side)
    mode = {Boundary.ZERO: "constant", Boundary.REFLECT: "reflect"}[boundary]
    columns = [
        ndimage.convolve1d(row, kernel.numpy(), mode=mode)
        for row in torch.eye(7, dtype=torch.float64).numpy()
    ]
    expected = torch.stack([torch.as_tensor(column) for column in columns], 1)
    torch.testing.assert_close(blur_matrix(kernel, 7, boundary), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Separable([], (1, 4)), "expected a matrix"),
        (lambda: Separable([None, torch.ones(2, 5)], (1, 4, 4)), "expected a matrix"),
        (lambda: Separable([torch.ones(4)], (1, 4)), "expected a matrix"),
        (lambda: Separable([None] * 4, (1, 4, 4)), "expected a matrix"),
        (lambda: Separable([torch.full((2, 4), torch.nan)], (1, 4)), "expected finite numbers in the matrix"),
    ],
)
def test_bad_matrices_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
