r"""Faces, houses and six other categories: block trials of Haxby et al. (2001).

Two layouts are read. PyMVPA's: `bold.nii.gz`, `mask.nii.gz` and `attributes.txt`, one line a volume with its label (0
is rest) and run. OpenfMRI's: `sub001/BOLD/task001_run001/bold*.nii.gz` with
`model/model001/onsets/task001_run001/cond001.txt`, one line an onset (onset, duration, weight; seconds).

From each run and voxel a polynomial in time is removed, and what remains is divided by its standard deviation in that run:
both look at the run as a whole and know no label. A block of 22.5 s becomes one trial, the mean of its volumes moved by
`lag_s` for the haemodynamics. Trials of a block are one stimulus (`face_run-03`): other pictures of the category were
shown in other runs, and a split by run leaves no stimulus on both sides.

References:
    J. Haxby et al. (2001). Distributed and overlapping representations of faces and objects in ventral temporal cortex.
    Science 293.
    M. Hanke et al. (2009). PyMVPA: a Python toolbox for multivariate pattern analysis of fMRI data. Neuroinformatics 7.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign, foreign_text
from radiata_decode.data.reading import Part, Reading, existing_file, existing_folder
from radiata_decode.data.volumes import masked_series, read_mask, series_length, voxel_positions

__all__ = [
    "CATEGORIES",
    "CategoryRuns",
    "block_trials",
    "detrended",
    "read_category_runs",
    "read_haxby",
    "shipped_example",
]

CATEGORIES = ("rest", "face", "house", "shoe", "cat", "scissors", "scrambledpix", "bottle", "chair")
"""Names of the labels 0 to 8 of `attributes.txt`."""


@dataclass(frozen=True)
class CategoryRuns:
    """Time series in which each volume has a category.

    Attributes:
        series: (time, voxel) float32, as measured.
        category: (time,) words; `rest` between blocks.
        run: (time,) whole numbers from 1.
        repetition_time_s: Seconds between volumes.
        voxels: x, y, z in mm.
        files: That were read.
    """

    series: np.ndarray
    category: np.ndarray
    run: np.ndarray
    repetition_time_s: float
    voxels: pd.DataFrame
    files: tuple[Path, ...]


def shipped_example() -> Path:
    """Folder of the slice that ships with the application, PyMVPA's layout; see its NOTICE.md."""
    return Path(str(files("radiata_decode.example"))) / "haxby"


def read_category_runs(folder: Path, mask: Path | None = None) -> CategoryRuns:
    """All runs of a subject.

    Args:
        folder: PyMVPA's layout, or a subject of OpenfMRI's.
        mask: Other than `mask.nii.gz` beside the series.

    Raises:
        InputError: neither layout, tables and series of different length, a broken file.
    """
    folder = existing_folder(folder, "a folder with bold.nii.gz and attributes.txt")
    if (folder / "BOLD").is_dir():
        return _openfmri(folder, mask)
    bold = existing_file(
        folder / "bold.nii.gz", "the series", "Name the folder of bold.nii.gz, mask.nii.gz, attributes.txt."
    )
    table = existing_file(folder / "attributes.txt", "labels and runs")
    mask = existing_file(mask or folder / "mask.nii.gz", "the mask")
    _, count, repetition = series_length(bold)
    labels, runs = _attributes(table, count)
    inside, affine = read_mask(mask)
    return CategoryRuns(
        masked_series(bold, inside),
        labels,
        runs,
        repetition,
        voxel_positions(inside, affine),
        (bold, mask, table),
    )


