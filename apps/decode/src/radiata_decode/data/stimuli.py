"""What was shown: pictures, films and their optical flow in one file, one row a stimulus.

    stimuli.h5    images (stimulus, y, x, 3) uint8 RGB            and/or
                  movies (stimulus, frame, y, x, 3) uint8          and/or
                  flow   (stimulus, step, 2, y, x) float32, pixels a frame step, x to the right and y downward;
                  attributes format "radiata-stimuli/1", frames_per_s
    stimuli.tsv   stimulus (name, in the order of the rows), group, category, caption

Rows are chunks: a stimulus is one read. Names may be asked for in any order and more than once (`stored_rows`). A
collection as large as NSD's 73 000 pictures (40 GB) stays where it is: the dataset here then holds the numbers of its rows
in the other file (`LinkedRows`), whose path is an attribute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import check_declared, foreign
from radiata_decode.data.stored_rows import stored_rows
from radiata_decode.data.tables import read_table, write_table
from radiata_imaging.hdf5 import new_hdf5, open_hdf5

__all__ = [
    "KINDS",
    "LinkedRows",
    "Stimuli",
    "StimulusArrays",
    "read_stimuli",
    "write_arrays",
    "write_stimuli",
]

FORMAT = "radiata-stimuli/1"
LINK = "linked_file"
KINDS: Mapping[str, tuple[str, int]] = {
    "images": ("uint8", 4),
    "movies": ("uint8", 5),
    "flow": ("float32", 5),
}
BLOCK = 32 * 2**20


@dataclass(frozen=True)
class LinkedRows:
    """Rows of a dataset in another HDF5 file, which is not copied.

    Attributes:
        file: The other file; it must stay where it is.
        dataset: Its name in there: `imgBrick`.
        rows: Which rows, in the order of the stimuli, each once.
    """

    file: Path
    dataset: str
    rows: np.ndarray


@dataclass(frozen=True)
class StimulusArrays:
    """Stimuli on their way to a file.

    Attributes:
        table: Column `stimulus`, and group, category, caption where they are known.
        images: (stimulus, y, x, 3) uint8, anything that is read by slices of rows.
        movies: (stimulus, frame, y, x, 3) uint8.
        flow: (stimulus, step, 2, y, x) float32.
        frames_per_s: Of the movies; needed with them.
    """

    table: pd.DataFrame
    images: Any = None
    movies: Any = None
    flow: Any = None
    frames_per_s: float | None = None


@dataclass(frozen=True)
class Stimuli:
    """Stimuli on the disk, read by name.

    Attributes:
        folder: With stimuli.h5 and stimuli.tsv.
        table: One row a stimulus.
        shapes: images, movies, flow → shape in the file.
        frames_per_s: Of the movies; None without.
    """

    folder: Path
    table: pd.DataFrame
    shapes: dict[str, tuple[int, ...]]
    frames_per_s: float | None

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Row of each name.

        Raises:
            InputError: a name that is not there.
        """
        places = {name: row for row, name in enumerate(self.table["stimulus"])}
        missing = [name for name in ids if name not in places]
        if missing:
            raise InputError(
                f"expected stimuli of {self.folder / 'stimuli.tsv'}; got {', '.join(map(str, missing[:3]))}"
                f"{', …' if len(missing) > 3 else ''}, {len(missing)} that are not there. Are they of another experiment?"
            )
        return np.array([places[name] for name in ids], dtype=np.int64)

    def images(self, ids: Sequence[str]) -> np.ndarray:
        """Pictures in the order asked for, (n, y, x, 3) uint8."""
        return self._read("images", ids)

    def movies(self, ids: Sequence[str]) -> np.ndarray:
        """Films, (n, frame, y, x, 3) uint8."""
        return self._read("movies", ids)

    def flow(self, ids: Sequence[str]) -> np.ndarray:
        """Optical flow, (n, step, 2, y, x) float32, pixels a frame step."""
        return self._read("flow", ids)

    def _read(self, kind: str, ids: Sequence[str]) -> np.ndarray:
        if kind not in self.shapes:
            raise InputError(
                f"expected {kind} in {self.folder / 'stimuli.h5'}; got {', '.join(self.shapes) or 'nothing'}. "
                "Prepare the subject with them."
            )
        rows = self.rows(ids)
        check_declared(
            np.dtype(KINDS[kind][0]).itemsize * len(rows) * int(np.prod(self.shapes[kind][1:], dtype=object)),
            self.folder / "stimuli.h5",
        )
        with foreign(
            f"expected {kind} in {self.folder / 'stimuli.h5'}; got what cannot be read", "Prepare them again."
        ):
            with open_hdf5(self.folder / "stimuli.h5") as opened:
                stored = opened[kind]
                if LINK not in stored.attrs:
                    return stored_rows(stored, rows, KINDS[kind][0])
                link = _link_of(stored)
            _linked(link)
            with open_hdf5(link.file) as other:
                return stored_rows(other[link.dataset], link.rows[rows], KINDS[kind][0])


