"""The figure of docs/features.md: what layers hold of a digit at each noise level, and how well probes read them.

python docs/scripts/features.py
"""

from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from radiata_core.denoiser_features import DenoiserFeatures
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.feature_selection import Places, accuracy, gathered, select
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.probes import ridge_probe
from radiata_core.seeds import generator_of, generators_of
from radiata_core.times import LogNormalSNR

DOCS = Path(__file__).resolve().parents[1]
LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0)
LAYERS = {"down.1": "down, 4 × 4", "up.1": "up, 4 × 4", "up.0": "up, 8 × 8"}
STEPS, LABELS = 200, 20


def trained(images: Tensor) -> NetworkDenoiser:
    """A denoiser of digits, without labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(
            dims=2, patch=1, channels=(24, 48), down_blocks=(1, 1), up_blocks=(1, 1), attention=(False, True),
            embedding=128, shape=(8, 8),
        )  # fmt: skip
    denoiser = NetworkDenoiser(network, LinearPath(), "velocity")
    objective = Regression(LinearPath(), LogNormalSNR(0.0, 1.2), target=denoiser.prediction)
    optimiser = torch.optim.AdamW(denoiser.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=STEPS, pct_start=0.1)
    for step in range(STEPS):
        rows = torch.randint(len(images), (64,), generator=generator_of(0, 1, step))
        loss = objective(denoiser, images[rows], generators_of(range(64), 2, step)).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return denoiser.eval()


def classes(features: Tensor, labels: Tensor, penalty: float) -> object:
    return ridge_probe(features, F.one_hot(labels, 10).double(), penalty)


def component(maps: Tensor) -> np.ndarray:
    """The first principal component over the channels of one map, `(x, y)`."""
    flat = maps[0].flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return torch.linalg.svd(flat, full_matrices=False)[2][0].reshape(maps.shape[2:]).numpy()


def main() -> None:
    torch.set_num_threads(1)
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(images), generator=generator_of(0))
    pool, held = order[:1000], order[1000:1400]
    denoiser = trained(images[pool])
    features = DenoiserFeatures(
        denoiser, LEVELS, tuple(f"network.{n}" for n in LAYERS), share=1.0, estimate=False
    )
    rows = torch.cat([pool[labels[pool] == k][:LABELS] for k in range(10)])
    used = torch.cat([rows, held])
    places = gathered(features, images[used], used.tolist(), 4)
    places["pixels", 0.0] = images[used].flatten(1)
    train, validation = slice(0, len(rows)), slice(len(rows), None)
    fits = {str(p): partial(classes, penalty=p) for p in (0.03, 0.3, 3.0)}
    found = select(
        Places(places.rows(train)),
        labels[rows],
        places.rows(validation),
        labels[held],
        fits,
        accuracy,
    )
    figure, axes = plt.subplot_mosaic(
        [[f"{n} {level}" for level in LEVELS] + ["table"] * 4 for n in LAYERS],
        figsize=(10, 3.4),
        layout="constrained",
    )
    maps = dict(features.named_maps(images[held[:1]], generators_of([int(held[0])])))
    for name, words in LAYERS.items():
        for level in LEVELS:
            axis = axes[f"{name} {level}"]
            axis.imshow(component(maps[f"network.{name}", level]), cmap="cividis")
            axis.set_xticks([])
            axis.set_yticks([])
            if name == "down.1":
                axis.set_title(f"κ = {level:g}", fontsize=9)
            if level == LEVELS[0]:
                axis.set_ylabel(words, fontsize=8)
    curve = axes["table"]
    for name, words in LAYERS.items():
        best = [
            max(r.score for r in found.table if r.layer == f"network.{name}" and r.level == level)
            for level in LEVELS
        ]
        curve.plot(LEVELS, best, "o-", label=words)
        print(words, [round(value, 3) for value in best])
    pixels = max(row.score for row in found.table if row.layer == "pixels")
    print("pixels", round(pixels, 3))
    curve.axhline(pixels, color="grey", linestyle="--", label="pixels")
    curve.set(xscale="log", xlabel="noise level κ = σ/α", ylabel="accuracy on validation", ylim=(0, 1))
    curve.legend(fontsize=8, loc="lower left")
    figure.savefig(DOCS / "images" / "features.png", dpi=90)


if __name__ == "__main__":
    main()
