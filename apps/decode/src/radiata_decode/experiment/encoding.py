"""Encoding models of a subject: features of what was shown in, held-out scores of every voxel out.

    features of training stimuli -> ridge a space of features -> r, R² on test stimuli -> a row a voxel
                                 -> two or three spaces together -> unique and shared parts, tests by region

Test responses are averages over repeats; the noise ceiling is that of such averages. Standardisation uses training
trials only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_decode.data.image_features import stimulus_features
from radiata_decode.data.normalisation import subject_standardiser
from radiata_decode.data.repeats import Averaged, averaged
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.model.encoding_model import EncodingFit, EncodingScores, encoding_scores, fit_encoding
from radiata_decode.model.noise_ceiling import noise_ceiling
from radiata_decode.model.reliability_weights import repeat_weights
from radiata_decode.model.variance_partition import (
    RegionTest,
    VariancePartition,
    unique_tests,
    variance_partition,
)

if TYPE_CHECKING:
    from radiata_decode.data.subject import Subject

__all__ = ["Encoded", "EncodingOptions", "encode_subject", "region_table"]

PERMUTATIONS, FLIPS = 41, 42  # keys of random numbers


@dataclass(frozen=True)
class EncodingOptions:
    """Options.

    Attributes:
        features: Spaces: names of `data.image_features.SPACES`, files, or folders of transformers.
        partition: Also fit every subset of the spaces (two or three of them).
        zscore: Rule of `data.normalisation`.
        penalty: voxel, region or all: which voxels share a penalty.
        count: Repeats to average; None: all.
        draws: Permutations of the maximum statistic.
        seed: Of permutations and intervals.
        device: For networks of transformers.
    """

    features: tuple[str, ...] = ("gabor",)
    partition: bool = False
    zscore: str = "train"
    penalty: str = "voxel"
    count: int | None = None
    draws: int = 1000
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) != len(self.features):
            raise InputError(
                f"expected different spaces of features; got {', '.join(self.features) or 'none'}."
            )
        if self.partition and len(self.features) not in (2, 3):
            raise InputError(f"expected two or three spaces to partition; got {len(self.features)}.")
        if self.penalty not in ("voxel", "region", "all"):
            raise InputError(f"expected a penalty for each voxel, region or all; got {self.penalty}.")


@dataclass(frozen=True, eq=False)
class Encoded:
    """What was found.

    Attributes:
        table: One row a voxel: voxel, ceiling, then for each space r, r2, their normalised values, p and alpha, and parts.
        fits: Space → model.
        scores: Space → held-out scores.
        predicted: Space → predicted test responses, (stimulus, voxel).
        measured: Test responses, (stimulus, voxel).
        stimulus: Test stimuli.
        partition: Of the spaces together; None without.
        tests: Of unique parts, by region; empty without.
    """

    table: pd.DataFrame
    fits: dict[str, EncodingFit]
    scores: dict[str, EncodingScores]
    predicted: dict[str, np.ndarray]
    measured: np.ndarray
    stimulus: list[str]
    partition: VariancePartition | None
    tests: list[RegionTest]


def encode_subject(subject: "Subject", options: EncodingOptions) -> Encoded:
    """Fit encoding models on training stimuli and score them on test stimuli.

    Raises:
        InputError: no stimuli, no test trials, features that do not fit.
    """
    stimuli = read_stimuli(subject.folder)
    statistics = subject_standardiser(subject, options.zscore)
    train, test = (
        averaged(subject, split, count=options.count, standardiser=statistics) for split in ("train", "test")
    )
    spaces = _spaces(options, stimuli, train.stimulus, test.stimulus)
    ratio = subject.voxels["ncsnr"].to_numpy(np.float64) if "ncsnr" in subject.voxels else None
    ceiling = None if ratio is None else noise_ceiling(np.nan_to_num(ratio), test.repeats)
    weights = repeat_weights(train.repeats, 0.5 if ratio is None else np.nan_to_num(ratio))
    groups = _penalties(subject, options.penalty)
    fits, scores, predicted = {}, {}, {}
    table = subject.voxels[["voxel"]].copy()
    table["noise_ceiling"] = np.nan if ceiling is None else ceiling
    for name, (known, new) in spaces.items():
        fits[name] = fit_encoding(known, train.responses, groups=groups, sample_weights=weights)
        predicted[name] = fits[name].predict(new)
        scores[name] = encoding_scores(
            test.responses, predicted[name], rng_of(options.seed, PERMUTATIONS), ceiling=ceiling,
            draws=options.draws,
        )  # fmt: skip
        _add_scores(table, _word(name), scores[name], fits[name])
    partition: VariancePartition | None = None
    tests: list[RegionTest] = []
    if options.partition:
        partition, tests = _partition(subject, options, spaces, train, test, weights, groups)
        for names, part in partition.parts.items():
            table["_".join(["unique" if len(names) == 1 else "shared", *map(_word, names)])] = part
    return Encoded(table, fits, scores, predicted, test.responses, test.stimulus, partition, tests)


def region_table(encoded: Encoded, regions: dict[str, np.ndarray]) -> pd.DataFrame:
    """One row a region and space: mean r, R², normalised R², share of voxels with p < .05, voxels."""
    rows: list[dict[str, Any]] = []
    everywhere = np.ones(len(encoded.table), bool)
    for region, members in ({"all": everywhere} | regions).items():
        if not members.any():
            continue
        for name, found in encoded.scores.items():
            known = found.r2_normalised[members]
            rows.append(
                {
                    "region": region,
                    "features": name,
                    "r": found.r[members].mean(),
                    "r2": found.r2[members].mean(),
                    "r2_normalised": np.nanmean(known) if np.isfinite(known).any() else np.nan,
                    "significant": float((found.p[members] < 0.05).mean()),
                    "voxels": int(members.sum()),
                }
            )
    return pd.DataFrame(rows)


def _spaces(
    options: EncodingOptions, stimuli: Any, train: Sequence[str], test: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Space → features of training and of test stimuli."""
    ids = [*train, *test]
    training = np.arange(len(ids)) < len(train)
    found = {}
    for name in options.features:
        values = stimulus_features(name, stimuli, ids, training, device=options.device)
        found[name] = (values[training], values[~training])
    return found


