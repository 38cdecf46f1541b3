"""Responses in an array of one's own: .npy, .npz, .h5, .mat, .csv or .tsv, one row a trial, and a table of the trials.

    responses   (trial, voxel), numbers; a name (`key`) where a file holds several arrays
    trials      stimulus, and session, run, repeat, split, category ... where they are known
    voxels      optional: x y z, hemisphere vertex, ncsnr, roi_<NAME>

.npy and .h5 are read a block of trials at a time. MATLAB 7.3 files are HDF5 with reversed axes, which is undone. Pickled
objects (.npy of dtype object, such as GLMsingle's TYPED_*.npy) are refused: save the betas alone.
"""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_decode.data.reading import Part, Reading, existing_file
from radiata_decode.data.resized_pictures import named_pictures, picture_files
from radiata_decode.data.surface_files import load_array
from radiata_decode.data.tables import read_table
from radiata_imaging.hdf5 import open_hdf5
from radiata_imaging.mat_files import load_mat, mat_shapes
from radiata_imaging.numpy_files import npz_arrays, npz_shapes

__all__ = ["SUFFIXES", "read_arrays", "read_rows", "read_trials"]

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".csv", ".tsv")
BLOCK = 64 * 2**20


def read_trials(path: Path) -> pd.DataFrame:
    """A table of trials, .tsv or .csv.

    Raises:
        InputError: no such file, not a table, no column stimulus.
    """
    if path.suffix != ".csv":
        return read_table(path, ("stimulus",))
    existing_file(path, "the table of trials")
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(  # without index_col rows of more cells than the header become an index of many levels
                path,
                dtype={"stimulus": str, "split": str, "category": str},
                keep_default_na=False,
                index_col=False,
            )
    except (
        ValueError,
        OverflowError,
        pd.errors.ParserWarning,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
    ) as error:
        raise InputError(
            f"expected comma-separated values in {path}; got something else ({' '.join(str(error).split())})."
        ) from None
    if "stimulus" not in table:
        raise InputError(f"expected a column stimulus in {path}; got {', '.join(map(str, table.columns))}.")
    return table


def _arrays_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of the arrays of two axes in a file."""
    import h5py

    if path.suffix == ".npz":
        return {name: shape for name, shape in npz_shapes(path).items() if len(shape) == 2}
    if _is_hdf5(path):
        found: dict[str, tuple[int, ...]] = {}
        with open_hdf5(path) as opened:
            opened.visititems(
                lambda name, item: (
                    found.__setitem__(name, item.shape)
                    if isinstance(item, h5py.Dataset) and item.ndim == 2 and item.dtype.kind in "fiu"
                    else None
                )
            )
        return {
            name: shape[::-1] if path.suffix == ".mat" else shape
            for name, shape in found.items()
            if not name.startswith("#")
        }
    return {
        name: shape
        for name, shape, kind in mat_shapes(path)
        if len(shape) == 2 and kind not in ("char", "cell", "struct")
    }


def _is_hdf5(path: Path) -> bool:
    import h5py

    return path.suffix in (".h5", ".hdf5") or (path.suffix == ".mat" and bool(h5py.is_hdf5(path)))


def open_rows(path: Path, key: str | None = None) -> tuple[str | None, tuple[int, int]]:
    """Name and shape of the array in a file.

    Raises:
        InputError: an unknown format, a broken file, several arrays and no key, or not two axes.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"expected a file ending in {', '.join(SUFFIXES)}; got {path}. Save the responses in one of them."
        )
    existing_file(path, "responses")
    if path.suffix == ".npy":
        shape = load_array(path, lazy=True).shape
    elif path.suffix in (".csv", ".tsv"):
        shape = _text(path).shape
    else:
        try:
            found = _arrays_of(path)
        except InputError:
            raise
        except Exception as error:  # zip, HDF5 and MATLAB files break in ways of their own
            raise InputError(
                f"expected arrays in {path}; got what cannot be read ({' '.join(str(error).split())[:120]}). Save it again."
            ) from None
        if key is None and len(found) != 1:
            raise InputError(
                f"expected --key, the name of the responses in {path}; got none, of {', '.join(found) or 'no array'}."
            )
        key = key or next(iter(found))
        if key not in found:
            raise InputError(
                f"expected an array {key} of (trial, voxel) in {path}; got {', '.join(found) or 'none'}. Check --key."
            )
        shape = found[key]
    if len(shape) != 2 or 0 in shape:
        raise InputError(
            f"expected responses of (trial, voxel) in {path}; got shape {shape}. Reshape or mask them."
        )
    return key, (int(shape[0]), int(shape[1]))


