r"""Averages over the repeats of a stimulus: what a decoder is trained and tested on.

With n repeats of noise variance σ² the average keeps the stimulus' share and σ²/n of the noise; how many repeats went
in is therefore part of the result, since weights and ceilings need it. The average of a stimulus uses its own trials
only, so it does not depend on which other stimuli are asked for.
"""

from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
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
    subject: Subject, split: str | None, *, count: int | None = None, voxels: np.ndarray | None = None
) -> Averaged:
    """Mean response to each stimulus of a split.

    Args:
        subject: Whose.
        split: train, validation or test; None: all trials.
        count: Use the first `count` repeats of each stimulus only; fewer where there are not so many. None: all.
        voxels: Which; None: all.

    Raises:
        InputError: no trials of that split, a count < 1.
    """
    if count is not None and count < 1:
        raise InputError(f"expected to average at least one repeat; got {count}.")
    rows = subject.rows(split)
    names = subject.trials["stimulus"].to_numpy()[rows]
    order = {name: place for place, name in enumerate(dict.fromkeys(names.tolist()))}
    group = np.array([order[name] for name in names.tolist()], dtype=np.int64)
    if count is not None:
        showing = np.zeros(len(group), np.int64)
        seen = np.zeros(len(order), np.int64)
        for place, stimulus in enumerate(group):
            showing[place] = seen[stimulus]
            seen[stimulus] += 1
        rows, group = rows[showing < count], group[showing < count]
    repeats = np.bincount(group, minlength=len(order))
    total: np.ndarray | None = None
    start = 0
    for block in subject.blocks(rows, voxels):
        if total is None:
            total = np.zeros((len(order), block.shape[1]), np.float32)
        np.add.at(total, group[start : start + len(block)], block)
        start += len(block)
    assert total is not None  # subject.rows refuses an empty split
    return Averaged(list(order), total / repeats[:, None].astype(np.float32), repeats)
