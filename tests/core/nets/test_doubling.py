"""Folded doubling against doubling and convolving."""

import pytest
import torch
from torch.nn import functional as F

from radiata_core.errors import InputError
from radiata_core.nets.doubling import doubled_convolution, folded_kernel

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


@pytest.mark.parametrize("grid", [(5,), (4, 3), (3, 2, 4)])
def test_equals_doubling_then_convolving_with_its_gradients(
    grid: tuple[int, ...], generator: torch.Generator
) -> None:
    dims = len(grid)
    x = torch.randn(2, 3, *grid, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, *[3] * dims, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    want = CONVOLUTIONS[dims - 1](F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    got = doubled_convolution(x, weight, bias)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    upstream = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(got, (x, weight, bias), upstream),
        torch.autograd.grad(want, (x, weight, bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_other_kernels_are_refused() -> None:
    with pytest.raises(InputError, match="kernel"):
        folded_kernel(torch.zeros(2, 2, 5, 5))
