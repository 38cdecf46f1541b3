"""K-space: what is sampled is what a Fourier transform by hand says; coils add what one coil lacks."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import (
    FourierSampling,
    MultiCoilSampling,
    coil_sensitivities,
    from_kspace,
    to_kspace,
)
from radiata_core.kspace_masks import equispaced_lines, random_lines
from radiata_core.seeds import generator_of


def _of(*shape: int, seed: int = 1, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=dtype)


def test_samples_are_those_of_the_sum_by_hand() -> None:
    """sum over voxels of x exp(-2 pi i k r / n) / sqrt(n), k counted from the middle of the grid, n // 2."""
    x, mask = _of(1, 1, 6, 5), torch.zeros(6, 5, dtype=torch.bool)
    mask[1, 4] = mask[3, 2] = True
    found = FourierSampling(mask, (1, 6, 5))(x)[0, 0]
    for value, (k, l) in zip(found, ((1 - 3, 4 - 2), (0, 0)), strict=True):  # noqa: E741
        rows, columns = torch.arange(6.0).double(), torch.arange(5.0).double()
        turns = k * rows[:, None] / 6 + l * columns / 5
        expected = (x[0, 0] * torch.exp(-2j * math.pi * turns)).sum() / math.sqrt(30)
        torch.testing.assert_close(value, expected)


def test_kspace_and_back() -> None:
    x = _of(2, 3, 5, 4)
    torch.testing.assert_close(from_kspace(to_kspace(x, (-2, -1)), (-2, -1)), x)
    torch.testing.assert_close(to_kspace(x, (-2, -1)).norm(), x.norm())


def test_a_file_becomes_a_measurement_and_is_filled_with_zeros() -> None:
    x, mask = _of(2, 1, 8, 6), equispaced_lines((8, 6), 2)
    operator = FourierSampling(mask, (1, 8, 6))
    whole = to_kspace(x, (-2, -1))
    assert torch.equal(operator.observe(whole), operator(x))
    assert torch.equal(operator.fill(operator(x)), whole * mask)


def test_real_images_need_half_of_kspace() -> None:
    """One of each pair k, -k determines a real image; for a complex one the other half is lost."""
    mask = torch.zeros(7, 5, dtype=torch.bool)
    mask[:, :3] = True
    x = _of(2, 1, 7, 5, dtype=torch.float64)
    real = FourierSampling(mask, (1, 7, 5), real=True)
    torch.testing.assert_close(real.pseudo_inverse(real(x)), x)
    free = FourierSampling(mask, (1, 7, 5))
    assert (free.pseudo_inverse(free(x.to(torch.complex128))) - x).norm() > 0.3 * x.norm()


def test_norm_of_samples_without_their_mirror() -> None:
    mask = torch.zeros(7, 5, dtype=torch.bool)
    mask[:, 3:] = True
    assert FourierSampling(mask, (1, 7, 5), real=True).norm == pytest.approx(math.sqrt(0.5))
    assert FourierSampling(mask, (1, 7, 5)).norm == 1


@pytest.mark.parametrize("shape", [(16, 12), (6, 8, 10)])
def test_sensitivities_are_smooth_different_and_of_unit_sum(shape: tuple[int, ...]) -> None:
    maps = coil_sensitivities(shape, 8)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(shape, dtype=torch.float64))
    for axis in range(1, maps.ndim):
        assert maps.diff(dim=axis).abs().max() < 0.5
    flat = maps.flatten(1)
    alike = (flat @ flat.mH).abs() / flat.norm(dim=1)[:, None] / flat.norm(dim=1)
    assert (alike - torch.eye(8)).max() < 0.97


def test_coils_unfold_what_one_coil_cannot() -> None:
    """Half of the lines and four coils determine the image; one coil does not."""
    shape = (12, 10)
    x, mask = _of(2, 1, *shape), equispaced_lines(shape, 2.0, middle=0.0)
    coils = MultiCoilSampling(mask, coil_sensitivities(shape, 4), (1, *shape))
    torch.testing.assert_close(coils.pseudo_inverse(coils(x)), x, rtol=1e-5, atol=1e-5)
    one = FourierSampling(mask, (1, *shape))
    assert (one.pseudo_inverse(one(x)) - x).norm() > 0.5 * x.norm()


def test_one_even_coil_is_the_single_coil() -> None:
    shape = (6, 5)
    mask, x = random_lines(shape, 2.0, generator_of(1)), _of(2, 1, *shape)
    coil = MultiCoilSampling(mask, torch.ones(1, *shape, dtype=torch.complex64), (1, *shape))
    single = FourierSampling(mask, (1, *shape))
    torch.testing.assert_close(coil(x)[:, :, 0], single(x))
    torch.testing.assert_close(
        coil.prox(x, coil(2 * x), 0.2), single.prox(x, single(2 * x), 0.2), rtol=1e-7, atol=1e-8
    )


MASK = torch.ones(4, 5, dtype=torch.bool)
MAPS = coil_sensitivities((4, 5), 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FourierSampling(~MASK, (1, 4, 5)), "got an empty one"),
        (lambda: FourierSampling(MASK, (1, 5, 4)), "expected a mask of the last axes"),
        (lambda: FourierSampling(MASK.double(), (1, 4, 5)), "expected a mask of True and False"),
        (lambda: MultiCoilSampling(MASK, MAPS[:, :3], (1, 4, 5)), r"expected sensitivities \(coil, 4, 5\)"),
        (lambda: MultiCoilSampling(MASK, MAPS[0], (1, 4, 5)), "One map a coil"),
        (lambda: MultiCoilSampling(MASK, MAPS.real, (1, 4, 5)), "expected finite complex sensitivities"),
        (lambda: MultiCoilSampling(MASK, MAPS, (1, 5, 4)), "expected a mask of the last axes"),
        (
            lambda: MultiCoilSampling(MASK, MAPS, (1, 4, 5)).adjoint(_of(2, 1, 3, 20)),
            "expected measurements of shape",
        ),
        (lambda: coil_sensitivities((4,), 2), "expected two or more axes"),
        (lambda: coil_sensitivities((4, 5), 0), "a coil or more"),
    ],
)
def test_bad_masks_and_coils_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
