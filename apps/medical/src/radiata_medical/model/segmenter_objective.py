"""The loss of a segmenter: cross-entropy and soft Dice together, as an objective of `radiata_core.train.train`.

    L = CE(logits, labels) + 1 - mean over classes of 2 sum(p y) / (sum p + sum y)

Cross-entropy keeps the probabilities honest, Dice keeps small structures from being ignored. MONAI has both.

References:
    Milletari et al., "V-Net", 2016, https://arxiv.org/abs/1606.04797, eq. 1 of section 3 (soft Dice).
    Isensee et al., "nnU-Net", 2021, https://doi.org/10.1038/s41592-020-01008-z (the sum of both).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.objectives import Loss

__all__ = ["SegmenterRegression"]


@dataclass(frozen=True)
class SegmenterRegression:
    """Dice and cross-entropy of a network that gives logits.

    Attributes:
        dice: Weight of the Dice term, >= 0.
    """

    dice: float = 1.0
    companions = ("labels",)

    def __call__(
        self,
        network: nn.Module,
        x0: Tensor,
        generators: Sequence[torch.Generator],
        labels: Tensor,
        **conditions: Any,
    ) -> Loss:
        """Loss of a batch.

        Args:
            network: `(batch, 1, *grid)` to logits `(batch, classes, *grid)`.
            x0: Images, (batch, 1, *grid).
            generators: Not used: the scans are drawn before.
            labels: Channel of each voxel, (batch, *grid).
            conditions: Not used by a segmenter.
        """
        from monai.losses import DiceLoss

        logits = network(x0).float()
        wanted = labels.long()
        entropy = torch.nn.functional.cross_entropy(logits, wanted, reduction="none").flatten(1).mean(1)
        dice = DiceLoss(to_onehot_y=True, softmax=True, batch=True, reduction="mean")(logits, wanted[:, None])
        per_sample = entropy + self.dice * dice
        return Loss(per_sample.mean(), per_sample, torch.zeros(len(x0), dtype=torch.float64))
