"""The figure of docs/diagnostics.md: an exact score, the same with a gauge field, a free network and an energy network.

python docs/scripts/diagnostics.py
"""

from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from radiata_core.analytic import MixtureDenoiser
from radiata_core.couplings import Pair
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import NetworkDenoiser, UnitVariance
from radiata_core.diagnostics import Diagnosis, Measure, diagnose, level_times
from radiata_core.energy import EnergyDenoiser
from radiata_core.gauge import GaugedDenoiser, GaugeField, gauge_residual
from radiata_core.jacobians import score_field
from radiata_core.objectives import EDM, Regression
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of, generators_of
from radiata_core.solvers import integrate
from radiata_core.tables import dpmpp_2m
from radiata_core.times import LogNormalSNR, LogSNRGrid

DOCS = Path(__file__).resolve().parents[1]
F64, PATH, SPREAD = torch.float64, LinearPath(), 0.2
MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]], dtype=F64)
ROWS, STEPS, SD = 400, 2500, 1.43
COLUMNS = {
    "distance to the exact denoiser, rms / sd": "error",
    "asymmetry of the score": "score_asymmetry",
    "work around a loop / absolute work": "loop",
}


class Perceptron(nn.Module):
    """(x, level) -> `outputs` numbers a row."""

    def __init__(self, outputs: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = [3, 64, 64, outputs]
            layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.layers(torch.cat([x, level.to(x).expand(len(x))[:, None] / 3], 1))


def draws(rows: int, generator: torch.Generator) -> Tensor:
    """Data: three round blobs of equal shares."""
    noise = torch.randn(rows, 2, generator=generator, dtype=F64)
    return MEANS[torch.randint(3, (rows,), generator=generator)] + SPREAD * noise


def trained(denoiser: nn.Module, seed: int) -> nn.Module:
    g, law = generator_of(seed), LogNormalSNR(0.0, 1.4)
    objective = Regression(PATH, law, weight=EDM(SD))
    optimiser = torch.optim.Adam(denoiser.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        pair = Pair(draws(384, g).float(), torch.randn(384, 2, generator=g))
        loss = objective.compare(denoiser, pair, law.on(PATH, law.sample(384, g)))
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        schedule.step()
    return denoiser.double().eval()


def energy_distance(samples: Tensor, truth: Tensor, parts: int = 40) -> str:
    """2 E|a - b| - E|a - a'| - E|b - b'| without bias, mean and standard error over parts; 0 for the same law."""
    found = []
    for a, b in zip(samples.chunk(parts), truth.chunk(parts), strict=True):
        n = len(a)
        own = (torch.cdist(a, a).sum() + torch.cdist(b, b).sum()) / (n * (n - 1))
        found.append(2 * torch.cdist(a, b).mean() - own)
    values = 1e3 * torch.stack(found)
    return f"({float(values.mean()):.2f} ± {float(values.std() / parts**0.5):.2f})e-3"


def distance(denoiser, law: MixtureDenoiser, t: Tensor, rows: int = 4000) -> float:
    """RMS distance to the exact posterior mean, in sd of the data."""
    c, g = PATH.coefficients(t), generator_of(7)
    x = c.alpha * draws(rows, g) + c.sigma * torch.randn(rows, 2, generator=g, dtype=F64)
    with torch.no_grad():
        return float((denoiser(x, t) - law(x, t)).square().mean().sqrt()) / SD


def main() -> None:
    torch.set_num_threads(1)
    variance = torch.full((2,), SPREAD**2, dtype=F64)
    law = MixtureDenoiser(torch.ones(3, dtype=F64), MEANS, [Diagonal(variance)] * 3, PATH)
    free = NetworkDenoiser(Perceptron(2, 0), PATH, "velocity", UnitVariance(SD))
    models = {
        "exact": law,
        "exact + gauge": GaugedDenoiser(law, GaugeField(law, 3.0)),
        "free network": trained(free, 1),
        "energy network": trained(EnergyDenoiser(Perceptron(1, 0), PATH, SD), 1),
    }
    data = draws(ROWS, generator_of(2))
    times, middle = level_times(PATH, (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)), level_times(PATH, (1.0,))[0]
    reports: dict[str, Diagnosis] = {}
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    noise = torch.randn(4000, 2, generator=generator_of(3), dtype=F64)
    table = dpmpp_2m(LogSNRGrid()(80, PATH), PATH)
    truth = draws(4000, generator_of(4))
    floor = energy_distance(draws(4000, generator_of(5)), truth)
    print(f"energy distance of 4000 exact draws to 4000 others: {floor}")
    for number, (name, denoiser) in enumerate(models.items()):
        reports[name] = diagnose(
            denoiser, data, generators_of(range(ROWS)), times=times, loop_points=128, path_points=32
        )
        with torch.no_grad():
            samples = integrate(denoiser, noise, table)
        c = PATH.coefficients(middle)
        g = generator_of(6)
        x = c.alpha * draws(2000, g) + c.sigma * torch.randn(2000, 2, generator=g, dtype=F64)
        residual = gauge_residual(score_field(denoiser, middle), score_field(law, middle), x)
        print(f"{name}: {reports[name]}")
        print(
            f"energy distance of samples {energy_distance(samples, truth)}; at κ = 1: "
            f"|difference|² / |score|² {residual.share:.3g}, gauge residual {residual.ratio:.3g}\n"
        )
        kappas = [level.kappa for level in reports[name].levels]
        for axis, field in zip(axes, COLUMNS.values(), strict=False):
            measures: list[Measure] = [getattr(level, field) for level in reports[name].levels]
            values = torch.tensor([m.value for m in measures], dtype=F64)
            if field == "error":
                values = torch.tensor([distance(denoiser, law, t) for t in times], dtype=F64)
                print("distance to the exact denoiser, sd:", [f"{float(v):.3f}" for v in values])
            axis.loglog(kappas, values.clamp_min(1e-18), "o-", ms=3, color=f"C{number}", label=name)
        axes[3].scatter(*samples[:400].T, s=2, color=f"C{number}", label=name, alpha=0.6)
    for axis, title in zip(axes, [*COLUMNS, "400 samples of each, units of the data"], strict=True):
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
        axis.set_xlabel("noise level κ = σ/α")
    axes[0].set_ylim(1e-3, 3)
    axes[3].set_xlabel("first element")
    axes[3].set_ylabel("second element")
    axes[3].set_aspect("equal")
    axes[1].legend(fontsize=7, frameon=False, loc="center left")
    path = DOCS / "images" / "diagnostics.png"
    figure.savefig(path, dpi=100)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