def _penalties(subject: "Subject", penalty: str) -> np.ndarray | None:
    """Voxels of one number share a penalty; a voxel of several regions belongs to the first."""
    if penalty == "voxel":
        return None
    groups = np.zeros(len(subject.voxels), np.int64)
    if penalty == "region":
        for number, members in enumerate(subject.rois.values(), 1):
            groups[members & (groups == 0)] = number
    return np.unique(groups, return_inverse=True)[1]


def _partition(
    subject: "Subject",
    options: EncodingOptions,
    spaces: dict[str, tuple[np.ndarray, np.ndarray]],
    train: Averaged,
    test: Averaged,
    weights: np.ndarray,
    groups: np.ndarray | None,
) -> tuple[VariancePartition, list[RegionTest]]:
    found = variance_partition(
        {name: known for name, (known, _) in spaces.items()}, train.responses,
        {name: new for name, (_, new) in spaces.items()}, test.responses, sample_weights=weights, groups=groups,
    )  # fmt: skip
    regions = subject.rois or {"all": np.ones(len(subject.voxels), bool)}
    return found, unique_tests(found, test.responses, regions, rng_of(options.seed, FLIPS))


def _word(name: str) -> str:
    """A column's name of a space: the last part of a path."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0].replace("-", "_")


def _add_scores(table: pd.DataFrame, word: str, scores: EncodingScores, fit: EncodingFit) -> None:
    table[f"{word}_r"], table[f"{word}_r2"] = scores.r, scores.r2
    table[f"{word}_r_normalised"] = scores.r_normalised
    table[f"{word}_r2_normalised"] = scores.r2_normalised
    table[f"{word}_p"] = scores.p
    table[f"{word}_alpha"] = fit.alphas.numpy()
