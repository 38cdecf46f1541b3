"""Noise: its law, and that a row belongs to its generator."""

import pytest
import torch
from scipy.stats import kstest

from radiata_core.errors import InputError
from radiata_core.kernels import GaussianKernel
from radiata_core.specs import describe, rebuild


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_noise_is_unit_normal_and_white() -> None:
    """Kolmogorov-Smirnov at level 1e-3, and lag correlations within 4 standard errors (1 seed in 800 would fail)."""
    noise = GaussianKernel().noise(torch.zeros(8, 1, 10, 10, 50, dtype=torch.float64), generators(*range(8)))
    flat = noise.reshape(8, -1)
    assert kstest(flat.flatten().numpy(), "norm").pvalue > 1e-3
    standard_error = flat[0].numel() ** -0.5
    assert ((flat[:, 1:] * flat[:, :-1]).mean(1).abs() < 4 * standard_error).all()
    across = torch.corrcoef(flat) - torch.eye(8, dtype=torch.float64)
    assert across.abs().max() < 4.5 * standard_error


def test_a_row_depends_on_its_generator_only() -> None:
    kernel, x0 = GaussianKernel(), torch.zeros(3, 2, 5)
    batch = kernel.noise(x0, generators(7, 8, 9))
    for i, seed in enumerate((7, 8, 9)):
        assert torch.equal(kernel.noise(x0[:1], generators(seed))[0], batch[i])
    assert torch.equal(kernel.noise(x0, generators(9, 8, 7)), batch.flip(0))


def test_one_generator_fills_the_batch() -> None:
    (generator,) = generators(3)
    noise = GaussianKernel().noise(torch.zeros(4, 6), generator)
    assert torch.equal(noise, GaussianKernel().sample((4, 6), *generators(3)))
    assert noise.unique().numel() == 24


def test_half_precision_noise_is_the_same_noise_rounded() -> None:
    kernel = GaussianKernel()
    fine = kernel.sample((1000,), *generators(5))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(kernel.sample((1000,), *generators(5), dtype=dtype), fine.to(dtype))


def test_generators_are_counted() -> None:
    with pytest.raises(InputError, match="expected one generator a sample, 3; got 2"):
        GaussianKernel().noise(torch.zeros(3, 2), generators(0, 1))


def test_kernel_survives_json() -> None:
    assert rebuild(describe(GaussianKernel())) == GaussianKernel()
