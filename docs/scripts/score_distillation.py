"""The figure of docs/score-distillation.md: every fourth slice of a head, filled in by a prior of slices, and by Gaussians.

python docs/scripts/score_distillation.py
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

DOCS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from additions_volumes import (  # noqa: E402
    ANNEALED,
    KEPT,
    RANDOM,
    block_of,
    distilled,
    interpolated,
    known_slices,
    psnr,
)
from radiata_core.checkpoint import load_model  # noqa: E402
from radiata_core.slice_distillation import Held  # noqa: E402
from radiata_medical.model.weights import find_model  # noqa: E402

SIDE, STEPS = 48, 150


def main() -> None:
    torch.set_num_threads(1)
    prior = load_model(find_model("prior-2d")).denoiser.eval()
    truth, operator = block_of(0, SIDE), known_slices(SIDE)
    cubic = interpolated(truth[..., KEPT // 2 :: KEPT], SIDE, cubic=True)
    data = Held(operator, operator(truth))
    volumes = {"scan": truth, "tricubic": cubic}
    volumes["annealed"] = distilled(prior, ANNEALED, cubic, data, 0, STEPS)
    volumes["times at random"] = distilled(prior, RANDOM, cubic, data, 0, STEPS)
    figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
    for column, (name, volume) in enumerate(volumes.items()):
        heard = "" if name == "scan" else f", {psnr(volume, truth, ~operator.mask):.1f} dB"
        print(f"{name}{heard}")
        image = volume[0, 0, :, SIDE // 2].T
        off = (volume - truth)[0, 0, :, SIDE // 2].T
        axes[0, column].imshow(image, cmap="gray", vmin=0, vmax=0.7, origin="lower")
        last = axes[1, column].imshow(off, cmap="RdBu_r", vmin=-0.2, vmax=0.2, origin="lower")
        axes[0, column].set(title=name + heard)
        for row in (0, 1):
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].text(1, 1, "R", color="tab:orange")
            axes[row, column].text(SIDE - 4, 1, "L", color="tab:orange")
    figure.colorbar(last, ax=axes[1], label="minus the scan, units of white")
    axes[0, 0].set_ylabel("coronal, radiological")
    figure.savefig(DOCS / "images" / "score-distillation.png", dpi=100)


if __name__ == "__main__":
    main()
