"""Heun, EDM's sampler and dopri5 against the closed flow of a Gaussian, textbook loops and scipy."""

import math

import pytest
import torch
from torch import Tensor

from radiata_core import runge_kutta
from radiata_core.analytic import GaussianDenoiser, gaussian_flow
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.runge_kutta import Churn, adaptive, edm_heun, heun
from radiata_core.seeds import generators_of, noise_of
from radiata_core.times import KarrasGrid, LogSNRGrid

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]


def _gaussian(path: Path) -> GaussianDenoiser:
    mean, variance = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 0.04])
    return GaussianDenoiser(mean.double(), Diagonal(variance.double()), path)


def _truth(denoiser: GaussianDenoiser, x: Tensor, start: float = 1.0, end: float = 0.0) -> Tensor:
    ends = torch.tensor([start, end], dtype=torch.float64)
    return gaussian_flow(x, ends[0], ends[1], denoiser.mean, denoiser.covariance, denoiser.path)


def _start(path: Path, rows: int, generator: torch.Generator) -> Tensor:
    sigma = path.coefficients(torch.ones((), dtype=torch.float64)).sigma
    return torch.randn(rows, 2, generator=generator, dtype=torch.float64) * sigma


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_dopri5_meets_its_tolerance_on_every_path(path: Path, generator: torch.Generator) -> None:
    denoiser, x = _gaussian(path), _start(path, 5, generator)
    truth, evaluations = _truth(denoiser, x), []
    for tolerance, bound in ((1e-3, 5e-3), (1e-6, 2e-5)):
        result = adaptive(denoiser, x, path, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(result.x, truth, rtol=0, atol=bound)
        evaluations.append(result.evaluations)
        steps = int((result.accepted + result.rejected).max())
        assert result.evaluations == 6 * steps + 3  # first slope, first step size, last denoising
    assert evaluations[0] < 60 and evaluations[1] < 130


def test_dopri5_rows_do_not_know_of_each_other(generator: torch.Generator) -> None:
    path = VPPath()
    denoiser, x = _gaussian(path), _start(path, 4, generator) * torch.tensor([[0.1], [1.0], [5.0], [30.0]])
    together = adaptive(denoiser, x, path)
    assert len(set(together.accepted.tolist())) > 1
    for row in range(4):
        alone = adaptive(denoiser, x[row : row + 1], path)
        torch.testing.assert_close(alone.x[0], together.x[row], rtol=1e-12, atol=1e-12)
        assert alone.accepted[0] == together.accepted[row]


def test_dopri5_there_and_back(generator: torch.Generator) -> None:
    """Towards the noise and back is the identity, and the way agrees with the closed form."""
    path = TrigonometricPath()
    denoiser, x = _gaussian(path), _start(path, 3, generator)
    noise = adaptive(denoiser, x, path, t_start=0.2, t_end=1.0, rtol=1e-8, atol=1e-8).x
    torch.testing.assert_close(noise, _truth(denoiser, x, 0.2, 1.0), rtol=0, atol=1e-6)
    back = adaptive(denoiser, noise, path, t_start=1.0, t_end=0.2, rtol=1e-8, atol=1e-8).x
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", [LinearPath(), VPPath()], ids=lambda p: type(p).__name__)
def test_heun_orders(path: Path, generator: torch.Generator) -> None:
    denoiser, x = _gaussian(path), _start(path, 8, generator)
    t = torch.tensor([0.9, 0.2], dtype=torch.float64)
    truth = _truth(denoiser, x, 0.9, 0.2)
    for solver in (heun, edm_heun):
        errors = []
        for n in (24, 96):
            if solver is heun:
                times = torch.linspace(0.9, 0.2, n + 1, dtype=torch.float64)
            else:
                first, last = path.log_snr(t).tolist()
                times = path.time_of_log_snr(torch.linspace(first, last, n + 1, dtype=torch.float64))
            errors.append(float((solver(denoiser, x, times, path) - truth).square().mean().sqrt()))
        assert math.log(errors[0] / errors[1], 4) > 1.8, solver.__name__


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_heun_from_noise_to_data(path: Path, generator: torch.Generator) -> None:
    """Both ends are finite and exact: alpha(1) = 0 and sigma(0) = 0 need no offset."""
    denoiser, x = _gaussian(path), _start(path, 8, generator)
    times = LogSNRGrid()(150, path)
    for solver in (heun, edm_heun):
        solved = solver(denoiser, x, times, path)
        torch.testing.assert_close(solved, _truth(denoiser, x), rtol=0, atol=1e-2)


def test_edm_sampler_is_the_papers(generator: torch.Generator) -> None:
    """Algorithm 2 of Karras et al. with churn, written out in sigma."""
    path = VEPath()
    denoiser, x = _gaussian(path), _start(path, 3, generator)
    times = KarrasGrid()(12, path)
    churn = Churn(amount=4.0, low=0.05, high=50.0, noise=1.003)
    sigmas, generators = path.coefficients(times).sigma, generators_of(range(3), 9)
    y = x
    for i in range(12):
        sigma, after = sigmas[i], sigmas[i + 1]
        gamma = min(4.0 / 12, math.sqrt(2) - 1) if 0.05 <= sigma <= 50 else 0.0
        hat = sigma * (1 + gamma)
        if gamma:
            y = y + (hat**2 - sigma**2).sqrt() * 1.003 * noise_of(generators, (2,), torch.float64)
        slope = (y - denoiser(y, path.time_of_log_snr(-hat.log()))) / hat
        ahead = y + (after - hat) * slope
        if after > 0:
            slope = (slope + (ahead - denoiser(ahead, times[i + 1])) / after) / 2
            ahead = y + (after - hat) * slope
        y = ahead
    solved = edm_heun(denoiser, x, times, path, churn=churn, generators=generators_of(range(3), 9))
    torch.testing.assert_close(solved, y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("amount", [0.0, 40.0])
def test_impulse_response_of_churn(amount: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variances without Monte Carlo: for Gaussian data the sampler is linear, so row k carries the weight of impulse k.

    Row 0 starts as the prior's standard deviation, and the k-th draw of noise is 1 in row k and 0 elsewhere.
    """
    path, errors = VEPath(), []
    denoiser = GaussianDenoiser(torch.zeros(1).double(), Diagonal(torch.ones(1).double()), path)
    for n in (10, 20, 40, 80, 160):
        draws = iter(torch.eye(n + 2, dtype=torch.float64)[1:, :, None])
        monkeypatch.setattr(runge_kutta, "noise_of", lambda *_, draws=draws: next(draws))
        x = torch.zeros(n + 2, 1, dtype=torch.float64)
        x[0] = math.sqrt(1 + 80**2)
        times = KarrasGrid()(n + 1, path)[:-1]  # to kappa = 0.002, where the data are but for 4e-6
        churned = edm_heun(
            denoiser, x, times, path, churn=Churn(amount), generators=generators_of(range(n + 2), 0)
        )
        errors.append(float(churned.square().sum()) - 1)
    measured = (
        [0.5873, 0.1721, 0.0641, 0.0279, 0.0087] if amount else [0.2994, 0.0647, 0.0153, 0.0038, 0.0010]
    )
    for error, bound in zip(errors, measured, strict=True):
        assert 0 < error < bound * 1.02, "churn over-disperses"


def test_nan_names_step_and_time() -> None:
    path = LinearPath()

    def breaks(x: Tensor, t: Tensor) -> Tensor:
        return x * (float("nan") if float(t.min()) < 0.5 else 1.0)

    times = torch.linspace(1, 0, 6, dtype=torch.float64)
    for solver in (heun, edm_heun):
        with pytest.raises(InputError, match=r"from the denoiser; got NaN or infinity at step 2, t=0\.4\. "):
            solver(breaks, torch.ones(1, 2), times, path)
    with pytest.raises(InputError, match=r"got NaN or infinity at step \d+, t=0\.\d+\. "):
        adaptive(breaks, torch.ones(1, 2), path)


def test_times_that_are_refused() -> None:
    path, x = LinearPath(), torch.ones(2, 2)
    for solver in (heun, edm_heun):
        with pytest.raises(InputError, match=r"times in \[0, 1\].*got 1\.5"):
            solver(lambda x, t: x, x, torch.tensor([1.5, 0.5, 0.0]), path)
        with pytest.raises(InputError, match="strictly decreasing"):
            solver(lambda x, t: x, x, torch.tensor([0.2, 0.5, 0.0]), path)
    with pytest.raises(InputError, match=r"t_end in \[0, 1\].*t_end=-0\.1"):
        adaptive(lambda x, t: x, x, path, t_end=-0.1)


def test_what_is_refused() -> None:
    path, x = LinearPath(), torch.ones(2, 2)
    times = torch.linspace(1, 0, 4)
    with pytest.raises(InputError, match="one generator a row"):
        edm_heun(lambda x, t: x, x, times, path, churn=Churn(1.0))
    with pytest.raises(InputError, match="step 0, t=1"):
        heun(lambda x, t: x * float("nan"), x, times, path)
    with pytest.raises(InputError, match="denoiser's path"):
        heun(_gaussian(VPPath()), x.double(), times, path)
    with pytest.raises(InputError, match="tolerances"):
        adaptive(lambda x, t: x, x, path, rtol=0.0)
    with pytest.raises(InputError, match="no velocity"):
        adaptive(lambda x, t: x, x, path, t_start=0.0, t_end=1.0)
    with pytest.raises(InputError, match="within 5 evaluations"):
        adaptive(lambda x, t: torch.sin(40 * x), x, path, max_evaluations=5)
