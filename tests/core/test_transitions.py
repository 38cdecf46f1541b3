"""Stochastic steps: rows against identities and other tables, laws against Gaussians and the flow."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.diffusions import AncestralDiffusion, Diffusion, FunctionDiffusion, PowerDiffusion
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim, ddpm
from radiata_core.times import LinearGrid, LogSNRGrid
from radiata_core.transitions import (
    Transition,
    euler_maruyama,
    exact_transition,
    renoise,
    stochastic_step,
)

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(sigma_max=20.0), DiscreteVPPath()]
DIFFUSIONS = [PowerDiffusion(), PowerDiffusion(0.5, 0.0), PowerDiffusion(0.0), AncestralDiffusion(0.5)]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


@over_paths
@pytest.mark.parametrize("diffusion", DIFFUSIONS, ids=str)
def test_exact_rows_keep_a_point_mass(path: Path, diffusion: Diffusion) -> None:
    """Mean B = alpha' - A alpha, variance A² sigma² + C² = sigma'², whatever the grid."""
    rows = exact_transition(LogSNRGrid()(7, path), path, diffusion)
    c = path.coefficients(rows.times)
    torch.testing.assert_close(rows.mean, c.alpha[1:] - rows.state * c.alpha[:-1])
    variance = rows.state**2 * c.sigma[:-1] ** 2 + rows.noise**2
    torch.testing.assert_close(variance, c.sigma[1:] ** 2)
    assert (rows.state[-1], rows.mean[-1], rows.noise[-1]) == (0, 1, 0)
    assert rows.stochastic == (diffusion != PowerDiffusion(0.0))


@over_paths
def test_ends_of_the_family_are_ddim_and_ddpm(path: Path) -> None:
    times = LogSNRGrid()(9, path)
    for diffusion, table in [
        (PowerDiffusion(0.0), ddim(times, path)),
        (AncestralDiffusion(0.0), ddim(times, path)),
        (AncestralDiffusion(1.0), ddpm(times, path)),
    ]:
        ours = exact_transition(times, path, diffusion).table
        torch.testing.assert_close(ours.states, table.states, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.outputs, table.outputs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.noise, table.noise, rtol=1e-10, atol=1e-12)


def _variance(rows: Transition, variance: float) -> float:
    """Of the samples of N(0, variance), exactly: every step is x' = (A + B k) x + C z."""
    c = rows.path.coefficients(rows.times[:-1])
    now = float(c.sigma[0]) ** 2
    gain = c.alpha * variance / (c.alpha**2 * variance + c.sigma**2)
    for a, b, noise, k in zip(*(v.tolist() for v in (rows.state, rows.mean, rows.noise, gain)), strict=True):
        now = (a + b * k) ** 2 * now + noise**2
    return now


@pytest.mark.parametrize("make", [exact_transition, euler_maruyama])
@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(
    "diffusion", [PowerDiffusion(), PowerDiffusion(1.0, 1.0), PowerDiffusion(0.0)], ids=str
)
def test_variance_of_gaussian_samples(make: Callable, path: Path, diffusion: Diffusion) -> None:
    """Both forms are of first order in the variance (T15: no Monte Carlo), and close at 320 steps."""
    truth = 0.4
    errors = [
        abs(_variance(make(LinearGrid()(n, path), path, diffusion), truth) / truth - 1) for n in (80, 320)
    ]
    assert errors[1] < 0.03
    assert 0.85 < math.log(errors[0] / errors[1], 4) < 1.2


def test_euler_is_the_first_order_of_the_exact_step() -> None:
    """A short step's coefficients differ by O(step²): halving it divides by 4 (C²: by 4, too)."""
    path, differences = VPPath(), []
    for step in (0.02, 0.01, 0.005):
        times = torch.tensor([0.6, 0.6 - step, 0.0], dtype=torch.float64)
        exact, euler = exact_transition(times, path), euler_maruyama(times, path)
        pairs = [(exact.state, euler.state), (exact.mean, euler.mean), (exact.noise**2, euler.noise**2)]
        differences.append([abs(float(a[0] - b[0])) for a, b in pairs])
    for first, second in pairwise(differences):
        assert all(3.4 < a / b < 4.7 for a, b in zip(first, second, strict=True))


def _mixture(path: Path) -> MixtureDenoiser:
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    blobs = [Diagonal(torch.tensor(v, dtype=torch.float64)) for v in ([0.1, 0.3], [0.2, 0.2], [0.4, 0.05])]
    return MixtureDenoiser(torch.tensor([0.5, 0.3, 0.2]), means, blobs, path)


