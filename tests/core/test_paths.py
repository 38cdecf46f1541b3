"""Paths against closed forms, autograd, quadrature and MedForJ's schedule multiplied out in numpy."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from radiata_core.errors import InputError
from radiata_core.paths import (
    DiscreteVPPath,
    LinearPath,
    Path,
    TrigonometricPath,
    VEPath,
    VPPath,
    add_noise,
    expand,
    same_log_snr,
)
from radiata_core.predictions import Prediction, convert
from radiata_core.specs import describe, rebuild

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@over_paths
def test_data_end_is_exact(path: Path) -> None:
    c = path.coefficients(times(0.0))
    assert c.alpha.item() == 1
    assert c.sigma.item() == 0
    assert math.copysign(1, c.sigma.item()) == 1
    assert path.log_snr(times(0.0)).item() == math.inf


def test_noise_end_is_exact() -> None:
    for path, alpha, sigma in [
        (LinearPath(), 0, 1),
        (TrigonometricPath(), 0, 1),
        (VEPath(), 1, 80),
        (VPPath(), math.exp(-5.025), math.sqrt(1 - math.exp(-10.05))),
    ]:
        c = path.coefficients(times(1.0))
        assert c.alpha.item() == pytest.approx(alpha, rel=1e-13, abs=0)
        assert c.sigma.item() == pytest.approx(sigma, rel=1e-13)
    assert LinearPath().log_snr(times(1.0)).item() == -math.inf
    assert TrigonometricPath().log_snr(times(1.0)).item() == -math.inf


@over_paths
def test_derivatives_are_autograds(path: Path, rng: np.random.Generator) -> None:
    t = torch.tensor(rng.uniform(1e-3, 1 - 1e-3, 50), requires_grad=True)
    c = path.coefficients(t)
    for value, derivative in [(c.alpha, c.d_alpha), (c.sigma, c.d_sigma)]:
        if value.requires_grad:
            (expected,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        else:
            expected = torch.zeros_like(t)
        torch.testing.assert_close(derivative.detach(), expected, rtol=1e-9, atol=1e-9)


@over_paths
def test_log_snr_is_the_log_ratio_and_falls(path: Path) -> None:
    t = torch.linspace(1e-6, 1 - 1e-6, 301, dtype=torch.float64)
    c = path.coefficients(t)
    torch.testing.assert_close(path.log_snr(t), torch.log(c.alpha / c.sigma), rtol=1e-8, atol=1e-9)
    assert (path.log_snr(t).diff() < 0).all()


@over_paths
def test_log_snr_inverts(path: Path) -> None:
    t = torch.cat(
        [times(0.0, 1e-9, 1e-6, 1e-3), torch.linspace(0.01, 0.99, 99, dtype=torch.float64), times(1.0)]
    )
    torch.testing.assert_close(path.time_of_log_snr(path.log_snr(t)), t, rtol=1e-10, atol=1e-12)
    assert path.time_of_log_snr(times(math.inf, -math.inf)).tolist() == [0, 1]


@over_paths
def test_inverse_is_differentiable(path: Path) -> None:
    t = times(0.2013, 0.5017, 0.8049).requires_grad_()
    lam = path.log_snr(t)
    (slope,) = torch.autograd.grad(lam.sum(), t)
    lam = lam.detach().requires_grad_()
    (inverse_slope,) = torch.autograd.grad(path.time_of_log_snr(lam).sum(), lam)
    torch.testing.assert_close(slope * inverse_slope, torch.ones(3, dtype=torch.float64))


@over_paths
def test_probability_flow_ode(path: Path, rng: np.random.Generator) -> None:
    """u = f x - g²/2 score with f = alpha'/alpha and g² = 2 sigma sigma' - 2 f sigma², and g² = -2 sigma² lambda'."""
    t = torch.tensor(rng.uniform(0.01, 0.99, 40), requires_grad=True)
    (slope,) = torch.autograd.grad(path.log_snr(t).sum(), t)
    t = t.detach()
    c = path.coefficients(t)
    x0, noise = (torch.tensor(rng.standard_normal(40)) for _ in range(2))
    x, u, score = c.alpha * x0 + c.sigma * noise, c.d_alpha * x0 + c.d_sigma * noise, -noise / c.sigma
    f = c.d_alpha / c.alpha
    g2 = 2 * c.sigma * c.d_sigma - 2 * f * c.sigma**2
    torch.testing.assert_close(f * x - 0.5 * g2 * score, u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(g2, -2 * c.sigma**2 * slope, rtol=1e-9, atol=1e-9)
    if isinstance(path, VPPath):
        beta = path.beta_min + t * (path.beta_max - path.beta_min)
        torch.testing.assert_close(f, -beta / 2, rtol=1e-10, atol=0)
        torch.testing.assert_close(g2, beta, rtol=1e-10, atol=0)


def test_vp_integrates_its_rate() -> None:
    path = VPPath(0.3, 7.0)
    for t in (0.05, 0.4, 1.0):
        integral = quad(lambda s: 0.3 + s * 6.7, 0, t)[0]
        c = path.coefficients(times(t))
        assert c.alpha.item() == pytest.approx(math.exp(-integral / 2), rel=1e-12)
        assert c.sigma.item() == pytest.approx(math.sqrt(1 - math.exp(-integral)), rel=1e-12)


def test_vp_with_constant_and_with_vanishing_rate() -> None:
    t = times(0.0, 1e-4, 0.3, 1.0)
    for path in (VPPath(3.0, 3.0), VPPath(0.0, 20.0)):
        torch.testing.assert_close(path.time_of_log_snr(path.log_snr(t)), t, rtol=1e-9, atol=1e-12)


def test_ve_grows_geometrically_to_its_ends() -> None:
    """sigma + sigma_min is a geometric progression from sigma_min to sigma_max + sigma_min."""
    path = VEPath(0.01, 50.0)
    sigma = path.coefficients(torch.linspace(0, 1, 11, dtype=torch.float64)).sigma
    np.testing.assert_allclose(sigma + 0.01, np.geomspace(0.01, 50.01, 11), rtol=1e-12)


def test_discrete_nodes_are_medforjs_cumulative_product() -> None:
    path = DiscreteVPPath()
    mean = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    c = path.coefficients(path.time_of_index(torch.arange(1000)))
    np.testing.assert_allclose(c.alpha, np.sqrt(mean), rtol=1e-12)
    np.testing.assert_allclose(c.sigma, np.sqrt(1 - mean), rtol=1e-12)
    # MONAI and MedForJ multiply in float32; this is how far they are from the schedule they mean.
    single = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000, dtype=np.float32), dtype=np.float32)
    np.testing.assert_allclose(c.alpha, np.sqrt(single), rtol=2e-5)


