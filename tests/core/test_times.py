"""Laws of time against the papers' formulas and their own histograms; grids against textbook formulas."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, norm

from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.specs import describe, rebuild
from radiata_core.times import (
    CosMap,
    Grid,
    KarrasGrid,
    LinearGrid,
    LogNormalSNR,
    LogSNRGrid,
    Mode,
    TimeLaw,
    UniformSteps,
    UniformTime,
    checked_grid,
    resolution_shift,
    shift_time,
)

LARGEST_MODE = 2 / (math.pi - 2)
LAWS = [
    UniformTime(),
    LogNormalSNR(),
    LogNormalSNR(-0.5, 0.6, 3.0),
    Mode(1.29),
    Mode(-1.0),
    Mode(LARGEST_MODE),
    CosMap(),
]
PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
over_laws = pytest.mark.parametrize("law", LAWS, ids=str)
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


@pytest.fixture
def u() -> torch.Tensor:
    return torch.linspace(0.001, 0.999, 999, dtype=torch.float64)


def mass_of(law: TimeLaw, low: float, high: float) -> float:
    """Integral of the density by Gauss-Legendre, after a substitution that stands still at both ends.

    The density may be infinite there: Mode(-1) at 0 and 1, Mode at its largest scale in the middle, which is an edge.
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)
    w = (nodes + 1) / 2
    weights = weights * 30 * w**2 * (1 - w) ** 2
    w = w**3 * (10 - 15 * w + 6 * w**2)
    density = law.density(torch.tensor(low + (high - low) * w)).numpy()
    return float((weights * density).sum() * (high - low) / 2)


@over_laws
def test_draws_follow_the_density(law: TimeLaw, generator: torch.Generator) -> None:
    """20,000 draws in 20 bins against the integrated density: chi-squared at level 1e-3 (1 seed in 1000 would fail)."""
    draws = law.sample(20_000, generator)
    assert draws.dtype == torch.float64
    assert ((draws >= 0) & (draws <= 1)).all()
    edges = np.linspace(0, 1, 21)
    mass = np.array([mass_of(law, a, b) for a, b in pairwise(edges)])
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    counts = np.histogram(draws.numpy(), edges)[0]
    keep = mass * len(draws) > 5
    rest = ~keep
    observed = np.append(counts[keep], counts[rest].sum()) if rest.any() else counts
    expected = np.append(mass[keep], mass[rest].sum()) if rest.any() else mass
    assert chisquare(observed, expected / expected.sum() * observed.sum()).pvalue > 1e-3


@over_laws
def test_density_is_the_slope_of_the_quantiles(law: TimeLaw, u: torch.Tensor) -> None:
    """density(q(u)) q'(u) = 1, with q' from autograd."""
    u = u.clone().requires_grad_()
    t = law.quantile(u)
    (slope,) = torch.autograd.grad(t.sum(), u)
    away = slope > 1e-4  # the density is infinite where the slope vanishes
    product = (law.density(t.detach()) * slope)[away]
    torch.testing.assert_close(product, torch.ones_like(product), rtol=1e-6, atol=0)
    assert (t.detach().diff() > 0).all()


@over_laws
def test_samples_are_reproducible_one_by_one(law: TimeLaw) -> None:
    draws = [law.sample(1, torch.Generator().manual_seed(seed)) for seed in (1, 2, 1)]
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


@over_laws
def test_laws_survive_json(law: TimeLaw) -> None:
    assert rebuild(describe(law)) == law


def test_logit_normal_is_sd3s_formula(u: torch.Tensor) -> None:
    """Density 1/(s sqrt(2 pi) t (1-t)) exp(-(logit t - m)^2 / 2 s^2), quantile sigmoid(m + s z)."""
    m, s = -0.4, 0.8
    law = LogNormalSNR(m, s)
    t = u.numpy()
    expected = np.exp(-((np.log(t / (1 - t)) - m) ** 2) / (2 * s**2)) / (s * np.sqrt(2 * np.pi) * t * (1 - t))
    np.testing.assert_allclose(law.density(u), expected, rtol=1e-10)
    np.testing.assert_allclose(law.quantile(u), 1 / (1 + np.exp(-(m + s * norm.ppf(t)))), rtol=1e-12)
    assert law.density(torch.tensor([0.0, 1.0])).tolist() == [0, 0]


def test_edms_log_normal_is_the_same_law(u: torch.Tensor) -> None:
    """sigma = exp(P_mean + P_std n) on the VE path, and t = sigma/(1 + sigma) on the linear one, are one law."""
    law = LogNormalSNR(-1.2, 1.2)
    sigma = np.exp(-1.2 + 1.2 * norm.ppf(u.numpy()))
    np.testing.assert_allclose(law.quantile(u), sigma / (1 + sigma), rtol=1e-12)
    path = VEPath(1e-4, 1e4)
    on_ve = path.coefficients(law.on(path, law.quantile(u))).sigma
    np.testing.assert_allclose(on_ve, sigma, rtol=1e-9)


