"""Which stimuli teach and which test: shared pictures, whole runs, whole clusters – and how much of the test was seen.

A split is a word a trial. All trials of a stimulus get the same one; a split that would put a stimulus on both sides is
refused. Pictures may overlap without being the same: natural scenes come in clusters, and a decoder that only names
the cluster looks better than it is. `cluster_held_out` keeps whole clusters of pictures for the test; `overlap` says, for
any split, how near the test stimuli are to training ones.

References:
    K. Shirakawa et al. (2024). Spurious reconstruction from brain activity. https://arxiv.org/abs/2405.10078.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data.subject_tables import refuse_overlap

__all__ = [
    "Overlap",
    "cluster_held_out",
    "clusters_of",
    "overlap",
    "run_held_out",
    "shared",
    "validation_from",
]

BLOCK = 512  # stimuli at a time: products with 9000 others are 18 MB


@dataclass(frozen=True)
class Overlap:
    """What the test shares with training.

    Attributes:
        train: Stimuli.
        test: Stimuli.
        both: Stimuli in both; 0 in every split this module makes.
        groups: Share of test stimuli whose group (cluster, category) occurs in training, 0 to 1; NaN without groups.
        nearest: Mean over test stimuli of the highest correlation with a training one's features; NaN without them.
        nearest_within: The same among training stimuli, each against the others: what no overlap beyond chance looks like.
    """

    train: int
    test: int
    both: int
    groups: float
    nearest: float
    nearest_within: float


def shared(trials: pd.DataFrame, test: Collection[str]) -> np.ndarray:
    """Split in which the named stimuli are the test, such as the pictures that all subjects saw.

    Args:
        trials: With a column `stimulus`.
        test: Names; those that were not shown do not matter.

    Raises:
        InputError: none, or all, of them were shown.
    """
    inside = trials["stimulus"].astype(str).isin({str(name) for name in test}).to_numpy()
    return _checked(trials, inside, "the named stimuli among those shown")


def run_held_out(trials: pd.DataFrame, runs: Collection[tuple[int, int]]) -> np.ndarray:
    """Split in which whole runs are the test.

    Args:
        trials: With columns `stimulus`, `session` and `run`.
        runs: (session, run) of the test.

    Raises:
        InputError: a run that is not there, or a stimulus that was also shown in another run.
    """
    pairs = list(zip(trials["session"].tolist(), trials["run"].tolist(), strict=True))
    missing = sorted(set(runs) - set(pairs))
    if missing:
        raise InputError(
            f"expected (session, run) of the trials table; got {missing[0]}, which is not there."
        )
    return _checked(trials, np.array([pair in set(runs) for pair in pairs]), "the held-out runs")


def clusters_of(features: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster of each stimulus by k-means on its features, (stimulus,) whole numbers.

    Args:
        features: (stimulus, feature): pixels of small pictures, or an encoder's.
        clusters: How many, at most one a stimulus.
        rng: Of the starting centres.

    Raises:
        InputError: fewer than two clusters or more than stimuli, values that are not finite.
    """
    from sklearn.cluster import KMeans

    values = np.asarray(features, np.float32).reshape(len(features), -1)
    if not 2 <= clusters <= len(values):
        raise InputError(f"expected 2 to {len(values)} clusters of {len(values)} stimuli; got {clusters}.")
    if not np.isfinite(values).all():
        raise InputError("expected finite features to cluster; got NaN or infinity.")
    model = KMeans(clusters, n_init=4, random_state=int(rng.integers(2**31)))
    return model.fit_predict(values).astype(np.int64)