def _attributes(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    lines = [line.split() for line in foreign_text(path, "labels and runs").splitlines() if line.strip()]
    if lines and lines[0][:1] == ["labels"]:
        lines = lines[1:]
    if len(lines) != count:
        raise InputError(
            f"expected one line of {path} for each of {count} volumes; got {len(lines)}. Is a run missing?"
        )
    if any(len(line) != 2 or not re.fullmatch("[0-9]{1,9}", line[1]) for line in lines):
        raise InputError(
            f"expected a label and the number of a run in each line of {path}; got something else."
        )
    words = [line[0] for line in lines]
    if all(re.fullmatch("[0-9]{1,9}", word) for word in words):
        if max(map(int, words)) >= len(CATEGORIES):
            raise InputError(
                f"expected labels 0 to {len(CATEGORIES) - 1} in {path}; got {max(map(int, words))}. Write names."
            )
        words = [CATEGORIES[int(word)] for word in words]
    return np.array(words), np.array([int(line[1]) for line in lines]) + 1


def _openfmri(folder: Path, mask: Path | None) -> CategoryRuns:
    runs = sorted((folder / "BOLD").glob("task001_run*"))
    masks = [mask] if mask else sorted((folder / "masks").glob("**/brain.nii.gz"))
    if not runs or not masks:
        raise InputError(
            f"expected runs in {folder / 'BOLD'} and a mask; got {len(runs)} and {len(masks)}. Pass --mask."
        )
    names = _conditions(folder)
    inside, affine = read_mask(Path(masks[0]))
    series, words, numbers, read = [], [], [], [Path(masks[0])]
    repetition = 0.0
    for number, run in enumerate(runs, start=1):
        bold = _fitting(run, inside.shape)
        series.append(masked_series(bold, inside))
        repetition = series_length(bold)[2]
        label = np.full(len(series[-1]), "rest", dtype=object)
        for file in sorted((folder / "model" / "model001" / "onsets" / run.name).glob("cond*.txt")):
            read.append(file)
            with foreign(f"expected onsets and durations in {file}; got something else"):
                rows = np.loadtxt(file, ndmin=2)
                if rows.size and (rows.shape[1] < 2 or not np.isfinite(rows[:, :2]).all()):
                    raise ValueError(f"{rows.shape[1]} columns, or no numbers")
            for onset, duration, *_ in rows:
                times = np.arange(len(label)) * repetition
                label[(times >= onset - 1e-6) & (times < onset + max(duration, repetition) - 1e-6)] = (
                    names.get(file.stem, file.stem)
                )
        words.append(_filled(label))
        numbers.append(np.full(len(label), number))
        read.append(bold)
    return CategoryRuns(
        np.concatenate(series), np.concatenate(words).astype(str), np.concatenate(numbers), repetition,
        voxel_positions(inside, affine), tuple(read),
    )  # fmt: skip


def _fitting(run: Path, grid: tuple[int, ...]) -> Path:
    """The series of a run on the grid of the mask: some folders hold several."""
    found = sorted(run.glob("bold*.nii.gz"))
    for file in found:
        if series_length(file)[0] == grid:
            return file
    shape = "×".join(map(str, grid))
    raise InputError(
        f"expected a series on the grid of the mask, {shape}, in {run}; got {len(found)} others. Pass --mask."
    )


def _filled(label: np.ndarray) -> np.ndarray:
    """Pauses of one volume within a block (onsets of single pictures) belong to it."""
    for place in range(1, len(label) - 1):
        if label[place] == "rest" and label[place - 1] == label[place + 1]:
            label[place] = label[place - 1]
    return label


def _conditions(folder: Path) -> dict[str, str]:
    key = folder.parent / "models" / "model001" / "condition_key.txt"
    lines = foreign_text(key, "names of conditions").splitlines() if key.is_file() else []
    return {words[1]: "_".join(words[2:]) for line in lines if len(words := line.split()) > 2}


def detrended(series: np.ndarray, run: np.ndarray, order: int = 1) -> np.ndarray:
    """Without a polynomial of this order in each run, and in units of what then is its standard deviation there, float32.

    Args:
        series: (time, voxel).
        run: (time,).
        order: 0 removes the mean, 1 a line, ...
    """
    result = np.empty(series.shape, np.float32)
    for number in np.unique(run):
        here = run == number
        values = series[here].astype(np.float64)
        basis = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, len(values)), order))[0]
        values -= basis @ (basis.T @ values)
        sd = values.std(0, ddof=1)
        result[here] = values / np.where(sd > 1e-9, sd, 1.0)
    return result


def _blocks(category: np.ndarray, run: np.ndarray) -> Iterator[tuple[int, int]]:
    """First volume, and the one after the last, of each block that is not rest."""
    change = np.flatnonzero((category[1:] != category[:-1]) | (run[1:] != run[:-1])) + 1
    for volumes in np.split(np.arange(len(category)), change):
        if len(volumes) and category[volumes[0]] != "rest":
            yield int(volumes[0]), int(volumes[-1]) + 1


def block_trials(
    series: np.ndarray, runs: CategoryRuns, lag_s: float = 2.5, average: bool = True
) -> tuple[np.ndarray, pd.DataFrame]:
    """Responses (trial, voxel) and their table, one trial a block or one a volume of it.

    Args:
        series: (time, voxel), such as `detrended` gives.
        runs: Where blocks are.
        lag_s: By which volumes follow what was shown, in seconds, rounded to volumes; a block never takes from another run.
        average: False: one trial a volume.

    Raises:
        InputError: a lag outside 0 to 30 s, no block.
    """
    if not 0 <= lag_s <= 30:
        raise InputError(f"expected a lag of 0 to 30 s; got {lag_s:g}.")
    shift = round(lag_s / runs.repetition_time_s)
    values, rows = [], []
    for start, stop in _blocks(runs.category, runs.run):
        number = int(runs.run[start])
        moved = np.arange(start + shift, min(stop + shift, len(series)))
        moved = moved[runs.run[moved] == number]
        if not len(moved):
            continue
        name = str(runs.category[start])
        row = {"stimulus": f"{name}_run-{number:02d}", "session": 1, "run": number, "category": name}
        values.append(series[moved].mean(0, keepdims=True) if average else series[moved])
        begins = start - int(np.flatnonzero(runs.run == number)[0])
        times = [begins] if average else [begins + volume - start for volume in moved - shift]
        rows += [row | {"onset_s": time * runs.repetition_time_s} for time in times]
    if not rows:
        raise InputError("expected blocks of a category; got rest throughout. Check the labels.")
    return np.concatenate(values), pd.DataFrame(rows)


def read_haxby(
    folder: Path,
    *,
    mask: Path | None = None,
    lag_s: float = 2.5,
    order: int = 1,
    average: bool = True,
) -> Reading:
    """Block trials of a folder, one part a run.

    Raises:
        InputError: see `read_category_runs` and `block_trials`.
    """
    runs = read_category_runs(folder, mask)
    values, table = block_trials(detrended(runs.series, runs.run, order), runs, lag_s, average)
    about = {
        "repetition_time_s": runs.repetition_time_s,
        "zscore": f"run: a polynomial of order {order} removed, then divided by the run's standard deviation",
        "lag_s": lag_s,
        "categories": sorted(set(table["category"])),
    }
    parts = [_part(values, table, number, runs.files) for number in sorted(set(table["run"]))]
    return Reading(tuple(parts), runs.voxels, about, None, runs.files)


def _part(values: np.ndarray, table: pd.DataFrame, number: int, read: Sequence[Path]) -> Part:
    here = (table["run"] == number).to_numpy()
    return Part(f"run-{number:02d}", table[here].reset_index(drop=True), lambda: values[here], tuple(read))
