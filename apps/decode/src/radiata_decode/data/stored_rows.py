"""Rows of an HDF5 dataset in any order and as often as asked for, read in as few pieces as they allow.

HDF5 selects rows only sorted and once, and is slow for long lists of single ones. Here sorted, unique rows are read
as runs of neighbours, straight into the array that is returned.
"""

import h5py
import numpy as np

from radiata_core.errors import InputError

__all__ = ["stored_rows"]


def stored_rows(stored: h5py.Dataset, rows: np.ndarray, dtype: str) -> np.ndarray:
    """The rows, (row, ...) in the order asked for.

    Args:
        stored: Dataset of any shape, rows first.
        rows: Whole numbers from 0, in any order, with repeats.
        dtype: Of the result; converted while reading.

    Raises:
        InputError: the file ends before its data.
    """
    unique, back = np.unique(rows, return_inverse=True)
    block = np.empty((len(unique), *stored.shape[1:]), dtype)
    breaks = np.flatnonzero(np.diff(unique) != 1) + 1
    try:
        for run in np.split(np.arange(len(unique)), breaks) if len(unique) else ():
            first, last = int(run[0]), int(run[-1])
            stored.read_direct(
                block, np.s_[int(unique[first]) : int(unique[last]) + 1], np.s_[first : last + 1]
            )
    except OSError as error:
        raise InputError(
            f"expected {stored.name} in {stored.file.filename}; it cannot be read ({' '.join(str(error).split())}). "
            "Was the file cut short? Copy or prepare it again."
        ) from None
    in_order = len(unique) == len(rows) and bool((back == np.arange(len(rows))).all())
    return block if in_order else block[back]
