"""Was it seen in training, or something like it? Overlap of the decoded stimuli with those that taught.

Natural pictures come in clusters. A decoder that only names the cluster scores well wherever test stimuli have near
twins in training; so the nearest training picture of each test picture is measured, and scores stand separately for stimuli
whose `group` (column of stimuli.tsv) was seen in training and for the others.

References:
    K. Shirakawa et al. (2024). Spurious reconstruction from brain activity. https://arxiv.org/abs/2405.10078.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from radiata_decode.data.loading import unit_images
from radiata_decode.data.splits import overlap
from radiata_decode.data.stimuli import Stimuli
from radiata_decode.experiment.comparison import Comparison
from radiata_decode.model.bootstrap_scores import mean_interval
from radiata_decode.model.extractors import PixelFeatures, extracted

__all__ = ["group_scores", "measured_overlap", "overlap_note", "small_features"]

SIDE = 16
BLOCK = 256


def small_features(stimuli: Stimuli, names: list[str], block: int = BLOCK) -> np.ndarray:
    """Pixels of small copies of pictures (first frames where there are films only), (n, 768), read in blocks."""
    parts = []
    for start in range(0, len(names), block):
        ids = names[start : start + block]
        shown = stimuli.images(ids) if "images" in stimuli.shapes else stimuli.movies(ids)[:, 0]
        parts.append(extracted(PixelFeatures(SIDE), unit_images(shown)))
    return np.concatenate(parts)


def measured_overlap(comparison: Comparison, stimuli: Stimuli | None) -> dict[str, Any]:
    """Numbers of `data.splits.Overlap`, and whether each stimulus' group was seen in training (`seen`).

    Empty for training stimuli themselves, and without training trials.
    """
    training = comparison.training_names()
    if not comparison.held_out or not training:
        return {}
    trials = comparison.subject.trials
    inside = (trials["split"] == "train") | trials["stimulus"].astype(str).isin(comparison.names)
    part = trials.loc[inside, ["stimulus", "split"]].copy()
    part.loc[part["split"] != "train", "split"] = "test"
    groups = _groups(comparison, stimuli)
    names, features = None, None
    if stimuli is not None and {"images", "movies"} & set(stimuli.shapes):
        names = [*training, *comparison.names]
        features = small_features(stimuli, names)
    found = asdict(overlap(part, groups, names, features))
    if groups:
        taught = {groups.get(name) for name in training}
        found["seen"] = [groups.get(name) in taught for name in comparison.names]
    return found


def overlap_note(found: Mapping[str, Any]) -> str:
    """The same in a sentence; empty where nothing was measured."""
    if not found:
        return ""
    parts = [f"{found['test']} stimuli, {found['train']} in training, {found['both']} in both"]
    if np.isfinite(found["groups"]):
        parts.append(f"the group of {100 * found['groups']:.0f} % of them was seen in training")
    if np.isfinite(found["nearest"]):
        parts.append(
            f"the nearest training picture correlates {found['nearest']:.2f} (among training pictures "
            f"{found['nearest_within']:.2f})"
        )
    return "; ".join(parts) + "."


def group_scores(
    seen: list[bool], values: Mapping[str, np.ndarray], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """A decoder's scores of stimuli whose group was seen in training, and of those whose was not.

    Args:
        seen: Of each stimulus.
        values: Metric → a value a stimulus.
        rng: Of the intervals.
    """
    chosen = np.array(seen, bool)
    rows = []
    for metric, each in values.items():
        for word, mask in (("seen in training", chosen), ("not seen in training", ~chosen)):
            found = mean_interval(each[mask], None, rng)
            rows.append({"group": word, "metric": metric, "mean": found.mean, "low": found.low, "high": found.high,
                         "cases": found.cases})  # fmt: skip
    return rows


def _groups(comparison: Comparison, stimuli: Stimuli | None) -> dict[str, str] | None:
    for table in (None if stimuli is None else stimuli.table, comparison.subject.trials):
        if table is not None and "group" in table and (table["group"].astype(str) != "").any():
            words = table["group"].astype(str)
            return dict(zip(table["stimulus"].astype(str), words, strict=True))
    return None
