"""A change of path against the path itself: Gaussian data, whose denoiser is known on both."""

import numpy as np
import pytest
import torch

from radiata_core.change_of_path import same_log_snr
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction, convert

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("target", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("source", PATHS, ids=lambda path: type(path).__name__)
def test_change_of_path_equals_the_native_path(source: Path, target: Path, rng: np.random.Generator) -> None:
    """Gaussian data: denoiser, noise and velocity carried over by scale and time are those of the target path.

    The velocity goes by (c'/c) x + c t' u(x/c), with c' and t' from autograd.
    """
    mean, variance = 0.7, 1.9

    def denoise(path: Path, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        c = path.coefficients(t)
        return mean + c.alpha * variance / (c.alpha**2 * variance + c.sigma**2) * (x - c.alpha * mean)

    s = torch.tensor(rng.uniform(0.02, 0.9, 20), requires_grad=True)
    moved = same_log_snr(s, target, source)
    (d_scale,) = torch.autograd.grad(moved.scale.sum(), s, retain_graph=True, allow_unused=True)
    (d_time,) = torch.autograd.grad(moved.t.sum(), s, allow_unused=True)
    d_scale = torch.zeros_like(s) if d_scale is None else d_scale
    s, t, scale = s.detach(), moved.t.detach(), moved.scale.detach()

    x = torch.tensor(rng.standard_normal(20))
    clean = denoise(target, x, s)
    carried = denoise(source, x / scale, t)
    torch.testing.assert_close(carried, clean, rtol=1e-9, atol=1e-9)
    for prediction, back in [(Prediction.EPSILON, 1), (Prediction.SCORE, 1 / scale)]:
        native = convert(clean, x, s, target, Prediction.X0, prediction)
        other = convert(carried, x / scale, t, source, Prediction.X0, prediction)
        torch.testing.assert_close(back * other, native, rtol=1e-7, atol=1e-7)
    native = convert(clean, x, s, target, Prediction.X0, Prediction.VELOCITY)
    other = convert(carried, x / scale, t, source, Prediction.X0, Prediction.VELOCITY)
    torch.testing.assert_close(d_scale / scale * x + scale * d_time * other, native, rtol=1e-7, atol=1e-7)


def test_change_of_path_at_the_ends() -> None:
    moved = same_log_snr(times(0.0, 1.0), TrigonometricPath(), LinearPath())
    assert moved.t.tolist() == [0, 1]
    assert moved.scale.tolist() == [1, 1]
