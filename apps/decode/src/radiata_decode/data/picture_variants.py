"""More pictures from those that a person saw: mirrored, moved and recoloured ones, for which a model predicts responses."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from radiata_core.errors import InputError

__all__ = ["picture_variants"]

SHIFT = 1 / 8  # of the width, at most
TINT, LIGHT = 0.12, 0.2  # standard deviation of the logarithm of each colour's factor, and of all three


def picture_variants(images: Tensor, copies: int, rng: np.random.Generator) -> Tensor:
    """The pictures, then variants of them: (copies · n, 3, y, x) in [0, 1].

    Args:
        images: (n, 3, y, x) in [0, 1].
        copies: 1: the pictures alone. Every second copy is mirrored; from the third on they are recoloured, and from the
            fifth on moved (borders are mirrored).
        rng: Of colours and shifts.

    Raises:
        InputError: no copy.
    """
    if copies < 1:
        raise InputError(f"expected at least one copy of the pictures; got {copies}.")
    found = []
    for copy in range(copies):
        made = images.flip(-1) if copy % 2 else images
        if copy >= 2:
            gains = np.exp(
                rng.normal(0, TINT, (len(images), 3, 1, 1)) + rng.normal(0, LIGHT, (len(images), 1, 1, 1))
            )
            made = (made * torch.from_numpy(gains).float()).clamp(0, 1)
        if copy >= 4:
            made = _moved(made, rng)
        found.append(made)
    return torch.cat(found)


def _moved(images: Tensor, rng: np.random.Generator) -> Tensor:
    """All of a copy by the same few pixels."""
    height, width = images.shape[2:]
    most = max(1, round(SHIFT * width))
    top, left = (int(place) for place in rng.integers(0, 2 * most + 1, 2))
    wide = pad(images, (most,) * 4, mode="reflect")
    return wide[:, :, top : top + height, left : left + width]
