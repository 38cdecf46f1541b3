"""Decoded categories against those that were shown: accuracy, its chance, and how sure a right decoder was.

    accuracy    share of stimuli whose likeliest category was shown; chance is that of always naming the commonest
    log loss    mean −ln p(shown), nats; the training shares have the entropy of the categories

    decoder                     the probabilities in the file
    commonest in training       control: one answer for all; its log loss is that of the training shares
    permuted brain              control: the decoder's answers, each of another stimulus of its run
    retrieval                   control: the category of the training stimulus with the most similar response

p is from permuting answers among the stimuli of a run. Intervals are over stimuli; stimuli of one block are not
independent, so give blocks, not volumes, as stimuli.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_decode.experiment.comparison import Comparison
from radiata_decode.experiment.evaluation import DECODER, Evaluation, differences
from radiata_decode.experiment.evaluation_figures import confusion_figure, null_figure
from radiata_decode.experiment.galleries import labelled_pictures
from radiata_decode.experiment.stimulus_overlap import measured_overlap
from radiata_decode.model.bootstrap_scores import mean_interval
from radiata_decode.model.controls import retrieved_rows
from radiata_decode.model.permutation import PermutationTest, permutation_test, permuted_rows
from radiata_decode.model.score_table import ScoreRow

if TYPE_CHECKING:
    from radiata_decode.experiment.evaluate import Evaluate

__all__ = ["evaluate_categories"]

PERMUTE, TESTS, DIFFER, SHOWN, INTERVALS = 81, 82, 83, 84, 85  # keys of random numbers
LEAST = 1e-12
PICTURES = 16


def evaluate_categories(comparison: Comparison, task: "Evaluate") -> Evaluation:
    """Scores of categories; see the module.

    Raises:
        InputError: stimuli without a category, or one that the decoder does not know.
    """
    names = list(comparison.decoded.categories)
    probabilities = comparison.decoded.arrays["probabilities"].astype(np.float64)
    truth = _codes(comparison, comparison.names, names)
    notes = list(comparison.notes)
    answers, likely = _sets(comparison, probabilities, names, task, notes)
    values = {name: {"accuracy": (found == truth).astype(np.float64)} for name, found in answers.items()}
    for name, found in likely.items():
        values[name]["log loss"] = -np.log(np.maximum(found[np.arange(len(truth)), truth], LEAST))
    chance = float(np.bincount(truth).max() / len(truth))
    rows, tests = [], {}
    for number, (name, metrics) in enumerate(values.items()):
        test = _test(truth, answers[name], comparison, task, number)
        if name == DECODER and test is not None:
            tests["accuracy"] = test
        rows += _rows(name, metrics, test, chance, task, number)
    predicted = answers[DECODER]
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    accuracy = float((predicted == truth).mean())
    figures: dict[str, Any] = {
        "confusion": confusion_figure(
            confusion, names, accuracy=accuracy, chance=chance, synthetic=comparison.synthetic
        )
    }
    if tests:
        figures["permutations"] = null_figure(tests, comparison.within, synthetic=comparison.synthetic)
    if "images" in comparison.decoded.arrays:
        figures["gallery"] = _gallery(comparison, truth, predicted, names, task)
    compare = differences(values, rng_of(task.seed, DIFFER))
    extra = {"confusion": confusion, "categories": names, "accuracy": accuracy, "chance": chance}
    overlap = measured_overlap(comparison, None)
    return Evaluation("categories", rows, values, tests, compare, overlap, [], notes, figures, extra)


def _codes(comparison: Comparison, stimuli: list[str], names: list[str]) -> np.ndarray:
    """Number of the category that each stimulus shows."""
    trials = comparison.subject.trials
    if "category" not in trials:
        raise InputError(
            f"expected a column category in {comparison.subject.folder / 'trials.tsv'}; got none. Fill it, or prepare again."
        )
    known = dict(zip(trials["stimulus"].astype(str), trials["category"].astype(str), strict=True))
    for name in stimuli:
        if known[name] not in names:
            raise InputError(
                f"expected a category of {', '.join(names)} for {name}; got {known[name] or 'none'}, which the decoder does "
                "not know. Decode with a model that was taught it."
            )
    return np.array([names.index(known[name]) for name in stimuli])


def _sets(
    comparison: Comparison, probabilities: np.ndarray, names: list[str], task: "Evaluate", notes: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Answers of the decoder and the controls, and of those that have them, their probabilities."""
    count = len(probabilities)
    answers = {DECODER: probabilities.argmax(1)}
    likely = {DECODER: probabilities}
    training = comparison.training_names()
    if training:
        taught = _codes(comparison, training, names)
        shares = np.bincount(taught, minlength=len(names)) / len(taught)
        answers["commonest in training"] = np.full(count, shares.argmax())
        likely["commonest in training"] = np.tile(shares, (count, 1))
    else:
        notes.append("The subject has no training trials: the only control is the permuted brain.")
    if count > 1:
        order = _cycled(comparison, task)
        answers["permuted brain"], likely["permuted brain"] = answers[DECODER][order], probabilities[order]
    if training and comparison.held_out:
        known, responses = comparison.responses()
        codes = _codes(comparison, known.stimulus, names)
        answers["retrieval"] = codes[retrieved_rows(known.responses, responses)]
    return answers, likely


def _cycled(comparison: Comparison, task: "Evaluate") -> np.ndarray:
    """Whose answer each stimulus gets: another one's of its run."""
    import torch

    from radiata_decode.model.controls import permuted_brain

    rows = torch.arange(len(comparison.names))
    return permuted_brain(rows, rng_of(task.seed, PERMUTE), comparison.runs).numpy()


def _test(
    truth: np.ndarray, answers: np.ndarray, comparison: Comparison, task: "Evaluate", number: int
) -> PermutationTest | None:
    if len(truth) < 2:
        return None
    right = (truth[:, None] == answers[None]).astype(np.float64)
    return permutation_test(right, rng_of(task.seed, TESTS, number), comparison.runs, task.permutations)


def _rows(
    name: str,
    metrics: Mapping[str, np.ndarray],
    test: PermutationTest | None,
    chance: float,
    task: "Evaluate",
    number: int,
) -> list[ScoreRow]:
    rows = []
    for metric, each in metrics.items():
        found = mean_interval(each, None, rng_of(task.seed, INTERVALS, number), draws=2 * task.permutations)
        tested = metric == "accuracy"
        p = test.p if test is not None and tested else float("nan")
        guess = chance if tested else float("nan")
        rows.append(
            ScoreRow(
                name,
                metric,
                found.mean,
                found.low,
                found.high,
                p,
                guess,
                found.cases,
                found.left_out,
                name != DECODER,
            )
        )
    return rows


def _gallery(
    comparison: Comparison, truth: np.ndarray, predicted: np.ndarray, names: list[str], task: "Evaluate"
) -> Any:
    """Some stimuli drawn at random, right and wrong alike."""
    order = permuted_rows(len(truth), None, rng_of(task.seed, SHOWN))[:PICTURES]
    labels = [
        f"shown: {names[truth[row]]}\ndecoded: {names[predicted[row]]}"
        + ("" if truth[row] == predicted[row] else " (wrong)")
        for row in order
    ]
    return labelled_pictures(
        comparison.decoded.arrays["images"][order],
        labels,
        title="drawn at random",
        synthetic=comparison.synthetic,
    )
