"""Closed-form denoisers against autograd, scipy, linear algebra and each other."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from radiata_core.analytic import (
    EmpiricalDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    gaussian_flow,
    wiener_denoiser,
)
from radiata_core.covariances import Dense, Diagonal, LowRank
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath, add_noise
from radiata_core.predictions import Prediction, convert

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(sigma_max=5.0), DiscreteVPPath()]


def _t(*times: float) -> torch.Tensor:
    return torch.tensor(times if len(times) > 1 else times[0], dtype=torch.float64)


def _mixture(path: Path, generator: torch.Generator) -> MixtureDenoiser:
    basis = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    return MixtureDenoiser(
        weights=torch.tensor([1.0, 2.0, 3.0]),
        means=torch.randn(3, 3, generator=generator, dtype=torch.float64) * 2,
        covariances=[
            Diagonal(torch.tensor([0.5, 0.1, 1.0], dtype=torch.float64)),
            Dense(basis @ torch.diag(torch.tensor([0.3, 0.6, 0.05], dtype=torch.float64)) @ basis.mT),
            LowRank(basis[:1], torch.tensor([2.0], dtype=torch.float64), 0.1),
        ],
        path=path,
    )


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_score_is_the_gradient_and_x0_is_tweedies(path: Path, generator: torch.Generator) -> None:
    """score = grad log p_t and alpha E[x0|x] = x + sigma² score, each row with a time of its own."""
    mixture = _mixture(path, generator)
    empirical = EmpiricalDenoiser(mixture.means, path, bandwidth=0.3)
    gaussian = GaussianDenoiser(mixture.means[0], mixture.covariances[1], path)
    x = torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    t = _t(0.1, 0.5, 0.9)
    c = path.coefficients(t)
    for denoiser in (mixture, empirical, gaussian):
        (gradient,) = torch.autograd.grad(denoiser.log_density(x, t).sum(), x)
        torch.testing.assert_close(denoiser.score(x, t), gradient, rtol=1e-8, atol=1e-8)
        tweedie = (x + c.sigma[:, None] ** 2 * gradient) / c.alpha[:, None]
        torch.testing.assert_close(denoiser(x, t), tweedie, rtol=1e-6, atol=1e-6)


def test_log_density_is_scipys(generator: torch.Generator) -> None:
    path, t = LinearPath(), _t(0.4)
    mixture = _mixture(path, generator)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    density = np.zeros(5)
    for weight, mean, covariance in zip(
        (1 / 6, 2 / 6, 3 / 6), mixture.means, mixture.covariances, strict=True
    ):
        identity = torch.eye(3, dtype=torch.float64)
        noisy = 0.36 * covariance.apply(lambda value: value, identity) + 0.16 * identity
        density += weight * scipy.stats.multivariate_normal(0.6 * mean.numpy(), noisy.numpy()).pdf(x.numpy())
    np.testing.assert_allclose(mixture.log_density(x, t).numpy(), np.log(density), rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath()], ids=lambda p: type(p).__name__)
def test_exact_ends(path: Path, generator: torch.Generator) -> None:
    """Pure noise says nothing: the mean of the data. No noise says all: the state itself."""
    mixture = _mixture(path, generator)
    gaussian = GaussianDenoiser(mixture.means[0], Diagonal(torch.tensor([1.0, 0.0, 2.0])), path)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    mean = (mixture.means * torch.tensor([[1.0], [2.0], [3.0]]) / 6).sum(0)
    torch.testing.assert_close(mixture(x, _t(1.0)), mean.expand(4, 3))
    torch.testing.assert_close(mixture(x, _t(0.0)), x)
    torch.testing.assert_close(gaussian(x, _t(1.0)), mixture.means[0].expand(4, 3))
    on_plane = torch.where(torch.tensor([True, False, True]), x, mixture.means[0])
    torch.testing.assert_close(gaussian(on_plane, _t(0.0)), on_plane)
    points = EmpiricalDenoiser(mixture.means, path)
    torch.testing.assert_close(points(mixture.means + 0.01, _t(0.0)), mixture.means)
    torch.testing.assert_close(points(x, _t(1.0)), mixture.means.mean(0).expand(4, 3))


@pytest.mark.parametrize("bandwidth", [0.0, 0.4])
def test_empirical_is_a_mixture_of_points(bandwidth: float, generator: torch.Generator) -> None:
    data = torch.randn(7, 2, 3, generator=generator, dtype=torch.float64)
    path, t = VPPath(), _t(0.2, 0.5, 0.8)
    blobs = [Diagonal(torch.full((2, 3), bandwidth**2, dtype=torch.float64))] * 7
    mixture = MixtureDenoiser(torch.ones(7), data, blobs, path)
    empirical = EmpiricalDenoiser(data, path, bandwidth)
    x = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(empirical(x, t), mixture(x, t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(empirical.log_density(x, t), mixture.log_density(x, t), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(empirical.weights(x, t), mixture.responsibilities(x, t), rtol=1e-9, atol=1e-9)


def test_chunks_change_nothing(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = EmpiricalDenoiser(torch.randn(9, 4, generator=generator), LinearPath())
    x, t = torch.randn(2, 4, generator=generator), _t(0.3)
    whole = denoiser(x, t)
    monkeypatch.setattr("radiata_core.analytic._CHUNK", 8)
    torch.testing.assert_close(denoiser(x, t), whole)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_flow_solves_its_equation(path: Path, generator: torch.Generator) -> None:
    """d/ds flow(x, t -> s) = u(flow, s) by central differences, and t -> s -> t returns."""
    denoiser = GaussianDenoiser(
        torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), _mixture(path, generator).covariances[2], path
    )
    x = torch.randn(2, 3, generator=generator, dtype=torch.float64)

    def flow(s: torch.Tensor) -> torch.Tensor:
        return gaussian_flow(x, _t(0.9), s, denoiser.mean, denoiser.covariance, path)

    s = _t(0.3505)  # between two nodes of the discrete path
    state, change = flow(s), (flow(s + 1e-5) - flow(s - 1e-5)) / 2e-5
    velocity = convert(denoiser(state, s), state, s, path, Prediction.X0, Prediction.VELOCITY)
    torch.testing.assert_close(change, velocity, rtol=1e-7, atol=1e-7)
    back = gaussian_flow(state, s, _t(0.9), denoiser.mean, denoiser.covariance, path)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)


def test_wiener_error_is_the_predicted_one(generator: torch.Generator) -> None:
    """Mean squared error = sum of sigma² l / (alpha² l + sigma²) even for data that are not Gaussian; 5 standard errors."""
    scales = torch.tensor([2.0, 1.0, 0.3, 0.3, 0.3])
    data = (torch.rand(40_000, 5, generator=generator) - 0.5) * math.sqrt(12) * scales
    path, t = LinearPath(), _t(0.5)
    denoiser = wiener_denoiser(data, path, rank=2)
    noise = torch.randn(data.shape, generator=generator)
    noisy = add_noise(path, data, noise, t)
    errors = (denoiser(noisy, t) - data).square().sum(1)
    spectrum = scales.double().square()
    expected = float((0.25 * spectrum / (0.25 * spectrum + 0.25)).sum())
    assert abs(float(errors.mean()) - expected) < 5 * float(errors.std()) / math.sqrt(len(errors))
    assert float(errors.mean()) < float((noisy - data).square().sum(1).mean())
    assert float(errors.mean()) < float(data.square().sum(1).mean())


def test_rows_are_independent_and_float32_stays(generator: torch.Generator) -> None:
    data = torch.randn(20, 1, 3, 4, generator=generator)
    denoiser = wiener_denoiser(data, VPPath(), rank=3)
    x, t = torch.randn(4, 1, 3, 4, generator=generator), _t(0.1, 0.4, 0.7, 1.0)
    together = denoiser(x, t)
    assert together.dtype == torch.float32
    for row in range(4):
        torch.testing.assert_close(denoiser(x[row : row + 1], t[row])[0], together[row])


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="as many positive weights"):
        MixtureDenoiser(torch.ones(2), torch.zeros(2, 3), [Diagonal(torch.ones(3))], LinearPath())
    with pytest.raises(InputError, match="at least one sample"):
        EmpiricalDenoiser(torch.zeros(0, 3), LinearPath())
