r"""One table for decoders and controls: the same metrics, the same stimuli, intervals and chance beside each number.

    decoder  metric  mean  low  high  p  chance  cases  left_out

Rows come from `score_predictions`, which is run alike on every set of predictions, be it a decoder, a control or the
ceiling:

    pixcorr, ssim, ssim_legacy      a value a picture (`image_scores`), interval over stimuli
    NAME 2-way                      identification in the features of each extractor, interval over targets and distractors
    NAME distance                   mean 1 - correlation of features; lower is better

p is one-sided, from permuting the pairing within runs (`permutation`); for the distance it is that of the correlation, for
pixcorr it is computed on a grid of at most 64 pixels. SSIM has none: each of n² pairs would have to be compared. Scores of
several decoders are compared by `score_differences`, stimulus by stimulus.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.bootstrap_scores import mean_interval, pair_interval, paired_difference
from radiata_decode.model.extractors import FeatureExtractor, PixelFeatures, extracted
from radiata_decode.model.identification import correlation_matrix, two_way, wins
from radiata_decode.model.image_scores import PRESETS, MetricPreset, check_pairs, image_scores
from radiata_decode.model.permutation import PermutationTest, permutation_test

__all__ = [
    "PredictionScores",
    "ScoreRow",
    "ScoredRows",
    "score_differences",
    "score_predictions",
    "score_rows",
    "score_table",
]

GRID = 64


@dataclass(frozen=True)
class ScoreRow:
    """One number of the table.

    Attributes:
        decoder: Whose predictions.
        metric: Of what.
        mean: Over stimuli.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: One-sided, of "no better than chance"; NaN where it is not computed.
        chance: What guessing gives; NaN where that depends on the pictures.
        cases: Stimuli with a value.
        left_out: Stimuli without, such as pictures of one colour.
        control: The predictions know less than a decoder does.
    """

    decoder: str
    metric: str
    mean: float
    low: float
    high: float
    p: float
    chance: float
    cases: int
    left_out: int
    control: bool = False

    def plain(self) -> dict[str, Any]:
        """For JSON and data frames."""
        return asdict(self)


@dataclass(frozen=True)
class PredictionScores:
    """Everything measured about one set of predictions.

    Attributes:
        values: Metric → a value a stimulus, (n,).
        similarities: Extractor → correlation of features, (true, decoded); "pixels" always.
    """

    values: Mapping[str, np.ndarray]
    similarities: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Rows of one set of predictions, and the permutations behind their p.

    Attributes:
        rows: One a metric.
        tests: Metric → what permuted pairings scored; only of metrics that were tested.
    """

    rows: list[ScoreRow]
    tests: Mapping[str, PermutationTest] = field(default_factory=dict)


def score_predictions(
    truth: Tensor,
    predicted: Tensor,
    extractors: Sequence[FeatureExtractor] = (),
    preset: MetricPreset = PRESETS["radiata"],
    truth_features: Mapping[str, np.ndarray] | None = None,
) -> PredictionScores:
    """All metrics of one set of predictions.

    Args:
        truth: (n, 3, y, x) in [0, 1].
        predicted: (n, 3, y, x) in [0, 1].
        extractors: Features for identification; pixels are always among them.
        preset: Sizes at which pictures are compared.
        truth_features: Extractor → features of the truth, where they were computed before.

    Raises:
        InputError: see `image_scores.check_pairs`.
    """
    check_pairs(truth, predicted)
    found = image_scores(truth, predicted, preset)
    values = {"pixcorr": found.pixcorr, "ssim": found.ssim, "ssim_legacy": found.ssim_legacy}
    similarities: dict[str, np.ndarray] = {}
    for extractor in (_pixels(truth), *(one for one in extractors if one.name != "pixels")):
        known = (truth_features or {}).get(extractor.name)
        features = extracted(extractor, truth) if known is None else known
        similarity = correlation_matrix(features, extracted(extractor, predicted))
        similarities[extractor.name] = similarity
        if len(truth) > 1:
            values[f"{extractor.name} 2-way"] = two_way(similarity)
        if extractor.name != "pixels":
            values[f"{extractor.name} distance"] = 1.0 - np.diagonal(similarity)
    return PredictionScores(values, similarities)


