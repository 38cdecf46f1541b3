"""Subject folders, written part by part: a session at a time, resumed where an interruption stopped.

Each part (a session, a run) is kept beside the folder to come, in `.<folder>.parts/`, as soon as it is whole. When all
are there, `finish` copies them trial block by trial block into one `responses.h5` – without the voxels in which any
trial is NaN or infinite, which it counts – and the folder appears at once. Memory: one part, never the whole subject.

An interrupted `prepare` that is started again with the same options finds its parts (`done`); with other options, or
for another source, they are thrown away, since they would not fit.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.files import atomic_folder, atomic_path, plain, read_json, remove_folder, sha256, write_json
from radiata_decode.data.sidecar import generated_by, source_list
from radiata_decode.data.subject_tables import checked_trials, checked_voxels
from radiata_decode.data.tables import write_table
from radiata_imaging.hdf5 import new_hdf5

if TYPE_CHECKING:
    from radiata_decode.data.stimuli import StimulusArrays
    from radiata_decode.data.subject import Subject

__all__ = ["FORMAT", "SubjectWriter", "write_subject"]

FORMAT = "radiata-subject/1"
CHUNK = 2**20  # bytes of a chunk of responses.h5: whole trials, so that a trial is one read


class SubjectWriter:
    """Collects the parts of one subject; see the module.

    Args:
        folder: The subject folder to come.
        options: What the parts depend on; parts of an earlier attempt are kept if it had the same.
        dtype: Of the responses on the disk, float32 or float16.
        overwrite: Replace a folder that exists.

    Raises:
        InputError: the folder exists, or another type.
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, Any] | None = None,
        *,
        dtype: str = "float32",
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and (not overwrite or not self.folder.is_dir()):
            raise InputError(
                f"expected a new folder; got {self.folder}, which exists. Choose another --out, or pass --overwrite."
            )
        if (
            self.folder.exists()
            and any(self.folder.iterdir())
            and not (self.folder / "manifest.json").is_file()
        ):
            raise InputError(
                f"expected a subject folder to overwrite; got {self.folder}, which holds other files. Choose another --out."
            )
        if dtype not in ("float32", "float16"):
            raise InputError(f"expected responses in float32 or float16; got {dtype}.")
        self.dtype = dtype
        self.parts = self.folder.with_name(f".{self.folder.name}.parts")
        wanted = json.loads(json.dumps(plain({"options": dict(options or {}), "dtype": dtype})))
        record = self.parts / "options.json"
        if self.parts.exists() and (not record.is_file() or read_json(record) != wanted):
            shutil.rmtree(self.parts)
        self.parts.mkdir(parents=True, exist_ok=True)
        if not record.is_file():
            write_json(record, wanted)

    @property
    def done(self) -> list[str]:
        """Names of the parts that are there already, in their order."""
        return list(self._index())

    def append(self, name: str, responses: np.ndarray, trials: pd.DataFrame) -> None:
        """Keep one part; a part of the same name is replaced.

        Args:
            name: Of the part: `session-07`.
            responses: (trial, voxel); values that are not finite mask their voxel in the whole subject.
            trials: One row a trial: `stimulus`, `split`, and what else is known of it.

        Raises:
            InputError: lengths or voxel counts that do not agree, values beyond float16.
        """
        values = np.asarray(responses)
        if values.ndim != 2 or 0 in values.shape:
            raise InputError(
                f"expected responses of (trial, voxel) in part {name}; got shape {values.shape}."
            )
        checked_trials(trials, len(values))
        index = self._index()
        for other, file in index.items():
            if other != name and _shape(file)[1] != values.shape[1]:
                raise InputError(
                    f"expected {_shape(file)[1]} voxels in part {name}, as in {other}; got {values.shape[1]}. Use one mask."
                )
        finite = np.isfinite(values)
        with np.errstate(over="ignore"):
            small = values.astype(self.dtype)
        if (finite & ~np.isfinite(small)).any():
            raise InputError(
                f"expected responses within ±65504 for float16 in part {name}; got {np.abs(values[finite]).max():g}. "
                "Write float32."
            )
        file = index.get(name, self.parts / f"{len(index):05d}.h5")
        with atomic_path(file) as part, new_hdf5(part) as opened:
            opened.create_dataset("responses", data=small, chunks=_chunks(small.shape, small.dtype.itemsize))
            opened.create_dataset("bad", data=~finite.all(0))
            opened.create_dataset("trials", data=_as_text(trials))
            opened.attrs["name"] = name
            opened.attrs["bad_trials"] = int((~finite).all(1).sum())

    def finish(
        self,
        voxels: pd.DataFrame | None = None,
        manifest: Mapping[str, Any] | None = None,
        stimuli: "StimulusArrays | None" = None,
        beside: Callable[[Path], None] | None = None,
    ) -> "Subject":
        """Join the parts into the subject folder and return it.

        Args:
            voxels: One row a voxel of the parts; None: numbers only.
            manifest: What is known of the source: `source`, `options`, `zscore`, `repetition_time_s`, `SyntheticData`;
                `Sources` maps the name of an input to its SHA-256.
            stimuli: What was shown, written into the same folder.
            beside: Writes what else belongs into the folder, which has not got its name yet.

        Raises:
            InputError: no part, tables that do not fit, a stimulus in two splits, no voxel that is finite throughout.
        """
        from radiata_decode.data.stimuli import write_arrays
        from radiata_decode.data.subject import read_subject

        files = self._index()
        if not files:
            raise InputError(f"expected at least one part for {self.folder}; got none.")
        trials = checked_trials(pd.concat([_trials(file) for file in files.values()], ignore_index=True))
        bad = np.any([_array(file, "bad") for file in files.values()], axis=0)
        table = checked_voxels(pd.DataFrame(index=range(len(bad))) if voxels is None else voxels, len(bad))
        if bad.all():
            empty = sum(_attribute(file, "bad_trials") for file in files.values())
            raise InputError(
                f"expected a voxel that is finite in every trial; got none of {len(bad)} ({empty} trials have no finite "
                "value at all). Leave out those trials, or mask the background."
            )
        with atomic_folder(self.folder) as folder:
            _join(folder / "responses.h5", list(files.values()), ~bad, len(trials), self.dtype)
            write_table(trials, folder / "trials.tsv")
            write_table(table[~bad], folder / "voxels.tsv")
            if stimuli is not None:
                write_arrays(folder, stimuli)
            card = self._card(folder, trials, table, bad, dict(manifest or {}))
            write_json(folder / "manifest.json", card)
            if beside is not None:
                beside(folder)
        self.discard()
        return read_subject(self.folder)

    def discard(self) -> None:
        """Throw the parts away."""
        remove_folder(self.parts)

    def _card(
        self, folder: Path, trials: pd.DataFrame, voxels: pd.DataFrame, bad: np.ndarray, about: dict[str, Any]
    ) -> dict[str, Any]:
        sources = about.pop("Sources", {})
        masked = voxels["voxel"][bad].tolist()
        counts = trials["split"].value_counts()
        return {
            "format": FORMAT,
            "GeneratedBy": generated_by(),
            "Sources": source_list(sources) if isinstance(sources, Mapping) else sources,
            "SyntheticData": bool(about.pop("SyntheticData", False)),
            **about,
            "trials": {str(name): int(counts[name]) for name in counts.index},
            "stimuli": {
                str(name): int(group.nunique()) for name, group in trials.groupby("split")["stimulus"]
            },
            "voxels": int((~bad).sum()),
            "masked_voxels": {"not_finite": len(masked), "first": masked[:1000]},
            "files": {
                file.name: sha256(file) for file in sorted(folder.iterdir()) if not file.name.startswith(".")
            },
        }

    def _index(self) -> dict[str, Path]:
        return {
            str(_attribute(file, "name")): file
            for file in sorted(self.parts.glob("*.h5"))
            if not file.name.startswith(".")
        }


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    return min(shape[0], max(1, CHUNK // (itemsize * shape[1]))), shape[1]


def _shape(file: Path) -> tuple[int, ...]:
    with h5py.File(file, "r") as opened:
        return tuple(opened["responses"].shape)


def _array(file: Path, name: str) -> np.ndarray:
    with h5py.File(file, "r") as opened:
        return opened[name][()]


def _attribute(file: Path, name: str) -> Any:
    with h5py.File(file, "r") as opened:
        return opened.attrs[name]


def _trials(file: Path) -> pd.DataFrame:
    text = _array(file, "trials")
    return pd.DataFrame(json.loads(bytes(text)))


def _as_text(trials: pd.DataFrame) -> str:
    """Columns as JSON lists: a table inside the part that it belongs to."""
    return json.dumps({str(name): trials[name].tolist() for name in trials.columns}, default=str)


def _join(path: Path, files: list[Path], kept: np.ndarray, trials: int, dtype: str) -> None:
    """Parts one below the other without the voxels that are not kept, a block at a time."""
    shape = (trials, int(kept.sum()))
    with new_hdf5(path) as opened:
        opened.attrs["format"] = FORMAT
        whole = opened.create_dataset(
            "responses", shape, dtype, chunks=_chunks(shape, np.dtype(dtype).itemsize)
        )
        start = 0
        for file in files:
            with h5py.File(file, "r") as part:
                stored = part["responses"]
                step = max(1, 16 * CHUNK // (stored.dtype.itemsize * stored.shape[1]))
                for row in range(0, len(stored), step):
                    block = stored[row : row + step][:, kept]
                    whole[start : start + len(block)] = block
                    start += len(block)


def write_subject(
    folder: Path,
    responses: np.ndarray,
    trials: pd.DataFrame,
    voxels: pd.DataFrame | None = None,
    manifest: Mapping[str, Any] | None = None,
    stimuli: "StimulusArrays | None" = None,
    *,
    dtype: str = "float32",
    overwrite: bool = False,
) -> "Subject":
    """A subject that is in memory already, written in one part. See `SubjectWriter`."""
    writer = SubjectWriter(folder, {"parts": "one"}, dtype=dtype, overwrite=overwrite)
    try:
        writer.append("whole", responses, trials)
        return writer.finish(voxels, manifest, stimuli)
    finally:
        writer.discard()
