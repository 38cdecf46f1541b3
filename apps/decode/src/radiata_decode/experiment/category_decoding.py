"""Faces from houses, on real BOLD: the category route, from series with blocks to held-out accuracy with its chance.

    series → polynomial removed in each run → block means at several lags → leave-one-run-out ridge classifier

The lag is chosen within the training runs, with the ridge parameter; so is the order of the polynomial where several
are given. A subject folder (`prepare from-haxby`) is decoded as it is, with its one lag. What the classifier says
becomes the category condition of a generator (`CategoryDecoding.probability`).

Blocks of a run come in some order, and slow drifts tell early from late ones. `decode_positions` is the control: what a
classifier that knows nothing but a block's place in its run would score.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_decode.data.subject import Subject
    from radiata_decode.model.category_decoder import CategoryDecoding

__all__ = ["LAGS_S", "decode_blocks", "decode_positions", "decode_subject"]

LAGS_S = (0.0, 2.5, 5.0, 7.5)


def decode_blocks(
    folder: Path | None = None,
    *,
    lags_s: Sequence[float] = LAGS_S,
    orders: Sequence[int] = (1,),
    permutations: int = 1000,
    seed: int = 0,
    callback: Callable[[int], None] | None = None,
) -> "CategoryDecoding":
    """Block decoding of a folder in one of the layouts of `data.haxby`; the slice that ships without one.

    Args:
        folder: PyMVPA's or OpenfMRI's layout.
        lags_s: To choose from, seconds.
        orders: Of the polynomial removed from each run, to choose from.
        permutations: 0 for none.
        seed: Of the permutations and the interval.
        callback: Called with the number of each held-out run that is ready.

    Raises:
        InputError: a folder that cannot be read, fewer than three runs.
    """
    from radiata_decode.data.haxby import block_trials, detrended, read_category_runs, shipped_example
    from radiata_decode.model.category_decoder import decode_categories

    if not lags_s or not orders:
        raise InputError("expected at least one lag and one order to choose from; got none.")
    runs = read_category_runs(folder or shipped_example())
    candidates, tables = {}, []
    for order in orders:
        series = detrended(runs.series, runs.run, order)
        for lag in lags_s:
            values, table = block_trials(series, runs, lag)
            candidates[f"order {order}, lag {lag:g} s"] = values
            tables.append(table)
    if len({len(table) for table in tables}) > 1:
        raise InputError(
            f"expected as many blocks at each lag; got {sorted({len(t) for t in tables})}. Blocks at a "
            "run's end need a shorter one."
        )
    return decode_categories(
        candidates, tables[0]["category"].tolist(), tables[0]["run"].to_numpy(), np.random.default_rng(seed),
        permutations=permutations, callback=callback,
    )  # fmt: skip


def decode_positions(
    folder: Path | None = None, *, permutations: int = 1000, seed: int = 0
) -> "CategoryDecoding":
    """The control: the same decoder given each block's place in its run in place of its responses.

    Raises:
        InputError: see `decode_blocks`.
    """
    from radiata_decode.data.haxby import block_trials, read_category_runs, shipped_example
    from radiata_decode.model.category_decoder import decode_categories

    runs = read_category_runs(folder or shipped_example())
    table = block_trials(runs.series, runs, 0.0)[1]
    place = table.groupby("run").cumcount().to_numpy()
    return decode_categories(
        {"place in the run": np.eye(int(place.max()) + 1)[place]}, table["category"].tolist(), table["run"].to_numpy(),
        np.random.default_rng(seed), permutations=permutations,
    )  # fmt: skip


def decode_subject(
    subject: "Subject", *, permutations: int = 1000, seed: int = 0, voxels: np.ndarray | None = None
) -> "CategoryDecoding":
    """The same of a subject folder whose trials have a category; every run of every session is held out in turn.

    Args:
        subject: Whose.
        permutations: 0 for none.
        seed: Of the permutations and the interval.
        voxels: Mask or numbers of those to use; None: all.

    Raises:
        InputError: no column category, a trial without one, fewer than three runs.
    """
    from radiata_decode.model.category_decoder import decode_categories

    if "category" not in subject.trials or (subject.trials["category"].astype(str) == "").any():
        raise InputError(
            f"expected a category of each trial in {subject.folder / 'trials.tsv'}; got none of some. Fill the column."
        )
    sessions, runs = (subject.trials[name].to_numpy() for name in ("session", "run"))
    _, number = np.unique(np.stack([sessions, runs], 1), axis=0, return_inverse=True)
    return decode_categories(
        {"as prepared": subject.responses(voxels=voxels)}, subject.trials["category"].tolist(), number.reshape(-1) + 1,
        np.random.default_rng(seed), permutations=permutations,
    )  # fmt: skip
