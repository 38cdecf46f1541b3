"""The figure of docs/sd3.md: laws of time, what they ask for, and where a small network learns under each.

python docs/scripts/sd3.py
"""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from radiata_core.analytic import MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.nets.joint_attention import JointBlock
from radiata_core.objectives import EDM, Constant, Weight
from radiata_core.paths import LinearPath, TrigonometricPath, VPPath, add_noise
from radiata_core.paths import Path as NoisePath
from radiata_core.predictions import Prediction
from radiata_core.solvers import ab2_velocity, integrate
from radiata_core.time_weights import LawWeight, density_on, effective_weight
from radiata_core.times import CosMap, LinearGrid, LogNormalSNR, Mode, TimeLaw, UniformTime, resolution_shift

DOCS = Path(__file__).resolve().parents[1]
PATH = LinearPath()
LAWS: dict[str, TimeLaw] = {
    "uniform": UniformTime(),
    "logit-normal(0, 1)": LogNormalSNR(),
    "mode(1.29)": Mode(1.29),
    "cosmap": CosMap(),
    "logit-normal, shift 3": LogNormalSNR(shift=3.0),
}
RECIPES: list[tuple[str, TimeLaw, NoisePath, Prediction, Weight]] = [
    ("rectified flow, uniform", UniformTime(), PATH, Prediction.VELOCITY, Constant()),
    ("rectified flow, logit-normal(0, 1)", LogNormalSNR(), PATH, Prediction.VELOCITY, Constant()),
    ("EDM (-1.2, 1.2), sd 1", LogNormalSNR(-1.2, 1.2), PATH, Prediction.X0, EDM(1.0)),
    ("DDPM, noise on VP", UniformTime(), VPPath(), Prediction.EPSILON, Constant()),
    ("v on the cosine path", UniformTime(), TrigonometricPath(), Prediction.V, Constant()),
]
SEEDS, STEPS, BATCH = 3, 500, 256


