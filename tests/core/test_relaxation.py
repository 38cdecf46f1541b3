"""Weights of relaxation."""

import math

import pytest

from radiata_core.errors import InputError
from radiata_core.posterior_spread import MeasuredSpread, UnitSpread
from radiata_core.relaxation import CalibratedRelaxation, ConstantRelaxation


def test_constant_weights_begin_with_the_denoiser() -> None:
    assert ConstantRelaxation(0.3).weights([math.inf, 2.0, 1.0]) == [1.0, 0.3, 0.3]
    with pytest.raises(InputError, match=r"weight in \(0, 1\]"):
        ConstantRelaxation(0.0)


def test_uncalibrated_weights_are_the_regularisation_over_t() -> None:
    """t = kappa/(1 + kappa) on the straight path; never beyond 1."""
    found = CalibratedRelaxation(0.5).weights([math.inf, 3.0, 1.0, 0.25])
    assert found == pytest.approx([0.5, 0.5 / 0.75, 1.0, 1.0])


def test_calibrated_weights_by_hand() -> None:
    """Errors of the velocity r^2/t^2 of 2, 0.5 and 1: inverses .5, 2, 1, mean 7/6, less the last."""
    times = [0.75, 0.5, 0.2]
    spread = MeasuredSpread((0.25, 1.0, 3.0), (1.0 * 0.2**2, 0.5 * 0.5**2, 2.0 * 0.75**2))
    found = CalibratedRelaxation(0.1, spread).weights([t / (1 - t) for t in times])
    assert found == pytest.approx([0.0, 0.1 * (1 / (7 / 6)) / 0.5, 0.0], rel=1e-5)


def test_a_calibration_that_would_do_nothing_is_refused() -> None:
    """Of round Gaussian data the velocity is known best at the ends: every weight would be 0."""
    with pytest.raises(InputError, match="between the ends of the walk"):
        CalibratedRelaxation(0.5, UnitSpread()).weights([math.inf, 3.0, 1.0, 0.3, 0.02])
