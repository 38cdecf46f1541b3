"""The figure of docs/windows.md: the shipped 4 mm generator run in windows, and on voxels of 2 mm.

python docs/scripts/windows.py

Synthetic heads, not for clinical use.
"""

import contextlib
import copy
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from radiata_core.attention_windows import windowed
from radiata_core.checkpoint import load_model
from radiata_core.finer_voxels import finer
from radiata_core.overlapping_windows import noise_of_box
from radiata_core.solvers import integrate
from radiata_core.tables import unipc_2
from radiata_core.times import LogSNRGrid
from radiata_t1.model.weights import find_model

DOCS = Path(__file__).resolve().parents[1]
STEPS, SEEDS = 10, (0, 1)


class ThinnedAnchor(nn.Module):
    """A closed-form part that knows one grid, asked about every second voxel and interpolated."""

    def __init__(self, anchor: nn.Module) -> None:
        super().__init__()
        self.anchor = anchor

    def forward(self, x: Tensor, *arguments: Any, **conditions: Any) -> Tensor:
        coarse = self.anchor(x[:, :, ::2, ::2, ::2], *arguments, **conditions)
        return nn.functional.interpolate(coarse, scale_factor=2.0, mode="trilinear")


@torch.inference_mode()
def drawn(denoiser, ratio: int, handle: contextlib.AbstractContextManager[object]) -> Tensor:
    """Heads `(seeds, x, y, z)`."""
    grid = [ratio * n for n in denoiser.network.options["shape"]]
    with handle:
        found = [
            integrate(
                denoiser,
                noise_of_box([seed], [0, 0, 0], grid),
                unipc_2(LogSNRGrid()(STEPS, denoiser.path), denoiser.path),
            )[0, 0]
            for seed in SEEDS
        ]
    return torch.stack(found).clamp(-1, 1)


def filled(heads: Tensor, millimetres: float) -> list[float]:
    """Litres brighter than -0.5, a head each."""
    return [float((head > -0.5).sum()) * millimetres**3 / 1e6 for head in heads]


def roughness(heads: Tensor) -> float:
    """Mean absolute difference of neighbours along x within the head, in units of the image."""
    inside = heads[:, 1:] > -0.5
    return float((heads[:, 1:] - heads[:, :-1]).abs()[inside].mean())


def main() -> None:
    torch.set_num_threads(1)
    denoiser = load_model(find_model("rflow-4mm")).denoiser.eval()
    network = denoiser.network
    nothing = contextlib.nullcontext()
    large = copy.copy(denoiser)
    large._modules = denoiser._modules | {"anchor": ThinnedAnchor(denoiser.anchor)}
    sets = {
        "4 mm, as trained": (drawn(denoiser, 1, nothing), 4),
        "4 mm, in 2³ windows": (drawn(denoiser, 1, windowed(network, 2)), 4),
        "2 mm, network as it is": (drawn(large, 2, finer(network, 2, 1.0)), 2),
        "2 mm, finer until 0.4": (drawn(large, 2, finer(network, 2, 0.4)), 2),
        "2 mm, finer until 0": (drawn(large, 2, finer(network, 2, 0.0)), 2),
        "2 mm, finer until 0, low-pass": (drawn(large, 2, finer(network, 2, 0.0, lowpass=True)), 2),
    }
    usual = sets["4 mm, as trained"][0]
    figure, axes = plt.subplots(2, len(sets), figsize=(2.2 * len(sets), 5.2), layout="constrained")
    for column, (name, (heads, millimetres)) in enumerate(sets.items()):
        coarse = nn.functional.avg_pool3d(heads[:, None], 4 // millimetres)[:, 0]
        away = float((coarse - usual).square().mean().sqrt())
        litres = " and ".join(f"{value:.2f}" for value in filled(heads, millimetres))
        # Noise of 2 mm is other noise, and its heads are other heads: nothing to compare.
        same = f", {away:.3f} from the head as trained" if millimetres == 4 else ""
        print(f"{name:>30}: {litres} litres, roughness {roughness(heads):.3f}{same}")
        views = (heads[0, :, :, heads.shape[3] // 2].T, heads[0, heads.shape[1] // 2].T)
        for row, view in enumerate(views):
            axes[row, column].imshow(
                view.numpy(), origin="lower", cmap="gray", vmin=-1, vmax=1, interpolation="nearest"
            )
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
        axes[0, column].set_title(name, fontsize=8)
    axes[0, 0].set_ylabel("axial (x to the right)", fontsize=8)
    axes[1, 0].set_ylabel("sagittal (y to the right)", fontsize=8)
    figure.suptitle(
        "Synthetic heads, not for clinical use; intensities from -1 (black) to 1 (white)", fontsize=9
    )
    figure.savefig(DOCS / "images" / "windows.png", dpi=80)


if __name__ == "__main__":
    main()
