r"""Which category was seen: ridge classifiers tested on runs they never met, their options chosen within training.

One run after another is held out. On the others, each voxel is standardised with their mean and standard deviation, and a
linear classifier with squared loss is fitted to targets +1 (the category) and −1 (all others); with the kernel K = ZZᵀ of
centred, standardised training trials the scores of the held-out trials are H Y,

$$ H = \tfrac1n\mathbf 1\mathbf 1^\top + K_\text{test}(K + \alpha I)^{-1}\left(I - \tfrac1n\mathbf 1\mathbf 1^\top\right), $$

which does not depend on Y. α, and which of several preparations of the responses (lags, detrendings) is used, are those
with the least squared error when each training run is in turn held out of the *training* runs: the classifier's own loss,
which some 90 trials tell apart better than counts of right answers. The held-out run has no part in any choice.

Because H does not know the labels, a permutation repeats the whole procedure, choices included, at the price of products:
labels are shuffled among the trials of each run, p = (1 + b)/(1 + n) with b of n shuffles at least as accurate.

Scores become probabilities by a soft-max whose temperature makes the inner held-out trials most likely.

References:
    J. Haxby et al. (2001). Distributed and overlapping representations of faces and objects in ventral temporal cortex.
    Science 293.
    B. Phipson, G. Smyth (2010). Permutation p-values should never be zero. Statistical Applications in Genetics and
    Molecular Biology 9(1), section 3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from radiata_core.errors import InputError

__all__ = ["ALPHAS", "CategoryDecoding", "decode_categories"]

ALPHAS = (10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class CategoryDecoding:
    """Held-out predictions and what they are worth.

    Attributes:
        categories: Names, sorted; columns below are in this order.
        truth: (trial,) number of the category that was shown.
        predicted: (trial,).
        runs: (trial,) run that each was held out with.
        scores: (trial, category).
        probability: (trial, category), rows sum to 1.
        chosen: Run → (preparation, α) chosen within the other runs.
        accuracy: Share of trials that are right, 0 to 1.
        interval: 95 %, by resampling runs.
        chance: Accuracy of guessing: the largest share of a category.
        p: Of an accuracy as high when labels mean nothing; NaN without permutations.
        null: Accuracies of the permutations.
        confusion: (shown, predicted) counts.
    """

    categories: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray
    runs: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    chosen: dict[int, tuple[str, float]]
    accuracy: float
    interval: tuple[float, float]
    chance: float
    p: float
    null: np.ndarray
    confusion: np.ndarray


@dataclass(frozen=True)
class _Fold:
    """Operators of one held-out run, one an option: to its own trials, and to each inner held-out run's."""

    test: np.ndarray
    train: np.ndarray
    outer: list[np.ndarray]
    inner: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = field(default_factory=list)


def decode_categories(
    responses: Mapping[str, np.ndarray],
    labels: Sequence[str],
    runs: np.ndarray,
    rng: np.random.Generator,
    *,
    alphas: Sequence[float] = ALPHAS,
    permutations: int = 1000,
    callback: Callable[[int], None] | None = None,
) -> CategoryDecoding:
    """Leave-one-run-out decoding; see the module.

    Args:
        responses: Preparation → (trial, voxel), the same trials in each.
        labels: Category of each trial.
        runs: Run of each trial; at least three.
        rng: Of the permutations and the interval.
        alphas: Ridge parameters to choose from, > 0, in units of the number of voxels' variance: responses are
            standardised, so that α = 100 weighs as much as 100 unit-variance voxels.
        permutations: 0 for none.
        callback: Called with the number of each fold that is ready.

    Raises:
        InputError: lengths that do not agree, fewer than two categories or three runs, a category that training lacks.
    """
    words, number = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    groups = np.asarray(runs)
    _check(responses, number, groups, words)
    folds = []
    for place, run in enumerate(np.unique(groups)):
        folds.append(_fold(list(responses.values()), groups, run, alphas))
        if callback is not None:
            callback(place)
    options = [(name, float(alpha)) for name in responses for alpha in alphas]
    truth = number[:, None]
    predicted, chosen = _nested(folds, truth, len(words))
    scores, probability = _scores(folds, number, chosen[:, 0], len(words))
    correct = predicted[:, 0] == number
    null = _null(folds, number, groups, len(words), rng, permutations)
    accuracy = float(correct.mean())
    p = (1 + int((null >= accuracy - 1e-12).sum())) / (1 + len(null)) if len(null) else float("nan")
    confusion = np.zeros((len(words), len(words)), np.int64)
    np.add.at(confusion, (number, predicted[:, 0]), 1)
    return CategoryDecoding(
        tuple(words.tolist()), number, predicted[:, 0], groups, scores, probability,
        {int(run): options[option] for run, option in zip(np.unique(groups), chosen[:, 0], strict=True)},
        accuracy, _interval(correct, groups, rng), float(np.bincount(number).max() / len(number)), p, null, confusion,
    )  # fmt: skip


