"""The figure and the numbers of docs/medical.md: one slice of a real head, measured in four ways and restored.

python docs/scripts/medical.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from radiata_core.checkpoint import load_model
from radiata_core.classical_restoration import tv_restoration
from radiata_core.downsampling import thick_slices
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.kspace_masks import random_lines
from radiata_core.masking import Masking
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity
from radiata_core.restoration import RestorationModels, restore
from radiata_core.seeds import generators_of
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient
from radiata_medical.data.example_head import example_head
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.model.weights import find_model

IMAGE = Path(__file__).resolve().parents[1] / "images" / "medical.png"


def slice_of_head() -> Tensor:
    """An axial slice of Colin27, (1, 1, x, y), units of white, axes towards L and P."""
    head = reorient(read_volume(example_head()), "LPS")
    image = IntensityScale.of(head.array).to_prior(head.array)[:, :, 95]
    x, y = (n // 8 * 8 for n in image.shape)
    return torch.from_numpy(np.ascontiguousarray(image[:x, :y]))[None, None].float()


def problems(event: tuple[int, ...]) -> dict[str, tuple[LinearOperator, float]]:
    """Name -> operator and standard deviation of the noise."""
    space = event[1:]
    hole = torch.ones(space, dtype=torch.bool)
    hole[96:124, 100:128] = False
    lines = random_lines(space, 4, torch.Generator().manual_seed(4))
    return {
        "noise of 10 %": (Identity(event), 0.1),
        "4 mm slices": (thick_slices(event, -1, 4), 0.02),
        "a hole of 28 mm": (Masking(hole, event), 0.02),
        "a quarter of k-space": (FourierSampling(lines, event, real=True), 0.02),
    }


def psnr(x: Tensor, truth: Tensor) -> float:
    return float(-10 * torch.log10((x - truth).square().mean()))


def main() -> None:
    torch.set_num_threads(1)
    truth = slice_of_head()
    models = RestorationModels(
        load_model(find_model("prior-2d")).denoiser,
        load_model(find_model("restorer-2d")).denoiser,
        data_sd=0.45,
    )
    event = tuple(truth.shape[1:])
    figure, axes = plt.subplots(4, 4, figsize=(9.5, 12), layout="constrained")
    for row, (name, (operator, noise_sd)) in zip(axes, problems(event).items(), strict=True):
        y = GaussianNoise(noise_sd)(operator(truth), generators_of([0]))
        seen = operator.pseudo_inverse(y)
        found = restore(models, operator, y, noise_sd)
        tv = max(
            (tv_restoration(operator, y, w) for w in (0.002, 0.005, 0.01, 0.02, 0.05)),
            key=lambda x: psnr(x, truth),
        )
        print(
            f"{name:22} measured {psnr(seen, truth):5.2f} dB, TV (its best weight on this slice) {psnr(tv, truth):5.2f}, "
            f"restored {psnr(found.x, truth):5.2f}; {found.evaluations} evaluations, "
            f"misfit {float(found.misfit[0]):.2f} of the noise"
        )
        panels = (
            (truth, "truth"),
            (seen, name),
            (found.x, "restored"),
            (found.x - truth, "restored - truth"),
        )
        for axis, (image, title) in zip(row, panels, strict=True):
            limits = (
                {"vmin": -0.3, "vmax": 0.3, "cmap": "RdBu_r"}
                if title == "restored - truth"
                else {"vmin": 0, "vmax": 1.3, "cmap": "gray"}
            )
            drawn = axis.imshow(image[0, 0].T, origin="upper", **limits)
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.text(4, truth.shape[-1] / 2, "R", color="C1", fontsize=8)
            axis.text(truth.shape[-2] - 12, truth.shape[-1] / 2, "L", color="C1", fontsize=8)
        figure.colorbar(drawn, ax=row[-1], fraction=0.05, label="units of white")
    figure.suptitle("Colin27, 1 mm. Restored voxels are estimates. Not for clinical use.", fontsize=9)
    figure.savefig(IMAGE, dpi=80)


if __name__ == "__main__":
    main()