def test_discrete_path_is_log_linear_between_nodes() -> None:
    path = DiscreteVPPath(1e-3, 0.2, 10)
    low, high = path.time_of_index(3), path.time_of_index(4)
    logs = [2 * math.log(path.coefficients(t).alpha.item()) for t in (low, 0.75 * low + 0.25 * high, high)]
    assert logs[1] == pytest.approx(0.75 * logs[0] + 0.25 * logs[2], rel=1e-12)
    slope = 2 * path.coefficients(high).d_alpha / path.coefficients(high).alpha
    assert slope.item() == pytest.approx((logs[2] - logs[0]) * 10, rel=1e-9)


def test_discrete_times_and_indices() -> None:
    path = DiscreteVPPath()
    index = torch.arange(-1, 1000)
    torch.testing.assert_close(
        path.model_time(path.time_of_index(index)), index.to(torch.float64), atol=1e-9, rtol=0
    )
    assert path.time_of_index(-1).item() == 0
    assert path.time_of_index(999).item() == 1


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


@over_paths
def test_noisy_state_is_the_sum(path: Path, rng: np.random.Generator) -> None:
    x0, noise = rng.standard_normal((2, 3, 2, 4, 5))
    t = rng.uniform(0, 1, 3)
    rows = [path.coefficients(torch.tensor(value)) for value in t]
    expected = [c.alpha.item() * a + c.sigma.item() * b for c, a, b in zip(rows, x0, noise, strict=True)]
    x = add_noise(path, torch.tensor(x0), torch.tensor(noise), torch.tensor(t))
    np.testing.assert_allclose(x, np.stack(expected), rtol=1e-12)
    scalar = add_noise(path, torch.tensor(x0), torch.tensor(noise), torch.tensor(t[0]))
    np.testing.assert_allclose(scalar[0], x[0], rtol=1e-12)


def test_half_precision_states_are_rounded_once(rng: np.random.Generator) -> None:
    x0, noise = (torch.tensor(rng.standard_normal((2, 50)), dtype=torch.bfloat16) for _ in range(2))
    t = times(0.123, 0.877)
    exact = add_noise(LinearPath(), x0.double(), noise.double(), t)
    x = add_noise(LinearPath(), x0, noise, t)
    assert x.dtype == torch.bfloat16
    assert ((x.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-7).all()


def test_expand_lines_rows_up() -> None:
    like = torch.zeros(3, 2, 4)
    assert expand(times(1, 2, 3), like).shape == (3, 1, 1)
    assert expand(torch.tensor(2.0), like).shape == ()
    assert expand(times(1, 2, 3), like).dtype == torch.float32
    assert expand(times(1, 2, 3), like.half()).dtype == torch.float32
    with pytest.raises(InputError, match="expected one value, or one for each of the 3 rows; got shape"):
        expand(times(1, 2), like)


@over_paths
def test_paths_survive_json(path: Path) -> None:
    assert rebuild(describe(path)) == path


@over_paths
@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf, 500.0])
def test_times_outside_are_refused(path: Path, bad: float) -> None:
    for use in (path.coefficients, path.log_snr):
        with pytest.raises(InputError, match=r"expected times in \[0, 1\].*got") as raised:
            use(times(0.5, bad))
        assert "\n" not in str(raised.value)


@over_paths
def test_log_snr_that_is_no_number_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="got NaN"):
        path.time_of_log_snr(times(math.nan))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VPPath(-1.0, 20.0),
        lambda: VPPath(2.0, 1.0),
        lambda: VPPath(0.0, 0.0),
        lambda: VPPath(0.1, math.nan),
        lambda: VEPath(0.0, 1.0),
        lambda: VEPath(2.0, 1.0),
        lambda: DiscreteVPPath(0.0, 0.1),
        lambda: DiscreteVPPath(0.1, 1.0),
        lambda: DiscreteVPPath(steps=0),
        lambda: DiscreteVPPath().time_of_index(1000),
        lambda: DiscreteVPPath().time_of_index(-2),
    ],
)
def test_impossible_schedules_are_refused(make) -> None:
    with pytest.raises(InputError, match=r"^expected .*; got .*\. "):
        make()
