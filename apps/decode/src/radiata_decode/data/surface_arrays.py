"""Responses on both hemispheres that are betas already: the Algonauts challenge, and folders of GIFTI or MGH sessions.

    subj01/training_split/training_fmri/{lh,rh}_training_fmri.npy      (trial, vertex), averages over repeats
    subj01/training_split/training_images/train-0001_nsd-00013.png     in the order of the trials
    subj01/roi_masks/{lh,rh}.prf-visualrois_challenge_space.npy        a label a vertex
    subj01/roi_masks/{lh,rh}.all-vertices_fsaverage_space.npy          which vertices of fsaverage they are

or any folder with `{lh,rh}*` (or `hemi-{L,R}`) files and a table of trials whose rows are theirs, session after session in
the order of their names. The challenge keeps the answers to its own test pictures: a test has to be taken from the
training pictures.

References:
    A. Gifford et al. (2023). The Algonauts Project 2023 Challenge. https://arxiv.org/abs/2301.03198.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data.reading import Part, Reading, existing_folder, natural_order
from radiata_decode.data.regions import COLLECTIONS, region_columns
from radiata_decode.data.resized_pictures import named_pictures, picture_files
from radiata_decode.data.surface_files import (
    SURFACES,
    load_array,
    surface_length,
    surface_series,
    surface_values,
)
from radiata_decode.data.tables import read_table

__all__ = ["read_surface"]


def read_surface(
    folder: Path,
    *,
    trials: Path | None = None,
    mask: str | None = None,
    rois: tuple[str, ...] | None = None,
    images: Path | None = None,
    image_size: int | None = None,
) -> Reading:
    """Responses on the surface, one part a pair of files.

    Args:
        folder: A subject of the challenge, or a folder of hemisphere files.
        trials: Table of the trials; of the challenge, None: one trial a picture.
        mask: Prefix of a pair of label files, `{lh,rh}.MASK.*` or `{lh,rh}_MASK.*`; vertices above 0 are kept.
        rois: Collections; None: those that are there.
        images: Folder of pictures named after the stimuli.
        image_size: Pixels of a side; None: 425.

    Raises:
        InputError: hemispheres that do not fit, no table, a picture that is missing.
    """
    folder = existing_folder(folder, "a folder of hemisphere files")
    training = folder / "training_split" if (folder / "training_split").is_dir() else folder
    if (training / "training_fmri").is_dir():
        return _algonauts(folder, training, trials, rois, image_size)
    pairs = _pairs(folder)
    if trials is None:
        raise InputError(
            f"expected --trials, the table of the trials in {folder}; got none. Write stimulus, session, run, split."
        )
    table = read_table(trials, ("stimulus",))
    counts = [surface_length(file) for file in pairs[0]]
    inside = [np.ones(count, bool) for count, _ in counts]
    read = [trials]
    if mask:
        files = [_side(folder, side, mask) for side in SURFACES]
        inside = [surface_values(file, len(kept)) > 0 for file, kept in zip(files, inside, strict=True)]
        read += files
    parts = tuple(_parts(pairs, table, inside))
    voxels = _vertices([np.flatnonzero(side) for side in inside])
    for name in rois or ():
        files = [_side(folder, side, name) for side in SURFACES]
        labels = [surface_values(f, len(kept))[kept] for f, kept in zip(files, inside, strict=True)]
        voxels = voxels.assign(**region_columns(name, np.concatenate(labels)))
        read += files
    stimuli = None if images is None else partial(named_pictures, picture_files(images), image_size)
    return Reading(parts, voxels, {}, stimuli, tuple(read))


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    suffixes = (".mgh", ".mgz", ".func.gii", ".shape.gii", ".npy")
    files = sorted(
        (p for p in folder.iterdir() if p.name.endswith(suffixes)), key=lambda p: natural_order(p.name)
    )
    lefts = [p for p in files if p.name.startswith("lh") or "hemi-L" in p.name]
    lefts = [p for p in lefts if surface_length(p)[1] > 1] or lefts
    if not lefts:
        raise InputError(
            f"expected files of both hemispheres (lh*, rh*, or hemi-L, hemi-R) in {folder}; got none."
        )
    pairs = []
    for left in lefts:
        name = "rh" + left.name[2:] if left.name.startswith("lh") else left.name.replace("hemi-L", "hemi-R")
        if not (folder / name).is_file():
            raise InputError(
                f"expected {folder / name} beside {left.name}; got no such file. Both hemispheres are needed."
            )
        pairs.append((left, folder / name))
    return pairs


def _parts(pairs: list[tuple[Path, Path]], table: pd.DataFrame, inside: list[np.ndarray]) -> list[Part]:
    parts, start = [], 0
    for number, pair in enumerate(pairs, start=1):
        sizes = [surface_length(file) for file in pair]
        if sizes[0][1] != sizes[1][1] or any(
            n != len(kept) for (n, _), kept in zip(sizes, inside, strict=True)
        ):
            raise InputError(
                f"expected as many trials in both hemispheres, and the vertices of the first file; got {sizes[0][1]} × "
                f"{sizes[0][0]} in {pair[0]}, {sizes[1][1]} × {sizes[1][0]} in {pair[1].name}."
            )
        rows = table.iloc[start : start + sizes[0][1]].reset_index(drop=True)
        if "session" not in rows:
            rows = rows.assign(session=number)
        parts.append(Part(f"part-{number:03d}", rows, partial(_read, pair, inside), pair))
        start += sizes[0][1]
    if start != len(table):
        raise InputError(
            f"expected one row of the trials table for each of {start} trials in the hemisphere files; got "
            f"{len(table)}. Is a session missing in one of them?"
        )
    return parts


def _read(pair: tuple[Path, Path], inside: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([surface_series(f)[:, kept] for f, kept in zip(pair, inside, strict=True)], axis=1)


def _side(folder: Path, side: str, name: str) -> Path:
    for found in sorted(folder.glob(f"{side}[._]{name}*")):
        return found
    raise InputError(f"expected {side}.{name}.* in {folder}; got none. Check the name of the mask or region.")


def _vertices(sides: list[np.ndarray]) -> pd.DataFrame:
    words = np.repeat(list(SURFACES.values()), [len(side) for side in sides])
    return pd.DataFrame({"hemisphere": words, "vertex": np.concatenate(sides)})


def _algonauts(
    folder: Path, training: Path, trials: Path | None, rois: tuple[str, ...] | None, image_size: int | None
) -> Reading:
    pair = tuple(training / "training_fmri" / f"{side}_training_fmri.npy" for side in SURFACES)
    arrays = [load_array(file, lazy=True) for file in pair]
    files = picture_files(training / "training_images")
    if len({len(array) for array in arrays} | {len(files)}) != 1:
        raise InputError(
            f"expected one picture a trial in {training}; got {len(arrays[0])} and {len(arrays[1])} trials "
            f"(left, right) and {len(files)} pictures. Unpack it again."
        )
    table = pd.DataFrame({"stimulus": list(files)}) if trials is None else read_table(trials, ("stimulus",))
    if len(table) != len(files):
        raise InputError(f"expected {len(files)} rows in {trials}, one a trial; got {len(table)}.")
    masks = folder / "roi_masks"
    sides = [np.arange(array.shape[1]) for array in arrays]
    read: list[Path] = []
    for place, side in enumerate(SURFACES):
        known = masks / f"{side}.all-vertices_fsaverage_space.npy"
        if known.is_file():
            sides[place] = _challenge_vertices(known, arrays[place].shape[1])
            read.append(known)
    voxels = _vertices(sides)
    for name in rois if rois is not None else COLLECTIONS:
        both = [masks / f"{side}.{name}_challenge_space.npy" for side in SURFACES]
        if not all(path.is_file() for path in both):
            if rois is not None:
                raise InputError(
                    f"expected the regions {both[0]} and of rh; got no such files. Leave {name} out of --rois."
                )
            continue
        labels = [load_array(path).reshape(-1) for path in both]
        for path, values, array in zip(both, labels, arrays, strict=True):
            if len(values) != array.shape[1]:
                raise InputError(
                    f"expected a label for each of {array.shape[1]} vertices in {path}; got {len(values)}."
                )
        voxels = voxels.assign(**region_columns(name, np.concatenate(labels)))
        read += both
    inside = [np.ones(array.shape[1], bool) for array in arrays]
    parts = (Part("training", table, partial(_read, pair, inside), pair),)  # type: ignore[arg-type]
    about = {"dataset": "Algonauts 2023", "space": "challenge vertices of fsaverage"}
    return Reading(parts, voxels, about, partial(named_pictures, files, image_size), tuple(read))


def _challenge_vertices(path: Path, count: int) -> np.ndarray:
    found = np.flatnonzero(load_array(path).reshape(-1) > 0)
    if len(found) != count:
        raise InputError(
            f"expected {count} vertices marked in {path}; got {len(found)}. Is it of another subject?"
        )
    return found
