"""Predictor and corrector: variances in closed form at every time, bias known, rows on their own."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser
from radiata_core.correctors import NoiseShare, SignalToNoise, StepRule, corrected, predictor_corrector
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.kernels import StudentTKernel
from radiata_core.paths import LinearPath, Path, VEPath, VPPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import Step, integrate
from radiata_core.tables import MultistepTable, ddim, ddpm, dpmpp_2m, unipc_2
from radiata_core.times import LogSNRGrid
from radiata_core.transitions import PowerDiffusion, exact_transition

SPREAD = 0.6
PATHS: list[Path] = [LinearPath(), VPPath(), VEPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


def _gaussian(path: Path, size: int, spread: float = SPREAD) -> GaussianDenoiser:
    return GaussianDenoiser(
        torch.zeros(size, dtype=torch.float64),
        Diagonal(torch.full((size,), spread**2, dtype=torch.float64)),
        path,
    )


def _start(path: Path, seed: int, rows: int, size: int) -> Tensor:
    """Exact samples of the Gaussian at t = 1."""
    c = path.coefficients(torch.ones((), dtype=torch.float64))
    spread = float((c.alpha**2 * SPREAD**2 + c.sigma**2).sqrt())
    return spread * noise_of(generators_of(range(rows), seed), (size,), torch.float64)


def _variances(
    table: MultistepTable, delta: float, corrections: int, start: float
) -> list[tuple[float, float]]:
    """(variance, the true one) at every time of the table, in closed form: the sampler is linear for Gaussian data."""
    c = table.path.coefficients(table.times)
    found, true = [start], (c.alpha**2 * SPREAD**2 + c.sigma**2).tolist()
    for i, row in enumerate(table.rows):
        gain = float(c.alpha[i]) * SPREAD**2 / true[i]
        weight = row.states[0] + (row.outputs[0] * gain if row.outputs else 0.0)
        value = weight**2 * found[-1] + row.noise**2
        if float(c.sigma[i + 1]) > 0:
            epsilon = delta * float(c.sigma[i + 1]) ** 2
            for _ in range(corrections):
                value = (1 - epsilon / true[i + 1]) ** 2 * value + 2 * epsilon
        found.append(value)
    return list(zip(found, true, strict=True))


@over_paths
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "sde"])
def test_the_variance_at_every_time_is_the_closed_form(path: Path, solver: str) -> None:
    """40 000 coordinates, 6 steps, 3 corrections each: within 4.5 standard errors at each time, 1 seed in 20 000 a case.

    And what the corrections are for: the sample's variance is closer to the true one than the predictor's, and at no time is
    it further off than the predictor's or their own bias, delta / (2 - delta).
    """
    times = LogSNRGrid()(6, path)
    table = {
        "ddim": lambda: ddim(times, path),
        "ddpm": lambda: ddpm(times, path),
        "sde": lambda: exact_transition(times, path, PowerDiffusion(1.0)).table,
    }[solver]()
    size, delta, corrections = 40_000, 0.25, 3
    denoiser, seen = _gaussian(path, size), []

    def note(step: Step) -> None:
        seen.append(float(step.x.square().mean()))

    x = _start(path, 1, 1, size)
    end = predictor_corrector(
        denoiser,
        x,
        table,
        generators=generators_of([2]),
        rule=NoiseShare(delta),
        corrections=corrections,
        callback=note,
    )
    begin = float(path.coefficients(times[0]).sigma ** 2 + (path.coefficients(times[0]).alpha * SPREAD) ** 2)
    wanted = _variances(table, delta, corrections, begin)
    for value, (variance, _) in zip([*seen, float(end.square().mean())], wanted, strict=True):
        assert abs(value / variance - 1) < 4.5 * (2 / size) ** 0.5
    plain = _variances(table, delta, 0, begin)
    errors = [[abs(value / true - 1) for value, true in run] for run in (plain, wanted)]
    assert errors[1][-1] < 0.9 * errors[0][-1]
    assert all(after <= max(before, delta / (2 - delta)) for before, after in zip(*errors, strict=True))


def test_more_corrections_come_closer() -> None:
    """DDIM in 10 steps even in log-SNR: -45 % of the variance, -25 % with 3 corrections each, -14 % with 10.

    In closed form. At equal evaluations, 40 plain steps or 20 with one correction each: longer Langevin steps pay (-14 %
    against -11 %), steps of the length that r = 0.16 gives do not (-23 %).
    """
    path = LinearPath()

    def error(steps: int, corrections: int, delta: float) -> float:
        table = ddim(LogSNRGrid()(steps, path), path)
        value, true = _variances(table, delta, corrections, 1.0)[-1]
        return value / true - 1

    errors = [error(10, corrections, 0.25) for corrections in (0, 1, 3, 10)]
    assert errors == sorted(errors)
    assert [errors[0], errors[2], errors[3]] == pytest.approx([-0.452, -0.247, -0.143], abs=1e-3)
    assert error(20, 1, 2 * 0.16**2) < error(40, 0, 1.0) < error(20, 1, 0.25) < 0


@pytest.mark.parametrize("delta", [0.05, 0.5, 1.5])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_bias_of_a_share_is_the_known_one(delta: float, t: float) -> None:
    """At rest the variance is V / (1 - epsilon / 2V), from the two responses of one step, no Monte Carlo."""
    path = LinearPath()
    c = path.coefficients(torch.tensor(t, dtype=torch.float64))
    alpha, sigma = float(c.alpha), float(c.sigma)
    true = alpha**2 * SPREAD**2 + sigma**2
    size = 3
    denoiser, x = _gaussian(path, size), torch.ones(1, size, dtype=torch.float64)
    time, silent = torch.tensor(t, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)
    kicks = noise_of(generators_of([1]), (size,), torch.float64)
    noise_only = corrected(
        silent, denoiser(silent, time), alpha, sigma, NoiseShare(delta), generators_of([1])
    )
    both = corrected(x, denoiser(x, time), alpha, sigma, NoiseShare(delta), generators_of([1]))
    keep, gain = (both - noise_only)[0, 0].item(), (noise_only / kicks)[0, 0].item()
    epsilon = delta * sigma**2
    assert gain**2 / (1 - keep**2) == pytest.approx(true / (1 - epsilon / (2 * true)), rel=1e-10)
    assert gain**2 / (1 - keep**2) / true < 1 / (1 - delta / 2) + 1e-12


def test_signal_to_noise_is_the_papers() -> None:
    """epsilon = 2 (r |z| / |score|)², row by row; no more than the limit; sigma² where there is no score."""
    score = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    noise = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    found = SignalToNoise(0.5)(score, noise, 2.0)
    torch.testing.assert_close(found, torch.tensor([2 * (0.5 / 5) ** 2, 2 * (0.5 * 2 / 0.5) ** 2, 4.0]))
    limited = SignalToNoise(0.5, limit=1.5)(score, noise, 2.0)
    torch.testing.assert_close(limited, torch.tensor([2 * (0.5 / 5) ** 2, 6.0, 4.0]))


@over_paths
def test_signal_to_noise_in_closed_form(path: Path) -> None:
    """In many dimensions |score|² = d q / V² for a variance q, so epsilon = 2 r² V² / q; along 8 steps, 40 000 coordinates.

    Within 4.5 standard errors (1 seed in 20 000 a path); and many corrections end at (1 + r²) V.
    """
    size, r, corrections, times = 40_000, 0.16, 4, LogSNRGrid()(8, path)
    table, c, seen = ddim(times, path), path.coefficients(times), []
    true = (c.alpha**2 * SPREAD**2 + c.sigma**2).tolist()
    predictor_corrector(
        _gaussian(path, size),
        _start(path, 3, 1, size),
        table,
        generators=generators_of([4]),
        rule=SignalToNoise(r),
        corrections=corrections,
        callback=lambda step: seen.append(float(step.x.square().mean())),
    )
    value = true[0]
    for i, row in enumerate(table.rows[:-1]):
        value *= (row.states[0] + row.outputs[0] * float(c.alpha[i]) * SPREAD**2 / true[i]) ** 2
        for _ in range(corrections):
            epsilon = 2 * r**2 * true[i + 1] ** 2 / value
            value = (1 - epsilon / true[i + 1]) ** 2 * value + 2 * epsilon
        assert abs(seen[i + 1] / value - 1) < 4.5 * (2 / size) ** 0.5
    t, last = times[3], [float(c.alpha[3]), float(c.sigma[3])]
    x, denoiser, generators = (
        (1.5 * true[3]) ** 0.5 * noise_of(generators_of([5]), (size,), torch.float64),
        _gaussian(path, size),
        generators_of([6]),
    )
    for _ in range(60):
        x = corrected(x, denoiser(x, t), *last, SignalToNoise(0.3), generators)
    assert abs(float(x.square().mean()) / true[3] / 1.09 - 1) < 4.5 * (2 / size) ** 0.5


@pytest.mark.parametrize("solver", [ddim, ddpm])
def test_without_corrections_it_is_the_solver(solver: Any) -> None:
    path = VPPath()
    table, x = solver(LogSNRGrid()(7, path), path), _start(path, 1, 3, 5)
    plain = integrate(_gaussian(path, 5), x, table, generators=generators_of(range(3), 2))
    found = predictor_corrector(
        _gaussian(path, 5), x, table, generators=generators_of(range(3), 2), corrections=0
    )
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", [NoiseShare(0.2), SignalToNoise(), None])
def test_a_row_is_the_same_alone(rule: StepRule | None) -> None:
    """Also with a condition a row, and for events of rank 3; the start is not changed; evaluations are n + (n - 1) k."""
    path = LinearPath()
    table = ddpm(LogSNRGrid()(5, path), path)
    rows: list[int] = []

    def denoiser(x: Tensor, t: Tensor, *, centre: Tensor) -> Tensor:
        rows.append(len(x))
        return 0.5 * x + centre.reshape(-1, 1, 1, 1)

    x = noise_of(generators_of(range(4), 1), (1, 2, 3))
    kept, centre = x.clone(), torch.arange(4.0)
    together = predictor_corrector(
        denoiser, x, table, generators=generators_of(range(4), 2), rule=rule, corrections=2, centre=centre
    )
    assert together.dtype == torch.float32
    assert torch.equal(x, kept)
    assert rows == [4] * (5 + 4 * 2)
    alone = predictor_corrector(
        denoiser,
        x[2:3],
        table,
        generators=generators_of([2], 2),
        rule=rule,
        corrections=2,
        centre=centre[2:3],
    )
    torch.testing.assert_close(alone[0], together[2])


class _Heavy:
    path, kernel = LinearPath(), StudentTKernel(128.0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return x


def test_what_is_refused() -> None:
    path = LinearPath()
    times = LogSNRGrid()(4, path)
    x, generators = torch.zeros(2, 3), generators_of(range(2))
    denoiser = _gaussian(path, 3)
    with pytest.raises(
        InputError, match=r"expected Gaussian noise for Langevin steps; got StudentTKernel\(dof=128\.0\)"
    ):
        predictor_corrector(_Heavy(), x, ddim(times, path), generators=generators)
    for table in (dpmpp_2m(times, path), unipc_2(times, path)):
        with pytest.raises(InputError, match="without a past"):
            predictor_corrector(denoiser, x, table, generators=generators)
    with pytest.raises(InputError, match="denoiser's path"):
        predictor_corrector(_gaussian(VPPath(), 3), x, ddim(times, path), generators=generators)
    with pytest.raises(InputError, match="one generator a row, 2; got 1 and 1"):
        predictor_corrector(denoiser, x, ddim(times, path), generators=generators[:1])
    with pytest.raises(InputError, match="corrections >= 0"):
        predictor_corrector(denoiser, x, ddim(times, path), generators=generators, corrections=-1)
    with pytest.raises(InputError, match="r > 0 and limit > 0; got 0"):
        SignalToNoise(0.0)
    for delta in (0.0, 2.0, -1.0, math.nan):
        with pytest.raises(InputError, match=r"delta in \(0, 2\)"):
            NoiseShare(delta)
    with pytest.raises(InputError, match=r"shape \(2, 3\); got \(2, 1\)"):
        predictor_corrector(lambda x, t: x[:, :1], x, ddim(times, path), generators=generators)
    calls = iter([1.0, math.nan])
    with pytest.raises(InputError, match=rf"at step 1, t={float(times[1]):.6g}"):
        predictor_corrector(lambda x, t: next(calls) + x, x, ddim(times, path), generators=generators)
