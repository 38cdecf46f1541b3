"""The figure and the numbers of docs/rectification.md: a ring of six blobs in the plane, its exact teacher, small students.

python docs/scripts/rectification.py
"""

import itertools
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

from radiata_core.analytic import MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.flow_guided import FlowGuidedDistillation
from radiata_core.flowmaps import NetworkFlowMap, SolvedFlowMap, sample_flow_map
from radiata_core.paths import LinearPath, VPPath, add_noise
from radiata_core.paths import Path as NoisePath
from radiata_core.phases import PhasedRectification, segment_pair
from radiata_core.predictions import Prediction
from radiata_core.rectification import Rectification, annealed_reflow, reflow
from radiata_core.solvers import integrate
from radiata_core.straightness import curvature, even_times, straightness, transport_cost
from radiata_core.tables import ddim, unipc_2
from radiata_core.times import LogSNRGrid

IMAGE = Path(__file__).resolve().parents[1] / "images" / "rectification.png"
ONE = torch.ones((), dtype=torch.float64)
STEPS, BATCH, PAIRS, TEST = 400, 192, 10_000, 2000
SEEDS = (0, 1, 2)
COUNTS = (1, 2, 4, 8)


class Network(nn.Module):
    """64 units, two hidden layers, of (x, level)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.layers(torch.cat([x, level.expand(len(x))[:, None].float()], 1))


class TwoTimes(nn.Module):
    """The same of (x, level, level of the destination)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor, level: Tensor, target_level: Tensor) -> Tensor:
        levels = [value.expand(len(x))[:, None].float() for value in (level, target_level)]
        return self.layers(torch.cat([x, *levels], 1))


def student(path: NoisePath, prediction: str, seed: int = 0) -> NetworkDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NetworkDenoiser(Network(), path, prediction)


def teacher_of(path: NoisePath) -> MixtureDenoiser:
    angles = torch.arange(6, dtype=torch.float64) * torch.pi / 3
    means = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    blob = Diagonal(torch.full((2,), 0.09, dtype=torch.float64))
    return MixtureDenoiser(torch.ones(6, dtype=torch.float64), means, [blob] * 6, path)


def start(path: NoisePath, noise: Tensor) -> Tensor:
    return float(path.coefficients(ONE).sigma) * noise


def pairs(path: NoisePath, count: int, seed: int) -> tuple[Tensor, Tensor]:
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x0 = integrate(teacher_of(path), start(path, noise), unipc_2(LogSNRGrid()(40, path), path))
    return x0.float(), noise.float()