def _text(path: Path) -> np.ndarray:
    with foreign(f"expected a table of numbers in {path}; got something else", "Save it again."):
        check_declared(path.stat().st_size, path)
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", header=None, comment="#")
        if not all(pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes):
            table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", comment="#")
        return table.to_numpy(np.float32)


def read_rows(path: Path, key: str | None, start: int, stop: int) -> np.ndarray:
    """Some rows, (trial, voxel) float32; `key` as `open_rows` gave it.

    Raises:
        InputError: they cannot be read.
    """
    with foreign(f"expected rows {start} to {stop} of responses in {path}; got what cannot be read"):
        return _rows(path, key, start, stop)


def _rows(path: Path, key: str | None, start: int, stop: int) -> np.ndarray:
    """The same, with what each format raises."""
    if path.suffix == ".npy":
        return np.array(load_array(path, lazy=True)[start:stop], np.float32)
    if path.suffix in (".csv", ".tsv"):
        return _text(path)[start:stop]
    if _is_hdf5(path):
        with open_hdf5(path) as opened:
            stored = opened[key]
            return np.asarray(
                stored[:, start:stop].T if path.suffix == ".mat" else stored[start:stop], np.float32
            )
    name = str(key)
    if path.suffix == ".npz":
        return np.asarray(npz_arrays(path, (name,))[name][start:stop], np.float32)
    return np.asarray(load_mat(path, [name])[name][start:stop], np.float32)


def read_arrays(
    path: Path,
    trials: Path | None,
    *,
    key: str | None = None,
    voxels: Path | None = None,
    images: Path | None = None,
    image_size: int | None = None,
) -> Reading:
    """Responses and their table, in parts of at most 64 MiB.

    Args:
        path: Of the responses.
        trials: Table of the trials, .tsv or .csv.
        key: Name of the array in the file.
        voxels: Table of the voxels.
        images: Folder of pictures named after the stimuli.
        image_size: Pixels of a side; None: 425.

    Raises:
        InputError: lengths that do not agree, and what else cannot be read.
    """
    name, (count, width) = open_rows(path, key)
    if trials is None:
        raise InputError(
            f"expected --trials, a table with a row for each of {count} trials; got none. Write stimulus, "
            "session, run, split."
        )
    table = read_trials(trials)
    if len(table) != count:
        raise InputError(
            f"expected one row of {trials} for each of {count} responses in {path}; got {len(table)}. Is a "
            "run missing in one of them?"
        )
    known = pd.DataFrame(index=range(width)) if voxels is None else read_table(voxels)
    if len(known) != width:
        raise InputError(
            f"expected one row of {voxels} for each of {width} voxels; got {len(known)}. Is it of another mask?"
        )
    step = max(1, BLOCK // (4 * width))
    parts = [
        Part(
            f"rows-{start:07d}",
            table.iloc[start : start + step].reset_index(drop=True),
            partial(read_rows, path, name, start, min(start + step, count)),
            (path,),
        )
        for start in range(0, count, step)
    ]
    stimuli = None if images is None else partial(named_pictures, picture_files(images), image_size)
    return Reading(tuple(parts), known, {}, stimuli, tuple(p for p in (trials, voxels) if p))
