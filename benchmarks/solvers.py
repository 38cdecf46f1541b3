"""What a solver costs and what it is worth: time a step beside the network, and error against evaluations, in one run.

    python benchmarks/solvers.py [--quick] [--json FILE]

**Overhead.** The network is a constant that costs nothing. Repetitions of all programs take turns, so a busy machine hurts
them alike; a figure is the median over repetitions and its interval the 2.5–97.5 percentiles of a bootstrap of that median.
Tables and time steps are made before the clock starts. `overhead_ratio_…` is ours over diffusers' (at most 1/3 is the aim).
torchdiffeq and torchsde join where they are installed.

**Error.** The denoiser is that of a mixture of three Gaussians in the plane, exact. Deterministic solvers: root mean square
distance of 256 samples to the end of the probability-flow ODE from the same noise (Dormand–Prince at 1e-9), on two grids of
the straight path. Stochastic ones: relative error of the variance for unit Gaussian data, in closed form, kappa from 80 to
0.002: the sampler is linear then, and its state is followed as coefficients on the noises it draws.
"""

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radiata_core.analytic import MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.paths import DiscreteVPPath, LinearPath, VEPath
from radiata_core.paths import Path as NoisePath
from radiata_core.runge_kutta import adaptive, edm_heun, heun
from radiata_core.seeds import generators_of
from radiata_core.solvers import (
    MultistepTable,
    ab2_velocity,
    ddim,
    ddpm,
    dpmpp_2m,
    integrate,
    sde_dpmpp_2m,
    unipc_2,
)
from radiata_core.times import Grid, LinearGrid, LogSNRGrid
from radiata_core.transitions import PowerDiffusion, euler_maruyama, exact_transition

STEPS = 20
SHAPES = {"": (1, 1, 8, 8), "_latent": (1, 4, 64, 64), "_volume": (1, 1, 64, 64, 64)}
EVALUATIONS = (5, 10, 20, 40, 80)
GRIDS: dict[str, Grid] = {"even": LinearGrid(), "logsnr": LogSNRGrid()}
"""Even in t, and even in log-SNR."""
DIFFUSION = PowerDiffusion(math.sqrt(2), 0.5)
"""g² = 2 sigma on the straight path."""
Maker = Callable[[Tensor, NoisePath], MultistepTable]
TABLES: dict[str, Maker] = {
    "ddim": ddim,
    "ab2": ab2_velocity,
    "dpmpp2m": dpmpp_2m,
    "unipc2": unipc_2,
}


# Error ------------------------------------------------------------------------------------------------------------------


def mixture(path: NoisePath) -> MixtureDenoiser:
    """Three blobs of different widths in the plane."""
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    widths = ([0.1, 0.3], [0.2, 0.2], [0.4, 0.05])
    blobs = [Diagonal(torch.tensor(width, dtype=torch.float64)) for width in widths]
    return MixtureDenoiser(torch.tensor([0.5, 0.3, 0.2]), means, blobs, path)


