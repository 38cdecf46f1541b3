"""A head of ellipsoids with the structures that translation and anomaly look at; 56 x 64 x 48 voxels of 1 mm, LPS."""

import numpy as np
import torch

from radiata_core.seeds import generator_of
from radiata_medical.data.structures import CODES
from radiata_medical.data.synthesis import ScanSpec, head_of, synthesise

SHAPE = (56, 64, 48)


def small_head(shift: float = 0.0) -> np.ndarray:
    """Codes, int16. Left is where the first index is large."""
    place = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    x = place[0]

    def inside(size: float, centre=(0.0, 0.0, 0.0)) -> np.ndarray:
        axes = np.array(SHAPE) * size / 2
        return sum(((place[i] - centre[i]) / axes[i]) ** 2 for i in range(3)) < 1

    left = x > 0
    codes = np.zeros(SHAPE, np.int16)
    codes[inside(0.95)] = 258
    codes[inside(0.85)] = 165
    codes[inside(0.78)] = 24
    codes[inside(0.72)] = np.where(left, 3, 42)[inside(0.72)]
    codes[inside(0.6)] = np.where(left, 2, 41)[inside(0.6)]
    deep = inside(0.22, (8 + shift, 0, 0)) | inside(0.22, (-8 - shift, 0, 0))
    codes[deep] = np.where(left, 10, 49)[deep]
    ventricles = inside(0.12, (4, -6, 4)) | inside(0.12, (-4, -6, 4))
    codes[ventricles] = np.where(left, 4, 43)[ventricles]
    return codes


def small_scan(contrast: str, seed: int = 5, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """24 slices of the middle of the head, units of white, noise by the seed; their codes. The head is always the same."""
    spec = ScanSpec(
        shape=(*SHAPE[:2], 24), rotation=0.0, scale=(1.0, 1.0), warp=0.0, texture=(0.0, 0.0), grain=(0.0, 0.0),
        bias=(0.0, 0.0), contrasts=((contrast, 1.0),), level=(1.0, 1.0), inside=1.0, flip=False,
    )  # fmt: skip
    head = head_of(small_head())
    head.centres[:] = (torch.tensor(SHAPE) - 1) / 2
    scan = synthesise(head, spec, generator_of(1))
    own = noise * torch.randn(scan.image.shape, generator=generator_of(seed, 1))
    return (scan.image + own).clamp_min(0).numpy(), np.asarray(CODES)[scan.labels.numpy()].astype(np.float32)
