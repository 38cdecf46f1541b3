r"""Features that an encoding model of pictures predicts responses from: local contrast, light and colour.

    amplitude   root of Gabor energy at four wavelengths and four orientations, mean of each cell of a grid
    sides       lighter and darker than mid-grey, and the two sides of red - green and blue - green, mean of each cell
    roots       the square roots of `sides`: responses saturate
    light       luminance on a grid twice as fine

The bank is not that of the simulated cortex (`gabor_energy.picture_maps`): wavelengths, colour axes and pooling differ,
since a decoder that was handed the simulator's own maps would measure nothing. It is of the same family, however: on a
real brain expect less.

References:
    K. Kay, T. Naselaris, R. Prenger, J. Gallant (2008). Identifying natural images from human brain activity. Nature 452.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from radiata_core.errors import InputError
from radiata_decode.data.gabor_energy import gabor_energy, luminance

__all__ = ["contrast_features"]

WAVELENGTHS = (0.1, 0.17, 0.3, 0.55)  # of the picture's width
GRID = 8
BATCH = 256


def contrast_features(images: Tensor, grid: int = GRID) -> np.ndarray:
    """Features of pictures (n, 3, y, x) in [0, 1], (n, 32 · grid²) float32.

    Args:
        images: Square, at least 16 pixels wide.
        grid: Cells a side; twice as many for the luminance.

    Raises:
        InputError: other shapes.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise InputError(f"expected square pictures (n, 3, y, x); got {tuple(images.shape)}. Crop them.")
    if not 1 <= grid <= images.shape[-1] // 2:
        raise InputError(f"expected a grid of 1 to {images.shape[-1] // 2} cells a side; got {grid}.")
    parts = []
    for some in images.float().split(BATCH):
        grey = luminance(some)
        amplitude = adaptive_avg_pool2d(gabor_energy(grey, WAVELENGTHS), grid).clamp(min=0).sqrt()
        red, green, blue = some.unbind(1)
        axes = torch.stack([grey - 0.5, red - green, blue - green], 1)
        sides = adaptive_avg_pool2d(torch.cat([axes, -axes], 1).clamp(min=0), grid)
        light = adaptive_avg_pool2d(grey[:, None], 2 * grid)
        parts.append(torch.cat([part.flatten(1) for part in (amplitude, sides, sides.sqrt(), light)], 1))
    return torch.cat(parts).numpy()
