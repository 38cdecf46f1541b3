"""Decoded pictures against the pictures that were seen, beside everything that knows less than the decoder.

    decoder               the reconstruction in the file
    low level             the decoder's own picture, before a generator
    single draw           one sample of the generator, where the reconstruction is their mean
    mean image            control: the average training picture
    permuted brain        control: the decoder's pictures, each of another stimulus of its run
    retrieval             control: the training picture with the most similar response
    noise-free ceiling    the same model on responses without noise, of simulated subjects only

One set is in memory at a time: a thousand pictures of 425 pixels are 2 GB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from radiata_core.runs import Progress
from radiata_core.seeds import rng_of
from radiata_decode.data.loading import unit_images
from radiata_decode.data.stimuli import Stimuli
from radiata_decode.experiment.comparison import Comparison
from radiata_decode.experiment.evaluation import DECODER, Evaluation, differences
from radiata_decode.experiment.evaluation_features import named_extractors
from radiata_decode.experiment.evaluation_figures import null_figure, score_figure
from radiata_decode.experiment.flow_figures import ranked
from radiata_decode.experiment.galleries import picture_gallery
from radiata_decode.experiment.noise_free import ceiling_pictures
from radiata_decode.experiment.stimulus_overlap import group_scores, measured_overlap
from radiata_decode.model.controls import mean_image, permuted_brain, retrieved_rows
from radiata_decode.model.extractors import FeatureExtractor, PixelFeatures, extracted
from radiata_decode.model.image_scores import PRESETS
from radiata_decode.model.score_table import PredictionScores, score_predictions, score_rows

if TYPE_CHECKING:
    from radiata_decode.experiment.evaluate import Evaluate

__all__ = ["evaluate_images"]

PERMUTE, TESTS, DIFFER, GROUPS, SHOWN, SUBSET = 61, 62, 63, 64, 65, 66  # keys of random numbers
BLOCK = 256
MOST_FOR_PCA = 1000


@dataclass(frozen=True)
class _Pictures:
    """One set of predictions, made when it is its turn."""

    name: str
    make: Callable[[], Tensor]
    control: bool = False


def evaluate_images(comparison: Comparison, task: "Evaluate") -> Evaluation:
    """Scores of pictures; see the module.

    Raises:
        InputError: no pictures of what was seen, pictures below 11 pixels, extractors that cannot be used.
    """
    stimuli = comparison.stimuli()
    truth = unit_images(stimuli.images(comparison.names))
    preset = PRESETS[task.preset]
    extractors = named_extractors(task.extractors, preset, _some_training(comparison, stimuli, task))
    notes = list(comparison.notes)
    sets = _sets(comparison, stimuli, task, notes)
    features = _features(truth, extractors)
    found: dict[str, PredictionScores] = {}
    rows, tests, shown, thumbnails = [], {}, {}, {}
    runs = comparison.runs if len(truth) > 1 else None
    with Progress(len(sets), "score", unit="set") as bar:
        for number, one in enumerate(sets):
            pictures = one.make()
            found[one.name] = score_predictions(truth, pictures, extractors, preset, features)
            made = score_rows(
                one.name, found[one.name], rng_of(task.seed, TESTS, number), runs=runs, draws=task.permutations,
                control=one.control,
            )  # fmt: skip
            rows += made.rows
            if one.name == DECODER:
                tests = dict(made.tests)
                shown = _shown(found[DECODER].values["pixcorr"], task.seed)
            thumbnails[one.name] = pictures[list(shown.values())]
            bar.update(1)
    values = {name: scores.values for name, scores in found.items()}
    flat = sum(row.left_out for row in rows if (row.decoder, row.metric) == (DECODER, "pixcorr"))
    if flat:
        notes.append(
            f"{flat} of {len(truth)} decoded or seen pictures have one colour: no correlation, left out of its mean."
        )
    overlap = measured_overlap(comparison, stimuli)
    groups = []
    if "seen" in overlap:
        groups = group_scores(overlap["seen"], values[DECODER], rng_of(task.seed, GROUPS))
    columns = {"seen": truth[list(shown.values())]} | thumbnails
    figures = {
        "gallery": picture_gallery(
            columns, {name: place for place, name in enumerate(shown)},
            values=values[DECODER]["pixcorr"][list(shown.values())], value_name="PixCorr",
            stimuli=[comparison.names[row] for row in shown.values()], synthetic=comparison.synthetic,
        ),
        "scores": score_figure(rows, stimuli=len(truth), synthetic=comparison.synthetic),
    }  # fmt: skip
    if tests:
        figures["permutations"] = null_figure(tests, comparison.within, synthetic=comparison.synthetic)
    compare = differences(values, rng_of(task.seed, DIFFER))
    return Evaluation("images", rows, values, tests, compare, overlap, groups, notes, figures)


def _features(truth: Tensor, extractors: Sequence[FeatureExtractor]) -> dict[str, np.ndarray]:
    """Of what was seen, once; pixels at the grid that `score_predictions` uses are left to it."""
    return {one.name: extracted(one, truth) for one in extractors if not isinstance(one, PixelFeatures)}


def _sets(comparison: Comparison, stimuli: Stimuli, task: "Evaluate", notes: list[str]) -> list[_Pictures]:
    arrays = comparison.decoded.arrays
    sets = [_Pictures(DECODER, lambda: unit_images(arrays["images"]))]
    if "low_level" in arrays and not np.array_equal(arrays["low_level"], arrays["images"]):
        sets.append(_Pictures("low level", lambda: unit_images(arrays["low_level"])))
    if "draws" in arrays and not np.array_equal(arrays["draws"][:, 0], arrays["images"]):
        sets.append(_Pictures("single draw", lambda: unit_images(arrays["draws"][:, 0])))
    sets += _controls(comparison, stimuli, task, notes)
    ceiling = ceiling_pictures(comparison, notes)
    return sets + [_Pictures(name, make) for name, make in ceiling.items()]


def _controls(
    comparison: Comparison, stimuli: Stimuli, task: "Evaluate", notes: list[str]
) -> list[_Pictures]:
    count = len(comparison.names)
    training = comparison.training_names()
    made: list[_Pictures] = []
    if training:
        mean = _mean_picture(stimuli, training)
        made.append(_Pictures("mean image", lambda: mean_image(mean, count), control=True))
    else:
        notes.append("The subject has no training trials: no mean image, no retrieval.")
    if count > 1:
        pictures = unit_images(comparison.decoded.arrays["images"])
        rng = rng_of(task.seed, PERMUTE)
        permuted = permuted_brain(torch.arange(count), rng, comparison.runs)
        made.append(_Pictures("permuted brain", lambda: pictures[permuted], control=True))
    if training and comparison.held_out:
        known, responses = comparison.responses()
        names = [known.stimulus[row] for row in retrieved_rows(known.responses, responses)]
        made.append(_Pictures("retrieval", lambda: unit_images(stimuli.images(names)), control=True))
    elif training:
        notes.append("No retrieval: the nearest response to that of a training stimulus is its own.")
    return made


def _mean_picture(stimuli: Stimuli, names: list[str]) -> Tensor:
    """Mean of pictures, (1, 3, y, x), read in blocks."""
    blocks = (names[start : start + BLOCK] for start in range(0, len(names), BLOCK))
    total = sum(unit_images(stimuli.images(block)).double().sum(0) for block in blocks)
    return (torch.as_tensor(total) / len(names)).float()[None]


def _some_training(comparison: Comparison, stimuli: Stimuli, task: "Evaluate") -> Tensor | None:
    names = comparison.training_names()
    if "pca" not in task.extractors or not names:
        return None
    chosen = rng_of(task.seed, SUBSET).permutation(len(names))[:MOST_FOR_PCA]
    return unit_images(stimuli.images([names[row] for row in sorted(chosen.tolist())]), 32)


def _shown(scores: np.ndarray, seed: int) -> dict[str, int]:
    if not np.isfinite(scores).any():
        return {"first": 0}
    return ranked(scores, rng_of(seed, SHOWN), drawn=3)
