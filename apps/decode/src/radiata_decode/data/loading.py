"""Pictures as models see them: uint8 (n, y, x, 3) → float32 (n, 3, y, x) in [0, 1], at a model's size."""

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["unit_images"]


def unit_images(pictures: np.ndarray, size: int | None = None) -> Tensor:
    """Pictures as models see them, float32 (n, 3, y, x) in [0, 1].

    Args:
        pictures: uint8 (n, y, x, 3), RGB.
        size: Side of the square that they become, pixels (bicubic, antialiased where it shrinks); None: as they are.

    Raises:
        InputError: another type or shape.
    """
    array = np.asarray(pictures)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise InputError(f"expected pictures of uint8 (n, y, x, 3); got {array.dtype} {array.shape}.")
    images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1))).float() / 255
    if size is None or tuple(images.shape[2:]) == (size, size) or not len(images):
        return images
    resized = torch.nn.functional.interpolate(
        images, (size, size), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp(0, 1)