def fit(net: NetworkDenoiser, loss_of, steps: int = STEPS, seed: int = 1) -> NetworkDenoiser:
    """Adam with a cosine; `loss_of(net, step, generator)`."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(net, step, generator).backward()
        optimizer.step()
        rate.step()
    return net


def on_pairs(objective: Rectification, x0: Tensor, noise: Tensor):
    def loss(net, step, generator):
        rows = torch.randint(len(x0), (BATCH,), generator=generator)
        regression = objective.at(step).regression(noise[rows])
        t = torch.rand(BATCH, generator=generator, dtype=torch.float64)
        return regression.compare(net, regression.coupling(x0[rows], generator), t).value

    return loss


def one_generator(objective, x0: Tensor, noise: Tensor | None, batch: int):
    def loss(net, step, generator):
        rows = torch.randint(len(x0), (batch,), generator=generator)
        given = {} if noise is None else {"noise": noise[rows]}
        return objective(net, x0[rows], [generator] * batch, **given).value

    return loss


def at_shares(net, phased: PhasedRectification, x0: Tensor, shares: tuple[float, ...]) -> list[list[float]]:
    """Root mean square error of the velocity at shares of each segment, from the noisy end."""
    path, found = phased.path, []
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(7), dtype=x0.dtype)
    nodes = phased.nodes
    for share in shares:
        found.append([])
        for late, early in itertools.pairwise(nodes):
            x = add_noise(path, x0, noise, late)
            solved = SolvedFlowMap(phased.teacher, 4).jump(x, late, early)
            pair = segment_pair(x, solved, late, early, path)
            t = torch.lerp(late, early, torch.tensor(share, dtype=torch.float64))
            state = add_noise(path, pair.x0, pair.noise, t)
            wrong = (net(state.float(), t) - pair.x0) / t
            found[-1].append(round(float(wrong.square().sum(1).mean().sqrt()), 2))
    return found


@torch.no_grad()
def error(denoiser, path: NoisePath, x0: Tensor, noise: Tensor, times: Tensor) -> float:
    """Root mean square distance of DDIM's end to the teacher's."""
    dtype = torch.float64 if isinstance(denoiser, MixtureDenoiser) else torch.float32
    found = integrate(denoiser, start(path, noise.to(dtype)), ddim(times, path))
    return float((found - x0).square().sum(1).mean().sqrt())


def main() -> None:
    torch.set_num_threads(1)
    began = time.monotonic()
    linear, vp = LinearPath(), VPPath()
    data = {path: pairs(path, PAIRS, 5) for path in (linear, vp)}
    test = {path: pairs(path, TEST, 99) for path in (linear, vp)}
    x0, noise = data[linear]
    shuffled = noise[torch.randperm(PAIRS, generator=torch.Generator().manual_seed(0))]
    print(
        f"transport cost, independent {transport_cost(x0, shuffled).mean():.2f}, the teacher's pairs ", end=""
    )
    print(f"{transport_cost(x0, noise).mean():.2f}")

    nets = {
        "reflow, linear path": (fit(student(linear, "velocity"), on_pairs(reflow(), *data[linear])), linear),
        "rectified, linear path (loss in x0)": (
            fit(
                student(linear, "velocity"),
                on_pairs(Rectification(linear, target=Prediction.X0), *data[linear]),
            ),
            linear,
        ),
        "rectified diffusion, VP path (loss in x0)": (
            fit(student(vp, "v"), on_pairs(Rectification(vp, target=Prediction.X0), *data[vp])),
            vp,
        ),
    }
    phased = PhasedRectification(teacher_of(linear), phases=4, steps=2)
    drawn = data[linear][0].double()
    nets["phased, 4 segments"] = (
        fit(student(linear, "velocity"), one_generator(phased, drawn.float(), None, 128), STEPS),
        linear,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        told = NetworkFlowMap(TwoTimes(), linear, "velocity")
    fit(told, one_generator(phased, drawn.float(), None, 128), STEPS)  # type: ignore[arg-type]
    table: dict[str, list[float]] = {}
    rows = {
        "teacher, linear path": (teacher_of(linear), linear),
        "teacher, VP path": (teacher_of(vp), vp),
    } | nets
    print(
        f"\n{'RMSE to the end of the teacher ODE after 1, 2, 4, 8 steps':>62} {'straightness':>30} curvature"
    )
    for name, (net, path) in rows.items():
        table[name] = [error(net, path, *test[path], even_times(n, path)) for n in COUNTS]
        x = start(path, test[path][1][:300])
        x = x.double() if name.startswith("teacher") else x
        straight, curved = float(straightness(net, x, 50).mean()), float(curvature(net, x, 50).median())
        print(f"{name:>42} " + " ".join(f"{value:6.3f}" for value in table[name]), end="")
        print(f" {straight:10.3f} {curved:9.4f}")

    with torch.no_grad():
        jumped = sample_flow_map(told, test[linear][1], phased.nodes)
        found = float((jumped - test[linear][0]).square().sum(1).mean().sqrt())
        print(f"{'phased, a flow map told its segment':>42} {'':>13} {found:6.3f} (4 jumps)")
        starts, middles = at_shares(nets["phased, 4 segments"][0], phased, drawn, (0.0, 0.5))
    print(
        f"RMS error of the phased denoiser's velocity at the start of a segment {starts}, in its middle {middles}"
    )

    print(f"\none step, {STEPS} steps of training, seeds {SEEDS}: mean (each)")
    ends: dict[str, list[float]] = {"cold reflow": [], "annealed": [], "warm reflow": []}
    for seed in SEEDS:
        plain = on_pairs(Rectification(linear, annealing=lambda step: 1.0), *data[linear])
        flow = fit(student(linear, "velocity", seed), plain, seed=seed + 10)
        makers = {
            "cold reflow": (student(linear, "velocity", seed), reflow()),
            "annealed": (student(linear, "velocity", seed), annealed_reflow(STEPS // 3)),
            "warm reflow": (flow, reflow()),
        }
        for name, (net, objective) in makers.items():
            fit(net, on_pairs(objective, *data[linear]), seed=seed)
            ends[name].append(error(net, linear, *test[linear], even_times(1, linear)))
    for name, values in ends.items():
        print(f"{name:>14} {np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})")

    print("\none-step students distilled from the reflow, 250 steps: pairs alone, with the flow's guidance")
    flow = nets["reflow, linear path"][0].requires_grad_(False)
    guided: dict[int, list[list[float]]] = {}
    for count in (256, PAIRS):
        guided[count] = [[], []]
        for seed in SEEDS:
            for index, weight in enumerate((0.0, 1.0)):
                net = student(linear, "velocity")
                net.load_state_dict(flow.state_dict())
                objective = FlowGuidedDistillation(flow, weight)
                few = one_generator(objective, x0[:count], noise[:count], 64)
                fit(net, few, 250, seed)
                guided[count][index].append(error(net, linear, *test[linear], even_times(1, linear)))
        without, with_flow = guided[count]
        print(f"{count:>6} pairs: {np.mean(without):.3f} {np.round(without, 3)}, ", end="")
        print(f"{np.mean(with_flow):.3f} {np.round(with_flow, 3)}")

    draw(nets, table, ends, guided)
    print(f"\n{time.monotonic() - began:.0f} s; {IMAGE.name} written")


def trajectories(net, noise: Tensor) -> np.ndarray:
    """States from noise to data, (61, rows, 2)."""
    states: list[Tensor] = []
    table = ddim(even_times(60, net.path), net.path)
    end = integrate(net, start(net.path, noise), table, callback=lambda step: states.append(step.x))
    return torch.stack([*states, end]).double().numpy()


def draw(nets, table, ends, guided) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(13.5, 3.4), layout="constrained")
    shown = {
        "teacher, linear path": teacher_of(LinearPath()),
        "reflow": nets["reflow, linear path"][0],
        "rectified, VP path": nets["rectified diffusion, VP path (loss in x0)"][0],
    }
    colours = ("0.55", "tab:blue", "tab:orange")
    noise = torch.randn(14, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for (name, net), colour in zip(shown.items(), colours, strict=True):
        lines = trajectories(net, noise if name.startswith("teacher") else noise.float())
        axes[0].plot(lines[:, :, 0], lines[:, :, 1], color=colour, lw=1.0)
        axes[0].plot([], [], color=colour, label=name)
    axes[0].plot(*noise.T.numpy(), ".", color="black", ms=4, label="noise")
    axes[0].set(title="the same noise, three flows", xlabel="x₁", ylabel="x₂", aspect="equal")
    axes[0].set(xlim=(-4.2, 4.2), ylim=(-3.8, 6.2), yticks=(-2, 0, 2))
    axes[0].legend(fontsize=6.5, loc="upper left")
    for name, values in table.items():
        if name != "rectified, linear path (loss in x0)":
            style = "--" if name.startswith("teacher") else "-"
            axes[1].plot(COUNTS, values, style, marker="o", ms=3, label=name)
    axes[1].set(title="DDIM against the teacher's end", xlabel="evaluations", ylabel="RMSE (units of x)")
    axes[1].set_xscale("log", base=2)
    axes[1].set_xticks(COUNTS, [str(n) for n in COUNTS])
    axes[1].set_yscale("log")
    axes[1].set_yticks([0.2, 0.5, 1, 2, 3], ["0.2", "0.5", "1", "2", "3"])
    axes[1].minorticks_off()
    axes[1].set_ylim(0.14, 8)
    axes[1].legend(fontsize=6.5, loc="upper right")
    for index, values in enumerate(ends.values()):
        axes[2].plot([index] * len(values), values, "o", color="tab:blue", ms=4)
        axes[2].plot([index - 0.2, index + 0.2], [np.mean(values)] * 2, color="black")
    axes[2].set_xticks(range(len(ends)), list(ends))
    axes[2].set(title="annealing, n = 3 seeds (bar: mean)", ylabel="RMSE of one step", ylim=(0, None))
    for count, (without, with_flow) in guided.items():
        axes[3].plot(
            [0, 1],
            [without, with_flow],
            "o-",
            ms=4,
            label=[f"{count} pairs", *[None] * (len(SEEDS) - 1)],
            color="tab:blue" if count == 256 else "tab:orange",
        )
    axes[3].set_xticks([0, 1], ["pairs alone", "guided by the flow"])
    axes[3].set(
        title="one-step distillation, n = 3 seeds",
        ylabel="RMSE of one step",
        xlim=(-0.3, 1.3),
    )
    axes[3].legend(fontsize=6.5)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGE, dpi=110)


if __name__ == "__main__":
    main()
