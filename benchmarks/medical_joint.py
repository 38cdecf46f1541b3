"""Images and their labels drawn together by the joint model of slices: do the two belong together, and to the contrast?

    OMP_NUM_THREADS=1 python benchmarks/medical_joint.py STORE [--count 16] [--json FILE] [--figure FILE]

Pairs of 160 x 192 pixels at 1 mm are drawn from noise, image and label field at one time, 30 DDIM steps, told the tissue
means of a T1 scan. Three questions, each beside the same number of slices rendered from the test people:

contrast      median intensity of each tissue (inside the labels) less the mean that was asked for, units of white
agreement     Dice of the labels with those that the same model reads off the image alone (segmentation by four evaluations)
shares        share of each tissue in the head

A model that draws labels and images that do not belong together fails the first two. Synthetic; not for clinical use.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radiata_core.checkpoint import load_model
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim
from radiata_core.times import LogSNRGrid
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.structures import CONTRAST
from radiata_medical.data.synthesis import head_of
from radiata_medical.experiment.anatomy import BRAIN, TISSUE_COUNT
from radiata_medical.experiment.synthetic_trials import pair_trials
from radiata_medical.model.diffusion_segmenter import segment_slices
from radiata_medical.model.translation import tissue_means
from radiata_medical.model.weights import find_model

SHAPE = (160, 192)


def pairs(joint: Any, covariates: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 1, x, y) and tissues (n, x, y) of the seeds 0 .. n - 1."""
    table = ddim(LogSNRGrid()(30, joint.path), joint.path)
    event = (joint.image.channels + joint.labels.channels, *SHAPE)
    parts = []
    with torch.no_grad():
        for first in range(0, count, 4):
            seeds = range(first, min(first + 4, count))
            noise = noise_of(generators_of(seeds, 0), event, torch.float32, "cpu")
            parts.append(
                integrate(joint.jointly(), noise, table, covariates=covariates.expand(len(seeds), -1))
            )
    drawn = torch.cat(parts)
    return drawn[:, :1], drawn[:, 1:].argmax(1)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the brain's tissues that either map has."""
    both = [(np.sum((a == k) & (b == k)), np.sum(a == k) + np.sum(b == k)) for k in BRAIN]
    return float(np.mean([2 * inside / size for inside, size in both if size]))


def judged(joint: Any, images: torch.Tensor, tissues: torch.Tensor, wanted: torch.Tensor) -> dict[str, Any]:
    """The three answers for pairs of images and labels."""
    means = tissue_means(images, tissues, TISSUE_COUNT)[:, 1 : 1 + len(CONTRAST)]
    off = (means - wanted).abs()
    read = segment_slices(joint, images[:, 0].movedim(0, -1).numpy(), draws=4, steps=4, axis=2)
    found = np.moveaxis(np.asarray(read.classes), 2, 0)
    agreement = [dice(a, b) for a, b in zip(found, tissues.numpy(), strict=True)]
    shares = [
        (tissues == k).sum((1, 2)) / (tissues > 0).sum((1, 2)).clamp_min(1) for k in range(1, TISSUE_COUNT)
    ]
    return {
        "contrast_error": float(off.nanmean()),
        "contrast_error_sd": float(torch.nan_to_num(off).mean(1).std()),
        "agreement": float(np.mean(agreement)),
        "agreement_interval": np.percentile(agreement, [5, 95]).tolist(),
        "shares": [round(float(share.mean()), 4) for share in shares],
    }


def figure_of(images: torch.Tensor, tissues: torch.Tensor, path: Path) -> None:
    """Four pairs, images above labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5))
    axes = figure.subplots(2, 4)
    for column in range(4):
        axes[0, column].imshow(images[column, 0].T, cmap="gray", vmin=0, vmax=1.2, origin="upper")
        axes[1, column].imshow(tissues[column].T, cmap="tab10", vmin=0, vmax=9, interpolation="nearest")
        for row in range(2):
            axes[row, column].set_axis_off()
    figure.suptitle("synthetic pairs drawn together; not for clinical use")
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    if arguments.store is None:
        print("left out: needs a store of label maps (radiata-medical prepare)")
        return
    joint: Any = load_model(find_model("joint-2d")).denoiser.eval()
    with LabelMaps(arguments.store) as store:
        heads = [head_of(store.read(name).codes) for name in store.of_split("test")]
    real = pair_trials(heads, arguments.count, 810, given="t1", wanted="t1")
    asked = tissue_means(real.images, real.tissues, TISSUE_COUNT)[:, 1 : 1 + len(CONTRAST)].nanmean(
        0, keepdim=True
    )
    images, tissues = pairs(joint, asked, arguments.count)
    figures = {
        "drawn": judged(joint, images, tissues, asked),
        "rendered": judged(joint, real.images, real.tissues, asked),
    }
    for name, row in figures.items():
        print(name, row)
    if arguments.figure:
        figure_of(images, tissues, arguments.figure)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
