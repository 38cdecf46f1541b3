"""The figure of docs/solvers.md: error against evaluations for every solver. The numbers are those of benchmarks/solvers.py.

python docs/scripts/solvers.py
"""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser, gaussian_flow
from radiata_core.covariances import Diagonal
from radiata_core.paths import LinearPath, VPPath
from radiata_core.runge_kutta import edm_heun, heun
from radiata_core.solvers import ab2_velocity, ddim, dpmpp_2m, integrate, unipc_2
from radiata_core.times import LinearGrid

DOCS = Path(__file__).resolve().parents[1]
NAMES = {
    "ddim": "DDIM (Euler)",
    "ab2": "Adams–Bashforth 2, velocity",
    "dpmpp2m": "DPM-Solver++(2M)",
    "unipc2": "UniPC-2",
    "heun": "Heun in t",
    "edm_heun": "Heun in σ/α (EDM)",
    "dopri5": "Dormand–Prince, adaptive",
    "ddpm": "DDPM",
    "sde_dpmpp2m": "SDE-DPM-Solver++(2M)",
    "euler_maruyama": "Euler–Maruyama, g² = 2σ",
    "exact_transition": "exact transition, g² = 2σ",
}
COLOURS = dict(zip(NAMES, [*plt.get_cmap("tab10").colors, "black"], strict=True))  # type: ignore[attr-defined]


def benchmark() -> ModuleType:
    """benchmarks/solvers.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark", DOCS.parent / "benchmarks" / "solvers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def orders() -> dict[str, float]:
    """Slope of the error between 16 and 64 steps, VP path, one Gaussian, log-SNR from -2 to 2: no ends, no modes."""
    path = VPPath()
    mean, variance = torch.tensor([0.3, -1.0]).double(), torch.tensor([0.5, 0.04]).double()
    oracle = GaussianDenoiser(mean, Diagonal(variance), path)
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def grid(n: int) -> Tensor:
        return path.time_of_log_snr(torch.linspace(-2.0, 2.0, n + 1, dtype=torch.float64))

    ends = grid(1)
    truth = gaussian_flow(x, ends[0], ends[1], mean, oracle.covariance, path)
    runs = {
        make.__name__: lambda n, make=make: integrate(oracle, x, make(grid(n), path))
        for make in (ddim, ab2_velocity, dpmpp_2m, unipc_2)
    }
    runs |= {f.__name__: lambda n, f=f: f(oracle, x, grid(n), path) for f in (heun, edm_heun)}
    slopes = {}
    for name, run in runs.items():
        coarse, fine = (float((run(n) - truth).square().mean().sqrt()) for n in (16, 64))
        slopes[name] = math.log(coarse / fine, 4)
    return slopes


def main() -> None:
    torch.set_num_threads(1)
    measured = benchmark()
    print("order  " + "  ".join(f"{name} {slope:.2f}" for name, slope in orders().items()))
    panels = [
        ("even in t", measured.deterministic_errors(measured.GRIDS["even"])),
        ("even in log-SNR", measured.deterministic_errors(measured.GRIDS["logsnr"])),
        ("variance of N(0, 1) data", measured.stochastic_errors()),
    ]
    straight = LinearPath()
    for make in (measured.euler_maruyama, measured.exact_transition):
        table = make(LinearGrid()(20, straight), straight, measured.DIFFUSION).table
        errors = [f"{measured.response(table, sd):+.3f} (sd {sd})" for sd in (1, 0.5, 0.3, 0.1, 0.03)]
        print(f"20 evaluations, {make.__name__}: " + "  ".join(errors))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for axis, (title, errors) in zip(axes, panels, strict=True):
        print(title)
        for solver, pairs in errors.items():
            print(f"{solver:>15} " + "  ".join(f"{error:+.2e} ({n:2d})" for n, error in pairs))
            counts, values = zip(*pairs, strict=True)
            line = "--" if solver in ("dopri5", "heun", "edm_heun") else "-"
            axis.loglog(
                counts,
                [abs(v) for v in values],
                line,
                marker="o",
                ms=3,
                color=COLOURS[solver],
                label=NAMES[solver],
            )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("evaluations of the denoiser")
        axis.set_xticks([5, 10, 20, 40, 80], labels=["5", "10", "20", "40", "80"], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[0].sharey(axes[1])
    axes[0].set_ylabel("RMS distance to the ODE's end\n(units of the data)")
    axes[2].set_ylabel("|relative error of the variance|")
    axes[0].legend(fontsize=7, frameon=False, loc="lower left")
    axes[2].legend(fontsize=7, frameon=False, loc="lower left")
    path = DOCS / "images" / "solvers.png"
    figure.savefig(path, dpi=110)
    print(f"written to {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
