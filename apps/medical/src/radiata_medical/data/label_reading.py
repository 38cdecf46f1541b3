"""A label map from a file: whole codes, known structures, and no image taken for one.

An image has noise: neighbouring voxels that are not background are seldom equal. In a label map they nearly always are. That
tells an 8-bit scan from a segmentation, whatever numbers either uses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.manifest import read_rows
from radiata_imaging.nifti import read_volume
from radiata_imaging.volume import Volume
from radiata_medical.data.structures import STRUCTURES, TISSUES, channels_of

__all__ = [
    "Codebook",
    "codebook",
    "equal_neighbours",
    "label_names",
    "like_labels",
    "read_labels",
    "read_whole_numbers",
]

_LABELS_FROM = (
    0.5  # share of equal neighbours; images of 8 bits have 0.12 and less, label maps of heads 0.85 and more
)


@dataclass(frozen=True)
class Codebook:
    """Which codes a label map may hold, and what they are called.

    Attributes:
        structures: Name of a structure to its codes; background is left out.
        groups: Name of a group to its codes.
        freesurfer: Whether the codes are those of `data.structures`, so that aliases and parcellated cortex are known too.
    """

    structures: Mapping[str, tuple[int, ...]]
    groups: Mapping[str, tuple[int, ...]]
    freesurfer: bool = True


def codebook(names: Path | None = None) -> Codebook:
    """The structures of a head, or those of a table with the columns `index` and `name` (a BIDS `dseg.tsv`).

    Raises:
        InputError: no such table, other columns, or an index that is no whole number.
    """
    if names is None:
        structures = {s.name: (s.code,) for s in STRUCTURES if s.code}
        return Codebook(structures, dict(TISSUES))
    if not names.is_file() or names.suffix.lower() not in (".tsv", ".csv"):
        raise InputError(f"expected a table of labels (.tsv, .csv); got {names}. Give index and name.")
    rows = read_rows(names)
    if not rows or not {"index", "name"} <= set(rows[0]):
        raise InputError(
            f"expected the columns index and name in {names}; got {', '.join(rows[0]) if rows else 'no row'}. "
            "Add them as in a BIDS dseg.tsv."
        )
    found: dict[str, tuple[int, ...]] = {}
    for row in rows:
        if not re.fullmatch("[0-9]{1,9}", row["index"]):
            raise InputError(f"expected whole indices in {names}; got {row['index']!r} for {row['name']}.")
        if int(row["index"]):
            found[row["name"]] = (*found.get(row["name"], ()), int(row["index"]))
    return Codebook(found, {}, freesurfer=False)


def label_names(table: Path) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Code to name and colour, of a BIDS `dseg.tsv`; the structures of a head where there is no such table.

    Raises:
        InputError: as `codebook`, or a colour that is not #rrggbb.
    """
    if not table.is_file():
        return {s.code: (s.name, s.colour) for s in STRUCTURES}
    names = {code: name for name, codes in codebook(table).structures.items() for code in codes}
    found = {}
    for row in read_rows(table):
        code, text = int(row["index"]), row.get("color") or "#808080"
        if not re.fullmatch("#[0-9a-fA-F]{6}", text):
            raise InputError(f"expected colours as #rrggbb in {table}; got {text!r}. Correct the row.")
        red, green, blue = bytes.fromhex(text[1:])
        found[code] = names.get(code, row["name"]), (red, green, blue)
    return found


def equal_neighbours(array: np.ndarray) -> float:
    """Share of neighbouring voxels, neither of them 0, that are equal, in [0, 1]; 1 where there are no such neighbours."""
    pairs = equal = 0
    for axis in range(array.ndim):
        lines = np.moveaxis(array, axis, 0)
        both = (lines[:-1] != 0) & (lines[1:] != 0)
        pairs += int(both.sum())
        equal += int((both & (lines[:-1] == lines[1:])).sum())
    return equal / pairs if pairs else 1.0


def like_labels(array: np.ndarray) -> bool:
    """Whether an array (x, y, z) is a label map: whole numbers, at least half of whose neighbours inside are equal."""
    return np.array_equal(array, np.rint(array)) and equal_neighbours(array) >= _LABELS_FROM


def read_labels(path: Path, book: Codebook | None = None) -> tuple[np.ndarray, Volume]:
    """Codes, int32 (x, y, z), and the volume they came in.

    Codes of finer FreeSurfer maps are those of the structures they belong to (parcellated cortex is cortex).

    Args:
        path: Of the label map.
        book: Codes that are known; None: those of `data.structures`.

    Raises:
        InputError: it cannot be read; an image; fractions or negative numbers; unknown codes.
    """
    book = book or codebook()
    volume = read_whole_numbers(path)
    array = volume.array
    share = equal_neighbours(array)
    if share < _LABELS_FROM:
        raise InputError(
            f"expected a label map; got an image ({np.unique(array).size} grey levels, {share:.0%} of neighbours equal) in "
            f"{path}. Give its segmentation."
        )
    codes = array.astype(np.int32)
    if book.freesurfer:
        table = np.array([structure.code for structure in STRUCTURES], np.int32)
        return table[channels_of(codes, str(path))], volume
    known = {code for group in book.structures.values() for code in group} | {0}
    strange = sorted(set(np.unique(codes).tolist()) - known)
    if strange:
        raise InputError(
            f"expected the codes of the table in {path}; got {', '.join(map(str, strange[:5]))} too. Add a row, or relabel."
        )
    return codes, volume


def read_whole_numbers(path: Path) -> Volume:
    """A volume of whole numbers >= 0, whatever they stand for.

    Raises:
        InputError: it cannot be read, or has fractions or negative numbers.
    """
    volume = read_volume(path, allow_constant=True, min_axis=1)
    array = volume.array
    if not np.array_equal(array, np.rint(array)) or array.min() < 0:
        raise InputError(
            f"expected a label map of whole codes >= 0; got {array.min():g} to {array.max():g} with fractions or negative "
            f"numbers in {path}. Is it an image, or a map that was interpolated?"
        )
    return volume
