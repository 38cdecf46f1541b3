"""The figure and the numbers of docs/langevin.md: correctors at equal evaluations, exact oscillators, biases of steps.

python docs/scripts/langevin.py
"""

import math
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.correctors import NoiseShare, SignalToNoise, StepRule, predictor_corrector
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.langevin import (
    Bath,
    LinearStep,
    PhasePoint,
    adjusted_langevin,
    autocovariance,
    baoab,
    oscillator,
    simulate,
    unadjusted_langevin,
)
from radiata_core.paths import LinearPath
from radiata_core.runge_kutta import Churn, edm_heun
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim, ddpm, unipc_2
from radiata_core.times import LogSNRGrid

IMAGE = Path(__file__).resolve().parents[1] / "images" / "langevin.png"
PATH, GRID = LinearPath(), LogSNRGrid()
SIZE, SEEDS = 20_000, range(5)


def spread(values: list[float], digits: int = 3) -> str:
    return f"{statistics.mean(values):+.{digits}f} ({min(values):+.{digits}f} … {max(values):+.{digits}f})"


def variance_error(steps: int, corrections: int, rule: StepRule, solver=ddim) -> list[float]:
    """Relative error of the variance of unit normal data, one value a seed."""
    zero, one = torch.zeros(SIZE, dtype=torch.float64), torch.ones(SIZE, dtype=torch.float64)
    denoiser, table = GaussianDenoiser(zero, Diagonal(one), PATH), solver(GRID(steps, PATH), PATH)
    found = []
    for seed in SEEDS:
        x = noise_of([generator_of(seed, 1)], (SIZE,), torch.float64)
        end = predictor_corrector(
            denoiser, x, table, generators=[generator_of(seed, 2)], rule=rule, corrections=corrections
        )
        found.append(float(end.square().mean()) - 1)
    return found


def gaussian(axis) -> None:
    print(f"variance error of N(0, 1) in {SIZE} dimensions, even in log-SNR, {len(SEEDS)} seeds")
    budgets = (10, 20, 40, 80)
    for corrections in (0, 1, 3):
        means, counts = [], []
        for budget in budgets:
            steps = round((budget + corrections) / (1 + corrections))
            found = variance_error(steps, corrections, SignalToNoise())
            counts.append(steps + (steps - 1) * corrections)
            means.append(100 * statistics.mean(found))
            print(
                f"  DDIM, {corrections} corrections, r = 0.16, {counts[-1]:>2} evaluations: {spread(found)}"
            )
        axis.plot(counts, means, marker="o", ms=3, label=f"{corrections} corrections a step")
    for rule in (SignalToNoise(0.3), NoiseShare(0.05), NoiseShare(0.25), NoiseShare(1.0)):
        print(f"  DDIM, 1 correction, {rule}, 39 evaluations: {spread(variance_error(20, 1, rule))}")
    for corrections, steps in ((0, 40), (1, 20)):
        found = variance_error(steps, corrections, SignalToNoise(), ddpm)
        print(f"  DDPM, {corrections} corrections, about 40 evaluations: {spread(found)}")


def ring() -> MixtureDenoiser:
    angles = torch.arange(6, dtype=torch.float64) * torch.pi / 3
    means = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    blob = Diagonal(torch.full((2,), 0.09, dtype=torch.float64))
    return MixtureDenoiser(torch.ones(6, dtype=torch.float64), means, [blob] * 6, PATH)


def energy_distance(x: Tensor, y: Tensor) -> float:
    n, m = len(x), len(y)
    inside = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - inside)


def of_ring(seed: int, count: int) -> Tensor:
    generator = generator_of(seed, 3)
    turn = torch.randint(6, (count,), generator=generator) * torch.pi / 3
    centre = 3 * torch.stack([turn.cos(), turn.sin()], 1).double()
    return centre + 0.3 * torch.randn(count, 2, generator=generator, dtype=torch.float64)


def blob_variance(samples: Tensor) -> float:
    """Mean squared distance to the nearest blob's centre, a coordinate, over the true 0.09, minus 1."""
    return float(torch.cdist(samples, ring().means).amin(1).square().mean()) / 2 / 0.09 - 1


