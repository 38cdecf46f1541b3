"""Segmentation from few labelled slices: heads on the frozen prior's features, beside a U-Net from scratch at equal time.

Labelled slices are axial, of training people, rendered as T1 with seven tissues and the rest of the head. The score is the
mean Dice over the tissues on 24 slices of the test people. Both methods get the same CPU-seconds (features included; the
prior's training is not charged), the same augmentation, and the step size their module has by default.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.seeds import generator_of, generators_of
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.structures import TISSUES, tissue_channels
from radiata_medical.data.synthesis import ScanSpec, head_of, synthesise
from radiata_medical.model.feature_head import fit_head, predict_slices
from radiata_medical.model.scratch_unet import fit_scratch_unet, predict_scratch

SIZE = 192


def labelled(store: LabelMaps, split: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Slices (n, 1, x, y) through the brain and their tissues (n, x, y), people in turn."""
    table = torch.from_numpy(tissue_channels()).long()
    names = store.of_split(split)
    heads = {name: head_of(store.read(name).codes) for name in names[:count]}
    images, labels = [], []
    spec = ScanSpec(shape=(SIZE, SIZE, 1), contrasts=(("t1", 1.0),), inside=1.0, noise=(0.01, 0.03))
    for number in range(count):
        generator = generator_of(seed, 81, number)
        head = heads[names[number % len(names)]]
        scan = synthesise(head, spec, generator)
        while float((table[scan.labels.long()].clamp_max(7) % 8 == 3).float().mean()) < 0.03:
            scan = synthesise(head, spec, generator)  # some white matter, or there is little to tell apart
        images.append(scan.image.permute(2, 0, 1))
        labels.append(table[scan.labels.long()][:, :, 0])
    return torch.stack(images), torch.stack(labels)


def dice(found: Tensor, truth: Tensor) -> float:
    """Mean over the tissues of the Dice coefficient over all slices together."""
    scores = []
    for number in range(1, len(TISSUES) + 1):
        a, b = found == number, truth == number
        scores.append(2 * float((a & b).sum()) / max(1, int(a.sum() + b.sum())))
    return float(np.mean(scores))


def fewshot_figures(prior: torch.nn.Module, store: LabelMaps, seconds: float, seeds: int) -> dict[str, Any]:
    """Dice of both methods with 8 and 64 labelled slices, a row a seed."""
    images, truth = labelled(store, "test", 24, 500)
    figures: dict[str, Any] = {"seconds": seconds}
    for count in (8, 64):
        rows: dict[str, list[float]] = {"features": [], "scratch": []}
        for seed in range(seeds):
            x, y = labelled(store, "train", count, 600 + seed)
            heads = fit_head(x, y, prior, classes=9, seconds=seconds, seed=seed)
            parts = [
                predict_slices(heads, prior, images[a : a + 4], generators_of(range(a, a + 4), 82))
                for a in range(0, 24, 4)
            ]
            mean = torch.cat([part.probabilities for part in parts])
            rows["features"].append(dice(mean.argmax(1), truth))
            network = fit_scratch_unet(x, y, classes=9, seconds=seconds, seed=seed)
            rows["scratch"].append(dice(predict_scratch(network.eval(), images).argmax(1), truth))
            print(
                f"{count} slices, seed {seed}: " + ", ".join(f"{k} {v[-1]:.3f}" for k, v in rows.items()),
                flush=True,
            )
        for name, values in rows.items():
            figures[f"dice_fewshot{count}_{name}"] = values
    figures["finished"] = time.strftime("%Y-%m-%d")
    return figures
