r"""What several drawn segmentations say together: mean, entropy, disagreement, one fused map, the spread of surfaces.

Entropy of the mean of the draws' probabilities splits into what every draw is unsure of by itself and what the draws
disagree on, the *mutual information* of label and draw,

$$H[\bar p] = \mathrm{mean}_d\, H[p_d] + I .$$

References:
    Houlsby et al., "Bayesian active learning for classification and preference learning", 2011,
        https://arxiv.org/abs/1112.5745 (mutual information).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
from radiata_core.joint_denoisers import JointPosterior
from radiata_medical.model.label_fields import CLIP_MM, probabilities_of_distances, signed_distance
from radiata_medical.model.staple import staple

__all__ = ["DrawSums", "SampledSegmentation", "entropy_of", "surface_sd"]


@dataclass(frozen=True, eq=False)
class SampledSegmentation:
    """A volume segmented by sampling; not for clinical use.

    Attributes:
        classes: Fused class of every voxel, uint8, the volume's grid.
        probabilities: Mean over draws, float16, (class, *grid).
        entropy: Of the mean, nats, float32.
        mutual_information: Part of the entropy that the draws disagree on, nats, float32; 0 for one evaluation.
        draws: Class of every voxel in every draw, uint8, (draw, *grid).
        restored: E[image | noisy image], float32, units of the prior; the volume itself where it was clean.
        surface_sd: sd over draws of the signed distance to the surface of the voxel's class, mm, float32; None unless the
            labels are diffused as distances (see `surface_sd` for classes).
        evaluations: Calls of the network a slice.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    draws: np.ndarray
    restored: np.ndarray
    surface_sd: np.ndarray | None
    evaluations: int


def surface_sd(draws: np.ndarray, classes: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """sd over draws of the signed distance to the surface of a region, mm, float32; NaN away from its mean surface.

    Args:
        draws: Classes of every draw, (draw, *grid), at least 2.
        classes: Classes that make up the region.
        spacing: Edge lengths of a voxel, mm, one an axis.

    Raises:
        InputError: fewer than 2 draws.
    """
    if len(draws) < 2:
        raise InputError(f"expected at least 2 draws for a spread; got {len(draws)}. Raise --draws.")
    total, square = (np.zeros(draws.shape[1:]) for _ in range(2))
    for drawn in draws:
        distance = np.clip(signed_distance(np.isin(drawn, classes), spacing), -CLIP_MM, CLIP_MM)
        total += distance
        square += distance**2
    mean = total / len(draws)
    variance = (square / len(draws) - mean**2).clip(0) * len(draws) / (len(draws) - 1)
    near = np.abs(mean) <= max(spacing)
    return np.where(near, np.sqrt(variance), np.nan).astype(np.float32)


class DrawSums:
    """Running sums over draws, slices first; see `SampledSegmentation` for what becomes of them.

    Args:
        count: Classes.
        shape: (slices, *grid).
        draws: Draws that will be added to each slice.
        distances: Whether the labels are signed distances.
    """

    def __init__(self, count: int, shape: tuple[int, ...], draws: int, distances: bool) -> None:
        def empty(*leading: int) -> np.ndarray:
            return np.zeros((*leading, *shape), np.float32)

        self.weight = 1.0 / draws
        self.probabilities, self.entropy, self.image = empty(count), empty(), empty()
        self.classes = np.zeros((draws, *shape), np.uint8)
        self.distance, self.square = (empty(count) if distances else None for _ in range(2))

    def add(self, rows: slice, draw: int, found: JointPosterior, crop: tuple[slice, ...]) -> None:
        """Add what a draw ends with in some slices; `crop` is where the slices lie in the padded grid."""
        field_ = found.labels.movedim(1, 0)[:, :, *crop].float().cpu().numpy()
        if found.log_probabilities is None:
            p = probabilities_of_distances(field_)
        else:
            p = found.probabilities.movedim(1, 0)[:, :, *crop].float().cpu().numpy()
        self.probabilities[:, rows] += self.weight * p
        self.entropy[rows] += self.weight * entropy_of(p)
        self.image[rows] += self.weight * found.image[:, 0][:, *crop].float().cpu().numpy()
        self.classes[draw, rows] = p.argmax(0)
        if self.distance is not None and self.square is not None:
            self.distance[:, rows] += self.weight * CLIP_MM * field_
            self.square[:, rows] += self.weight * (CLIP_MM * field_) ** 2

    def segmentation(
        self, axis: int, evaluations: int, fusion: str, restored: bool, volume: np.ndarray
    ) -> SampledSegmentation:
        """The sums as maps on the volume's grid."""
        entropy, draws = entropy_of(self.probabilities), len(self.classes)
        if fusion == "staple" and draws > 1:
            classes = staple(self.classes, len(self.probabilities)).classes
        else:
            classes = self.probabilities.argmax(0).astype(np.uint8)
        spread = None
        if self.distance is not None and self.square is not None and draws > 1:
            variance = (self.square - self.distance**2).clip(0) * draws / (draws - 1)
            spread = np.sqrt(np.take_along_axis(variance, classes[None].astype(np.int64), 0)[0])
        return SampledSegmentation(
            np.moveaxis(classes, 0, axis),
            np.moveaxis(self.probabilities.astype(np.float16), 1, axis + 1),
            np.moveaxis(entropy, 0, axis),
            np.moveaxis((entropy - self.entropy).clip(0), 0, axis),
            np.moveaxis(self.classes, 1, axis + 1),
            np.moveaxis(self.image, 0, axis) if restored else np.asarray(volume, np.float32),
            None if spread is None else np.moveaxis(spread, 0, axis),
            evaluations,
        )


def entropy_of(p: np.ndarray) -> np.ndarray:
    """Entropy over the first axis, nats."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(0)
