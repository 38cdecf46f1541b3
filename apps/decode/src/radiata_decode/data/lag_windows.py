r"""Which volumes answer a stretch of film: windows that follow it by the haemodynamic lag and never cross a cut.

Volume i is taken while the film shows its i-th stretch of one repetition time. Its response comes some seconds later, so the
trial of stretch i takes the volumes

$$ i + \mathrm{round}(\text{lag}/\text{TR}) + o, \qquad o \in \text{offsets}. $$

Volume i + lag + o answers stretch i + o. If that lies behind a cut of the film, or outside the run or segment, the window
would hold the response to something else: such trials are left out, and counted. (The haemodynamic response is some
seconds wide, so that a little of the stretch before always remains.) With offsets on both sides, (−2 … 2) as in
BrainNRDS, windows of neighbours share volumes; training and test have to be different segments then.

References:
    BrainNRDS (2024), section on data: five volumes about each. https://arxiv.org/abs/2406.02659.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = ["Windows", "gather", "lag_windows"]

WAYS = ("stack", "mean")


@dataclass(frozen=True)
class Windows:
    """Trials that fit.

    Attributes:
        stretches: Number of each trial's stretch, (trial,).
        volumes: (trial, offset) numbers of volumes.
        left_out: Stretches whose window would cross a border.
    """

    stretches: np.ndarray
    volumes: np.ndarray
    left_out: int


def lag_windows(
    count: int,
    repetition_time_s: float,
    *,
    lag_s: float = 4.0,
    offsets: Sequence[int] = (0,),
    cuts: Sequence[int] = (),
) -> Windows:
    """Windows of one run.

    Args:
        count: Volumes of the run, as many as stretches of the film.
        repetition_time_s: Seconds between volumes.
        lag_s: By which responses follow, in seconds, 0 to 30.
        offsets: Volumes relative to the lagged one.
        cuts: Stretches with which something new begins; windows stay between two of them.

    Raises:
        InputError: a lag or repetition time out of range, offsets twice, cuts outside the run, no trial left.
    """
    if not 0 <= lag_s <= 30 or not 0.1 <= repetition_time_s <= 30:
        raise InputError(
            f"expected a lag of 0 to 30 s and a repetition time of 0.1 to 30 s; got {lag_s:g} and {repetition_time_s:g}."
        )
    if not offsets or len(set(offsets)) != len(offsets):
        raise InputError(f"expected different offsets of a window; got {list(offsets)}.")
    if any(not 0 <= cut < count for cut in cuts):
        raise InputError(
            f"expected cuts within {count} volumes; got {max(cuts)}. Count them from 0, in volumes."
        )
    scene = np.searchsorted(np.sort(np.asarray(cuts, np.int64)), np.arange(count), side="right")
    stretches = np.arange(count)
    answered = stretches[:, None] + np.asarray(offsets, np.int64)[None]
    volumes = answered + round(lag_s / repetition_time_s)
    fits = (answered >= 0) & (answered < count) & (volumes < count)
    same = scene[np.clip(answered, 0, count - 1)] == scene[:, None]
    kept = (fits & same).all(1)
    if not kept.any():
        raise InputError(
            f"expected windows of {len(offsets)} volumes that cross no cut; got none in {count} volumes "
            f"with {len(cuts)} cuts. Use fewer offsets or a shorter lag."
        )
    return Windows(stretches[kept], volumes[kept], int((~kept).sum()))


def gather(series: np.ndarray, windows: Windows, way: str = "stack") -> np.ndarray:
    """Responses (trial, voxel) of the windows: their mean, or their volumes side by side (trial, offset · voxel).

    Raises:
        InputError: another way.
    """
    if way not in WAYS:
        raise InputError(f"expected volumes of a window to {' or '.join(WAYS)}; got {way}.")
    taken = series[windows.volumes]
    return taken.mean(1) if way == "mean" else taken.reshape(len(taken), -1)
