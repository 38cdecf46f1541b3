"""One subject, one folder: what was measured in each trial, and in which voxel.

    responses.h5   responses (trial, voxel) float32 or float16, chunked by trials; attribute format "radiata-subject/1"
    trials.tsv     trial stimulus session run repeat split  [+ onset_s category ...]
    voxels.tsv     voxel, x y z (mm, RAS) or hemisphere vertex, ncsnr, noise_ceiling, roi_<NAME> 0/1
    manifest.json  source, options, checksums, z-score rule, voxels left out and why, repetition time, SyntheticData
    stimuli.h5, stimuli.tsv   what was shown (see `stimuli`), where it may be kept

`stimulus` is a name, `split` one of train, validation, test. `noise_ceiling` is the share of a single trial's variance
that the stimulus explains, 0 to 1. Responses are read by the rows that are asked for, in blocks of at most `BLOCK` bytes:
a session of 750 trials × 15 724 voxels is 47 MB, forty of them are never in memory at once unless asked for.

The folder is written whole or not at all (`subject_writer`).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import read_json, sha256
from radiata_core.foreign_files import check_declared, foreign
from radiata_decode.data.stored_rows import stored_rows
from radiata_decode.data.subject_tables import ROI, SPLITS, TRIAL_COLUMNS, checked_trials, checked_voxels
from radiata_decode.data.subject_writer import FORMAT, SubjectWriter, write_subject
from radiata_decode.data.tables import read_table
from radiata_imaging.hdf5 import open_hdf5

__all__ = ["SPLITS", "Subject", "SubjectWriter", "check_dataset", "read_subject", "write_subject"]

BLOCK = 16 * 2**20
Rows = np.ndarray | slice | list[int] | None


@dataclass(frozen=True)
class Subject:
    """A subject folder that was checked; its responses stay on the disk.

    Attributes:
        folder: Where it is.
        trials: One row a trial.
        voxels: One row a voxel.
        manifest: How it came to be.
    """

    folder: Path
    trials: pd.DataFrame
    voxels: pd.DataFrame
    manifest: dict[str, Any]

    def responses(self, rows: Rows = None, voxels: Rows = None) -> np.ndarray:
        """Responses of some trials in some voxels, (trial, voxel) float32, in the order asked for.

        Args:
            rows: Whole numbers, a mask or a slice of trials; None: all.
            voxels: The same of voxels.

        Raises:
            InputError: a trial or voxel that is not there.
        """
        wanted = _indices(rows, len(self.trials), "trials")
        kept = _indices(voxels, len(self.voxels), "voxels")
        check_declared(4 * len(wanted) * len(kept), self.folder / "responses.h5")
        result = np.empty((len(wanted), len(kept)), np.float32)
        start = 0
        for block in self.blocks(wanted, kept):
            result[start : start + len(block)] = block
            start += len(block)
        return result

    def blocks(self, rows: Rows = None, voxels: Rows = None, size: int | None = None) -> Iterator[np.ndarray]:
        """The same, in blocks of `size` trials (default: as many as fit into 16 MiB), for sums that need no more."""
        wanted = _indices(rows, len(self.trials), "trials")
        kept = _indices(voxels, len(self.voxels), "voxels")
        whole = len(kept) == len(self.voxels) and (kept == np.arange(len(kept))).all()
        size = size or max(1, BLOCK // (4 * max(1, len(self.voxels))))
        with h5py.File(self.folder / "responses.h5", "r") as opened:
            stored = opened["responses"]
            for start in range(0, len(wanted), size):
                block = stored_rows(stored, wanted[start : start + size], "float32")
                yield block if whole else np.ascontiguousarray(block[:, kept])

    def rows(self, split: str | None = None) -> np.ndarray:
        """Numbers of the trials of a split, in order; of all without one.

        Raises:
            InputError: not a split, or one without trials.
        """
        if split is None:
            return np.arange(len(self.trials))
        if split not in SPLITS:
            raise InputError(f"expected a split of {', '.join(SPLITS)}; got {split}.")
        found = np.flatnonzero(self.trials["split"].to_numpy() == split)
        if not len(found):
            raise InputError(
                f"expected {split} trials in {self.folder}; got none. Mark some in the column split of trials.tsv, or "
                "prepare with another split."
            )
        return found

    @property
    def rois(self) -> dict[str, np.ndarray]:
        """Region → which voxels are in it, (voxel,) bool."""
        return {
            name.removeprefix(ROI): self.voxels[name].to_numpy().astype(bool)
            for name in self.voxels.columns
            if name.startswith(ROI)
        }

    @property
    def noise_ceiling(self) -> np.ndarray | None:
        """Share of a single trial's variance that the stimulus explains, (voxel,) in [0, 1]; None if not known."""
        if "noise_ceiling" not in self.voxels:
            return None
        return self.voxels["noise_ceiling"].to_numpy().astype(np.float32)

    @property
    def sha256(self) -> str:
        """Checksum of the responses as they were written and of both tables as they are now."""
        files = {"responses.h5": self.manifest["files"]["responses.h5"]}
        files |= {name: sha256(self.folder / name) for name in ("trials.tsv", "voxels.tsv")}
        return hashlib.sha256(
            "\n".join(f"{name} {files[name]}" for name in sorted(files)).encode()
        ).hexdigest()

    def dataset(self, rows: Rows = None, voxels: Rows = None) -> xr.Dataset:
        """Responses with their tables as coordinates of the dimensions `trial` and `voxel`."""
        trials = self.trials.iloc[_indices(rows, len(self.trials), "trials")]
        table = self.voxels.iloc[_indices(voxels, len(self.voxels), "voxels")]
        coordinates = {name: ("trial", _plain(trials[name])) for name in trials.columns}
        coordinates |= {
            name if name not in coordinates else f"voxel_{name}": ("voxel", _plain(table[name]))
            for name in table.columns
        }
        about = {"format": FORMAT, "sha256": self.sha256}
        return check_dataset(
            xr.Dataset({"responses": (("trial", "voxel"), self.responses(rows, voxels))}, coordinates, about)
        )


