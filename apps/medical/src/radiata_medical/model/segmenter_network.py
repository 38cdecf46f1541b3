"""The network of the whole-head segmenter: MONAI's residual U-Net, made so that a checkpoint may name it.

Batch norm is fixed once training is over, so that a window of a head is what the head is there. Intensities come in units of
the scan's white; what is brighter than twice the white is cut.

References:
    Kerfoot et al., "Left-ventricle quantification using residual U-Net", 2018 (MONAI's UNet).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["SegmenterNetwork"]


@buildable("monai-segmenter")
class SegmenterNetwork(nn.Module):
    """Logits of every class at every voxel.

    Args:
        classes: Channels of the output, background first.
        channels: Channels a level, finest first.
        dims: 2 or 3.
        residual_units: Convolutions a level.
    """

    def __init__(
        self,
        classes: int = 35,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        dims: int = 3,
        residual_units: int = 2,
    ) -> None:
        super().__init__()
        from monai.networks.nets import UNet

        self.options = {
            "classes": classes,
            "channels": tuple(channels),
            "dims": dims,
            "residual_units": residual_units,
        }
        self.classes, self.dims = classes, dims
        self.multiple = 2 ** (len(channels) - 1)
        self.network = UNet(
            spatial_dims=dims,
            in_channels=1,
            out_channels=classes,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=residual_units,
            norm="batch",
            act="relu",
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits `(batch, classes, *grid)`.

        Args:
            image: `(batch, 1, *grid)`, intensities over the scan's white; axes divide by `multiple`.

        Raises:
            InputError: another shape.
        """
        grid = tuple(image.shape[2:])
        if image.ndim != self.dims + 2 or image.shape[1] != 1 or any(n % self.multiple for n in grid):
            raise InputError(
                f"expected (batch, 1, {self.dims} axes that divide by {self.multiple}); got {tuple(image.shape)}. "
                "Pad the scan."
            )
        logits: Tensor = self.network(torch.clamp(image, 0.0, 2.0))
        return logits
