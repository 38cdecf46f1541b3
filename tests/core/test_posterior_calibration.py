"""Spread against error, on draws whose law is known."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.posterior_calibration import calibration, widened
from radiata_core.seeds import generator_of

ROWS, SIZE = 200, 50


def draws_of(count: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws about a centre of each number, and a truth that is one more draw with spread 1."""
    g = generator_of(count)
    centre = 3 * torch.randn(ROWS, SIZE, generator=g, dtype=torch.float64)
    truth = centre + torch.randn(ROWS, SIZE, generator=g, dtype=torch.float64)
    noise = torch.randn(count, ROWS, SIZE, generator=g, dtype=torch.float64)
    return centre + spread * noise, truth


@pytest.mark.parametrize("count", [19, 8, 40])
def test_exact_draws_are_calibrated_however_few(count: int) -> None:
    """10000 numbers: the ratio is off by 0.015 and coverage by 0.004 (one standard error); 5 of them are allowed."""
    level = 0.9 if count > 8 else 0.75
    found = calibration(*draws_of(count), level)
    assert found.ratio == pytest.approx(1, abs=0.08)
    assert found.coverage == pytest.approx(found.nominal, abs=0.02)
    assert found.rmse == pytest.approx((1 + 1 / count) ** 0.5, abs=0.04)
    assert found.rmse_draw == pytest.approx(2**0.5, abs=0.05)


def test_the_level_that_draws_can_express() -> None:
    assert calibration(*draws_of(19)).nominal == pytest.approx(0.9)
    assert calibration(*draws_of(40)).nominal == pytest.approx(37 / 41)
    assert calibration(*draws_of(8), 0.75).nominal == pytest.approx(7 / 9)


def test_a_sampler_that_is_too_sure_is_found_out_and_widened() -> None:
    draws, truth = draws_of(19, spread=0.5)
    found = calibration(draws, truth)
    assert found.ratio == pytest.approx(0.25 * (1 + 1 / 19) / (1 + 0.25 / 19), abs=0.03)
    assert found.coverage < 0.7
    repaired = calibration(widened(draws, found.ratio**-0.5), truth)
    assert repaired.ratio == pytest.approx(1, abs=1e-9)
    assert repaired.rmse == pytest.approx(found.rmse)
    assert repaired.coverage == pytest.approx(0.9, abs=0.03)


def test_a_mask_counts_its_elements_only() -> None:
    draws, truth = draws_of(19)
    mask = torch.zeros(ROWS, SIZE, dtype=torch.bool)
    mask[:, :10] = True
    broken = torch.where(mask, draws, 100.0)
    assert calibration(broken, truth, mask=mask) == calibration(draws[:, :, :10], truth[:, :10])


def test_bad_input() -> None:
    draws, truth = draws_of(19)
    for case, word in [
        (lambda: calibration(draws[:1], truth), "at least 2 draws"),
        (lambda: calibration(draws[:5], truth), "level that 5 draws can express"),
        (lambda: calibration(draws, truth, 1.5), "level"),
        (lambda: widened(draws, 0.0), "factor > 0"),
    ]:
        with pytest.raises(InputError, match=word) as raised:
            case()
        assert "\n" not in str(raised.value)
