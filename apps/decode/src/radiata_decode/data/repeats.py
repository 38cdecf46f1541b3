r"""Averages over the repeats of a stimulus: what a decoder is trained and tested on.

With n repeats of noise variance σ² the average keeps the stimulus' share and σ²/n of the noise; how many repeats went
in is therefore part of the result, since weights and ceilings need it. The average of a stimulus uses its own trials
only, so it does not depend on which other stimuli are asked for. Trials are standardised before they are averaged.
"""

from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
from radiata_decode.data.normalisation import Standardiser
from radiata_decode.data.subject import Subject

__all__ = ["Averaged", "averaged"]


@dataclass(frozen=True)
class Averaged:
    """Mean responses.

    Attributes:
        stimulus: Names, in the order of their first showing.
        responses: (stimulus, voxel) float32.
        repeats: Trials in each mean, (stimulus,), >= 1.
    """

    stimulus: list[str]
    responses: np.ndarray
    repeats: np.ndarray


def averaged(
    subject: Subject,
    split: str | None,
    *,
    count: int | None = None,
    voxels: np.ndarray | None = None,
    standardiser: Standardiser | None = None,
) -> Averaged:
    """Mean response to each stimulus of a split.

    Args:
        subject: Whose.
        split: train, validation or test; None: all trials.
        count: Use the first `count` repeats of each stimulus only; fewer where there are not so many. None: all.
        voxels: Which; None: all.
        standardiser: Applied to each trial, with its session; None: as they were written.

    Raises:
        InputError: no trials of that split, a count < 1, a standardiser of other voxels.
    """
    if count is not None and count < 1:
        raise InputError(f"expected to average at least one repeat; got {count}.")
    rows = subject.rows(split)
    names = subject.trials["stimulus"].to_numpy()[rows].tolist()
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    group = np.array([order[name] for name in names], dtype=np.int64)
    if count is not None:
        first = _showing(group) < count
        rows, group = rows[first], group[first]
    sessions = subject.trials["session"].to_numpy()[rows]
    repeats = np.bincount(group, minlength=len(order))
    total, start = np.zeros((len(order), 0), np.float32), 0
    for block in subject.blocks(rows, voxels):
        here = slice(start, start + len(block))
        values = block if standardiser is None else standardiser.apply(block, sessions[here])
        if not start:
            total = np.zeros((len(order), values.shape[1]), np.float32)
        for place, row in zip(
            group[here], values, strict=True
        ):  # np.add.at does the same in 20 times the time
            total[place] += row
        start += len(block)
    return Averaged(list(order), total / repeats[:, None].astype(np.float32), repeats)


def _showing(group: np.ndarray) -> np.ndarray:
    """How often each one's stimulus came before it: 0 for first showings."""
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    showing = np.empty(len(group), np.int64)
    showing[order] = np.arange(len(group)) - starts
    return showing