def _check(
    responses: Mapping[str, np.ndarray], number: np.ndarray, runs: np.ndarray, words: np.ndarray
) -> None:
    if not responses:
        raise InputError("expected responses to decode; got none.")
    for name, values in responses.items():
        if values.ndim != 2 or len(values) != len(number) or len(runs) != len(number):
            raise InputError(
                f"expected responses of ({len(number)} trials, voxels) and a run of each; got {values.shape} in {name} and "
                f"{len(runs)} runs."
            )
        if not np.isfinite(values).all():
            raise InputError(f"expected finite responses; got NaN or infinity in {name}. Mask those voxels.")
    if len(words) < 2 or len(np.unique(runs)) < 3:
        raise InputError(
            f"expected at least two categories and three runs; got {len(words)} and "
            f"{len(np.unique(runs))}. One run tests, one chooses, one trains."
        )
    for run in np.unique(runs):
        lacking = sorted(set(number.tolist()) - set(number[runs != run].tolist()))
        if lacking:
            raise InputError(
                f"expected each category in more than one run; got {words[lacking[0]]} in run {run} only. Leave it out."
            )


def _fold(candidates: list[np.ndarray], runs: np.ndarray, run: int, alphas: Sequence[float]) -> _Fold:
    train, test = np.flatnonzero(runs != run), np.flatnonzero(runs == run)
    fold = _Fold(test, train, _operators(candidates, train, test, alphas))
    for other in np.unique(runs[train]):
        inner, held = train[runs[train] != other], train[runs[train] == other]
        fold.inner.append((inner, held, _operators(candidates, inner, held, alphas)))
    return fold


def _operators(
    candidates: list[np.ndarray], train: np.ndarray, test: np.ndarray, alphas: Sequence[float]
) -> list[np.ndarray]:
    """H (test × train) of each preparation and α."""
    found = []
    n = len(train)
    for values in candidates:
        mean, sd = values[train].mean(0), values[train].std(0, ddof=1)
        sd = np.where(sd > 1e-12, sd, 1.0)
        z, held = (values[train] - mean) / sd, (values[test] - mean) / sd
        eigen, vectors = np.linalg.eigh(z @ z.T)
        centred = vectors - vectors.mean(0)  # (I - 11ᵀ/n) Q
        rows = (held @ z.T) @ vectors
        found += [(rows / (np.maximum(eigen, 0) + alpha)) @ centred.T + 1 / n for alpha in alphas]
    return found


def _targets(labels: np.ndarray, classes: int) -> np.ndarray:
    """(trial, category · set) of ±1 for sets of labels (trial, set)."""
    return np.where(labels[:, None, :] == np.arange(classes)[None, :, None], 1.0, -1.0).reshape(
        len(labels), -1
    )


def _winners(operator: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    return (operator @ targets).reshape(len(operator), classes, -1).argmax(1)


def _nested(folds: list[_Fold], labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (trial, set) and chosen options (fold, set) for sets of labels (trial, set)."""
    predicted = np.empty_like(labels)
    chosen = np.empty((len(folds), labels.shape[1]), np.int64)
    targets = _targets(labels, classes)
    for place, fold in enumerate(folds):
        loss = np.zeros((len(fold.outer), labels.shape[1]))
        for inner, held, operators in fold.inner:
            for option, operator in enumerate(operators):
                miss = operator @ targets[inner] - targets[held]
                loss[option] += (miss**2).reshape(-1, labels.shape[1]).sum(0)
        chosen[place] = loss.argmin(0)
        for option in np.unique(chosen[place]):
            here = chosen[place] == option
            picked = labels[fold.train][:, here]
            predicted[np.ix_(fold.test, here)] = _winners(
                fold.outer[option], _targets(picked, classes), classes
            )
    return predicted, chosen


def _scores(
    folds: list[_Fold], labels: np.ndarray, chosen: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    scores = np.empty((len(labels), classes))
    probability = np.empty_like(scores)
    targets = _targets(labels[:, None], classes)
    for fold, option in zip(folds, chosen, strict=True):
        scores[fold.test] = fold.outer[option] @ targets[fold.train]
        inner = np.concatenate([operators[option] @ targets[rows] for rows, _, operators in fold.inner])
        truth = np.concatenate([labels[held] for _, held, _ in fold.inner])
        probability[fold.test] = _soft_max(scores[fold.test] / _temperature(inner, truth))
    return scores, probability


def _soft_max(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def _temperature(scores: np.ndarray, truth: np.ndarray) -> float:
    grid = np.geomspace(0.02, 20, 61)
    likelihood = [np.log(_soft_max(scores / t)[np.arange(len(truth)), truth] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmax(likelihood))])


def _null(
    folds: list[_Fold],
    labels: np.ndarray,
    runs: np.ndarray,
    classes: int,
    rng: np.random.Generator,
    count: int,
) -> np.ndarray:
    found = []
    for start in range(0, count, 100):
        sets = np.repeat(labels[:, None], min(100, count - start), 1)
        for run in np.unique(runs):
            here = np.flatnonzero(runs == run)
            sets[here] = rng.permuted(sets[here], axis=0)
        found.append((_nested(folds, sets, classes)[0] == sets).mean(0))
    return np.concatenate(found) if found else np.empty(0)


def _interval(correct: np.ndarray, runs: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    names = np.unique(runs)
    right = np.array([correct[runs == run].sum() for run in names])
    counts = np.array([(runs == run).sum() for run in names])
    draws = rng.integers(0, len(names), (2000, len(names)))
    shares = right[draws].sum(1) / counts[draws].sum(1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)