def on_the_ring() -> None:
    rows, denoiser = 1500, ring()
    floor = [energy_distance(of_ring(s, rows), of_ring(s + 50, rows)) for s in SEEDS]
    widths = [blob_variance(of_ring(s, rows)) for s in SEEDS]
    print(
        f"ring of six blobs, {rows} samples; data themselves: width {spread(widths)}, energy {spread(floor, 4)}"
    )
    grid = {n: GRID(n, PATH) for n in (20, 40)}
    runs = {
        "DDIM 40": lambda x, g: integrate(denoiser, x, ddim(grid[40], PATH)),
        "DDPM 40": lambda x, g: integrate(denoiser, x, ddpm(grid[40], PATH), generators=g),
        "UniPC-2 40": lambda x, g: integrate(denoiser, x, unipc_2(grid[40], PATH)),
        "EDM Heun 20, churn 10": lambda x, g: edm_heun(
            denoiser, x, grid[20], PATH, churn=Churn(10.0), generators=g
        ),
    }
    rules = (NoiseShare(0.05), NoiseShare(0.25), NoiseShare(1.0), SignalToNoise(), SignalToNoise(limit=1.0))
    for solver in (ddim, ddpm):
        for rule in rules:
            runs[f"{solver.__name__} 20 + 1, {rule}"] = lambda x, g, solver=solver, rule=rule: (
                predictor_corrector(denoiser, x, solver(grid[20], PATH), generators=g, rule=rule)
            )
    for name, run in runs.items():
        errors, widths = [], []
        for seed in SEEDS:
            x = noise_of(generators_of(range(rows), seed, 4), (2,), torch.float64)
            samples = run(x, generators_of(range(rows), seed, 5))
            errors.append(energy_distance(samples, of_ring(seed + 20, rows)))
            widths.append(blob_variance(samples))
        print(f"  {name}: blob variance off by {spread(widths)}, energy distance {spread(errors, 4)}")


def covariance_kept(force, step: LinearStep) -> np.ndarray:
    """Covariance of (q, v) at rest of a linear step, from its responses to unit inputs."""

    def after(q: float, v: float, xi: list[float]) -> list[float]:
        point = PhasePoint(torch.full((1, 1), q).double(), torch.full((1, 1), v).double())
        end = simulate(force, point, step, 1, noise=torch.tensor(xi).double().reshape(1, 1, -1, 1)).end
        return [end.position.item(), end.velocity.item()]

    silence = [0.0] * step.draws
    transition = np.array([after(1, 0, silence), after(0, 1, silence)]).T
    gain = np.array([after(0, 0, list(row)) for row in np.eye(step.draws)]).T
    return solve_discrete_lyapunov(transition, gain @ gain.T)


def harmonic(axis) -> None:
    """omega = T = m = 1, gamma = 0.5; Euler-Maruyama for comparison, in closed form likewise."""
    bath, steps = Bath(0.5), np.arange(0.05, 1.96, 0.05)
    kept = {"BAOAB": [], "exact oscillator": [], "Euler-Maruyama": []}
    for h in steps:
        kept["BAOAB"].append(covariance_kept(lambda q: -q, baoab(h, bath))[0, 0])
        kept["exact oscillator"].append(covariance_kept(None, oscillator(h, 1.0, bath))[0, 0])
        euler = np.array([[1, h], [-h, 1 - 0.5 * h]])
        stable = np.abs(np.linalg.eigvals(euler)).max() < 1
        euler_kept = solve_discrete_lyapunov(euler, np.diag([0, h])) if stable else np.full((2, 2), np.nan)
        kept["Euler-Maruyama"].append(euler_kept[0, 0])
    for (name, values), style in zip(kept.items(), ("-", "--", ":"), strict=True):
        axis.plot(steps, values, style, label=name)
        for h in (0.1, 0.5, 1.9):
            print(f"harmonic, omega h = {h}: Var q of {name}: {values[int(np.abs(steps - h).argmin())]:.12f}")


def regimes(axis) -> None:
    """Autocovariance of q at omega = 2, T = m = 1: closed form and 20 000 simulated coordinates."""
    omega, h, lags = 2.0, 0.25, 24
    for gamma, colour in ((0.5, "tab:blue"), (4.0, "tab:orange"), (12.0, "tab:green")):
        bath, worst = Bath(gamma), []
        for seed in SEEDS:
            q, v = noise_of([generator_of(seed, 6)], (2, SIZE), torch.float64)[0]
            start = PhasePoint(q[None] / omega, v[None])
            run = simulate(None, start, oscillator(h, omega, bath), lags, generators=[generator_of(seed, 7)])
            found = (run.position * run.position[0]).mean((1, 2))
            wanted = autocovariance(run.times, omega, bath)
            worst.append(float((found - wanted).abs().max() * omega**2))
        fine = torch.linspace(0, lags * h, 200, dtype=torch.float64)
        axis.plot(fine, omega**2 * autocovariance(fine, omega, bath), color=colour, label=f"γ = {gamma:g}")
        axis.plot(run.times, omega**2 * found, ".", ms=4, color=colour)
        print(
            f"autocovariance, gamma = {gamma}: largest difference {spread(worst, 4)} of Var q, {SIZE} coordinates"
        )


