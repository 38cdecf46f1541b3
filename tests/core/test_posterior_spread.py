"""How far off a denoiser is: closed forms, the table between its nodes, and the measurement."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.paths import LinearPath, VEPath
from radiata_core.posterior_spread import KappaSpread, MeasuredSpread, UnitSpread, measured_spread
from radiata_core.seeds import generators_of

_spec = importlib.util.spec_from_file_location(
    "gaussian_problem", Path(__file__).with_name("gaussian_problem.py")
)
assert _spec is not None and _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["gaussian_problem"] = known
_spec.loader.exec_module(known)

long_covariance, mask, prior_draws, Problem = (
    known.long_covariance,
    known.mask,
    known.prior_draws,
    known.Problem,
)


def test_closed_forms() -> None:
    assert KappaSpread(2.0).variance(3.0) == 18.0
    assert UnitSpread(2.0).variance(math.inf) == 2.0
    assert UnitSpread().variance(2.0) == pytest.approx(0.8)


def test_the_table_is_straight_in_logarithms() -> None:
    spread = MeasuredSpread((0.1, 10.0), (0.01, 1.0))
    assert spread.variance(0.1) == pytest.approx(0.01)
    assert spread.variance(1.0) == pytest.approx(0.1)
    assert spread.variance(0.05) == pytest.approx(0.0025)  # as kappa^2 below
    assert spread.variance(100.0) == spread.variance(math.inf) == pytest.approx(1.0)


@pytest.mark.parametrize("path", [LinearPath(), VEPath()], ids=lambda path: type(path).__name__)
def test_the_measured_error_is_the_trace_of_the_posterior(path) -> None:
    """sum l kappa^2/(l + kappa^2)/8 for eigenvalues l; 3000 draws of 8 numbers: 5 standard errors are 8 %."""
    problem = Problem(long_covariance(), mask(), path)
    levels = torch.tensor([0.05, 0.3, 1.0, 5.0], dtype=torch.float64)
    times = path.time_of_log_snr(-levels.log())
    found = measured_spread(
        problem.denoiser, prior_draws(problem, 3000), times, generators_of(range(3000), 1)
    )
    values = torch.linalg.eigvalsh(problem.covariance)
    for kappa in levels.tolist():
        exact = float((values * kappa**2 / (values + kappa**2)).mean())
        assert found.variance(kappa) == pytest.approx(exact, rel=0.08)


def test_bad_input() -> None:
    problem = Problem(long_covariance(), mask())
    data = prior_draws(problem, 2)
    for case, word in [
        (lambda: UnitSpread(0.0), "variance of the data > 0"),
        (lambda: KappaSpread(-1.0), "scale of the spread > 0"),
        (lambda: MeasuredSpread((1.0, 0.5), (1.0, 1.0)), "rising noise levels"),
        (lambda: MeasuredSpread((), ()), "rising noise levels"),
        (
            lambda: measured_spread(problem.denoiser, data, torch.tensor([1.0]), generators_of([0, 1])),
            "signal and noise",
        ),
        (
            lambda: measured_spread(problem.denoiser, data, torch.tensor([0.5]), generators_of([0])),
            "one generator a row",
        ),
    ]:
        with pytest.raises(InputError, match=word) as raised:
            case()
        assert "\n" not in str(raised.value)