@over_paths
def test_log_normal_law_means_the_same_noise_on_every_path(path: Path, generator: torch.Generator) -> None:
    """log(sigma/alpha) is N(m + log a, s²) on any path that reaches it: Kolmogorov-Smirnov at level 1e-3."""
    law = LogNormalSNR(-0.8, 0.7, 2.0)
    t = law.on(path, law.sample(20_000, generator))
    assert kstest(-path.log_snr(t).numpy(), norm(-0.8 + math.log(2), 0.7).cdf).pvalue > 1e-3


def test_other_laws_are_of_the_paths_own_time(u: torch.Tensor) -> None:
    for law in (UniformTime(), Mode(0.5), CosMap(), UniformSteps(10)):
        assert torch.equal(law.on(VPPath(), u), u)


def test_shift_moves_the_mean_of_the_logit(u: torch.Tensor) -> None:
    """Shifting t by a is moving m by log a, and lowers the half log-SNR of the linear path by log a."""
    for a in (0.3, 1.0, 3.0):
        shifted = shift_time(LogNormalSNR(0.2, 0.9).quantile(u), a)
        torch.testing.assert_close(shifted, LogNormalSNR(0.2, 0.9, a).quantile(u), rtol=1e-13, atol=0)
        torch.testing.assert_close(
            shifted, LogNormalSNR(0.2 + math.log(a), 0.9).quantile(u), rtol=1e-13, atol=0
        )
        path = LinearPath()
        drop = path.log_snr(u) - path.log_snr(shift_time(u, a))
        torch.testing.assert_close(drop, torch.full_like(u, math.log(a)), rtol=1e-10, atol=1e-12)
    assert shift_time(torch.tensor([0.0, 1.0]), 3.0).tolist() == [0, 1]


