"""The figure of docs/interpolants.md: a bridge between two sets, what epsilon does to a learnt one, what is seen halfway.

python docs/scripts/interpolants.py
"""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from radiata_core.interpolant_objectives import InterpolantRegression, best_diffusion, kl_bound
from radiata_core.interpolant_oracles import GaussianMixture, MixtureBridge
from radiata_core.interpolant_samplers import capped_times, diffuse, flow
from radiata_core.interpolants import (
    EncoderDecoder,
    Interpolant,
    LinearSchedule,
    NetworkBridge,
    NoGamma,
    SineSquaredGamma,
    SquareRootGamma,
)
from radiata_core.seeds import generators_of

DOCS = Path(__file__).resolve().parents[1]
LINEAR = Interpolant(LinearSchedule(), SquareRootGamma(2.0))
EPSILONS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
SEEDS = (0, 1, 2)
SAMPLES = 6000


def ring(count: int, radius: float, sd: float, turn: float = 0.0) -> GaussianMixture:
    """Round blobs on a circle."""
    angles = 2 * math.pi * (torch.arange(count, dtype=torch.float64) + turn) / count
    means = radius * torch.stack([angles.cos(), angles.sin()], 1)
    return GaussianMixture(
        torch.ones(count).double(), means, (sd**2 * torch.eye(2).double()).repeat(count, 1, 1)
    )


FIRST, SECOND = ring(8, 3.0, 0.25), ring(3, 1.5, 0.25, turn=0.25)


def even(mixture: GaussianMixture, count: int, draws: torch.Generator) -> Tensor:
    """Draws with the same number of each blob: the share of blobs is no noise then."""
    chosen = torch.arange(count) % len(mixture.means)
    z = torch.randn(count, 2, generator=draws, dtype=torch.float64)
    return mixture.means[chosen] + torch.einsum(
        "bij,bj->bi", torch.linalg.cholesky(mixture.covariances)[chosen], z
    )