def check_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset itself, if it keeps the contract of a subject in memory.

    Raises:
        InputError: what is missing.
    """
    missing = [name for name in ("responses", *TRIAL_COLUMNS, "voxel") if name not in dataset.variables]
    if missing or dataset["responses"].dims != ("trial", "voxel"):
        raise InputError(
            f"expected responses (trial, voxel) with {' '.join(TRIAL_COLUMNS)} and voxel as coordinates; got "
            f"{dict(dataset.sizes)} without {', '.join(missing) or 'nothing'}. Make it with Subject.dataset()."
        )
    if not bool(np.isfinite(dataset["responses"].values).all()):
        raise InputError(
            "expected finite responses; got NaN or infinity. Write a subject folder, which masks them."
        )
    return dataset


def _plain(column: pd.Series) -> np.ndarray:
    return (
        column.to_numpy() if pd.api.types.is_numeric_dtype(column) else column.astype(str).to_numpy(dtype=str)
    )


def _indices(wanted: Rows, count: int, what: str) -> np.ndarray:
    if wanted is None:
        return np.arange(count)
    if isinstance(wanted, slice):
        return np.arange(count)[wanted]
    chosen = np.asarray(wanted)
    if chosen.dtype == bool:
        if chosen.shape != (count,):
            raise InputError(f"expected a mask of {count} {what}; got {chosen.shape}.")
        return np.flatnonzero(chosen)
    chosen = chosen.reshape(-1).astype(np.int64)
    if len(chosen) and (chosen.min() < -count or chosen.max() >= count):
        raise InputError(
            f"expected {what} below {count}; got {chosen.max() if chosen.max() >= count else chosen.min()}."
        )
    return np.where(chosen < 0, chosen + count, chosen)


def read_subject(folder: Path) -> Subject:
    """The subject of a folder, checked; its responses are not read yet.

    Raises:
        InputError: no such folder, a file that is missing, broken or of another format, tables that do not fit.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise InputError(
            f"expected a subject folder (manifest.json, responses.h5, trials.tsv, voxels.tsv); got {folder}. "
            "Make one with `radiata-decode prepare`."
        )
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "files" not in manifest:
        raise InputError(
            f"expected a manifest of format {FORMAT} in {folder}; got another one. Prepare the subject again."
        )
    shape = _stored_shape(folder / "responses.h5")
    trials = checked_trials(read_table(folder / "trials.tsv", TRIAL_COLUMNS), shape[0])
    voxels = checked_voxels(read_table(folder / "voxels.tsv", ("voxel",)), shape[1])
    return Subject(folder, trials, voxels, manifest)


def _stored_shape(path: Path) -> tuple[int, int]:
    if not path.is_file():
        raise InputError(f"expected responses in {path}; got no such file. Prepare the subject again.")
    with (
        foreign(
            f"expected an HDF5 file; got {path}, which cannot be read",
            "Was it cut short? Copy or prepare it again.",
        ),
        open_hdf5(path) as opened,
    ):
        form, stored = str(opened.attrs.get("format")), opened.get("responses")
        numbers = isinstance(stored, h5py.Dataset) and stored.dtype.kind == "f"
        shape = tuple(stored.shape or ()) if numbers else None
    if form != FORMAT or shape is None or len(shape) != 2:
        raise InputError(
            f"expected responses (trial, voxel) of format {FORMAT} in {path}; got format {form}, shape {shape}. Prepare the "
            "subject again."
        )
    return int(shape[0]), int(shape[1])