def read_stimuli(folder: Path) -> Stimuli:
    """Stimuli of a subject folder; nothing of them is read yet.

    Raises:
        InputError: none are there, a broken file, a table of another length.
    """
    folder = Path(folder)
    file = folder / "stimuli.h5"
    if not file.is_file():
        raise InputError(
            f"expected stimuli.h5 and stimuli.tsv in {folder}; got none. Prepare the subject with its stimuli."
        )
    table = read_table(folder / "stimuli.tsv", ("stimulus",))
    with (
        foreign(
            f"expected an HDF5 file; got {file}, which cannot be read",
            "Was it cut short? Copy or prepare it again.",
        ),
        open_hdf5(file) as opened,
    ):
        form = str(opened.attrs.get("format"))
        given = opened.attrs.get("frames_per_s")
        rate = None if given is None else float(given)
        shapes = {kind: _shape(opened[kind]) for kind in KINDS if kind in opened}
    if form != FORMAT:
        raise InputError(f"expected stimuli of format {FORMAT} in {file}; got {form}. Prepare them again.")
    for kind, shape in shapes.items():
        if len(shape) != KINDS[kind][1]:
            raise InputError(
                f"expected {kind} of {KINDS[kind][1]} axes in {file}; got {shape}. Prepare them again."
            )
        if shape[0] != len(table):
            raise InputError(
                f"expected {shape[0]} rows in {folder / 'stimuli.tsv'}, as many as {kind}; got {len(table)}. Prepare again."
            )
    _check_names(table, str(folder / "stimuli.tsv"))
    return Stimuli(folder, table, shapes, rate)


def write_stimuli(
    folder: Path,
    table: pd.DataFrame,
    *,
    images: Any = None,
    movies: Any = None,
    flow: Any = None,
    frames_per_s: float | None = None,
    overwrite: bool = False,
) -> Stimuli:
    """Write stimuli.h5 and stimuli.tsv into a folder, a block of rows at a time, and return them.

    Raises:
        InputError: they exist, arrays of another type or shape, a name twice.
    """
    for file in (Path(folder) / "stimuli.h5", Path(folder) / "stimuli.tsv"):
        if file.exists() and not overwrite:
            raise InputError(
                f"expected a new file; got {file}, which exists. Pass --overwrite to replace it."
            )
    write_arrays(folder, StimulusArrays(table, images, movies, flow, frames_per_s))
    return read_stimuli(folder)


