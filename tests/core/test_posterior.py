"""Posterior samplers against the closed form: what is exact is exact, and what is biased is biased by so much."""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Dense, Diagonal
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.kernels import StudentTKernel
from radiata_core.linear_gaussian_posterior import gaussian_posterior, mixture_posterior
from radiata_core.operators import LinearOperator
from radiata_core.paths import LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.pointwise import Identity
from radiata_core.posterior import denoise_once, misfit, sample_posterior, steer
from radiata_core.posterior_presets import (
    calibrated,
    ddnm,
    ddrm,
    dds,
    diffpir,
    dps,
    flair,
    flowchef,
    flower,
    mmps,
    pigdm,
    pnp_flow,
    relaxed_prox,
)
from radiata_core.posterior_spread import UnitSpread
from radiata_core.posterior_walk import PosteriorMethod
from radiata_core.renoising import AncestralShare, FixedShare
from radiata_core.seeds import generators_of, noise_of
from radiata_core.times import LogSNRGrid

_spec = importlib.util.spec_from_file_location(
    "gaussian_problem", File(__file__).with_name("gaussian_problem.py")
)
assert _spec is not None and _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["gaussian_problem"] = known
_spec.loader.exec_module(known)
EVENT, NOISE, Matrix, Problem = known.EVENT, known.NOISE, known.Matrix, known.Problem
affine_law, monte_carlo_law, normal = known.affine_law, known.monte_carlo_law, known.normal
mask, mixer = known.mask, known.mixer
long_covariance, round_covariance = known.long_covariance, known.round_covariance

LINEAR = LinearPath()
PATHS: list[Path] = [LINEAR, TrigonometricPath(), VPPath(), VEPath()]
METHODS: dict[str, PosteriorMethod] = {
    "relaxed_prox": relaxed_prox(),
    "calibrated": calibrated(UnitSpread()),
    "dps": dps(0.3),
    "flowchef": flowchef(),
    "flowchef through the network": flowchef(through_network=True),
    "flair": flair(),
    "ddnm": ddnm(),
    "ddrm": ddrm(),
    "dds": dds(),
    "diffpir": diffpir(),
    "pigdm": pigdm(),
    "mmps": mmps(),
    "pnp_flow": pnp_flow(averages=3),
    "flower": flower(),
}
over_methods = pytest.mark.parametrize("name", METHODS)
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


def grid(steps: int, path: Path = LINEAR) -> Tensor:
    """Even in log-SNR, from t = 1 (pure noise) to a noise of e^-4."""
    return LogSNRGrid(limit=4.0)(steps, path)


# Exact ones -------------------------------------------------------------------------------------------------------------


