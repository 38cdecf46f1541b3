"""The decay of the noise over a step against closed forms and quadrature by scipy."""

import math

import pytest
import torch
from scipy.integrate import quad

from radiata_core.diffusions import AncestralDiffusion, Diffusion, FunctionDiffusion, PowerDiffusion
from radiata_core.errors import InputError
from radiata_core.paths import LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.transitions import exact_transition

TIMES = torch.tensor([1.0, 0.7, 0.2, 0.01, 1e-4], dtype=torch.float64)


def test_decay_on_the_straight_path_in_closed_form() -> None:
    """sigma = t: 3 t² decays by 3/2 (t³ - s³), a constant g by g²/2 (1/s - 1/t)."""
    t, s = TIMES[:-1], TIMES[1:]
    square = PowerDiffusion().decay(t, s, LinearPath())
    torch.testing.assert_close(square, 1.5 * (t**3 - s**3), rtol=1e-12, atol=0)
    flat = PowerDiffusion(0.7, 0.0).decay(t, s, LinearPath())
    torch.testing.assert_close(flat, 0.245 * (1 / s - 1 / t), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "path", [LinearPath(), TrigonometricPath(), VPPath(), VEPath()], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize("diffusion", [PowerDiffusion(2.0, 1.0), AncestralDiffusion(0.6)], ids=str)
def test_decay_is_the_integral(diffusion: Diffusion, path: Path) -> None:
    """The ancestral one is the step in log-SNR: its quadrature says so, too."""

    def rate(r: float) -> float:
        t = torch.tensor([r], dtype=torch.float64)
        return float(diffusion.squared(t, path) / (2 * path.coefficients(t).sigma ** 2))

    ours = diffusion.decay(TIMES[1:2], TIMES[2:3], path)
    assert float(ours) == pytest.approx(quad(rate, 0.2, 0.7, epsrel=1e-10)[0], rel=1e-8)


def test_any_function_is_a_diffusion() -> None:
    t, s = TIMES[:-1], TIMES[1:]
    ours = FunctionDiffusion(lambda t: 3 * t**2).decay(t, s, VPPath())
    torch.testing.assert_close(ours, PowerDiffusion().decay(t, s, VPPath()))


def test_bad_diffusions_are_refused() -> None:
    for scale, power in [(-1.0, 2.0), (3.0, -1.0), (math.inf, 1.0), (math.nan, 1.0)]:
        with pytest.raises(InputError, match="expected scale >= 0"):
            PowerDiffusion(scale, power)
    with pytest.raises(InputError, match="expected share >= 0"):
        AncestralDiffusion(-0.1)
    grid = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    for g in (lambda t: -t, lambda t: t / 0):
        with pytest.raises(InputError, match="finite and >= 0"):
            exact_transition(grid, LinearPath(), FunctionDiffusion(g))