def deterministic_errors(
    grid: Grid, evaluations: Sequence[int] = EVALUATIONS, rows: int = 256
) -> dict[str, list[tuple[int, float]]]:
    """(evaluations, root mean square error) of each deterministic solver on a grid of the straight path."""
    path = LinearPath()
    oracle, calls = mixture(path), 0

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return oracle(x, t)

    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = adaptive(oracle, noise, path, rtol=1e-9, atol=1e-9, kappa_end=1e-6).x

    def error_of(run: Callable[[], Tensor]) -> tuple[int, float]:
        nonlocal calls
        calls = 0
        x = run()
        return calls, float((x - truth).square().sum(1).mean().sqrt())

    errors: dict[str, list[tuple[int, float]]] = {}
    for name, make in TABLES.items():
        tables = [make(grid(n, path), path) for n in evaluations]
        errors[name] = [error_of(partial(integrate, denoiser, noise, table)) for table in tables]
    for name, solver in (("heun", heun), ("edm_heun", edm_heun)):
        grids = [grid((n + 1) // 2, path) for n in evaluations]
        errors[name] = [error_of(partial(solver, denoiser, noise, times, path)) for times in grids]
    errors["dopri5"] = [
        error_of(lambda e=10.0**-k: adaptive(denoiser, noise, path, rtol=e, atol=e).x) for k in (2, 3, 4, 5)
    ]
    return errors


def response(table: MultistepTable, deviation: float = 1.0) -> float:
    """Relative error of the variance for N(0, deviation²) data, exactly: the norm of the state's weights on all noises."""
    c = table.path.coefficients(table.times)
    total = (c.alpha * deviation).square() + c.sigma.square()
    x = torch.zeros(len(table.noise) + 1, dtype=torch.float64)
    x[0] = total[0].sqrt()
    states, outputs = [x], []
    for i, row in enumerate(table.rows):
        outputs.insert(0, c.alpha[i] * deviation**2 / total[i] * states[0])
        x = sum(w * s for w, s in zip(row.states, states, strict=False))
        x = x + sum(w * m for w, m in zip(row.outputs, outputs, strict=False))
        x[i + 1] += row.noise
        states.insert(0, x)
    return float(x.square().sum()) / deviation**2 - 1


def stochastic_errors(evaluations: Sequence[int] = EVALUATIONS) -> dict[str, list[tuple[int, float]]]:
    """(evaluations, relative error of the variance) of each stochastic table, and of DDIM beside them."""
    ve, straight = VEPath(), LinearPath()

    def even(n: int) -> Tensor:
        lam = torch.linspace(-math.log(80), -math.log(0.002), n + 1, dtype=torch.float64)
        return ve.time_of_log_snr(lam)

    makers: dict[str, Maker] = {"ddim": ddim, "ddpm": ddpm, "sde_dpmpp2m": sde_dpmpp_2m}
    errors = {name: [(n, response(make(even(n), ve))) for n in evaluations] for name, make in makers.items()}
    for name, make in (("euler_maruyama", euler_maruyama), ("exact_transition", exact_transition)):
        transitions = [(n, make(LinearGrid()(n, straight), straight, DIFFUSION)) for n in evaluations]
        errors[name] = [(n, response(transition.table)) for n, transition in transitions]
    return errors


# Overhead ---------------------------------------------------------------------------------------------------------------


def ours(make: Maker, x: Tensor, answer: Tensor) -> Callable[[], Tensor]:
    path = DiscreteVPPath()
    table = make(LogSNRGrid()(STEPS, path), path)
    return lambda: integrate(lambda x, t: answer, x, table)


def theirs(name: str, x: Tensor, answer: Tensor) -> Callable[[], Tensor]:
    import diffusers

    def run() -> Tensor:
        state = x
        for step in times:
            state = scheduler.step(answer, step, state, return_dict=False)[0]
        return state

    scheduler = getattr(diffusers, name)(prediction_type="sample")
    scheduler.set_timesteps(STEPS)
    times = list(scheduler.timesteps)

    def fresh() -> Tensor:
        scheduler.set_timesteps(STEPS)
        begun = time.perf_counter()
        result = run()
        fresh.seconds = time.perf_counter() - begun  # type: ignore[attr-defined]
        return result

    return fresh


def others(x: Tensor, answer: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Euler's method of torchdiffeq and of torchsde beside the table of the same method, where they are installed."""
    straight = LinearPath()
    times = torch.linspace(1, 0, STEPS + 1)
    runs: dict[str, Callable[[], Tensor]] = {}
    if importlib.util.find_spec("torchdiffeq"):
        from torchdiffeq import odeint

        table = ddim(times, straight)
        runs["ddim_us"] = lambda: integrate(lambda x, t: answer, x, table)
        runs["torchdiffeq_euler_us"] = lambda: odeint(lambda t, y: answer, x, times, method="euler")[-1]
    if importlib.util.find_spec("torchsde"):
        import torchsde

        class Noisy(torch.nn.Module):
            noise_type, sde_type = "diagonal", "ito"

            def f(self, t: Tensor, y: Tensor) -> Tensor:
                return answer.flatten(1)

            def g(self, t: Tensor, y: Tensor) -> Tensor:
                return answer.flatten(1)

        free = euler_maruyama(times, straight, DIFFUSION).table
        noisy, flat, forwards = Noisy(), x.flatten(1), 1 - times
        step = float(forwards[1] - forwards[0])
        runs["euler_maruyama_us"] = lambda: integrate(
            lambda x, t: answer, x, free, generators=generators_of(range(len(x)), 0)
        )
        runs["torchsde_euler_us"] = lambda: torchsde.sdeint(
            noisy, flat, forwards[[0, -1]], dt=step, method="euler"
        )[-1]
    return runs


def seconds(run: Callable[[], Tensor]) -> float:
    begun = time.perf_counter()
    run()
    elapsed = time.perf_counter() - begun
    return getattr(run, "seconds", elapsed)


def median_and_interval(values: list[float], rng: np.random.Generator) -> tuple[float, list[float]]:
    array = np.asarray(values)
    resampled = np.median(rng.choice(array, (2000, len(array))), axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(np.median(array)), [float(low), float(high)]


def overheads(quick: bool) -> dict[str, float | list[float]]:
    """Microseconds a step beside the network, and ratios; printed as a table."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    figures: dict[str, float | list[float]] = {}
    print(
        f"{'tensor':>14} {'solver':>15} {'ours us/step':>13} {'theirs':>10} {'us/step':>9} {'ours/theirs':>12}"
    )
    for suffix, shape in ({"": SHAPES[""]} if quick else SHAPES).items():
        x, answer = (torch.randn(shape, generator=generator) for _ in range(2))
        runs = {
            f"dpmpp2m{suffix}_us": ours(dpmpp_2m, x, answer),
            f"diffusers_dpmpp2m{suffix}_us": theirs("DPMSolverMultistepScheduler", x, answer),
            f"unipc{suffix}_us": ours(unipc_2, x, answer),
            f"diffusers_unipc{suffix}_us": theirs("UniPCMultistepScheduler", x, answer),
        }
        pairs = [
            (f"{name}{suffix}", f"diffusers_{name}{suffix}", f"overhead_ratio_{name}{suffix}")
            for name in ("dpmpp2m", "unipc")
        ]
        if not suffix:
            added = others(x, answer)
            runs |= added
            for mine, other in (("ddim", "torchdiffeq_euler"), ("euler_maruyama", "torchsde_euler")):
                if f"{mine}_us" in added:
                    pairs.append((mine, other, f"overhead_ratio_{other}"))
                else:
                    print(f"{'':>14} {mine:>15} {'':>13} {other.split('_')[0]:>10} is not installed: skipped")
        for run in runs.values():
            run()
        measured: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(15 if quick or suffix == "_volume" else 60):
            for name, run in runs.items():
                measured[name].append(seconds(run) / STEPS * 1e6)
        for name, values in measured.items():
            figures[name], figures[f"{name}_ci"] = median_and_interval(values, rng)
        for mine, other, key in pairs:
            a, b = (float(np.median(measured[f"{name}_us"])) for name in (mine, other))
            figures[key] = a / b
            size = "x".join(map(str, shape))
            print(
                f"{size:>14} {mine.removesuffix(suffix):>15} {a:13.1f} {other.split('_')[0]:>10} {b:9.1f} {a / b:12.3f}"
            )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Solvers: overhead per step against other programs, error against evaluations."
    )
    parser.add_argument("--quick", action="store_true", help="tiny tensors only, fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat JSON object")
    options = parser.parse_args()

    torch.set_num_threads(1)
    figures = overheads(options.quick)
    evaluations = EVALUATIONS[:3] if options.quick else EVALUATIONS
    for name, grid in GRIDS.items():
        print(f"\nRMSE to the ODE's end (evaluations), mixture, straight path, grid {name}")
        for solver, pairs in deterministic_errors(grid, evaluations).items():
            print(f"{solver:>15} " + "  ".join(f"{error:.2e} ({n:2d})" for n, error in pairs))
            for (_, error), asked in zip(pairs, EVALUATIONS, strict=False):
                label = f"1e-{2 + EVALUATIONS.index(asked)}" if solver == "dopri5" else asked
                figures[f"rmse_{name}_{solver}_{label}"] = error
    print("\nRelative error of the variance (evaluations), unit Gaussian")
    for solver, pairs in stochastic_errors(evaluations).items():
        print(f"{solver:>15} " + "  ".join(f"{error:+.4f} ({n:2d})" for n, error in pairs))
        figures |= {f"variance_error_{solver}_{n}": error for n, error in pairs}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()