def cluster_held_out(
    trials: pd.DataFrame, names: Sequence[str], clusters: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Split in which whole clusters of stimuli are the test.

    Args:
        trials: With a column `stimulus`.
        names: Stimuli, in the order of `clusters`.
        clusters: Cluster of each.
        share: Of the stimuli that the test should have at least, in (0, 1); clusters are added until it is reached.
        rng: Of their order.

    Raises:
        InputError: a stimulus without a cluster, a share that leaves no training.
    """
    if not 0 < share < 1:
        raise InputError(f"expected a share of the stimuli between 0 and 1; got {share}.")
    cluster = dict(zip((str(name) for name in names), np.asarray(clusters).tolist(), strict=True))
    shown = trials["stimulus"].astype(str)
    missing = sorted(set(shown) - set(cluster))
    if missing:
        raise InputError(
            f"expected the cluster of each stimulus; got none of {missing[0]} ({len(missing)} missing)."
        )
    counts = pd.Series([cluster[name] for name in shown.unique()]).value_counts()
    held: set[int] = set()
    order = rng.permutation(np.sort(counts.index.to_numpy()))
    for number in order.tolist():
        if counts[list(held)].sum() >= share * counts.sum():
            break
        held.add(number)
    return _checked(
        trials, shown.map(cluster).isin(held).to_numpy(), f"{len(held)} of {len(counts)} clusters"
    )


def validation_from(
    trials: pd.DataFrame, split: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """The split with a share of its training stimuli (not trials) moved to validation.

    Args:
        trials: With a column `stimulus`.
        split: A word a trial.
        share: Of the training stimuli, in [0, 1); rounded, at least one if above 0.
        rng: Which ones.

    Raises:
        InputError: a share outside [0, 1), or one that leaves no training.
    """
    if not 0 <= share < 1:
        raise InputError(f"expected a share of the training stimuli from 0 to below 1; got {share}.")
    words = np.asarray(split, dtype=object).copy()
    names = trials["stimulus"].astype(str).to_numpy()
    known = np.array(sorted(set(names[words == "train"].tolist())), dtype=object)
    count = max(1, round(share * len(known))) if share else 0
    if count >= len(known):
        raise InputError(f"expected training stimuli to remain; got {count} of {len(known)} for validation.")
    chosen = set(rng.permutation(known)[:count].tolist())
    words[(words == "train") & np.isin(names, list(chosen))] = "validation"
    return words


def overlap(
    trials: pd.DataFrame,
    groups: dict[str, str] | None = None,
    names: Sequence[str] | None = None,
    features: np.ndarray | None = None,
) -> Overlap:
    """How much of the test was, or was nearly, seen in training.

    Args:
        trials: With `stimulus` and `split`.
        groups: Cluster or category of each stimulus.
        names: Stimuli in the order of `features`.
        features: (stimulus, feature).
    """
    names_of = trials["stimulus"].astype(str)
    train = set(names_of[trials["split"] == "train"])
    test = set(names_of[trials["split"] == "test"])
    found = nearest = within = float("nan")
    if groups is not None and test:
        seen = {groups.get(name) for name in train}
        found = float(np.mean([groups.get(name) in seen for name in test]))
    if features is not None and names is not None and len(train) > 1 and test:
        place = {str(name): row for row, name in enumerate(names)}
        values = np.asarray(features, np.float32).reshape(len(features), -1)
        values = values - values.mean(1, keepdims=True)
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        a, b = (values[[place[name] for name in sorted(side)]] for side in (train, test))
        nearest = float(np.mean(_nearest(a, b)))
        within = float(np.mean(_nearest(a, None)))
    return Overlap(len(train), len(test), len(train & test), found, nearest, within)


def _nearest(known: np.ndarray, others: np.ndarray | None) -> np.ndarray:
    """Highest product of each of `others` with a row of `known`; None: of each known one with another, block by block."""
    found = []
    rows = known if others is None else others
    for start in range(0, len(rows), BLOCK):
        similar = rows[start : start + BLOCK] @ known.T
        if others is None:
            own = np.arange(len(similar))
            similar[own, start + own] = -np.inf
        found.append(similar.max(1))
    return np.concatenate(found)


def _checked(trials: pd.DataFrame, test: np.ndarray, what: str) -> np.ndarray:
    if test.all() or not test.any():
        raise InputError(
            f"expected trials on both sides of the split; {what} hold "
            f"{'all' if test.all() else 'none'} of them. Choose others."
        )
    words = np.where(test, "test", "train").astype(object)
    refuse_overlap(pd.DataFrame({"stimulus": trials["stimulus"].astype(str).to_numpy(), "split": words}))
    return words
