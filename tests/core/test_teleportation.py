"""Teleportation: the closed form against a solver, the curve of the painters, and when each component emerges."""

import math

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import EmpiricalDenoiser, GaussianDenoiser
from radiata_core.anchors import PooledGaussian
from radiata_core.covariances import LowRank, LowRankFit
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.gaussian_fits import ClassGaussians, fit_gaussian, isotropic
from radiata_core.paths import LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.runge_kutta import adaptive, edm_heun
from radiata_core.solvers import Step, integrate, unipc_2
from radiata_core.teleportation import Teleported, emergence, skip_time, teleport
from radiata_core.times import KarrasGrid, LogSNRGrid

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(sigma_max=20.0)]


def _t(time: float) -> Tensor:
    return torch.tensor(time, dtype=torch.float64)


def _fit(generator: torch.Generator, scale: float = 1.0) -> LowRankFit:
    """A Gaussian of 3 x 4 elements: four components and a floor."""
    basis = torch.linalg.qr(torch.randn(12, 4, generator=generator, dtype=torch.float64)).Q.mT.reshape(
        4, 3, 4
    )
    values = scale * torch.tensor([4.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    return LowRankFit(
        torch.randn(3, 4, generator=generator, dtype=torch.float64), LowRank(basis.contiguous(), values, 0.02)
    )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_the_closed_form_is_the_solution(path: Path, generator: torch.Generator) -> None:
    """T4: against Dormand-Prince on the exact denoiser at a tolerance of 1e-9, there and back, to 1e-7."""
    fit = _fit(generator)
    denoiser = GaussianDenoiser(fit.mean, fit.covariance, path)
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    x = x * path.coefficients(_t(0.97)).sigma
    jumped = teleport(x, path, fit, _t(0.97), _t(0.2))
    solved = adaptive(denoiser, x, path, t_start=0.97, t_end=0.2, rtol=1e-9, atol=1e-9).x
    torch.testing.assert_close(jumped, solved, rtol=0, atol=1e-7)
    torch.testing.assert_close(teleport(jumped, path, fit, _t(0.2), _t(0.97)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_noise_arrives_with_the_covariance_of_the_noisy_data(path: Path, generator: torch.Generator) -> None:
    """From the prior at t = 1, exactly: the Jacobian J of the jump has J J^T v(1) = alpha² S + sigma²."""
    fit = _fit(generator)
    eye = torch.eye(12, dtype=torch.float64).view(12, 3, 4)
    zero = teleport(torch.zeros(1, 3, 4, dtype=torch.float64), path, fit, _t(1.0), _t(0.3))
    jacobian = (teleport(eye, path, fit, _t(1.0), _t(0.3)) - zero).flatten(1)
    c, end = path.coefficients(_t(0.3)), path.coefficients(_t(1.0))
    start = fit.covariance.apply(lambda value: end.alpha**2 * value + end.sigma**2, eye).flatten(1)
    wanted = fit.covariance.apply(lambda value: c.alpha**2 * value + c.sigma**2, eye).flatten(1)
    torch.testing.assert_close(jacobian.mT @ start @ jacobian, wanted, rtol=0, atol=1e-10)


def test_rows_go_with_their_class(generator: torch.Generator) -> None:
    path, everyone = LinearPath(), _fit(generator)
    gaussians = ClassGaussians({0: _fit(generator, 2.0), 3: _fit(generator, 0.5)}, everyone, "digit")
    x = torch.randn(4, 3, 4, generator=generator, dtype=torch.float64)
    start = torch.tensor([1.0, 0.9, 0.8, 1.0], dtype=torch.float64)
    jumped = teleport(x, path, gaussians, start, _t(0.4), digit=torch.tensor([3, -1, 0, 3]))
    fits = [gaussians.of(3), everyone, gaussians.of(0), gaussians.of(3)]
    for i, fit in enumerate(fits):
        alone = teleport(x[i : i + 1], path, fit, start[i], _t(0.4))
        torch.testing.assert_close(jumped[i : i + 1], alone, rtol=0, atol=1e-14)
    none = teleport(x, path, gaussians, _t(1.0), _t(0.4))
    torch.testing.assert_close(none, teleport(x, path, everyone, _t(1.0), _t(0.4)))


def test_an_anchor_jumps_along_its_own_flow(generator: torch.Generator) -> None:
    """Against the solver with the anchor itself as the denoiser, covariates moving the mean."""

    class Anchored:
        path = LinearPath()

        def __call__(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
            c = self.path.coefficients(t)
            return anchor(x, c.alpha, c.sigma, **conditions)

    anchor = PooledGaussian(shape=(1, 2, 4, 4), rank=2, covariates=2).double()
    anchor.mean.normal_(generator=generator)
    anchor.effects.normal_(generator=generator)
    anchor.basis.copy_(torch.linalg.qr(torch.randn(4, 2, generator=generator, dtype=torch.float64)).Q.mT)
    anchor.eigenvalues.copy_(torch.tensor([3.0, 1.0]))
    anchor.fine.fill_(0.2)
    x = torch.randn(2, 1, 2, 4, 4, generator=generator, dtype=torch.float64)
    given = torch.tensor([[1.0, torch.nan], [0.5, -1.0]], dtype=torch.float64)
    jumped = teleport(x, LinearPath(), anchor, _t(0.95), _t(0.3), covariates=given)
    solved = adaptive(
        Anchored(), x, LinearPath(), t_start=0.95, t_end=0.3, rtol=1e-9, atol=1e-9, covariates=given
    ).x
    torch.testing.assert_close(jumped, solved, rtol=0, atol=1e-7)


def test_for_gaussian_data_a_teleported_sampler_makes_the_error_of_its_rest(
    generator: torch.Generator,
) -> None:
    """Skipping down to t = 0.2 removes the error that the solver makes above it."""
    path, fit = LinearPath(), _fit(generator)
    denoiser = GaussianDenoiser(fit.mean, fit.covariance, path)
    grid = LogSNRGrid()(12, path)

    def solve(model: Denoiser, x: Tensor, times: Tensor) -> Tensor:
        return integrate(model, x, unipc_2(times, path))

    x = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    exact = teleport(x, path, fit, _t(1.0), _t(0.0))
    plain = (solve(denoiser, x, grid) - exact).abs().max()
    grid_left = Teleported(fit, 0.2, solve).remaining(grid)
    assert grid_left[0] >= 0.2 > grid_left[1]
    assert torch.equal(grid_left, grid[-len(grid_left) :])
    assert len(Teleported(fit, 1e-9, solve).remaining(grid)) == 2
    skipped = (Teleported(fit, 0.2, solve)(denoiser, x, grid) - exact).abs().max()
    assert skipped < 0.5 * plain
    assert torch.equal(Teleported(fit, 1.0, solve)(denoiser, x, grid), solve(denoiser, x, grid))


def test_the_time_to_skip_to_is_that_of_the_noise(generator: torch.Generator) -> None:
    fit = _fit(generator)
    distance = math.sqrt(5.4 + 8 * 0.02)
    for path in (LinearPath(), VEPath(sigma_max=80.0)):
        kappa = torch.exp(-path.log_snr(_t(skip_time(fit, path, 5.0))))
        assert float(kappa) == pytest.approx(5 * distance, rel=1e-6)


def _blobs(n: int, generator: torch.Generator, side: int = 8) -> Tensor:
    """Images of six random blobs each, standard deviation 0.5."""
    axis = torch.arange(side, dtype=torch.float64)
    place = torch.rand(2, n, 6, 1, generator=generator, dtype=torch.float64) * side
    width = 0.75 + torch.rand(n, 6, 1, generator=generator, dtype=torch.float64)
    height = 0.5 + torch.rand(n, 6, generator=generator, dtype=torch.float64)
    rows, columns = torch.exp(-((axis - place) ** 2) / (2 * width**2))
    images = torch.einsum("nb,nbi,nbj->nij", height, rows, columns)[:, None]
    return (images - images.mean()) * (0.5 / images.std())


def test_teleport_curve_of_the_painters(generator: torch.Generator) -> None:
    """T19: from noise 80 to 17 standard deviations of the data a third of the evaluations costs nothing.

    Images as a mixture of points with the exact score, EDM's 18 steps against 60. The same solver with as few evaluations
    and no jump is worse, and so is a jump with an isotropic Gaussian.
    """
    path = LinearPath()
    data = _blobs(256, generator)
    denoiser = EmpiricalDenoiser(data, path)
    fit = fit_gaussian(data.split(64), rank=48, noise=0.002)
    calls = 0

    class Counted:
        path = denoiser.path

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return denoiser(x, t)

    def solve(model: Denoiser, x: Tensor, times: Tensor) -> Tensor:
        return edm_heun(model, x, times, path)

    grid = KarrasGrid()(18, path)
    x = (
        torch.randn(1024, 1, 8, 8, generator=generator, dtype=torch.float64)
        * path.coefficients(grid[0]).sigma
    )
    truth = solve(denoiser, x, KarrasGrid()(60, path))

    def error(sample: Tensor) -> float:
        return float((sample - truth).square().mean().sqrt())

    skip = skip_time(fit, path, 17 / math.sqrt(64))  # 17 standard deviations of a pixel
    plain = error(solve(Counted(), x, grid))
    assert calls == 35
    calls = 0
    jumped = error(Teleported(fit, skip, solve)(Counted(), x, grid))
    assert calls == 23
    assert jumped <= 1.1 * plain
    assert jumped < 0.8 * error(solve(denoiser, x, KarrasGrid()(12, path)))
    assert error(Teleported(isotropic(fit), skip, solve)(denoiser, x, grid)) > 1.05 * jumped


def test_components_of_gaussian_data_emerge_as_predicted(generator: torch.Generator) -> None:
    """The share of component k is 1/sqrt(1 + kappa²/lambda_k), and passes 1/sqrt(2) at kappa² = lambda_k."""
    path, fit = VPPath(), _fit(generator)
    denoiser = GaussianDenoiser(fit.mean, fit.covariance, path)
    steps: list[Step] = []
    x = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64)
    integrate(denoiser, x, unipc_2(LogSNRGrid(5.0)(200, path), path), callback=steps.append)
    seen = emergence(steps, fit, path, components=4)
    torch.testing.assert_close(seen.share, seen.predicted, rtol=0, atol=2e-3)
    torch.testing.assert_close(seen.commit, seen.predicted_commit, rtol=0.01, atol=0)
    assert (seen.commit.diff() < 0).all()
    assert seen.projections.shape == (200, 6, 4)
    late = emergence(steps[-2:], fit, path, components=1)
    assert late.commit.isnan().all()


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    fit, path = _fit(generator), LinearPath()
    with pytest.raises(InputError, match="t_skip in"):
        Teleported(fit, 0.0, integrate)
    with pytest.raises(InputError, match="fall strictly"):
        Teleported(fit, 0.5, integrate).remaining(torch.tensor([0.5, 1.0, 0.0]))
    with pytest.raises(InputError, match="ratio > 0"):
        skip_time(fit, path, 0.0)
    with pytest.raises(InputError, match="at least 2 steps"):
        emergence([], fit, path)
