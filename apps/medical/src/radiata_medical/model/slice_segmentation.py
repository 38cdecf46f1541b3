"""Whole volumes by a segmenter of slices: some slices at a time, and only what is kept of their probabilities stays.

Every slice has the same noise, so that neighbours that look alike get labels that look alike, and so that a volume does not
depend on how many slices are taken at once.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import generator_of
from radiata_medical.model.feature_head import FeatureHeads, predict_slices
from radiata_medical.model.kept_maps import KeptMaps
from radiata_medical.model.labelling import Labelling

__all__ = ["segment_with_heads"]

_SLICES = 4  # purpose of the seed


def segment_with_heads(
    heads: FeatureHeads,
    prior: torch.nn.Module,
    image: Tensor,
    labelling: Labelling,
    *,
    seed: int = 0,
    batch_size: int = 8,
    keep_largest: bool = True,
    posteriors: bool = False,
    report: Callable[[int, int], object] | None = None,
) -> tuple[KeptMaps, np.ndarray]:
    """Maps of a volume, slice by slice across its last axis, and the divergence of the heads, nats, (x, y, z).

    Args:
        heads: From `feature_head.fit_head`.
        prior: The prior they were trained on.
        image: (x, y, z), units of the prior, the grid the heads were trained on.
        labelling: What the classes mean.
        seed: Of the features' noise.
        batch_size: Slices at once.
        keep_largest: Keep one piece of the brain, where the labelling names it.
        posteriors: Keep all probabilities.
        report: Called with slices done and to do.

    Raises:
        InputError: the heads have other classes than the labelling.
    """
    if heads.classes != len(labelling.codes):
        raise InputError(
            f"expected heads of {len(labelling.codes)} classes; got {heads.classes}. Their card is of another model."
        )
    x, y, z = image.shape
    maps = KeptMaps((x, y, z), heads.classes, labelling.brain, posteriors)
    divergence = np.zeros((x, y, z), np.float32)
    device = next(heads.parameters()).device
    for start in range(0, z, batch_size):
        stop = min(start + batch_size, z)
        rows = image[:, :, start:stop].movedim(-1, 0)[:, None].to(device)
        found = predict_slices(heads, prior, rows, [generator_of(seed, _SLICES) for _ in range(start, stop)])
        maps.take(found.probabilities.movedim(0, -1), (slice(0, x), slice(0, y), slice(start, stop)))
        divergence[:, :, start:stop] = found.divergence.movedim(0, -1).cpu().numpy()
        maps.evaluations += (stop - start) * len(heads.options["levels"])
        if report is not None:
            report(stop, z)
    if keep_largest and labelling.brain:
        maps.keep_largest()
    return maps, divergence
