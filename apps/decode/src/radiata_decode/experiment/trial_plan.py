"""Which trials of a reading are kept, and on which side of the split each stimulus stands.

All tables are in memory before any response is read, so a plan is made first and can be shown (`--dry-run`). The split
is the layout's own (NSD's shared pictures, CC2017's test films, a column of the trials table) unless another is asked
for: whole runs, named stimuli, a share of the stimuli, or whole clusters of pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data import splits
from radiata_decode.data.reading import Part, Reading, existing_file
from radiata_decode.data.resized_pictures import ResizedRows, resized
from radiata_decode.data.stimuli import LinkedRows
from radiata_decode.data.subject_tables import checked_trials

if TYPE_CHECKING:
    from radiata_decode.experiment.prepare import Prepare

__all__ = ["TrialPlan", "trial_plan"]

DEFAULT_SHARE = 0.1
THUMBNAIL = 16
"""Pixels of a side of the pictures that clusters are found in."""


@dataclass(frozen=True)
class TrialPlan:
    """What will be written.

    Attributes:
        trials: All trials of the reading, with `split`.
        kept: (trial,) bool.
        rule: How the split was made, in words.
        left_out: Trials that are not kept.
        groups: Stimulus → cluster, where clusters were found.
        lines: The plan for people.
    """

    trials: pd.DataFrame
    kept: np.ndarray
    rule: str
    left_out: int
    groups: dict[str, str] | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def stimuli(self) -> list[str]:
        """Names of the stimuli that remain, in the order of their first showing."""
        return list(dict.fromkeys(self.trials["stimulus"][self.kept].astype(str)))

    def parts(self, reading: Reading) -> Iterator[tuple[Part, np.ndarray, pd.DataFrame]]:
        """Each part with the mask of its trials and the table of those that are kept."""
        start = 0
        for part in reading.parts:
            rows = slice(start, start + len(part.trials))
            start = rows.stop
            kept = self.kept[rows]
            yield part, kept, self.trials.iloc[rows][kept].reset_index(drop=True)


def trial_plan(task: "Prepare", reading: Reading) -> TrialPlan:
    """The plan of a task.

    Raises:
        InputError: two rules at once, a rule that leaves a side empty, a stimulus on both sides.
    """
    trials = reading.trials.reset_index(drop=True)
    trials["stimulus"] = trials["stimulus"].astype(str)
    for name in ("session", "run"):
        if name not in trials:
            trials[name] = 1
    kept = _kept(task, trials)
    rng = np.random.default_rng(task.seed)
    words, rule, groups = _split(task, reading, trials, rng)
    if task.validation_share:
        words = splits.validation_from(trials, words, task.validation_share, rng)
        rule += f", {task.validation_share:g} of the training stimuli for validation"
    trials["split"] = words
    checked_trials(trials)
    counts = trials[kept].groupby("split")["stimulus"].agg(["size", "nunique"])
    sides = [f"{name} {size} trials of {n} stimuli" for name, size, n in counts.itertuples()]
    lines = [f"split by {rule}: {', '.join(sides)}"]
    if (~kept).any():
        lines.append(f"{int((~kept).sum())} trials left out: later showings")
    return TrialPlan(trials, kept, rule, int((~kept).sum()), groups, lines)


def _kept(task: "Prepare", trials: pd.DataFrame) -> np.ndarray:
    if task.repeats == "all" or (task.repeats == "average" and task.layout == "from-cifti"):
        return np.ones(len(trials), bool)
    if not task.repeats.isdigit() or int(task.repeats) < 1:
        also = ", or average" if task.layout == "from-cifti" else "; averages are taken in training"
        raise InputError(
            f"expected --repeats all, or a whole number of at least 1{also}; got {task.repeats}."
        )
    return (trials.groupby("stimulus", sort=False).cumcount() < int(task.repeats)).to_numpy()


def _split(
    task: "Prepare", reading: Reading, trials: pd.DataFrame, rng: np.random.Generator
) -> tuple[np.ndarray, str, dict[str, str] | None]:
    asked = [n for n in ("test_runs", "test_stimuli", "clusters") if getattr(task, n)]
    if task.test_share is not None and not task.clusters:
        asked.append("test_share")
    if len(asked) > 1:
        raise InputError(
            f"expected one rule of the split; got {' and '.join('--' + n.replace('_', '-') for n in asked)}. Keep one."
        )
    if task.test_runs:
        return splits.run_held_out(trials, _pairs(task.test_runs)), f"runs {' '.join(task.test_runs)}", None
    if task.test_stimuli is not None:
        lines = (
            existing_file(task.test_stimuli, "names of test stimuli").read_text(encoding="utf-8").splitlines()
        )
        return splits.shared(trials, {line.strip() for line in lines if line.strip()}), "named stimuli", None
    if task.clusters:
        return _clusters(task, reading, trials, rng)
    if task.test_share is None and "split" in trials and (trials["split"].astype(str) != "").all():
        return (
            trials["split"].astype(str).to_numpy(dtype=object),
            str(reading.about.get("test_rule", "the layout")),
            None,
        )
    if task.layout == "from-haxby" and task.test_share is None:
        last = (int(trials["session"].iloc[-1]), int(trials["run"].iloc[-1]))
        return splits.run_held_out(trials, [last]), f"run {last[0]}:{last[1]}, the last", None
    return _share(DEFAULT_SHARE if task.test_share is None else task.test_share, trials, rng)


def _pairs(words: tuple[str, ...]) -> list[tuple[int, int]]:
    pairs = [word.split(":") for word in words]
    if any(len(pair) != 2 or not all(n.isdigit() for n in pair) for pair in pairs):
        raise InputError(f"expected --test-runs as session:run, such as 1:12; got {' '.join(words)}.")
    return [(int(a), int(b)) for a, b in pairs]


def _share(
    share: float, trials: pd.DataFrame, rng: np.random.Generator
) -> tuple[np.ndarray, str, dict[str, str] | None]:
    if not 0 <= share < 1:
        raise InputError(f"expected --test-share from 0 to below 1; got {share:g}.")
    names = np.array(sorted(set(trials["stimulus"])), dtype=object)
    count = min(max(1, round(share * len(names))), len(names) - 1) if share else 0
    if not count:
        return np.full(len(trials), "train", dtype=object), "no test", None
    return splits.shared(trials, rng.permutation(names)[:count].tolist()), f"{share:g} of the stimuli", None


def _clusters(
    task: "Prepare", reading: Reading, trials: pd.DataFrame, rng: np.random.Generator
) -> tuple[np.ndarray, str, dict[str, str] | None]:
    names = sorted(set(trials["stimulus"]))
    found = None if reading.stimuli is None else reading.stimuli(names)
    if found is None or found.images is None or task.clusters is None:
        raise InputError(
            "expected pictures of the stimuli for --clusters; got none. Name their folder with --images."
        )
    clusters = splits.clusters_of(_thumbnails(found.images, len(names)), task.clusters, rng)
    share = DEFAULT_SHARE if task.test_share is None else task.test_share
    words = splits.cluster_held_out(trials, names, clusters, share, rng)
    groups = {name: f"cluster-{number:03d}" for name, number in zip(names, clusters.tolist(), strict=True)}
    return words, f"clusters of {task.clusters} with {share:g} of the stimuli", groups


def _thumbnails(images: Any, count: int) -> np.ndarray:
    if isinstance(images, LinkedRows):
        images = ResizedRows(Path(images.file), images.dataset, images.rows, THUMBNAIL)
    blocks = [resized(np.asarray(images[start : start + 64]), THUMBNAIL) for start in range(0, count, 64)]
    return np.concatenate(blocks).reshape(count, -1).astype(np.float32) / 255
