"""Scores of segmentations, by structure, by tissue and on average; and whether what was unsure was wrong.

Beside a label map may lie an entropy (`_entropy`) and probabilities (`_probseg`, of the winning label or of each structure).
Over the voxels that are labelled in either map:

    error_auc    area under the ROC curve of the entropy as a detector of wrong voxels; 0.5 is chance
    ece          expected calibration error of the probabilities
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.calibration import Reliability, reliability
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
        groups = {**self.book.structures, **self.book.groups}
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
    ) -> tuple[dict[str, float], Reliability | None]:
        kept = (predicted > 0) | (reference > 0)
        right = predicted[kept] == reference[kept]
        found: dict[str, float] = {}
        entropy = sibling(pair.result, self.files, "entropy")
        if entropy is not None:
            found["error_auc"] = error_auc(self._map(entropy, like)[kept], ~right)
        confidence = self._confidence(pair, predicted, like)
        if confidence is None:
            return found, None
        known = ~np.isnan(confidence[kept])
        bins = reliability(confidence[kept][known], right[known], self.task.bins)
        return found | {"ece": bins.ece}, bins

    def _map(self, path: Path, like: Volume) -> np.ndarray:
        found = read_volume(path, assume_axcodes=self.task.assume_axcodes, allow_constant=True, min_axis=1)
        same_grid(like, found, ("the reference", f"the map {path.name}"))
        return found.array

    def _confidence(self, pair: Pair, predicted: np.ndarray, like: Volume) -> np.ndarray | None:
        """Probability of the label each voxel got, NaN where it is not told; None without probabilities.

        One file is that of the winners; files of structures (`label-LeftThalamus_probseg`) are each its own, and background
        is what they leave of 1.
        """
        maps = [one for one in self.files if one.key == pair.result.key and one.word == "probseg"]
        if not maps:
            return None
        if not maps[0].label:
            return self._map(maps[0].path, like)
        codes = {label_word(name): group for name, group in self.book.structures.items()}
        confidence = np.full(predicted.shape, np.nan, np.float32)
        rest = np.ones(predicted.shape, np.float32)
        for one in maps:
            p = self._map(one.path, like)
            rest -= p
            here = np.isin(predicted, codes.get(one.label, ()))
            confidence[here] = p[here]
        confidence[predicted == 0] = np.clip(rest, 0, 1)[predicted == 0]
        return np.clip(confidence, 0, 1)


def label_word(name: str) -> str:
    """How the name of a structure is written in the name of a file: `LeftCerebralCortex`."""
    return re.sub(r"[^a-zA-Z0-9]", "", name.title())


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
