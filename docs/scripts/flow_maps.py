"""The figure of docs/flow-maps.md: one teacher in the plane, four flow maps, quality against evaluations.

python docs/scripts/flow_maps.py
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from radiata_core.analytic import EmpiricalDenoiser
from radiata_core.average_velocity import AverageVelocity
from radiata_core.consistency import consistency_distillation
from radiata_core.flowmap_objectives import ConsistencyTrajectory, average_velocity_weight
from radiata_core.flowmap_terms import AdaptiveWeight
from radiata_core.flowmaps import NetworkFlowMap, SolvedFlowMap, sample_flow_map
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.seeds import generators_of, noise_of
from radiata_core.times import LinearGrid, LogNormalSNR, UniformTime

PATH, GRID = LinearPath(), LinearGrid()
NAMES = ["CD", "CTM", "CTM + DSM", "MeanFlow"]
BLOBS, WIDTH = 5, 0.2


def teacher() -> EmpiricalDenoiser:
    """The exact denoiser of five round blobs on a circle: five points, each smoothed."""
    angle = torch.arange(BLOBS, dtype=torch.float32) * 2 * torch.pi / BLOBS
    return EmpiricalDenoiser(1.5 * torch.stack([angle.cos(), angle.sin()], 1), PATH, WIDTH)


def draws(seeds: Sequence[int]) -> Tensor:
    """Samples of the teacher's data."""
    generators = generators_of(seeds, 1)
    chosen = torch.cat([torch.randint(BLOBS, (1,), generator=g) for g in generators])
    return teacher().data[chosen] + WIDTH * noise_of(generators, (2,))


@dataclass(frozen=True)
class PlainTimes:
    """State and times enter the network as they are: s = 0 is then near the small s that a law of times draws."""

    sign = 1.0

    def __call__(self, x: Tensor, t: Tensor, path: object) -> tuple[Tensor, Tensor]:
        return x, t


class Network(nn.Module):
    """A small perceptron of state, time and destination."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, level: Tensor, *, target_level: Tensor) -> Tensor:
        levels = torch.stack([level.expand(len(x)), target_level.expand(len(x))], 1)
        return self.layers(torch.cat([x, levels], 1))


def objective(name: str) -> Callable[..., object]:
    """What trains the flow map of a name; twelve steps of the teacher where there is one."""
    regression = Regression(PATH, LogNormalSNR(0.0, 1.2), target=Prediction.VELOCITY)
    if name == "CD":
        return consistency_distillation(teacher(), GRID, steps=12, weight=average_velocity_weight)
    if name == "MeanFlow":
        return AverageVelocity(UniformTime(), diagonal=0.5, power=0.5, offset=0.1)
    return ConsistencyTrajectory(
        teacher(),
        GRID,
        12,
        11,
        weight=average_velocity_weight,
        denoising=regression if name.endswith("DSM") else None,
        denoising_weight=AdaptiveWeight("network.layers.4.weight"),
    )


def trained(name: str, steps: int, batch: int = 64) -> NetworkFlowMap:
    """The flow map after so many steps of Adam, the rate falling to zero; the same weights and data to start with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow_map = NetworkFlowMap(Network(), PATH, Prediction.VELOCITY, PlainTimes())
    loss = objective(name)
    optimiser = torch.optim.Adam(flow_map.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    rows = draws(range(4096))
    for step in range(steps):
        seeds = range(batch * step, batch * step + batch)
        chosen = rows[torch.arange(batch * step, batch * step + batch) % len(rows)]
        optimiser.zero_grad()
        loss(flow_map, chosen, generators_of(seeds, 2)).value.backward()  # type: ignore[attr-defined]
        optimiser.step()
        schedule.step()
    return flow_map.requires_grad_(False)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|), unbiased under the root, negative differences as 0."""
    n, m = len(x), len(y)
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float((2 * torch.cdist(x, y).mean() - within).clamp_min(0).sqrt())


def diagonal_error(flow_map: NetworkFlowMap, n: int = 500) -> float:
    """Root mean square of g(x, t, t) - E[x_0 | x_t] over t = 0.1 ... 0.9 and noised data."""
    x0, noise = draws(range(10**6, 10**6 + n)), noise_of(generators_of(range(n), 4), (2,))
    total = 0.0
    for t in torch.linspace(0.1, 0.9, 9, dtype=torch.float64):
        x = (1 - t.float()) * x0 + t.float() * noise
        total += float((flow_map(x, t) - teacher()(x, t)).square().mean())
    return (total / 9) ** 0.5


def start(n: int) -> Tensor:
    """Noise to sample from."""
    return noise_of(generators_of(range(n), 5), (2,))


def samples(flow_map: NetworkFlowMap, steps: int, gamma: float, n: int = 1500) -> Tensor:
    """Samples by `steps` jumps."""
    return sample_flow_map(
        flow_map, start(n), GRID(steps, PATH), gamma=gamma, generators=generators_of(range(n), 6)
    )


def jump_error(flow_map: NetworkFlowMap, n: int = 500) -> float:
    """Root mean square distance of one jump from the end of the teacher's ODE, from the same noise."""
    one = torch.ones((), dtype=torch.float64)
    truth = SolvedFlowMap(teacher(), 100).jump(start(n), one, 0 * one)
    return float((flow_map.jump(start(n), one, 0 * one) - truth).square().sum(1).mean().sqrt())


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 450
    real, other = draws(range(10**7, 10**7 + 1500)), draws(range(2 * 10**7, 2 * 10**7 + 1500))
    counts = [1, 2, 4, 8, 16]
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.1), layout="constrained")
    print(f"energy distance of two draws of the data: {energy_distance(real, other):.3f}")
    for index, name in enumerate(NAMES):
        begun = time.monotonic()
        flow_map = trained(name, steps)
        seconds = time.monotonic() - begun
        print(
            f"{name:>10}: diagonal {diagonal_error(flow_map):.3f}, one jump {jump_error(flow_map):.3f}, {seconds:.0f} s"
        )
        for gamma, style in ((0.0, "-"), (1.0, "--")):
            found = [energy_distance(samples(flow_map, n, gamma), real) for n in counts]
            print(
                f"{'':>10}  gamma {gamma:.0f}: "
                + "  ".join(f"{n}: {d:.3f}" for n, d in zip(counts, found, strict=True))
            )
            axes[0].plot(
                counts,
                found,
                style,
                color=f"C{index}",
                marker="o",
                ms=3,
                lw=1.3,
                label=f"{name}, γ = {gamma:.0f}",
            )
        if index < 3:
            axis = axes[index + 1]
            axis.scatter(*real[:600].T, s=2, color="0.8", label="data")
            axis.scatter(*samples(flow_map, 1, 0.0, 600).T, s=2, color=f"C{index}", label=f"{name}, one jump")
            axis.set_xlim(-2.4, 2.4), axis.set_ylim(-2.4, 2.4), axis.set_aspect("equal")
            axis.legend(fontsize=7, loc="upper right", markerscale=3)
    axes[0].set_xscale("log", base=2), axes[0].set_yscale("log")
    axes[0].set_xticks(counts, [str(n) for n in counts])
    axes[0].set_xlabel("evaluations"), axes[0].set_ylabel("energy distance to data")
    (
        axes[0].legend(fontsize=6, ncol=2, loc="upper right"),
        axes[0].set_ylim(0.06, 0.6),
        axes[0].grid(alpha=0.3),
    )
    target = Path(__file__).resolve().parents[1] / "images" / "flow-maps.png"
    figure.savefig(target, dpi=110)
    print(target.name)


if __name__ == "__main__":
    main()