@over_paths
@pytest.mark.parametrize("operator", [mask(), mixer()], ids=["mask", "mixer"])
@pytest.mark.parametrize("steps", [3, 10])
def test_draws_are_exact_for_round_data_on_any_grid(
    path: Path, operator: LinearOperator, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N(m, I): mean and covariance are those of the posterior, with three evaluations as with ten, for every share of noise.

    Where alpha(1) > 0 (VP, VE) the walk starts about 0 instead of about alpha(1) m; fresh noise forgets that, old noise
    keeps 0.003 of a standard deviation of it.
    """
    problem = Problem(round_covariance(), operator, path)
    spread = UnitSpread()
    for method in (flower(draw=True), calibrated(spread), calibrated(spread, AncestralShare(0.7))):
        found = affine_law(problem, method, grid(steps, path), monkeypatch)
        assert found.bias < (1e-4 if method.renoising.fresh_only else 3e-3)
        assert found.variance == pytest.approx(1, abs=1e-3)
        assert found.shape < 1e-3


@pytest.mark.parametrize("operator", [mask(), mixer()], ids=["mask", "mixer"])
def test_moments_are_exact_for_every_gaussian(
    operator: LinearOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MMPS: the mean is the posterior's to 1e-3; the covariance tends to it at first order, as ancestral steps do."""
    problem = Problem(long_covariance(), operator)
    coarse = affine_law(problem, mmps(), grid(24), monkeypatch)
    fine = affine_law(problem, mmps(), grid(72), monkeypatch)
    assert coarse.bias < 1.5e-3 and fine.bias < 1e-3
    assert coarse.shape == pytest.approx(3 * fine.shape, rel=0.2)
    assert fine.shape < 0.11


def test_pigdm_is_mmps_for_round_data_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert affine_law(Problem(round_covariance(), mixer()), pigdm(), grid(16), monkeypatch).bias < 1e-3
    assert affine_law(Problem(long_covariance(), mixer()), pigdm(), grid(16), monkeypatch).bias > 0.1


@over_paths
def test_complex_measurements_have_noise_in_both_parts(path: Path) -> None:
    """k-space of a real image, half of it measured: the draws have the exact mean; error rate 1e-4 a number."""
    lines = torch.tensor([[True, True, False, True], [False, True, True, False]])
    operator = FourierSampling(lines, (1, 2, 4), real=True)
    mean = normal(1, 2, 4, seed=1)
    y = operator(mean[None] + normal(1, 1, 2, 4, seed=2)) + 0.1
    exact = gaussian_posterior(mean, round_covariance(), operator, y, NOISE)
    denoiser = GaussianDenoiser(mean, Dense(round_covariance()), path)
    rows = 800
    found = sample_posterior(
        denoiser,
        operator,
        y.expand(rows, *y.shape[1:]),
        NOISE,
        grid(4, path),
        flower(draw=True),
        generators_of(range(rows)),
    )
    error = (found.x.mean(0) - exact.mean[0]).flatten() / (exact.covariance.diagonal() / rows).sqrt()
    assert error.abs().max() < 4.3  # 8 numbers, P(|z| > 4.3) = 1.7e-5 each
    assert float(found.x.flatten(1).var(0).sum() / exact.covariance.trace()) == pytest.approx(1, abs=0.1)


# Known bias -------------------------------------------------------------------------------------------------------------

LAWS: dict[str, tuple[PosteriorMethod, tuple[float, float], tuple[float, float]]] = {
    # 32 steps, eigenvalues 3.1 to 0.1, five of eight numbers measured: bias (in posterior sd) and ratio of variances
    "relaxed_prox": (relaxed_prox(), (0.12, 0.17), (0.18, 0.24)),
    "flowchef": (flowchef(), (0.12, 0.17), (0.74, 0.84)),
    "flair": (flair(), (0.14, 0.20), (0.68, 0.79)),
    "ddnm": (ddnm(), (0.12, 0.17), (0.62, 0.72)),
    "ddrm": (ddrm(), (0.10, 0.15), (0.67, 0.77)),
    "dds": (dds(), (0.13, 0.18), (0.63, 0.74)),
    "diffpir": (diffpir(), (0.09, 0.14), (0.44, 0.54)),
    "diffpir, its defaults": (diffpir(7.0, 0.1), (0.21, 0.28), (1.3, 1.6)),
    "pigdm": (pigdm(), (0.19, 0.26), (0.75, 0.86)),
    "mmps": (mmps(), (0.0, 0.001), (0.73, 0.84)),
    "pnp_flow": (pnp_flow(), (0.12, 0.17), (0.44, 0.54)),
    "pnp_flow, mean of 5": (pnp_flow(averages=5), (0.12, 0.17), (0.07, 0.12)),
    "flower": (flower(), (0.09, 0.14), (0.44, 0.54)),
    "flower, draws": (flower(draw=True), (0.09, 0.14), (1.05, 1.16)),
    "calibrated": (calibrated(UnitSpread(0.6)), (0.09, 0.14), (0.98, 1.1)),
}


@pytest.mark.parametrize("name", LAWS)
def test_bias_and_variance_of_every_preset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact laws by impulse responses, bounded from both sides: a sampler that gets better or worse is found out."""
    method, (least, most), (narrow, wide) = LAWS[name]
    found = affine_law(Problem(long_covariance(), mask()), method, grid(32), monkeypatch)
    assert least <= found.bias <= most
    assert narrow <= found.variance <= wide


def test_dps_is_biased_and_its_scale_moves_the_spread() -> None:
    """Not affine in its noise: 600 draws, whose own error is 0.04 in bias and 0.04 in variance."""
    problem = Problem(long_covariance(), mask())
    gentle, strong = (monte_carlo_law(problem, dps(scale), grid(32)) for scale in (0.3, 3.0))
    assert 0.1 < gentle.bias < 0.35 and 0.6 < gentle.variance < 0.9
    assert 0.1 < strong.bias < 0.4 and strong.variance > 1.5


def test_fresh_noise_forgets_early_errors_and_ancestral_noise_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem, spread = Problem(long_covariance(), mixer()), UnitSpread()
    fresh = [affine_law(problem, calibrated(spread), grid(n), monkeypatch) for n in (12, 72)]
    kept = [affine_law(problem, calibrated(spread, AncestralShare()), grid(n), monkeypatch) for n in (12, 72)]
    assert fresh[1].bias < 0.3 * fresh[0].bias and fresh[1].shape < 0.4 * fresh[0].shape
    assert kept[1].bias > 0.75 * kept[0].bias and kept[1].shape > kept[0].shape


# A mixture --------------------------------------------------------------------------------------------------------------

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-1.5, 0, 1, 0], [1.5, 0.5, -1, 1], [0, 2, 0, -1.5]], dtype=torch.float64)
VARIANCES = torch.tensor([0.15, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.slow
def test_modes_that_the_measurement_does_not_tell_apart_keep_their_weights() -> None:
    """A mask over a number that is alike in all components: the weights are the prior's, the measured number Gaussian.

    MMPS is exact there. Chi-square of 2 degrees of freedom, and z of mean and variance: error rate 1e-3 each.
    """
    means = torch.cat([torch.zeros(3, 1, dtype=torch.float64), MEANS[:, 1:]], 1)
    variances = VARIANCES[:, None].expand(3, 4).clone()
    variances[:, 0] = 1.0
    denoiser = MixtureDenoiser(WEIGHTS, means, [Diagonal(row) for row in variances], LINEAR)
    operator = Matrix(torch.eye(4, dtype=torch.float64)[:1], (4,))
    y, rows = torch.tensor([[0.8]], dtype=torch.float64), 1500
    exact = mixture_posterior(WEIGHTS, means, [torch.diag(row) for row in variances], operator, y, NOISE)
    torch.testing.assert_close(exact.weights[0], WEIGHTS)
    x = sample_posterior(
        denoiser, operator, y.expand(rows, 1), NOISE, grid(128), mmps(), generators_of(range(rows))
    ).x
    wide = replace(exact, weights=exact.weights.expand(rows, 3))
    counts = torch.bincount(wide.responsibilities(x).argmax(1), minlength=3)
    assert float(((counts - rows * WEIGHTS).square() / (rows * WEIGHTS)).sum()) < 13.8
    centre, spread = exact.mean[0, 0], exact.covariance[0, 0, 0]
    assert abs(float((x[:, 0].mean() - centre) / (spread / rows).sqrt())) < 3.3
    assert float(x[:, 0].var() / spread) == pytest.approx(1, abs=3.3 * math.sqrt(2 / rows) + 0.05)


@pytest.mark.slow
def test_no_training_free_sampler_has_the_weights_of_modes_that_it_must_tell_apart() -> None:
    """A noisy y between the modes: the exact weights are .05 .22 .72, and presets are off by .1 to .4 in total variation.

    This is what they are known for: D averages over modes while they could still be told apart. The bound from below is
    there so that a sampler which gets it right is noticed.
    """
    means, variances = MEANS, [torch.eye(4, dtype=torch.float64) * v for v in VARIANCES]
    denoiser = MixtureDenoiser(WEIGHTS, means, [Diagonal(v.expand(4)) for v in VARIANCES], LINEAR)
    operator = Matrix(torch.eye(4, dtype=torch.float64)[:1], (4,))
    y, noise, rows = torch.tensor([[0.2]], dtype=torch.float64), 0.5, 600
    exact = mixture_posterior(WEIGHTS, means, variances, operator, y, noise)
    assert exact.weights[0].tolist() == pytest.approx([0.054, 0.221, 0.725], abs=1e-3)
    off = {}
    for name, method in {
        "mmps": mmps(),
        "flower": flower(True),
        "calibrated": calibrated(UnitSpread(0.5)),
    }.items():
        x = sample_posterior(
            denoiser, operator, y.expand(rows, 1), noise, grid(64), method, generators_of(range(rows))
        ).x
        wide = replace(exact, weights=exact.weights.expand(rows, 3))
        off[name] = float((wide.responsibilities(x).mean(0) - exact.weights[0]).abs().sum() / 2)
    assert all(0.1 < distance < 0.45 for distance in off.values()), off


# Against the papers' loops ----------------------------------------------------------------------------------------------


EYE = torch.eye(8, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class At:
    """A step of a paper on the straight path, where sigma is t and alpha 1 - t."""

    problem: Problem
    t: float
    s: float
    x: Tensor
    x0: Tensor
    z: Tensor

    @property
    def noise(self) -> Tensor:
        return (self.x - (1 - self.t) * self.x0) / self.t

    @property
    def rho(self) -> float:
        return NOISE**2 * ((1 - self.t) / self.t) ** 2

    @property
    def matrix(self) -> Tensor:
        return self.problem.operator.matrix  # type: ignore[attr-defined]

    def slope(self) -> Tensor:
        """Gradient of |A x0 - y|^2/2 over |A|^2."""
        size = torch.linalg.matrix_norm(self.matrix, 2) ** 2
        off = self.matrix @ self.x0.flatten() - self.problem.y.flatten()
        return (self.matrix.mT @ off / size).view_as(self.x0)

    def prox(self, centre: Tensor, rho: float) -> Tensor:
        right = self.matrix.mT @ self.problem.y.flatten() + rho * centre.flatten()
        return torch.linalg.solve(self.matrix.mT @ self.matrix + rho * EYE, right).view_as(centre)

    def arrived(self, x0: Tensor, noise: Tensor) -> Tensor:
        return (1 - self.s) * x0 + self.s * noise


def flowchef_step(at: At) -> Tensor:
    x = at.x - at.slope() if at.s > 0 else at.x
    return x + (at.noise - at.x0) * (at.s - at.t)


def diffpir_step(at: At) -> Tensor:
    x0 = at.prox(at.x0, 7 * at.rho)
    left = (at.x - (1 - at.t) * x0) / at.t
    return at.arrived(x0, math.sqrt(0.7) * left + math.sqrt(0.3) * at.z)


def dds_step(at: At) -> Tensor:
    x0 = at.prox(at.x0, float(torch.linalg.matrix_norm(at.matrix, 2)) ** 2 / 5)
    return at.arrived(x0, math.sqrt(1 - 0.85**2) * at.noise + 0.85 * at.z)


def dps_step(at: At) -> Tensor:
    leaf = at.x.clone().requires_grad_()
    denoised = at.problem.denoiser(leaf, torch.tensor(at.t))
    norm = (at.problem.y - at.problem.operator(denoised)).flatten().norm()
    share = 1 - (at.s / (1 - at.s) * (1 - at.t) / at.t) ** 2
    moved = at.arrived(at.x0, math.sqrt(1 - share) * at.noise + math.sqrt(share) * at.z)
    return moved - 0.3 * torch.autograd.grad(norm, leaf)[0]


def pnp_flow_step(at: At) -> Tensor:
    return at.arrived(at.x0 - at.s**0.5 * at.slope(), at.z)


def ddrm_step(at: At) -> Tensor:
    """Direction by direction, with the singular value decomposition."""
    left, c, right = torch.linalg.svd(at.matrix)
    theta, old, z = (right @ part.flatten() for part in (at.x0, at.noise, at.z))
    y = (at.problem.y @ left).flatten() / c
    kappa, kept, out = at.s / (1 - at.s), math.sqrt(1 - 0.85**2), torch.zeros(8, dtype=torch.float64)
    for i in range(8):
        if i >= len(c):
            out[i] = theta[i] + kappa * (kept * old[i] + 0.85 * z[i])
        elif kappa < NOISE / c[i]:
            out[i] = theta[i] + kappa * (kept * (y[i] - theta[i]) * c[i] / NOISE + 0.85 * z[i])
        else:
            out[i] = y[i] + (kappa**2 - (NOISE / c[i]) ** 2).sqrt() * z[i]
    return (1 - at.s) * (right.mT @ (out if at.s > 0 else theta)).view_as(at.x0)


def flair_loop(problem: Problem, times: list[float]) -> Tensor:
    draws = generators_of([0])
    matrix = problem.operator.matrix  # type: ignore[attr-defined]
    mu = (problem.y @ torch.linalg.pinv(matrix).mT).view(1, *EVENT)
    x = (1 - times[0]) * mu + times[0] * noise_of(draws, EVENT, torch.float64)
    for t, s in itertools.pairwise(times):
        x0 = problem.denoiser(x, torch.tensor(t, dtype=torch.float64))
        z = noise_of(draws, EVENT, torch.float64)
        at = At(problem, t, s, x, x0, z)
        velocity, wanted = at.noise - x0, (x - mu) / t
        mu = mu - min(0.5, t) * (velocity - wanted)
        mu = at.prox(mu, at.rho)
        x = at.arrived(mu, (1 - s) * at.noise + math.sqrt(1 - (1 - s) ** 2) * z)
    return x


def loop(step: Callable[[At], Tensor]) -> Callable[[Problem, list[float]], Tensor]:
    def walked(problem: Problem, times: list[float]) -> Tensor:
        draws = generators_of([0])
        x = times[0] * noise_of(draws, EVENT, torch.float64)
        for t, s in itertools.pairwise(times):
            x0 = problem.denoiser(x, torch.tensor(t, dtype=torch.float64))
            z = noise_of(draws, EVENT, torch.float64) if step is not flowchef_step else x
            x = step(At(problem, t, s, x, x0, z))
        return x

    return walked


LOOPS: dict[str, tuple[PosteriorMethod, Callable[[Problem, list[float]], Tensor]]] = {
    "flowchef": (flowchef(), loop(flowchef_step)),
    "diffpir": (diffpir(7.0, 0.3), loop(diffpir_step)),
    "dds": (dds(iterations=30), loop(dds_step)),
    "dps": (dps(0.3), loop(dps_step)),
    "pnp_flow": (replace(pnp_flow(), from_measurement=False), loop(pnp_flow_step)),
    "ddrm": (ddrm(), loop(ddrm_step)),
    "flair": (flair(), flair_loop),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_preset_is_the_loop_of_its_paper(name: str) -> None:
    """Written out with matrices, on the straight path, with the same noise: 1e-7."""
    method, written = LOOPS[name]
    first = (
        1.0 if name == "ddrm" else 0.98
    )  # DDRM looks at y where alpha > 0, a prox is singular where it is 0
    problem, times = Problem(long_covariance(), mixer()), [first, 0.8, 0.5, 0.25, 0.1, 0.0]
    found = problem.sample(method, torch.tensor(times, dtype=torch.float64), 1)
    torch.testing.assert_close(found, written(problem, times), rtol=1e-7, atol=1e-7)


# Invariants -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        ddnm(),
        diffpir(),
        relaxed_prox(),
        flower(),
        flower(True),
        calibrated(UnitSpread()),
        flair(),
        pigdm(),
        mmps(),
    ],
    ids=[
        "ddnm",
        "diffpir",
        "relaxed_prox",
        "flower",
        "flower, draws",
        "calibrated",
        "flair",
        "pigdm",
        "mmps",
    ],
)
def test_without_noise_the_measurement_is_met(method: PosteriorMethod) -> None:
    """Prox and projection to 1e-10; moments to the noise of the last state."""
    problem = Problem(long_covariance(), mixer(), noise=0.0)
    x = problem.sample(method, grid(12), 3)
    off = misfit(problem.operator, x, problem.y.expand(3, -1))
    assert off.shape == (3,)
    assert off.max() < (1e-10 if not method.data.through_network else 0.05)


@over_methods
def test_a_seed_is_a_sample(name: str) -> None:
    problem = Problem(long_covariance(), mask())
    together = problem.sample(METHODS[name], grid(5), 3, first=4)
    alone = problem.sample(METHODS[name], grid(5), 1, first=5)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-10)
    assert (together[0] - together[1]).abs().max() > 1e-3


class Watched:
    """A denoiser that counts its calls, and those that keep a graph."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.path = denoiser, denoiser.path
        self.calls = self.graphs = 0

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        self.calls += 1
        self.graphs += torch.is_grad_enabled() or x.requires_grad
        return self.denoiser(x, t, **conditions)


@over_methods
def test_evaluations_and_gradients_are_those_promised(name: str) -> None:
    """n of n steps (times the states that are averaged); a gradient of the network for DPS, PiGDM and MMPS only."""
    problem, method, times = Problem(long_covariance(), mask()), METHODS[name], grid(7)
    watched = Watched(problem.denoiser)
    found = sample_posterior(watched, problem.operator, problem.y, NOISE, times, method, generators_of([0]))
    assert found.evaluations == watched.calls == method.evaluations(times) == 7 * method.averages
    through = name in ("dps", "pigdm", "mmps", "flowchef through the network")
    assert watched.graphs == (7 if through else 0)
    assert not found.x.requires_grad
    torch.testing.assert_close(found.misfit, misfit(problem.operator, found.x, problem.y))


@over_methods
@over_paths
def test_single_precision_and_any_path(name: str, path: Path) -> None:
    problem = Problem(long_covariance(), mask(), path)
    denoiser = GaussianDenoiser(problem.mean.float(), Dense(problem.covariance), path)
    found = sample_posterior(
        denoiser, problem.operator, problem.y.float(), NOISE, grid(6, path), METHODS[name], generators_of([3])
    )
    exact = problem.sample(METHODS[name], grid(6, path), 1, first=3)
    assert found.x.dtype == torch.float32
    # The noise of a seed differs between precisions, so only its size is compared.
    assert torch.isfinite(found.x).all() and found.x.norm() < 10 * exact.norm() + 10


# Denoising in one evaluation --------------------------------------------------------------------------------------------


@over_paths
def test_denoising_in_one_evaluation_is_the_posterior_mean(path: Path) -> None:
    problem = Problem(long_covariance(), Identity(EVENT), path)
    watched = Watched(problem.denoiser)
    found = denoise_once(watched, problem.y, NOISE)
    assert watched.calls == 1 and watched.graphs == 0
    torch.testing.assert_close(found, problem.exact.mean, rtol=0, atol=1e-7)
    t = path.time_of_log_snr(torch.tensor(-math.log(NOISE), dtype=torch.float64))
    torch.testing.assert_close(
        found, problem.denoiser(float(path.coefficients(t).alpha) * problem.y, t), rtol=0, atol=0
    )


# Steering ---------------------------------------------------------------------------------------------------------------


def test_steering_by_the_misfit_is_flowchef() -> None:
    problem = Problem(long_covariance(), mixer())
    start = noise_of(generators_of([0]), EVENT, torch.float64)
    norm2 = float(problem.operator.norm) ** 2

    def loss(x: Tensor) -> Tensor:
        return 0.5 * (problem.operator(x) - problem.y).square().sum(1)

    for through in (False, True):
        found = steer(problem.denoiser, start, grid(9), loss, 0.5 / norm2, through_network=through)
        expected = problem.sample(flowchef(0.5, through), grid(9), 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_an_edit_goes_down_its_loss_and_leaves_the_rest() -> None:
    """From an image at t = 0.4: without correlation between numbers, only the one that the loss looks at moves."""
    problem = Problem(round_covariance(), mask())
    image, t0 = problem.mean[None], 0.4
    times = torch.linspace(t0, 0, 9, dtype=torch.float64)
    state = (1 - t0) * image + t0 * normal(1, *EVENT, seed=9)

    def loss(x: Tensor) -> Tensor:
        return 0.5 * (x[:, 0, 0] - 3).square()

    plain = steer(problem.denoiser, state, times, lambda x: 0 * x.flatten(1).sum(1), 1.0)
    edited = steer(problem.denoiser, state, times, loss, 0.3)
    assert (edited - plain)[0, 0, 0] > 1
    moved = (edited - plain).abs().flatten()
    assert moved[1:].max() < 1e-12


# Bad input --------------------------------------------------------------------------------------------------------------


def says(case: Callable[[], object], word: str) -> None:
    with pytest.raises(InputError, match=word) as raised:
        case()
    text = str(raised.value)
    assert "\n" not in text and text.startswith("expected ") and "; got " in text


def test_what_a_user_can_do_wrong() -> None:
    problem = Problem(long_covariance(), mask())
    good: dict[str, Any] = {
        "denoiser": problem.denoiser,
        "operator": problem.operator,
        "y": problem.y,
        "noise_sd": NOISE,
        "times": grid(4),
        "method": flower(),
        "generators": generators_of([0]),
    }

    def with_(**changes: Any) -> Callable[[], object]:
        return lambda: sample_posterior(**(good | changes))

    says(with_(noise_sd=-1.0), "standard deviation >= 0")
    says(with_(noise_sd=math.nan), "standard deviation >= 0")
    says(with_(y=problem.y * math.nan), "finite measurement")
    says(with_(y=problem.y[:, :3]), "measurements of shape")
    says(with_(generators=generators_of([0, 1])), "one generator a row")
    says(with_(times=torch.tensor([0.0, 0.5, 1.0])), "fall strictly")
    says(with_(denoiser=Broken(LINEAR, math.nan)), "finite values from the denoiser")
    says(with_(denoiser=Broken(LINEAR, 0.0, channels=1)), "state's shape")
    heavy = Broken(LINEAR, 0.0)
    heavy.kernel = StudentTKernel(8)  # type: ignore[attr-defined]
    says(with_(denoiser=heavy), "Gaussian")
    composed = problem.operator @ Identity(EVENT)
    says(with_(operator=composed, method=ddrm(), times=grid(4)[1:]), "singular vectors are known")
    says(lambda: pnp_flow(averages=0), "averages >= 1")
    says(lambda: replace(ddnm(), averages=2), "averages >= 1")
    says(lambda: denoise_once(problem.denoiser, problem.y, 0.0), "noise > 0")
    vp = Problem(long_covariance(), Identity(EVENT), VPPath())
    says(lambda: denoise_once(vp.denoiser, vp.y, 1e4), "noise of at most")
    start = normal(1, *EVENT)
    says(lambda: steer(problem.denoiser, start, grid(4), lambda x: x, 1.0), r"loss of shape \(1,\)")
    says(lambda: steer(problem.denoiser, start, grid(4), lambda x: x.sum((1, 2)), 0.0), "step > 0")
    says(lambda: FixedShare(1.5), r"in \[0, 1\]")


class Broken:
    """A denoiser that answers with one number, or with too few channels."""

    def __init__(self, path: Path, value: float, channels: int = 2) -> None:
        self.path, self.value, self.channels = path, value, channels

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        return torch.full_like(x[:, : self.channels], self.value)