def _features(samples: Tensor, denoiser: MixtureDenoiser) -> Tensor:
    shares = denoiser.responsibilities(samples, torch.tensor(1e-3, dtype=torch.float64))
    products = torch.stack([samples[:, 0] ** 2, samples[:, 1] ** 2, samples.prod(1)], 1)
    return torch.cat([samples, products, shares], 1)


@pytest.mark.parametrize(
    "diffusion",
    [
        PowerDiffusion(),
        PowerDiffusion(1.0, 1.0),
        AncestralDiffusion(),
        FunctionDiffusion(lambda t: 4 * t * (1 - t)),
    ],
    ids=["3t²", "t", "ancestral", "4t(1-t)"],
)
def test_marginals_are_those_of_the_flow(diffusion: Diffusion) -> None:
    """Means of 8 features of 1000 samples: SDE and ODE agree within 4.2 standard errors.

    32 comparisons in all: by chance one fails with probability 32 · 2.7e-5 < 0.1 %.
    """
    path = LinearPath()
    denoiser, grid, rows = _mixture(path), LogSNRGrid(5.0)(50, path), 1000
    made = []
    for key, g in [(0, PowerDiffusion(0.0)), (1, diffusion)]:
        generators = generators_of(range(rows), key)
        noise = noise_of(generators, (2,), torch.float64)
        x = integrate(denoiser, noise, exact_transition(grid, path, g).table, generators=generators)
        made.append(_features(x, denoiser))
    error = torch.stack([f.var(0) / rows for f in made]).sum(0).sqrt()
    assert float(((made[0].mean(0) - made[1].mean(0)) / error).abs().max()) < 4.2


def test_one_step_is_the_first_of_the_loop() -> None:
    """And a step with one index a row is that of each row."""
    path = LinearPath()
    denoiser, rows = _mixture(path), exact_transition(LinearGrid()(3, path), path)
    x = noise_of(generators_of(range(4), 0), (2,), torch.float64)
    generators, again = generators_of(range(4), 1), generators_of(range(4), 1)
    step = stochastic_step(denoiser, x, rows, 0, generators)
    assert step.evaluations == 4
    torch.testing.assert_close(step.x0, denoiser(x, rows.times[0]))
    second = stochastic_step(denoiser, step.x, rows, 1, generators)
    last = stochastic_step(denoiser, second.x, rows, 2, [])
    torch.testing.assert_close(last.x, integrate(denoiser, x, rows.table, generators=again))

    index = torch.tensor([0, 1, 1, 0])
    mixed = rows.move(x, step.x0, index, generators_of(range(4), 2))
    for i in range(4):
        alone = rows.move(x[i : i + 1], step.x0[i : i + 1], int(index[i]), generators_of([i], 2))
        torch.testing.assert_close(mixed[i : i + 1], alone)


@over_paths
def test_renoising_reaches_the_forward_marginal(path: Path) -> None:
    """alpha x_0 becomes alpha' x_0 and the variances add up to sigma'²."""
    t, s = 0.3, 0.8
    c = path.coefficients(torch.tensor([t, s], dtype=torch.float64))
    x = torch.full((2, 3), float(c.alpha[0]), dtype=torch.float64)
    moved = renoise(x, t, s, path, generators_of([0, 1], 3))
    z = noise_of(generators_of([0, 1], 3), (3,), torch.float64)
    spread = (moved - c.alpha[1]) / z
    ratio = c.alpha[1] / c.alpha[0]
    torch.testing.assert_close(spread**2 + ratio**2 * c.sigma[0] ** 2, c.sigma[1].expand(2, 3) ** 2)
    assert renoise(x, t, t, path, []) is x
    with pytest.raises(InputError, match="Noise is only added forward"):
        renoise(x, s, t, path, [])


def test_bad_input_is_refused() -> None:
    path = LinearPath()
    for times in ([1.0, 0.5], [1.0, 1.0, 0.0], [0.0, 1.0], [0.0]):
        for make in (exact_transition, euler_maruyama):
            with pytest.raises(InputError, match="expected"):
                make(torch.tensor(times, dtype=torch.float64), path)
    grid = LinearGrid()(3, path)
    with pytest.raises(InputError, match="finite and >= 0"):
        euler_maruyama(grid, path, AncestralDiffusion())
    denoiser, rows, x = _mixture(path), exact_transition(grid, path), torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(InputError, match=r"expected a step in 0 \.\. 2; got 3"):
        stochastic_step(denoiser, x, rows, 3, generators_of([0, 1]))
    with pytest.raises(InputError, match="expected one generator a row, 2 here; got 1"):
        stochastic_step(denoiser, x, rows, 0, generators_of([0]))

    def heavy(x: Tensor, t: Tensor) -> Tensor:
        return x

    heavy.kernel = "StudentT(8)"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="expected Gaussian noise"):
        stochastic_step(heavy, x, rows, 0, generators_of([0, 1]))
