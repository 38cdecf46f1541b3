r"""Which picture NSD showed in which trial, and which pictures are the test.

`behav/responses.tsv` has a line a trial with SESSION, RUN, TRIAL, 73KID (the picture among 73 000, from 1) and 10KID (among
the subject's 10 000; the first 1000 are the pictures that all subjects share). `nsd_expdesign.mat` says the same in
`subjectim` and `masterordering`; it is read, with scipy (MATLAB 5), where the table is not there. A session has 750
trials in twelve runs of 63 and 62 in turn.

The shared pictures are the test. Eight subjects made 40 40 32 30 40 32 40 30 sessions, so not every one was seen: papers
that read the first 37 sessions of subject 1 test on 982 pictures, those that read 40 on 1000. Which it was, is written
into the manifest.

References:
    E. Allen et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence. Nature
    Neuroscience 25. Data manual: http://naturalscenesdataset.org.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data.tables import read_table
from radiata_imaging.mat_files import load_mat

__all__ = ["SHARED", "TRIALS", "picture_name", "picture_row", "read_design"]

SHARED = 1000
TRIALS = 750
RUNS = np.repeat(np.arange(1, 13), np.resize([63, 62], 12))


def picture_name(number: int) -> str:
    """`nsd-00042` of the picture with this number among 73 000, counted from 0, as in file names and nsdId."""
    return f"nsd-{number:05d}"


def picture_row(name: str) -> int:
    """The inverse of `picture_name`."""
    return int(name.removeprefix("nsd-"))


def read_design(root: Path, subject: int) -> tuple[pd.DataFrame, Path]:
    """Trials in the order of the betas – stimulus, session, run, split, onset unknown – and the file they come from.

    Args:
        root: With `nsddata/`.
        subject: 1 to 8.

    Raises:
        InputError: neither file, or one that is broken.
    """
    table = root / "nsddata" / "ppdata" / f"subj{subject:02d}" / "behav" / "responses.tsv"
    if table.is_file():
        return _from_table(table), table
    matlab = root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
    if matlab.is_file():
        return _from_matlab(matlab, subject), matlab
    raise InputError(
        f"expected the design in {table} or {matlab}; got neither. Fetch one: aws s3 cp --no-sign-request "
        f"s3://natural-scenes-dataset/{table.relative_to(root)} {table}"
    )


_COLUMNS = ("SESSION", "RUN", "TRIAL", "73KID", "10KID")


def _from_table(path: Path) -> pd.DataFrame:
    table = read_table(path, _COLUMNS)
    for name in _COLUMNS:
        if not pd.api.types.is_numeric_dtype(table[name]) or not (table[name].abs() < 10**9).all():
            raise InputError(
                f"expected whole numbers in {name} of {path}; got something else. Fetch it again."
            )
    table = table.sort_values(["SESSION", "RUN", "TRIAL"], kind="stable")
    return _trials(
        table["73KID"].to_numpy() - 1,
        table["10KID"].to_numpy(),
        table["SESSION"].to_numpy(),
        table["RUN"].to_numpy(),
    )


def _from_matlab(path: Path, subject: int) -> pd.DataFrame:
    try:
        stored = load_mat(path, ["masterordering", "subjectim"])
        order = np.asarray(stored["masterordering"]).reshape(-1).astype(np.int64)
        pictures = np.asarray(stored["subjectim"]).astype(np.int64)[subject - 1][order - 1] - 1
    except InputError:
        raise
    except Exception as error:  # a broken .mat file raises what its bytes happen to mean
        raise InputError(
            f"expected masterordering and subjectim (8 × 10000) in {path}; got something else ({error}). Fetch it again."
        ) from None
    sessions = 1 + np.arange(len(order)) // TRIALS
    return _trials(pictures, order, sessions, RUNS[np.arange(len(order)) % TRIALS])


def _trials(pictures: np.ndarray, place: np.ndarray, sessions: np.ndarray, runs: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stimulus": [picture_name(int(number)) for number in pictures],
            "session": sessions.astype(np.int64),
            "run": runs.astype(np.int64),
            "split": np.where(place <= SHARED, "test", "train"),
        }
    )