def score_table(
    truth: Tensor,
    predictions: Mapping[str, Tensor],
    rng: np.random.Generator,
    *,
    controls: Mapping[str, Tensor] | None = None,
    extractors: Sequence[FeatureExtractor] = (),
    preset: MetricPreset = PRESETS["radiata"],
    runs: Sequence[Hashable] | np.ndarray | None = None,
    draws: int = 1000,
) -> list[ScoreRow]:
    """The table of decoders and controls.

    Args:
        truth: (n, 3, y, x) in [0, 1].
        predictions: Decoder → (n, 3, y, x).
        rng: Of intervals and permutations.
        controls: The same of predictions that know less (`controls`).
        extractors: Features for identification.
        preset: Sizes at which pictures are compared.
        runs: Run of each stimulus: permutations stay within it.
        draws: Of permutations; twice as many of the bootstrap.

    Raises:
        InputError: no predictions, one name twice, pictures that do not fit.
    """
    known = dict(controls or {})
    if not predictions or set(known) & set(predictions):
        raise InputError(
            "expected at least one decoder, named unlike any control; got none, or one name twice."
        )
    features = {one.name: extracted(one, truth) for one in (_pixels(truth), *extractors)}
    rows: list[ScoreRow] = []
    for decoder, pictures in {**predictions, **known}.items():
        scores = score_predictions(truth, pictures, extractors, preset, features)
        rows += score_rows(decoder, scores, rng, runs=runs, draws=draws, control=decoder in known).rows
    return rows


def score_rows(
    decoder: str,
    scores: PredictionScores,
    rng: np.random.Generator,
    *,
    runs: Sequence[Hashable] | np.ndarray | None = None,
    draws: int = 1000,
    control: bool = False,
) -> ScoredRows:
    """Rows of the table for one set of predictions.

    Args:
        decoder: Whose.
        scores: Of `score_predictions`.
        rng: Of intervals and permutations.
        runs: Run of each stimulus: permutations stay within it.
        draws: Of permutations; twice as many of the bootstrap.
        control: The predictions know less than a decoder does.
    """
    rows, tests = [], {}
    for metric, values in scores.values.items():
        name, _, kind = metric.rpartition(" ")
        pair = scores.similarities.get(name if kind in ("2-way", "distance") else "pixels")
        tested: np.ndarray | None
        if kind == "2-way" and pair is not None:
            interval, tested, chance = pair_interval(pair, rng, draws=2 * draws), wins(pair), 0.5
        else:
            interval, chance = mean_interval(values, None, rng, draws=2 * draws), float("nan")
            tested = None if metric.startswith("ssim") else pair
        p = float("nan")
        if tested is not None and _permutable(len(values), runs):
            tests[metric] = permutation_test(tested, rng, runs, draws)
            p = tests[metric].p
        rows.append(
            ScoreRow(
                decoder,
                metric,
                interval.mean,
                interval.low,
                interval.high,
                p,
                chance,
                interval.cases,
                interval.left_out,
                control,
            )
        )
    return ScoredRows(rows, tests)


def score_differences(
    ours: PredictionScores, theirs: PredictionScores, rng: np.random.Generator
) -> dict[str, Any]:
    """Metric → difference of means with interval and two-sided p of sign flips, stimulus by stimulus."""
    return {
        metric: paired_difference(ours.values[metric], theirs.values[metric], None, rng)
        for metric in ours.values
        if metric in theirs.values
    }


def _pixels(truth: Tensor) -> PixelFeatures:
    return PixelFeatures(min(GRID, int(min(truth.shape[2:]))))


def _permutable(count: int, runs: Sequence[Hashable] | np.ndarray | None) -> bool:
    return count > 1 and (runs is None or len(set(runs)) < count)
