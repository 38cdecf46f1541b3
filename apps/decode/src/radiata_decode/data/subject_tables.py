"""What every subject folder promises about its two tables, checked before a file is written and after one is read.

    trials.tsv   trial stimulus session run repeat split  [+ onset_s category ...]   one row a trial
    voxels.tsv   voxel  x y z | hemisphere vertex  ncsnr noise_ceiling roi_<NAME>   one row a voxel

A stimulus belongs to one split only: a picture that a decoder was trained on tells nothing when it is tested on it.
"""

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data.tables import check_columns

__all__ = ["ROI", "SPLITS", "TRIAL_COLUMNS", "checked_trials", "checked_voxels", "refuse_overlap"]

SPLITS = ("train", "validation", "test")
TRIAL_COLUMNS = ("trial", "stimulus", "session", "run", "repeat", "split")
ROI = "roi_"


def refuse_overlap(trials: pd.DataFrame) -> None:
    """Nothing, if no stimulus stands in two splits.

    Raises:
        InputError: how many do, and which.
    """
    pairs = trials[["stimulus", "split"]].drop_duplicates()
    pairs = pairs[pairs["split"] != ""]
    shared = sorted(pairs["stimulus"][pairs["stimulus"].duplicated()].unique())
    if shared:
        splits = sorted(pairs["split"][pairs["stimulus"].isin(shared)].unique())
        raise InputError(
            f"expected each stimulus in one split; got {len(shared)} in several of {', '.join(splits)} "
            f"({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}). Move all trials of a stimulus to one split."
        )


def checked_trials(trials: pd.DataFrame, count: int | None = None) -> pd.DataFrame:
    """The trials in the columns and types of the contract, numbered, in the order given.

    `session` and `run` are 1 where they are not known, `repeat` (1 for the first showing of a stimulus) is counted.

    Args:
        trials: At least `stimulus` and `split`.
        count: Trials that the responses have; None: not checked.

    Raises:
        InputError: another length, an unknown split word, a stimulus without a name or in two splits.
    """
    check_columns([str(name) for name in trials.columns], ("stimulus", "split"), "the trials table")
    if count is not None and len(trials) != count:
        raise InputError(
            f"expected one row of the trials table for each of {count} responses; got {len(trials)}. "
            "Is a run missing in one of them?"
        )
    table = trials.reset_index(drop=True).copy()
    table["stimulus"] = table["stimulus"].astype(str)
    table["split"] = table["split"].astype(str)
    if (table["stimulus"] == "").any():
        row = int(np.flatnonzero(table["stimulus"] == "")[0])
        raise InputError(f"expected a stimulus name in each trial; got none in trial {row}. Name it.")
    unknown = sorted(set(table["split"]) - set(SPLITS))
    if unknown:
        raise InputError(
            f"expected splits {', '.join(SPLITS)}; got {', '.join(map(repr, unknown))}. Rename them in the trials table."
        )
    refuse_overlap(table)
    table["trial"] = np.arange(len(table))
    for name in ("session", "run"):
        if name not in table:
            table[name] = 1
        numbers = pd.to_numeric(table[name], errors="coerce")
        if numbers.isna().any() or (numbers != np.floor(numbers)).any():
            raise InputError(
                f"expected whole numbers in column {name} of the trials table. Number them from 1."
            )
        table[name] = numbers.astype(np.int64)
    if "repeat" not in table:
        table["repeat"] = table.groupby("stimulus", sort=False).cumcount() + 1
    return table[[*TRIAL_COLUMNS, *(name for name in table.columns if name not in TRIAL_COLUMNS)]]


def checked_voxels(voxels: pd.DataFrame, count: int | None = None) -> pd.DataFrame:
    """The voxels, numbered where they were not, ROI columns of 0 and 1.

    Args:
        voxels: Any columns of the contract; an empty one with rows is fine.
        count: Voxels that the responses have.

    Raises:
        InputError: another length, a voxel twice, an ROI column of something else than 0 and 1.
    """
    check_columns([str(name) for name in voxels.columns], (), "the voxels table")
    table = voxels.reset_index(drop=True).copy()
    if count is not None and len(table) != count:
        raise InputError(
            f"expected one row of the voxels table for each of {count} voxels of the responses; got {len(table)}. "
            "Is it of another mask?"
        )
    if "voxel" not in table:
        table.insert(0, "voxel", np.arange(len(table)))
    if table["voxel"].duplicated().any():
        raise InputError(
            f"expected each voxel once; got voxel {table['voxel'][table['voxel'].duplicated()].iloc[0]} twice. "
            "Number them anew."
        )
    for name in table.columns:
        if str(name).startswith(ROI):
            inside = pd.to_numeric(table[name], errors="coerce")
            if not inside.isin((0, 1)).all():
                raise InputError(
                    f"expected 0 or 1 in column {name} of the voxels table. 1 is inside the region."
                )
            table[name] = inside.astype(np.int64)
    return table[["voxel", *(name for name in table.columns if name != "voxel")]]
