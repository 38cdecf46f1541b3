"""The figure and the numbers of docs/couplings.md: flows learnt from assigned noise, conditions, dimensions, time.

python docs/scripts/couplings.py
"""

import statistics
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from radiata_core.couplings import Coupling, IndependentCoupling
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.objectives import Regression
from radiata_core.optimal_transport import OptimalTransportCoupling, assignment
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.straightness import even_times, straightness, transport_cost
from radiata_core.tables import ddim
from radiata_core.times import UniformTime

IMAGE = Path(__file__).resolve().parents[1] / "images" / "couplings.png"
PATH = LinearPath()
STEPS, BATCH, TEST, SEEDS = 1000, 256, 2000, (0, 1, 2)
GROUPS, COUNTS = (1, 4, 16, 64, 256), (1, 2, 4, 8, 32)


class Network(nn.Module):
    """128 units, two hidden layers, of (x, level, label)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2)
        )

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        told = x.new_zeros(len(x)) if label is None else label.to(x)
        return self.layers(torch.cat([x, level.expand(len(x))[:, None].to(x), told[:, None]], 1))


def blobs(angle: Tensor, generator: torch.Generator) -> Tensor:
    """Sixths of a ring of radius 3, sd 0.3."""
    turn = angle * torch.pi / 3
    return 3 * torch.stack([turn.cos(), turn.sin()], 1) + 0.3 * torch.randn(
        len(angle), 2, generator=generator
    )


def data(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples and their label: right half of the ring 1, left half 0."""
    angle = torch.randint(6, (count,), generator=generator)
    return blobs(angle, generator), (angle % 6 < 2).long() | (angle == 5).long()