def double_well(axis) -> None:
    """E q² of U = q⁴/4 - q²/2 at T = 0.5, gamma = 1: bias against the step, from rows that start in the wells."""
    grid = np.linspace(-5, 5, 20_001)
    density = np.exp(-(grid**4 / 4 - grid**2 / 2) / 0.5)
    truth = float((density * grid**2).sum() / density.sum())
    bath = Bath(1.0, 0.5)

    def split(step: LinearStep, stiffness: float, start: PhasePoint, h: float, seed: int) -> Tensor:
        return simulate(
            lambda q: (1 + stiffness) * q - q**3,
            start,
            step,
            round(60 / h),
            generators=[generator_of(seed, 9)],
            every=round(5 / h),
        ).position[4:]

    def euler(start: PhasePoint, h: float, seed: int) -> Tensor:
        q, v, generator, kept = start.position, start.velocity, generator_of(seed, 10), []
        for k in range(round(60 / h)):
            noise = torch.randn(q.shape, generator=generator, dtype=torch.float64)
            q, v = q + h * v, v + h * (q - q**3 - v) + (2 * h * 0.5) ** 0.5 * noise
            if (k + 1) % round(5 / h) == 0:
                kept.append(q)
        return torch.stack(kept)[3:]

    curves = {
        "BAOAB": lambda start, h, seed: split(baoab(h, bath), 0.0, start, h, seed),
        "oscillator + rest": lambda start, h, seed: split(oscillator(h, 2**0.5, bath), 2.0, start, h, seed),
        "Euler-Maruyama": euler,
    }
    steps = (0.05, 0.1, 0.2, 0.3, 0.4)
    for name, run in curves.items():
        means, halves = [], []
        for h in steps:
            values = []
            for seed in SEEDS:
                q, v = noise_of([generator_of(seed, 8)], (2, SIZE), torch.float64)[0]
                start = PhasePoint((q.sign() + 0.3 * q)[None], 0.5**0.5 * v[None])
                try:
                    values.append(float(run(start, h, seed).square().mean()) / truth - 1)
                except InputError:
                    values.append(math.nan)
            means.append(100 * float(np.mean(values)))
            halves.append(100 * 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5)
            found = f"{means[-1]:+.2f} ± {halves[-1]:.2f} %" if math.isfinite(means[-1]) else "infinity"
            print(f"double well, {name}, h = {h}: E q² off by {found}")
        axis.errorbar(steps, means, halves, marker="o", ms=3, capsize=2, label=name)
    axis.set_ylim(-6, 2)


def overdamped() -> None:
    """exp(-x⁴/4) by Euler steps and by adjusted ones."""
    truth, rows = 2 * math.gamma(0.75) / math.gamma(0.25), 1000
    for h in (0.1, 0.2, 0.4):
        plain, adjusted, accepted = [], [], []
        for seed in SEEDS:
            x = 0.5 * noise_of(generators_of(range(rows), seed, 11), (1,), torch.float64)
            keys = (range(rows), seed, 12)
            try:
                end = unadjusted_langevin(lambda x: -(x**3), x, h, 80, generators=generators_of(*keys)).x
                plain.append(float(end.square().mean()) / truth - 1)
            except InputError:
                plain.append(math.inf)
            chain = adjusted_langevin(lambda x: -(x**4).sum(1) / 4, x, h, 80, generators=generators_of(*keys))
            adjusted.append(float(chain.x.square().mean()) / truth - 1)
            accepted.append(float(chain.accepted.mean()))
        print(
            f"exp(-x⁴/4), h = {h}: E x² off by {spread(plain)} unadjusted, {spread(adjusted)} adjusted, "
            f"accepted {statistics.mean(accepted):.2f}"
        )


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.3), layout="constrained")
    gaussian(axes[0])
    axes[0].axhline(0, color="0.7", lw=0.8)
    axes[0].set(
        xlabel="evaluations",
        ylabel="error of the variance (%)",
        title="DDIM + corrector, N(0, I)",
    )
    regimes(axes[1])
    axes[1].set(xlabel="lag (units of time)", ylabel="autocovariance of q / Var q", title="oscillator, ω = 2")
    harmonic(axes[2])
    axes[2].set(xlabel="ω h", ylabel="Var q (true: 1)", title="harmonic force at rest", ylim=(0.8, 2.2))
    double_well(axes[3])
    axes[3].set(xlabel="step h", ylabel="error of E q² (%)", title="double well")
    for axis in axes:
        axis.legend(fontsize=7, frameon=False)
    figure.savefig(IMAGE, dpi=90)
    on_the_ring()
    overdamped()
    print(f"written to {IMAGE.relative_to(IMAGE.parents[2])}")


if __name__ == "__main__":
    main()
