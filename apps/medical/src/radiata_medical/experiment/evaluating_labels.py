"""Scores of segmentations, by structure, by tissue and on average; and whether what was unsure was wrong.

Beside a label map may lie an entropy and probabilities of the winning label (`_entropy`, `_probseg`). Over the voxels that
are labelled in either map:

    error_auc    area under the ROC curve of the entropy as a detector of wrong voxels; 0.5 is chance
    ece          expected calibration error of the probabilities
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.calibration import reliability
from radiata_imaging.nifti import read_volume
from radiata_imaging.segmentation_scores import StructureScores, score_labels
from radiata_imaging.volume import Volume
from radiata_medical.data.label_reading import Codebook, codebook, read_labels
from radiata_medical.data.pairing import Named, Pair, sibling
from radiata_medical.data.scans import same_grid
from radiata_medical.experiment.evaluating_images import Scored

if TYPE_CHECKING:
    from radiata_medical.experiment.evaluate import Evaluate

__all__ = ["LabelScorer", "error_auc"]

_MOST = 2_000_000  # voxels of one ROC curve, evenly spaced; the error of the area is below 0.001


@dataclass(frozen=True, eq=False)
class LabelScorer:
    """From a pair of label maps to rows of scores, one a structure.

    Attributes:
        task: The options.
        files: All files of the results.
        book: Codes and their names.
    """

    task: "Evaluate"
    files: tuple[Named, ...]
    book: Codebook = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "book", codebook(self.task.names))

    def __call__(self, pair: Pair) -> Scored:
        predicted, volume = read_labels(pair.result.path, self.book)
        reference, like = read_labels(pair.reference.path, self.book)
        same_grid(
            like, volume, (f"the reference {pair.reference.path.name}", f"the result {pair.result.path.name}")
        )
        axes = [axis for axis, n in enumerate(like.shape) if n > 1]
        flat = [np.squeeze(one) for one in (predicted, reference)]
        spacing = [like.spacing[axis] for axis in axes]
        groups = self.book.structures | self.book.groups
        scores = score_labels(flat[0], flat[1], spacing, groups, self.task.tolerance)
        who = {"case": pair.reference.key, "person": pair.reference.person}
        rows = [{**who, "structure": name, **asdict(one)} for name, one in scores.items()]
        rows += [
            {**who, "structure": f"mean of {what}", **_mean([scores[name] for name in names])}
            for what, names in (("structures", self.book.structures), ("tissues", self.book.groups))
            if names
        ]
        extra, bins = self._unsure(pair, predicted, reference, like)
        if extra:
            rows.append({**who, "structure": "uncertainty", **extra})
        return Scored(rows, bins)

    def _unsure(
        self, pair: Pair, predicted: np.ndarray, reference: np.ndarray, like: Volume
    ) -> tuple[dict[str, float], Any]:
        kept = (predicted > 0) | (reference > 0)
        right = predicted[kept] == reference[kept]
        found: dict[str, float] = {}
        bins = None
        for word in ("entropy", "probseg"):
            path = sibling(pair.result, self.files, word)
            if path is None:
                continue
            map_ = read_volume(path, assume_axcodes=self.task.assume_axcodes, allow_constant=True, min_axis=1)
            same_grid(like, map_, ("the reference", f"the map {path.name}"))
            values = map_.array[kept]
            if word == "entropy":
                found["error_auc"] = error_auc(values, ~right)
            else:
                bins = reliability(values, right, self.task.bins)
                found["ece"] = bins.ece
        return found, bins


def _mean(scores: Sequence[StructureScores]) -> dict[str, float]:
    """Dice and the like averaged over the structures that are in either map; infinite where one was missed."""
    table = {name: np.array([getattr(one, name) for one in scores]) for name in
             ("dice", "surface_dice", "hd95_mm", "assd_mm")}  # fmt: skip
    present = ~np.isnan(table["dice"])
    return {
        name: float(values[present].mean()) if present.any() else float("nan")
        for name, values in table.items()
    }


def error_auc(entropy: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the ROC curve: P(entropy of a wrong voxel > that of a right one), ties counted half; NaN without either.

    Raises:
        InputError: another number of outcomes.
    """
    if entropy.shape != wrong.shape:
        raise InputError(f"expected an outcome for each of {entropy.shape} voxels; got {wrong.shape}.")
    step = max(1, -(-entropy.size // _MOST))
    values, outcome = entropy.ravel()[::step], wrong.ravel()[::step]
    positive = int(outcome.sum())
    negative = outcome.size - positive
    if not positive or not negative:
        return float("nan")
    from scipy.stats import rankdata

    ranks = rankdata(values)
    return float((ranks[outcome].sum() - positive * (positive + 1) / 2) / (positive * negative))
