"""Coefficient tables: invariants of every row, exact ends, and exact variances for Gaussian data without Monte Carlo."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.tables import (
    MultistepTable,
    ab2_velocity,
    ddim,
    ddpm,
    dpmpp_2m,
    sde_dpmpp_2m,
    unipc_2,
)
from radiata_core.times import LogSNRGrid
from radiata_core.transitions import PowerDiffusion, euler_maruyama

Maker = Callable[[Tensor, Path], MultistepTable]

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
MAKERS: dict[str, Maker] = {
    "ddim": ddim,
    "ddim-eta": lambda times, path: ddim(times, path, eta=0.6),
    "ddpm": ddpm,
    "dpmpp_2m": dpmpp_2m,
    "unipc_2": unipc_2,
    "ab2_velocity": ab2_velocity,
    "sde_dpmpp_2m": sde_dpmpp_2m,
}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", MAKERS)
def test_row_invariants(name: str, path: Path) -> None:
    """A constant denoiser is solved exactly (predictor and corrector) and a point mass keeps its variance."""
    times = torch.cat([torch.linspace(1, 0.1, 9, dtype=torch.float64), torch.tensor([0.07, 0.0]).double()])
    table = MAKERS[name](times, path)
    c = path.coefficients(times)
    for i, row in enumerate(table.rows):
        assert all(map(math.isfinite, row.states + row.outputs + row.corrector)), f"row {i} is finite"
        clean = sum(weight * float(c.alpha[i - j]) for j, weight in enumerate(row.states))
        assert sum(row.outputs) == pytest.approx(float(c.alpha[i + 1]) - clean, abs=1e-11 * (1 + abs(clean)))
        noisy = sum(weight * float(c.sigma[i - j]) for j, weight in enumerate(row.states))
        assert noisy**2 + row.noise**2 == pytest.approx(float(c.sigma[i + 1]) ** 2, abs=1e-10)
        if row.corrector:
            kept = row.corrector[0] * float(c.alpha[i - 1])
            assert sum(row.corrector[1:]) == pytest.approx(float(c.alpha[i]) - kept, abs=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "ab2_velocity"])
def test_row_invariants_in_units_of_the_data(name: str, path: Path) -> None:
    """In y = x/alpha and kappa = sigma/alpha: sum B = 1 - A, A² kappa² + C² = kappa'², and a + sum b = 1."""
    times = torch.cat([torch.linspace(0.97, 0.1, 9, dtype=torch.float64), torch.tensor([0.07, 0.0]).double()])
    table, c = MAKERS[name](times, path), path.coefficients(times)
    kappa, ratio = c.sigma / c.alpha, c.alpha[:-1] / c.alpha[1:]
    state, outputs, noise = (
        table.states[:, 0] * ratio,
        table.outputs / c.alpha[1:, None],
        table.noise / c.alpha[1:],
    )
    torch.testing.assert_close(outputs.sum(1), 1 - state, rtol=0, atol=1e-11)
    torch.testing.assert_close(
        state.square() * kappa[:-1].square() + noise.square(), kappa[1:].square(), rtol=1e-9, atol=1e-12
    )
    if table.corrector is not None:
        at, before = c.alpha[1:-1], c.alpha[:-2]
        kept = table.corrector[1:, 0] * before / at
        torch.testing.assert_close(table.corrector[1:, 1:].sum(1) / at, 1 - kept, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MAKERS)
def test_ends_are_of_first_order(name: str) -> None:
    """From alpha = 0 the step is DDIM's, the one after it has no past in log-SNR; to sigma = 0 it returns x0."""
    path = LinearPath()
    table = MAKERS[name](torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0], dtype=torch.float64), path)
    assert table.rows[-1].states == (0.0,)
    assert table.rows[-1].outputs == pytest.approx((1.0,), abs=1e-15)
    assert table.rows[-1].noise == 0
    assert len(table.rows[0].outputs) == 1
    if not table.stochastic:
        assert (table.rows[0].states[0], table.rows[0].outputs[0]) == pytest.approx((0.8, 0.2))
    if name not in ("ab2_velocity",):  # its coordinate is regular at alpha = 0
        assert len(table.rows[1].outputs) == 1
    if name == "unipc_2":
        assert [len(row.corrector) for row in table.rows] == [0, 0, 3, 4]