class Field(nn.Module):
    """A perceptron of the state and sines of the time."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        waves = [f(math.pi * k * t) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
        return self.layers(torch.cat([x, torch.stack(waves, 1).to(x)], 1))


def learnt(seed: int, steps: int = 2500) -> NetworkBridge:
    """Velocity and noise of the linear bridge, learnt from draws of both ends."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bridge = NetworkBridge(Field(), Field(), LINEAR)
    objective = InterpolantRegression(LINEAR)
    optimiser = torch.optim.Adam(bridge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draws = torch.Generator().manual_seed(seed)
    for step in range(steps):
        x0, x1 = FIRST.sample(128, draws).float(), SECOND.sample(128, draws).float()
        rows = generators_of(range(128 * step, 128 * (step + 1)), seed)
        optimiser.zero_grad()
        objective(bridge, x0, rows, target=x1).value.backward()
        optimiser.step()
        schedule.step()
    return bridge.eval()


@torch.no_grad()
def errors(bridge: NetworkBridge, exact: MixtureBridge, draws: torch.Generator) -> tuple[float, float]:
    """Integrals over t of E|error of u|^2 and E|error of s|^2, on the capped times of the samplers."""
    n, times = 500, capped_times(60, 0.01)
    found = []
    for t in times:
        x0, x1 = FIRST.sample(n, draws), SECOND.sample(n, draws)
        z = torch.randn(n, 2, generator=draws, dtype=torch.float64)
        x = LINEAR.state(x0, x1, z, t)
        gamma = float(LINEAR.coefficients(t).gamma)
        u = bridge.velocity(x.float(), t) - exact.velocity(x, t)
        s = (bridge.eta(x.float(), t) - exact.eta(x, t)) / gamma
        found.append((float(u.square().sum(1).mean()), float(s.square().sum(1).mean())))
    mean = torch.tensor(found).mean(0)
    return float(mean[0]), float(mean[1])


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Square root of 2 E|A - B| - E|A - A'| - E|B - B'|, unbiased inside, 0 if negative."""

    def within(rows: Tensor) -> float:
        return float(torch.cdist(rows, rows).sum() / (len(rows) * (len(rows) - 1)))

    a, b = a.double(), b.double()
    return math.sqrt(max(2 * float(torch.cdist(a, b).mean()) - within(a) - within(b), 0.0))


def halfway(interpolant: Interpolant, grid: Tensor) -> Tensor:
    """Density of x_t at t = 1/2 on a grid (n, n, 2)."""
    exact = MixtureBridge(FIRST, SECOND, interpolant)
    return exact.log_density(grid.reshape(-1, 2), torch.tensor(0.5).double()).exp().reshape(grid.shape[:2])


def modes(density: Tensor) -> int:
    """Local maxima of a map that are higher than a hundredth of the highest."""
    peak = torch.nn.functional.max_pool2d(density[None], 9, 1, 4)[0]
    return int(((density == peak) & (density > 0.01 * density.max())).sum())


def measured() -> dict[tuple[int, float], tuple[float, float]]:
    """(steps, epsilon) -> mean and half range over networks of the energy distance to the second set; prints it."""
    draws = torch.Generator().manual_seed(100)
    real = even(SECOND, SAMPLES, draws).float()
    floor = [energy_distance(even(SECOND, SAMPLES, draws).float(), real) for _ in range(20)]
    exact = MixtureBridge(FIRST, SECOND, LINEAR)
    bridges = [learnt(seed) for seed in SEEDS]
    print(f"draws of the second set itself, 20: at most {max(floor):.3f}, median {sorted(floor)[10]:.3f}")
    for seed, bridge in zip(SEEDS, bridges, strict=True):
        u, s = errors(bridge, exact, draws)
        print(
            f"network {seed}: E|du|^2 {u:.3f}, E|ds|^2 {s:.3f}, epsilon* {best_diffusion(u, s):.2f}, ", end=""
        )
        print(", ".join(f"bound({e}) {kl_bound(u, s, e):.2f}" for e in EPSILONS[1:]))
    found = {}
    start = even(FIRST, SAMPLES, draws).float()
    for steps in (25, 100, 400):
        for epsilon in EPSILONS:
            values = []
            for seed, bridge in [*zip(SEEDS, bridges, strict=True), (9, None)]:
                field, x = (exact, start.double()) if bridge is None else (bridge, start)
                with torch.no_grad():
                    end = diffuse(
                        field, x, capped_times(steps, 0.005), epsilon, torch.Generator().manual_seed(seed)
                    )
                values.append(energy_distance(end, real))
            *trained, oracle = values
            mean, half = sum(trained) / len(trained), (max(trained) - min(trained)) / 2
            found[steps, epsilon] = mean, half
            print(f"{steps} steps, epsilon {epsilon}: {mean:.3f} +- {half:.3f}; exact fields {oracle:.3f}")
    return found


def main() -> None:
    torch.set_num_threads(1)
    found = measured()
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    exact = MixtureBridge(FIRST, SECOND, LINEAR)
    start = FIRST.sample(60, torch.Generator().manual_seed(5))
    for axis, epsilon, name in zip(axes, (0.0, 0.5), ("ODE", "diffusion, ε = 0.5"), strict=False):
        states, x, times = [start], start, capped_times(120, 0.005)
        rows = generators_of(range(60))
        for i in range(120):
            piece = times[i : i + 2]
            x = (
                flow(exact, x, piece)
                if epsilon == 0
                else diffuse(exact, x, piece, epsilon, rows, finish=False)
            )
            states.append(x)
        lines = torch.stack(states)
        axis.plot(lines[..., 0], lines[..., 1], color="0.6", lw=0.4)
        axis.scatter(*lines[0].T, s=7, label="first set, t = 0")
        axis.scatter(*lines[-1].T, s=7, label="second set, t = 1")
        axis.set(title=name, xlim=(-4, 4), ylim=(-4, 5.6), aspect="equal")
    axes[0].legend(fontsize=7, frameon=False, loc="upper left")
    for steps, colour in zip((25, 100, 400), ("C1", "C2", "C0"), strict=True):
        mean = [found[steps, e][0] for e in EPSILONS]
        half = [found[steps, e][1] for e in EPSILONS]
        axes[2].errorbar(
            EPSILONS, mean, half, marker="o", ms=3, capsize=2, color=colour, label=f"{steps} steps"
        )
    axes[2].set(title="learnt fields", xlabel="ε", ylabel="energy distance to the second set")
    axes[2].set_xscale("symlog", linthresh=0.1)
    axes[2].set_ylim(0, None)
    axes[2].legend(fontsize=7, frameon=False)
    line = torch.linspace(-4, 4, 161, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    names = {
        "linear, no γ": Interpolant(LinearSchedule(), NoGamma()),
        "linear, γ = √(2t(1−t))": LINEAR,
        "encoder–decoder": Interpolant(EncoderDecoder(), SineSquaredGamma()),
    }
    for k, (name, interpolant) in enumerate(names.items()):
        density = halfway(interpolant, grid)
        print(f"halfway, {name}: {modes(density)} modes")
        colour = ("C3", "C2", "C0")[k]
        axes[3].contour(line, line, density, levels=[0.3 * float(density.max())], colors=colour, linewidths=1)
        axes[3].plot([], [], color=colour, label=f"{name}: {modes(density)}")
    axes[3].set(title="modes at t = 1/2", aspect="equal", xlim=(-4, 4), ylim=(-4, 5.6))
    axes[3].legend(fontsize=7, frameon=False, loc="upper center")
    path = DOCS / "images" / "interpolants.png"
    figure.savefig(path, dpi=88)
    print(f"written to {path.relative_to(DOCS.parent)}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
