"""The figure of docs/few-step-t1.md: heads from few evaluations, the student's above its teacher's.

python docs/scripts/few_step_t1.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from radiata_core.checkpoint import load_model
from radiata_t1.model.samplers import GridName, Sampler, SamplerName
from radiata_t1.model.weights import DEFAULT, FEW_STEPS, find_model

DOCS = Path(__file__).resolve().parents[1]
SEEDS = [0, 1]
EVALUATIONS = (1, 2, 4, 20)


def drawn(name: str, evaluations: int) -> np.ndarray:
    """Heads of the seeds; the teacher takes UniPC-2 at 20 evaluations and DDIM below."""
    denoiser = load_model(find_model(name)).denoiser.eval()
    denoiser.network.to(memory_format=torch.channels_last_3d)  # type: ignore[union-attr, call-overload]
    sampler = Sampler(SamplerName.DDIM, evaluations, GridName.LINEAR)
    if evaluations >= 20 and name == DEFAULT:
        sampler = Sampler(SamplerName.UNIPC_2, evaluations)
    with torch.inference_mode():
        return sampler(denoiser, SEEDS, (1, 48, 56, 48))[:, 0].clamp(-1, 1).numpy()  # type: ignore[arg-type]


def main() -> None:
    torch.set_num_threads(1)
    sets = {(name, n): drawn(name, n) for name in (FEW_STEPS, DEFAULT) for n in EVALUATIONS}
    figure, axes = plt.subplots(2, 2 * len(EVALUATIONS), figsize=(12, 3.7), layout="constrained")
    for row, name in zip(axes, (FEW_STEPS, DEFAULT), strict=True):
        for column, n in enumerate(EVALUATIONS):
            for j in range(2):
                head, axis = sets[name, n][j], row[2 * column + j]
                plane = head[:, :, 24] if j == 0 else head[24]
                axis.imshow(np.rot90(plane), cmap="gray", vmin=-1, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
            row[2 * column].set_title(f"{n} evaluation{'s' * (n > 1)}", fontsize=9, loc="left")
        row[0].set_ylabel(name, fontsize=9)
    figure.suptitle("Synthetic heads, seeds 0 and 1. Not for clinical use.", fontsize=10)
    path = DOCS / "images" / "few-step-t1.png"
    figure.savefig(path, dpi=72)
    sizes = [np.sqrt(np.mean((sets[FEW_STEPS, n] - sets[DEFAULT, 20]) ** 2)) for n in EVALUATIONS]
    print("rms difference of the student to the teacher's 20 evaluations, same noise:")
    print(", ".join(f"{n}: {size:.3f}" for n, size in zip(EVALUATIONS, sizes, strict=True)))
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