def test_one_step_from_noise_to_data() -> None:
    for name, make in MAKERS.items():
        row = make(torch.tensor([1.0, 0.0]), LinearPath()).rows[0]
        assert (row.states, row.outputs, row.noise) == ((0.0,), (1.0,), 0.0), name


def test_eta_one_is_the_ddpm_posterior() -> None:
    """On consecutive steps of the discrete path the row is Ho et al.'s posterior mean and variance (eq. 7)."""
    path = DiscreteVPPath()
    table = ddpm(path.time_of_index(torch.arange(999, -2, -1)), path)
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]])
    of_x = (1 - betas).sqrt() * (1 - before) / (1 - bars)
    of_x0 = before.sqrt() * betas / (1 - bars)
    variance = (1 - before) / (1 - bars) * betas
    torch.testing.assert_close(table.states[:, 0].flip(0), of_x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(table.outputs[:, 0].flip(0), of_x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(table.noise.square().flip(0), variance, rtol=1e-9, atol=1e-12)


def _standard_deviation(table: MultistepTable, deviation: float) -> float:
    """Exact standard deviation of the samples for N(0, deviation²) data: every table is linear then.

    The state is followed as its coefficients on (x_T, z_1, ..., z_n); nothing is drawn.
    """
    c = table.path.coefficients(table.times)
    total = (c.alpha * deviation).square() + c.sigma.square()
    gain = c.alpha * deviation**2 / total
    x = torch.zeros(len(table.noise) + 1, dtype=torch.float64)
    x[0] = total[0].sqrt()
    base, states, outputs = x, [], []
    for i, row in enumerate(table.rows):
        outputs.insert(0, gain[i] * x)
        if row.corrector:
            base = row.corrector[0] * base + sum(
                w * m for w, m in zip(row.corrector[1:], outputs, strict=False)
            )
        else:
            base = x
        states.insert(0, base)
        x = sum(w * s for w, s in zip(row.states, states, strict=False))
        x = x + sum(w * m for w, m in zip(row.outputs, outputs, strict=False))
        x[i + 1] += row.noise
    return float(x.norm())


def _variance_errors(make: Maker) -> list[float]:
    """Relative error of the variance at N = 10, 20, 40, 80, 160 for unit data, kappa from 80 to 0.002 evenly in log."""
    path, errors = VEPath(), []
    for n in (10, 20, 40, 80, 160):
        grid = torch.linspace(-math.log(80), -math.log(0.002), n + 1, dtype=torch.float64)
        errors.append(_standard_deviation(make(path.time_of_log_snr(grid), path), 1.0) ** 2 - 1)
    return errors


@pytest.mark.parametrize(
    ("name", "measured", "order"),
    [
        ("ddim", [-0.411, -0.233, -0.124, -0.064, -0.033], 0.95),
        ("ddpm", [-0.584, -0.383, -0.224, -0.121, -0.063], 0.9),
        ("sde_dpmpp_2m", [0.105, 0.073, 0.022, 0.006, 0.0015], 1.9),
        ("unipc_2", [0.100, 0.021, 0.0031, 0.0005, 0.0002], 2.3),
        ("dpmpp_2m", [0.106, 0.032, 0.0087, 0.0022, 0.0006], 1.9),
    ],
)
def test_impulse_response_audit(name: str, measured: list[float], order: float) -> None:
    """Variances without Monte Carlo: no worse than measured, and falling at the order of the method."""
    errors = _variance_errors(MAKERS[name])
    for error, bound in zip(errors, measured, strict=True):
        assert abs(error) < abs(bound) * 1.02 + 1e-4
    slope = math.log2(abs(errors[2] / errors[4])) / 2
    assert slope > order, f"slope {slope:.2f}"


def test_impulse_response_of_euler_maruyama() -> None:
    """The linear path with g² = 2 sigma: first order, the measured bounds, and always under-dispersed."""
    path, errors = LinearPath(), []
    for n in (10, 20, 40, 80, 160):
        times = torch.linspace(1, 0, n + 1, dtype=torch.float64)
        table = euler_maruyama(times, path, PowerDiffusion(math.sqrt(2), 0.5)).table
        errors.append(_standard_deviation(table, 1.0) ** 2 - 1)
    for error, bound in zip(errors, [-0.101, -0.0552, -0.0290, -0.0149, -0.0075], strict=True):
        assert bound * 1.02 < error < 0
    assert 0.9 < math.log2(errors[2] / errors[4]) / 2 < 1.1


def test_ancestral_under_disperses_and_agrees_with_sde_order_one() -> None:
    errors = _variance_errors(ddpm)
    assert all(error < 0 for error in errors)
    assert all(abs(a) > abs(b) for a, b in zip(errors, _variance_errors(ddim), strict=True))


def test_twenty_evaluations_beat_medforjs_samplers_in_closed_form() -> None:
    """Relative error of the standard deviation for Gaussian data, MedForJ's path: the table of the research note.

    64 steps of the 2025 sampler (indices 945, 930, ..., 0) and 256 of the 2026 one (linspace) against 20 of
    DPM-Solver++(2M) and of UniPC-2 even in log-SNR.
    """
    path = DiscreteVPPath()

    def ending_at_zero(times: Tensor) -> Tensor:
        return torch.cat([times, torch.zeros(1, dtype=torch.float64)])

    medforj_2025 = ending_at_zero(path.time_of_index(torch.arange(64).flip(0) * 15))
    medforj_2026 = ending_at_zero(path.time_of_index(torch.linspace(0, 999, 256).round().flip(0)))
    first, last = (float(path.log_snr(path.time_of_index(i))) for i in (999, 0))
    even = ending_at_zero(path.time_of_log_snr(torch.linspace(first, last, 20, dtype=torch.float64)))
    even32 = ending_at_zero(path.time_of_log_snr(torch.linspace(first, last, 32, dtype=torch.float64)))
    uneven = ending_at_zero(path.time_of_index(torch.linspace(0, 999, 20).round().flip(0)))
    deviations = (0.03, 0.1, 0.3, 1.0)

    def errors(table: MultistepTable) -> list[float]:
        return [_standard_deviation(table, d) / d - 1 for d in deviations]

    old, new = errors(ddim(medforj_2025, path)), errors(ddim(medforj_2026, path))
    ours, ours32 = errors(dpmpp_2m(even, path)), errors(dpmpp_2m(even32, path))
    assert old == pytest.approx([-0.357, -0.168, -0.063, -0.027], abs=2e-3)
    assert new == pytest.approx([-0.158, -0.050, -0.017, -0.007], abs=3e-3)
    assert ours == pytest.approx([-0.054, 0.007, 0.014, 0.015], abs=2e-3)
    assert ours32 == pytest.approx([-0.050, 0.000, 0.005, 0.006], abs=2e-3)
    assert errors(ddim(even32, path)) == pytest.approx([-0.116, -0.079, -0.075, -0.075], abs=2e-3)
    for better in (ours, errors(unipc_2(even, path))):
        assert all(abs(a) < abs(b) for a, b in zip(better, old, strict=True))
        assert all(abs(a) < abs(b) for a, b in zip(better[:3], new[:3], strict=True))
    # The grid matters more than the order: the same solver on uniform t is worse than DDIM was.
    assert abs(errors(dpmpp_2m(uneven, path))[2]) > 0.25


def test_the_products_grid_is_at_least_as_good() -> None:
    path = DiscreteVPPath()
    table = dpmpp_2m(LogSNRGrid()(20, path), path)
    assert all(abs(_standard_deviation(table, d) / d - 1) < 0.02 for d in (0.03, 0.1, 0.3, 1.0))


@pytest.mark.parametrize("times", [[0.5], [0.1, 0.5], [1.0, 0.5, 0.5, 0.0], [[1.0, 0.0]]])
def test_grids_that_are_refused(times: list) -> None:
    with pytest.raises((InputError, TypeError), match=r"decreasing|Type-check"):
        ddim(torch.tensor(times), LinearPath())


def test_eta_and_times_out_of_range() -> None:
    with pytest.raises(InputError, match="eta"):
        ddim(torch.tensor([1.0, 0.0]), LinearPath(), eta=1.5)
    with pytest.raises(InputError, match="times"):
        ddim(torch.tensor([1.5, 0.0]), LinearPath())
