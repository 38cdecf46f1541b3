"""Blur against scipy's, with every boundary, in one to three axes, for odd and even kernels."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from radiata_core.convolution import Boundary, CircularBlur, KernelBlur, continued, gaussian_kernel
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of

SHAPES = [((9,), (4,)), ((9,), (3,)), ((8, 7), (3, 4)), ((6, 5, 7), (2, 3, 5))]


def _of(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


@pytest.mark.parametrize(("shape", "sides"), SHAPES)
@pytest.mark.parametrize("mode", ["wrap", "reflect", "constant"])
def test_convolution_is_that_of_scipy(shape: tuple[int, ...], sides: tuple[int, ...], mode: str) -> None:
    image, kernel = _of(shape, 1), _of(sides, 2)
    event = (1, *shape)
    operator = {
        "wrap": lambda: CircularBlur(kernel, event),
        "reflect": lambda: KernelBlur(kernel, event),
        "constant": lambda: KernelBlur(kernel, event, Boundary.ZERO),
    }[mode]()
    expected = ndimage.convolve(image.numpy(), kernel.numpy(), mode=mode)
    torch.testing.assert_close(operator(image[None, None])[0, 0], torch.as_tensor(expected))


def test_gaussian_kernel_is_that_of_scipy() -> None:
    image = np.zeros((31, 31))
    image[15, 15] = 1
    kernel = gaussian_kernel([2.0, 1.0], reach=4.0)
    expected = ndimage.gaussian_filter(image, [2.0, 1.0], truncate=4.0)
    torch.testing.assert_close(kernel, torch.as_tensor(expected[7:24, 11:20]))
    assert gaussian_kernel([0.0, 1.0]).shape == (1, 9)
    assert float(gaussian_kernel([1.5, 0.7, 2.2]).sum()) == pytest.approx(1)


def test_circular_prox_restores_what_it_blurred() -> None:
    """A kernel without zeros in its spectrum: the pseudo-inverse is the inverse."""
    x = _of((2, 1, 12, 10), 3)
    operator = CircularBlur(gaussian_kernel([0.6, 0.5]), (1, 12, 10))
    torch.testing.assert_close(operator.pseudo_inverse(operator(x)), x)
    assert operator.norm == pytest.approx(1)


def test_continued_lines() -> None:
    assert continued(3, 2, 3, Boundary.REFLECT).tolist() == [1, 0, 0, 1, 2, 2, 1, 0]
    assert continued(3, 2, 1, Boundary.ZERO).tolist() == [-1, -1, 0, 1, 2, -1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gaussian_kernel([-1.0]), "expected sigma >= 0 along each axis"),
        (lambda: gaussian_kernel([]), "expected sigma >= 0 along each axis"),
        (lambda: CircularBlur(torch.ones(5, 5), (1, 4, 8)), "expected a kernel no longer than the image"),
        (lambda: CircularBlur(torch.zeros(3, 3), (1, 4, 8)), "expected a finite kernel that is not 0"),
        (lambda: KernelBlur(torch.full((3,), torch.inf), (1, 4, 8)), "expected a finite kernel"),
        (lambda: KernelBlur(torch.ones(3, 3, 3, 3), (1, 4, 8)), "expected a real kernel with an axis"),
        (lambda: KernelBlur(torch.ones(11, 1), (1, 4, 8)), "reaches no further than the 4 voxels"),
    ],
)
def test_bad_kernels_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
