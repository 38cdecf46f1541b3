"""What is kept of the probabilities of a segmentation, so that they need not be: four maps and three sums a class.

    winner        the likeliest class                              uint8
    confidence    its probability                                  float32
    outside       the likeliest class that is not of the brain     uint8
    entropy       -sum p log p, nats                               float32

and for each class the sum of its probabilities, of the voxels it wins, and of its probabilities there: its volume, and the
Dice coefficient that is to be expected. With `posteriors`, all probabilities too, a byte each.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["KeptMaps"]

_PLANES = 8  # at once: logarithms and masks are copies


class KeptMaps:
    """Empty maps, to be filled slab by slab.

    Args:
        shape: Voxels `(x, y, z)`; slabs may reach beyond them (padding), where nothing is taken.
        classes: Channels of the probabilities, at most 256.
        brain: Channels of the brain, of which one piece is kept.
        posteriors: Keep the probabilities.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, brain: Sequence[int] = (), posteriors: bool = False
    ) -> None:
        self.shape, self.classes, self.brain = shape, classes, tuple(brain)
        self.winner, self.outside = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        self.confidence, self.entropy = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.total, self.hit = np.zeros(classes), np.zeros(classes)
        self.stored = np.zeros((classes, *shape), np.uint8) if posteriors else None
        self.evaluations = 0

    @property
    def expected_dice(self) -> np.ndarray:
        """2 sum(p m) / (sum p + sum m) of each class, (classes,), m the voxels it wins; 0 where there is nothing."""
        won = np.bincount(self.winner.ravel(), minlength=self.classes)
        return 2 * self.hit / np.maximum(self.total + won, 1e-9)

    def take(self, p: Tensor, box: tuple[slice, slice, slice]) -> None:
        """What is kept of the final probabilities of a slab.

        Args:
            p: `(classes, *slab)`.
            box: Where the slab lies.
        """
        sides = [slice(side.start, min(side.stop, n)) for side, n in zip(box, self.shape, strict=True)]
        if any(side.stop <= side.start for side in sides):
            return
        for axis, side in enumerate(sides):
            p = p.narrow(1 + axis, 0, side.stop - side.start)
        for start in range(0, p.shape[1], _PLANES):
            part = p[:, start : start + _PLANES]
            first = sides[0].start + start
            self._take(part, (slice(first, first + part.shape[1]), sides[1], sides[2]))

    def _take(self, p: Tensor, at: tuple[slice, slice, slice]) -> None:
        confidence, winner = p.max(0)
        self.winner[at] = _bytes(winner)
        self.confidence[at] = confidence.cpu().numpy()
        self.entropy[at] = torch.special.entr(p).sum(0).cpu().numpy()
        inside = torch.zeros((self.classes, 1, 1, 1), dtype=torch.bool, device=p.device)
        inside[list(self.brain)] = True
        self.outside[at] = _bytes(p.masked_fill(inside, -1.0).argmax(0))
        self.total += p.double().sum((1, 2, 3)).cpu().numpy()
        hit = torch.zeros(self.classes, dtype=torch.float64, device=p.device)
        self.hit += hit.index_add_(0, winner.flatten(), confidence.double().flatten()).cpu().numpy()
        if self.stored is not None:
            self.stored[(slice(None), *at)] = _bytes((p * 255).round())

    def keep_largest(self) -> None:
        """Brain that does not hang together with its largest piece becomes what is likeliest outside of the brain."""
        from scipy.ndimage import label

        pieces, count = label(np.isin(self.winner, self.brain))
        if count < 2:
            return
        largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
        stray = (pieces > 0) & (pieces != largest)
        self.winner[stray] = self.outside[stray]


def _bytes(values: Tensor) -> np.ndarray:
    return values.to(torch.uint8).cpu().numpy()