def test_mode_is_sd3s_formula(u: torch.Tensor) -> None:
    """f(u) = 1 - u - s (cos²(pi u/2) - 1 + u), which falls with u; ours rises."""
    for s in (-1.0, 0.4, 1.29):
        w = u.numpy()
        expected = 1 - w - s * (np.cos(np.pi * w / 2) ** 2 - 1 + w)
        np.testing.assert_allclose(Mode(s).quantile(1 - u), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(Mode(0.0).density(u), torch.ones_like(u))


def test_mode_ends_where_it_stops_rising(u: torch.Tensor) -> None:
    for s in (-1.0, LARGEST_MODE):
        assert (Mode(s).quantile(u).diff() > 0).all()
    for s in (-1.05, LARGEST_MODE + 0.05):
        w = np.linspace(0, 1, 10_001)
        assert (np.diff(w - s * (np.sin(np.pi * w / 2) ** 2 - w)) < 0).any()
        with pytest.raises(InputError, match=r"expected a scale in \[-1, 1.751938\]"):
            Mode(s)


def test_cosmap_is_sd3s_formula(u: torch.Tensor) -> None:
    w = u.numpy()
    np.testing.assert_allclose(CosMap().quantile(u), 1 - 1 / (np.tan(np.pi * w / 2) + 1), rtol=1e-10)
    np.testing.assert_allclose(
        CosMap().density(u), 2 / (np.pi - 2 * np.pi * w + 2 * np.pi * w**2), rtol=1e-12
    )


def test_cosmap_gives_the_linear_path_the_cosine_schedules_noise(u: torch.Tensor) -> None:
    linear = LinearPath().log_snr(CosMap().quantile(u))
    torch.testing.assert_close(linear, TrigonometricPath().log_snr(u), rtol=1e-9, atol=1e-9)


def test_steps_are_medforjs_indices(generator: torch.Generator) -> None:
    """All nodes and nothing else, evenly: chi-squared at level 1e-3."""
    law, path = UniformSteps(50), DiscreteVPPath(steps=50)
    index = path.model_time(law.sample(20_000, generator))
    assert torch.equal(index.round(), index.round().clamp(0, 49))
    torch.testing.assert_close(index, index.round(), atol=1e-9, rtol=0)
    assert chisquare(torch.bincount(index.round().long(), minlength=50).numpy()).pvalue > 1e-3
    nodes = path.time_of_index(torch.arange(-1, 50))
    assert law.density(nodes).tolist() == [0] + [1 / 50] * 50
    assert law.density(nodes[:-1] + 0.005).sum() == 0
    assert law.quantile(torch.tensor([0.0, 1.0])).tolist() == [1 / 50, 1]
    assert rebuild(describe(law)) == law


def test_resolution_shift_counts_voxels() -> None:
    assert resolution_shift(1024**2, 512**2) == pytest.approx(2)
    assert resolution_shift(96**3, 32**3) == pytest.approx(27**0.5)
    assert resolution_shift(96**3, 32**3, exponent=1 / 3) == pytest.approx(3)
    assert resolution_shift(7, 7) == 1


def test_resolution_shift_keeps_the_uncertainty_of_a_constant(generator: torch.Generator) -> None:
    """The mean of n noisy voxels of a constant has the same spread before and after refinement (5 standard errors)."""
    spreads = []
    for side, t in [(2, 0.4), (6, None)]:
        if t is None:
            t = shift_time(torch.tensor(0.4), resolution_shift(6**3, 2**3)).item()
        noise = torch.randn(4000, side**3, generator=generator, dtype=torch.float64)
        x = (1 - t) * 0.3 + t * noise
        spreads.append((x.mean(1) / (1 - t)).std().item())
    assert spreads[0] == pytest.approx(spreads[1], rel=5 / 4000**0.5)


GRIDS = [
    LinearGrid(),
    LinearGrid(shift=3.0),
    LinearGrid(t_max=0.9),
    KarrasGrid(),
    KarrasGrid(3.0, 0.01, 20.0),
    LogSNRGrid(),
    LogSNRGrid(4.0),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@over_paths
@pytest.mark.parametrize("n", [1, 2, 7, 200])
def test_grids_fall_from_noise_to_exactly_data(grid: Grid, path: Path, n: int) -> None:
    times = grid(n, path)
    assert times.dtype == torch.float64
    assert times.shape == (n + 1,)
    assert (times.diff() < 0).all()
    assert times[-1] == 0
    assert times[0] <= 1
    if isinstance(grid, LogSNRGrid):
        assert times[0] == 1


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_grids_survive_json(grid: Grid) -> None:
    assert rebuild(describe(grid)) == grid


def test_linear_grid_by_hand() -> None:
    assert LinearGrid()(4, VPPath()).tolist() == [1, 0.75, 0.5, 0.25, 0]
    np.testing.assert_allclose(LinearGrid(3.0)(4, LinearPath()), [1, 0.9, 0.75, 0.5, 0], rtol=1e-15)
    np.testing.assert_allclose(LinearGrid(t_max=0.8)(2, LinearPath()), [0.8, 0.4, 0], rtol=1e-15)


@over_paths
def test_karras_grid_is_the_papers_on_every_path(path: Path) -> None:
    """kappa = sigma/alpha at the nodes equals EDM's formula written out."""
    n, rho, low, high = 18, 7.0, 0.002, 80.0
    i = np.arange(n)
    expected = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    c = path.coefficients(KarrasGrid()(n, path))
    np.testing.assert_allclose((c.sigma / c.alpha)[:-1], expected, rtol=1e-8)
    assert c.sigma[-1] == 0


@over_paths
def test_log_snr_grid_is_even_in_log_snr(path: Path) -> None:
    lam = path.log_snr(LogSNRGrid(5.0)(20, path))
    first = max(path.log_snr(torch.tensor(1.0)).item(), -5.0)
    np.testing.assert_allclose(lam[1:-1], np.linspace(first, 5.0, 21)[1:-1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogNormalSNR(std=0.0),
        lambda: LogNormalSNR(std=-1.0),
        lambda: LogNormalSNR(mean=math.nan),
        lambda: LogNormalSNR(shift=0.0),
        lambda: LinearGrid(shift=-1.0),
        lambda: LinearGrid(shift=math.nan),
        lambda: LinearGrid(t_max=0.0),
        lambda: LinearGrid(t_max=1.1),
        lambda: KarrasGrid(rho=0.0),
        lambda: KarrasGrid(sigma_min=0.0),
        lambda: KarrasGrid(sigma_min=2.0, sigma_max=1.0),
        lambda: LogSNRGrid(0.0),
        lambda: LogSNRGrid(1.0)(5, VEPath(1e-3, 0.1)),
        lambda: Mode(math.nan),
        lambda: UniformSteps(0),
        lambda: LinearGrid()(0, LinearPath()),
        lambda: KarrasGrid(sigma_max=200.0)(10, DiscreteVPPath()),
        lambda: KarrasGrid()(10, VEPath(0.002, 50.0)),
        lambda: shift_time(torch.tensor(0.5), 0.0),
        lambda: resolution_shift(0, 8),
        lambda: resolution_shift(8, 8, math.inf),
    ],
)
def test_impossible_laws_and_grids_are_refused(make) -> None:
    with pytest.raises(InputError, match=r"^expected .*; got .*\. ") as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "times",
    [
        [1.0, 0.5, 0.5, 0.0],
        [0.0, 0.5, 1.0],
        [1.0, 0.5, 0.1],
        [1.2, 0.5, 0.0],
        [1.0, math.nan, 0.0],
        [0.0],
        [1.0, 0.0, -1.0],
    ],
)
def test_grids_that_do_not_fall_are_refused(times: list[float]) -> None:
    with pytest.raises(InputError, match=r"^expected .*times.*; got "):
        checked_grid(torch.tensor(times))
    assert torch.equal(checked_grid(torch.tensor([1.0, 0.25, 0.0])), torch.tensor([1.0, 0.25, 0.0]).double())