def write_arrays(folder: Path, stimuli: StimulusArrays) -> None:
    """The same for what `SubjectWriter.finish` is given."""
    folder = Path(folder)
    table = stimuli.table.reset_index(drop=True).copy()
    _check_names(table, "the stimuli table")
    table["stimulus"] = table["stimulus"].astype(str)
    arrays = {kind: getattr(stimuli, kind) for kind in KINDS if getattr(stimuli, kind) is not None}
    if not arrays:
        raise InputError("expected images, movies or flow of the stimuli; got none of them.")
    if "movies" in arrays and not (stimuli.frames_per_s and stimuli.frames_per_s > 0):
        raise InputError(f"expected frames a second > 0 with movies; got {stimuli.frames_per_s}.")
    for kind, array in arrays.items():
        _check_array(kind, array, len(table))
    with atomic_path(folder / "stimuli.h5") as part, new_hdf5(part) as opened:
        opened.attrs["format"] = FORMAT
        if stimuli.frames_per_s:
            opened.attrs["frames_per_s"] = float(stimuli.frames_per_s)
        for kind, array in arrays.items():
            if isinstance(array, LinkedRows):
                _link(opened, kind, array)
            else:
                _copy(opened, kind, array)
    write_table(table, folder / "stimuli.tsv")


def _check_names(table: pd.DataFrame, what: str) -> None:
    if "stimulus" not in table:
        raise InputError(f"expected a column stimulus in {what}; got {', '.join(map(str, table.columns))}.")
    names = table["stimulus"].astype(str)
    if names.duplicated().any():
        raise InputError(
            f"expected each stimulus once in {what}; got {names[names.duplicated()].iloc[0]} twice."
        )


def _check_array(kind: str, array: Any, count: int) -> None:
    dtype, axes = KINDS[kind]
    if isinstance(array, LinkedRows):
        shape, found = _linked(array)
        shape = (len(array.rows), *shape[1:])
    else:
        shape, found = tuple(array.shape), np.dtype(array.dtype)
    colours = kind == "flow" or shape[-1:] == (3,)
    if len(shape) != axes or shape[0] != count or not colours or (kind == "flow" and shape[2] != 2):
        form = {"images": "y, x, 3", "movies": "frame, y, x, 3", "flow": "step, 2, y, x"}[kind]
        raise InputError(f"expected {kind} of ({count}, {form}); got {shape}. Reorder or convert to RGB.")
    if found != np.dtype(dtype):
        raise InputError(f"expected {kind} of {dtype}; got {found}. Pictures are 0 to 255.")


def _linked(link: LinkedRows) -> tuple[tuple[int, ...], np.dtype]:
    try:
        with open_hdf5(link.file) as opened:
            stored = opened[link.dataset]
            shape, dtype = tuple(stored.shape), np.dtype(stored.dtype)
    except (OSError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise InputError(
            f"expected a dataset {link.dataset} in {link.file}; it cannot be read ({' '.join(str(error).split())}). "
            "Has it moved?"
        ) from None
    rows = np.asarray(link.rows)
    if len(rows) and (rows.min() < 0 or rows.max() >= shape[0]):
        raise InputError(f"expected rows below {shape[0]} of {link.file}; got {rows.max()}.")
    return shape, dtype


def _link(opened: h5py.File, kind: str, link: LinkedRows) -> None:
    """Numbers of the rows in place of the rows, and where they are."""
    _linked(link)
    stored = opened.create_dataset(kind, data=np.asarray(link.rows, np.int64))
    stored.attrs[LINK] = str(Path(link.file).resolve())
    stored.attrs["dataset"] = link.dataset


def _link_of(stored: h5py.Dataset) -> LinkedRows:
    return LinkedRows(Path(str(stored.attrs[LINK])), str(stored.attrs["dataset"]), stored[()])


def _shape(stored: h5py.Dataset) -> tuple[int, ...]:
    if LINK not in stored.attrs:
        return tuple(stored.shape)
    link = _link_of(stored)
    return (len(link.rows), *_linked(link)[0][1:])


def _copy(opened: h5py.File, kind: str, array: Any) -> None:
    shape = tuple(array.shape)
    packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if kind == "flow" else {}
    stored = opened.create_dataset(kind, shape, KINDS[kind][0], chunks=(1, *shape[1:]), **packing)
    size = int(np.prod(shape[1:])) * stored.dtype.itemsize
    step = max(1, BLOCK // max(1, size))
    for start in range(0, shape[0], step):
        stored[start : start + step] = np.asarray(array[start : start + step])