class Network(nn.Module):
    """A small network of points in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(11, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        rates = torch.tensor([0.25, 0.5, 1.0, 2.0])
        phase = level.reshape(-1, 1).expand(len(x), 1) * rates
        return self.layers(torch.cat([x, phase.sin(), phase.cos(), level.expand(len(x))[:, None] / 4], 1))


def ring() -> MixtureDenoiser:
    """Eight points on a circle of radius 1.4, each of standard deviation 0.1."""
    angle = torch.arange(8) * (math.pi / 4)
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
    return MixtureDenoiser(torch.ones(8), means, [Diagonal(torch.full((2,), 0.01))] * 8, PATH)


def draw(oracle: MixtureDenoiser, n: int, generator: torch.Generator) -> Tensor:
    pick = torch.randint(8, (n,), generator=generator)
    return oracle.means[pick] + 0.1 * torch.randn(n, 2, generator=generator)


def energy_distance(a: Tensor, b: Tensor) -> float:
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def ablation(axis: plt.Axes) -> None:
    """T27: the same network and budget under each law; error of the denoiser by noise, and of samples by evaluations."""
    oracle = ring()
    levels = torch.linspace(-4, 4, 17, dtype=torch.float64)
    generator = torch.Generator().manual_seed(99)
    truth = draw(oracle, 2000, generator)
    noise = torch.randn(2000, 2, generator=generator)
    floor = energy_distance(draw(oracle, 2000, generator), truth)
    print(f"samples: energy distance (floor {floor:.4f}) after 5 and 25 evaluations, {SEEDS} seeds each")
    for name, law in LAWS.items():
        errors, distances = torch.zeros(len(levels)), {5: [], 25: []}
        for seed in range(SEEDS):
            generator = torch.Generator().manual_seed(seed)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                denoiser = NetworkDenoiser(Network(), PATH, Prediction.VELOCITY)
            optimiser = torch.optim.AdamW(denoiser.parameters(), lr=4e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
            for _ in range(STEPS):
                x0, eps = draw(oracle, BATCH, generator), torch.randn(BATCH, 2, generator=generator)
                t = law.sample(BATCH, generator)
                loss = (denoiser.predict(add_noise(PATH, x0, eps, t), t) - (eps - x0)).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            with torch.no_grad():
                for index, t in enumerate(PATH.time_of_log_snr(-levels)):
                    x = add_noise(PATH, truth, noise, t)
                    gap = (denoiser(x, t) - oracle(x, t)).square().mean() / float(t) ** 2
                    errors[index] += float(gap) / SEEDS
                for n, found in distances.items():
                    table = ab2_velocity(LinearGrid()(n, PATH), PATH)
                    found.append(energy_distance(integrate(denoiser, noise, table), truth))
        axis.plot(levels, errors, lw=1.2, label=name)
        said = [
            f"{n}: {torch.tensor(v).mean():.4f} ± {torch.tensor(v).std():.4f}" for n, v in distances.items()
        ]
        print(f"{name:>24}  " + "  ".join(said))
    axis.set(yscale="log", xlabel="log(σ/α)", title="excess velocity error, small network")
    axis.legend(fontsize=7, frameon=False)


def block_facts() -> None:
    """What the tests of the block say, as numbers."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        block = JointBlock(heads=4, head=32, embedding=16).double()
    for parameter in block.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    assert block.context is not None
    block.context.load_state_dict(block.image.state_dict())
    tokens, e = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((1, 12, 128), (1, 16)))
    with torch.no_grad():
        outputs = [torch.cat(block(tokens[:, :k], tokens[:, k:], e), 1) for k in (2, 6, 10)]  # type: ignore[arg-type]
        worst = max(float((o - outputs[0]).abs().max()) for o in outputs)
        for norm in (block.image.norm_q, block.image.norm_k):
            norm.weight.fill_(1.0)
        block.context.load_state_dict(block.image.state_dict())
        for part in (block.image.qkv.weight, block.image.qkv.bias):
            part[128:256] = part[:128]  # keys along the queries: the worst case
        (q, k, _), _ = block.image.read(1e4 * tokens, 1e4 * e)
    logit = float((q @ k.mT).abs().max()) / math.sqrt(32)
    print(
        f"tied weights, three splits: differ by {worst:.0e}; |logit| {logit:.3f} <= {block.logit_bound:.3f}"
    )


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    t = torch.linspace(0.002, 0.998, 500, dtype=torch.float64)
    for name, law in LAWS.items():
        axes[0].plot(t, density_on(law, PATH, t), lw=1.2, label=name)
    axes[0].set(xlabel="t on the linear path (1 is noise)", title="laws of time: density", ylim=(0, 3.4))
    axes[0].legend(fontsize=7, frameon=False)
    lam = torch.linspace(-4, 4, 201, dtype=torch.float64)
    for (name, law, path, target, weight), style in zip(RECIPES, ("-", "-", "-", "-", "--"), strict=True):
        w = effective_weight(law, path, path.time_of_log_snr(-lam), target, weight)
        axes[1].plot(lam, w / w[len(w) // 2], style, lw=1.2, label=name)
    axes[1].set(
        xlabel="log(σ/α)", title="what a recipe asks for: w(λ) / w(0)", yscale="log", ylim=(3e-3, 300)
    )
    axes[1].legend(fontsize=7, frameon=False)
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    for name, law in LAWS.items():
        second = LawWeight(law)(u, PATH).square().mean()
        print(f"{name:>24} as a weight of uniform times: {1 / second:.0%} effective samples")
    print(f"shift from 32³ to 96³ voxels: {resolution_shift(96**3, 32**3):.3f}, ", end="")
    print(f"with exponent 1/3: {resolution_shift(96**3, 32**3, 1 / 3):.3f}")
    block_facts()
    ablation(axes[2])
    figure.savefig(DOCS / "images" / "sd3.png", dpi=110)


if __name__ == "__main__":
    main()
