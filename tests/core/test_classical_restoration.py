"""Total variation and wavelets: closed forms, a transform written as matrices, and no better point nearby."""

import math

import pytest
import torch
from torch import Tensor

from radiata_core.classical_restoration import (
    haar,
    inverse_haar,
    total_variation,
    tv_restoration,
    wavelet_restoration,
)
from radiata_core.downsampling import AveragePooling
from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.masking import Masking
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity
from radiata_core.seeds import generator_of

SQUARE = (1, 8, 8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


def operators() -> dict[str, LinearOperator]:
    mask = normal(8, 8, seed=5) > -0.3
    return {
        "identity": Identity(SQUARE),
        "mask": Masking(mask, SQUARE),
        "pooling": AveragePooling((2, 2), SQUARE),
        "k-space": FourierSampling(normal(8, 8, seed=6) > -0.5, SQUARE, real=True),
    }


def test_a_step_loses_its_weight_at_both_sides() -> None:
    """1-D, 3 values of 0 and 5 of 1: the solution is w/3 and 1 - w/5, as long as they do not meet."""
    y = torch.cat([torch.zeros(3), torch.ones(5)]).double().view(1, 1, 8)
    found = tv_restoration(Identity((1, 8)), y, 0.3, iterations=300)
    expected = torch.cat([torch.full((3,), 0.1), torch.full((5,), 1 - 0.06)]).double().view(1, 1, 8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    merged = tv_restoration(Identity((1, 8)), y, 10.0, iterations=300)
    torch.testing.assert_close(merged, torch.full_like(y, 5 / 8), rtol=0, atol=1e-4)


def test_variation_of_a_ramp_and_of_a_corner() -> None:
    ramp = torch.arange(4.0).expand(2, 1, 3, 4)
    assert total_variation(ramp).tolist() == [9.0, 9.0]
    corner = torch.zeros(1, 1, 3, 3)
    corner[0, 0, 1, 1] = 1.0
    assert float(total_variation(corner)) == pytest.approx(2 + math.sqrt(2))


def test_haar_is_its_matrix_and_orthonormal() -> None:
    half = math.sqrt(0.5)
    pairs = torch.zeros(8, 8, dtype=torch.float64)
    for i in range(4):
        pairs[i, 2 * i] = pairs[i, 2 * i + 1] = pairs[4 + i, 2 * i] = half
        pairs[4 + i, 2 * i + 1] = -half
    x = normal(3, 2, 8, 8)
    torch.testing.assert_close(haar(x, 1), pairs @ x @ pairs.mT, rtol=0, atol=1e-12)
    twice = pairs @ x @ pairs.mT
    twice[..., :4, :4] = haar(twice[..., :4, :4], 1)
    torch.testing.assert_close(haar(x, 2), twice, rtol=0, atol=1e-12)
    volume = normal(1, 1, 8, 4, 8, seed=1)
    for levels in (1, 2):
        found = haar(volume, levels)
        assert float(found.norm()) == pytest.approx(float(volume.norm()), rel=1e-12)
        torch.testing.assert_close(inverse_haar(found, levels), volume, rtol=0, atol=1e-12)


def test_shrinkage_of_an_image_is_shrinkage_of_its_coefficients() -> None:
    y = normal(2, *SQUARE, seed=2)
    found = wavelet_restoration(Identity(SQUARE), y, 0.7, levels=2, iterations=400)
    coefficients = haar(y, 2)
    shrunk = coefficients.sign() * (coefficients.abs() - 0.7).clamp_min(0)
    shrunk[..., :2, :2] = coefficients[..., :2, :2]
    torch.testing.assert_close(found, inverse_haar(shrunk, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", operators())
@pytest.mark.parametrize("kind", ["tv", "wavelet"])
def test_no_point_nearby_is_better(name: str, kind: str) -> None:
    """The objective is convex: random and structured directions, at three lengths, do not go below it by more than 1e-4."""
    operator, weight = operators()[name], 0.3
    y = operator(normal(1, *SQUARE, seed=3))

    def objective(x: Tensor) -> Tensor:
        size = (operator(x) - y).abs().square().flatten(1).sum(1) / 2
        if kind == "tv":
            return size + weight * total_variation(x)
        details = haar(x, 2).abs()
        return size + weight * (details.flatten(1).sum(1) - details[..., :2, :2].flatten(1).sum(1))

    solve = tv_restoration if kind == "tv" else wavelet_restoration
    options = {} if kind == "tv" else {"levels": 2}
    x = solve(operator, y, weight, iterations=300, **options)
    best = float(objective(x))
    towards = torch.cat([normal(20, *SQUARE, seed=4), x, x.mean() - x, operator.pseudo_inverse(y) - x])
    for length in (1e-3, 1e-2, 0.1):
        step = length * towards / towards.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        least = min(float(objective(x + s[None])) for s in step)
        assert least > best - 1e-4


def test_shifts_hide_the_blocks_and_keep_shifted_images_shifted() -> None:
    """With all shifts of a level, shrinkage of a rolled image is the rolled one of the image, and without it is not."""
    y = normal(1, *SQUARE, seed=7)
    for shifts, equal in ((2, True), (1, False)):
        found = wavelet_restoration(Identity(SQUARE), y, 0.5, 1, 1, shifts=shifts)
        rolled = wavelet_restoration(Identity(SQUARE), y.roll((1, 1), (2, 3)), 0.5, 1, 1, shifts=shifts)
        assert torch.allclose(rolled, found.roll((1, 1), (2, 3)), atol=1e-9) == equal


def test_rows_and_channels_stand_alone() -> None:
    operator = Identity((2, 8))
    y = normal(3, 2, 8, seed=8)
    whole = tv_restoration(operator, y, 0.2, 50)
    torch.testing.assert_close(tv_restoration(operator, y[1:2], 0.2, 50), whole[1:2], rtol=0, atol=1e-12)
    one = tv_restoration(Identity((1, 8)), y[:, 1:], 0.2, 50)
    torch.testing.assert_close(one, whole[:, 1:], rtol=0, atol=1e-12)
    assert tv_restoration(operator, y.float(), 0.2, 5).dtype == torch.float32


def test_bad_input() -> None:
    operator, y = Identity(SQUARE), normal(1, *SQUARE)
    for case, word in [
        (lambda: tv_restoration(operator, y, -1.0), "weight >= 0"),
        (lambda: tv_restoration(operator, y, 1.0, 0), "1 iteration"),
        (lambda: tv_restoration(Identity((8,)), normal(1, 8), 1.0), "channel"),
        (lambda: wavelet_restoration(operator, y, 1.0, levels=4), "2\\^levels"),
        (lambda: wavelet_restoration(operator, y, 1.0, levels=1, shifts=3), "shifts"),
    ]:
        with pytest.raises(InputError, match=word) as raised:
            case()
        assert "\n" not in str(raised.value)