def trained(coupling: Coupling, seed: int, conditional: bool = False) -> NetworkDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NetworkDenoiser(Network(), PATH, Prediction.VELOCITY)
    regression = Regression(PATH, UniformTime(), coupling, Prediction.VELOCITY)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = generator_of(seed, 1)
    for _ in range(STEPS):
        x0, label = data(BATCH, generator)
        told = {"label": label} if conditional else {}
        t = torch.rand(BATCH, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        regression.compare(model, coupling(x0, generator, **told), t, **told).value.backward()
        optimizer.step()
        rate.step()
    return model


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased; 0 for one law."""
    n, m = len(x), len(y)
    inside = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - inside)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} … {max(values):.4f})"


def sweep(axis) -> dict[int, NetworkDenoiser]:
    noise = noise_of(generators_of(range(TEST), 7), (2,))
    first: dict[int, NetworkDenoiser] = {}
    floor = [
        energy_distance(data(TEST, generator_of(s, 8))[0], data(TEST, generator_of(s, 9))[0]) for s in SEEDS
    ]
    print(f"energy distance of two sets of data: {spread(floor)}")
    for group in GROUPS:
        coupling = OptimalTransportCoupling(group=group)
        costs, straight, errors = [], [], {count: [] for count in COUNTS}
        for seed in SEEDS:
            x0, _ = data(BATCH * 8, generator_of(seed, 4))
            pair = [coupling(part, generator_of(seed, 5, i)) for i, part in enumerate(x0.split(BATCH))]
            costs.append(float(torch.cat([transport_cost(p.x0, p.noise) for p in pair]).mean()))
            model = trained(coupling, seed)
            first.setdefault(group, model)
            straight.append(float(straightness(model, noise, 64).mean()))
            real, _ = data(TEST, generator_of(seed, 6))
            for count in COUNTS:
                with torch.no_grad():
                    samples = integrate(model, noise, ddim(even_times(count, PATH), PATH))
                errors[count].append(energy_distance(samples, real))
        print(f"group {group:>3}: cost {spread(costs)}  straightness {spread(straight)}")
        for count in COUNTS:
            print(f"      {count:>2} steps: energy distance {spread(errors[count])}")
        means = [max(statistics.mean(errors[count]), 1e-4) for count in COUNTS]
        axis.plot(COUNTS, means, marker="o", ms=3, label="independent" if group == 1 else f"{group} rows")
    return first


def conditional() -> None:
    couplings = {
        "independent": IndependentCoupling(),
        "across labels": OptimalTransportCoupling(within=()),
        "within labels": OptimalTransportCoupling(),
    }
    noise = noise_of(generators_of(range(TEST), 10), (2,))
    for name, coupling in couplings.items():
        for count in (1, 4, 32):
            errors = []
            for seed in SEEDS:
                model = CACHE.setdefault((name, seed), trained(coupling, seed, conditional=True))
                for label in (0, 1):
                    real, kind = data(3 * TEST, generator_of(seed, 11))
                    told = torch.full((TEST,), label)
                    with torch.no_grad():
                        samples = integrate(model, noise, ddim(even_times(count, PATH), PATH), label=told)
                    errors.append(energy_distance(samples, real[kind == label][:TEST]))
            print(f"conditional, {name:>13}, {count:>2} steps: energy distance {spread(errors)}")


CACHE: dict[tuple[str, int], NetworkDenoiser] = {}


def dimensions(axis) -> None:
    sizes = (1, 2, 4, 8, 16, 64, 256, 1024)
    for batch in (4, 32, 256):
        gains, halves = [], []
        for size in sizes:
            ratios = []
            for seed in range(max(4, 256 // batch)):
                x, y = (torch.randn(batch, size, generator=generator_of(seed, k)) for k in (20, 21))
                best = (x - y[assignment(x, y)]).square().sum()
                ratios.append(float(1 - best / (x - y).square().sum()))
            gains.append(statistics.mean(ratios))
            halves.append(1.96 * statistics.stdev(ratios) / len(ratios) ** 0.5)
        print(
            f"batch {batch:>3}: cost saved "
            + ", ".join(
                f"{d}-D {100 * g:.1f} ± {100 * h:.1f} %" for d, g, h in zip(sizes, gains, halves, strict=True)
            )
        )
        axis.plot(sizes, [100 * g for g in gains], marker="o", ms=3, label=f"{batch} rows")


def timing() -> None:
    for batch in (64, 256, 512, 1024):
        x, y = (torch.randn(batch, 3072, generator=generator_of(0, k)) for k in (30, 31))
        taken = []
        for _ in range(7):
            began = time.perf_counter()
            assignment(x, y)
            taken.append(1000 * (time.perf_counter() - began))
        print(
            f"assignment of {batch} rows of 3072: {statistics.median(taken):.1f} ms ({min(taken):.1f}-{max(taken):.1f})"
        )


def draw(axis, model: NetworkDenoiser, title: str) -> None:
    """One coordinate of some trajectories against time: straight lines are straight flows."""
    noise, states, times = noise_of(generators_of(range(40), 12), (2,)), [], even_times(40, PATH)
    with torch.no_grad():
        end = integrate(model, noise, ddim(times, PATH), callback=lambda step: states.append(step.x))
    lines = torch.stack([*states, end])[..., 0]
    axis.plot(times, lines, color="0.55", lw=0.6)
    axis.plot([1.0] * lines.shape[1], lines[0], ".", ms=4, color="tab:blue")
    axis.plot([0.0] * lines.shape[1], lines[-1], ".", ms=4, color="tab:red")
    axis.set(title=title, xlabel="t (1 noise, 0 data)", ylabel="first coordinate (units of the data)")
    axis.invert_xaxis()


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.3), layout="constrained")
    models = sweep(axes[2])
    draw(axes[0], models[1], "learnt flow, independent")
    draw(axes[1], models[256], "learnt flow, groups of 256")
    axes[2].set(
        xscale="log", yscale="log", xlabel="evaluations (Euler steps)", ylabel="energy distance to the data"
    )
    axes[2].set_title(f"error, mean of {len(SEEDS)} seeds")
    axes[2].legend(fontsize=7, frameon=False, title="assigned together", title_fontsize=7)
    dimensions(axes[3])
    axes[3].set(
        xscale="log", xlabel="dimensions of an event", ylabel="transport cost saved (%)", ylim=(0, 105)
    )
    axes[3].set_title("N(0, I) to N(0, I)")
    axes[3].legend(fontsize=7, frameon=False, title="assigned together", title_fontsize=7)
    conditional()
    timing()
    figure.savefig(IMAGE, dpi=80)
    print(f"written to {IMAGE.relative_to(IMAGE.parents[2])}")


if __name__ == "__main__":
    main()
