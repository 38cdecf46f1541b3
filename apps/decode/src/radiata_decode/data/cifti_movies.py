r"""Films in CIFTI: the dynamic natural vision data of Wen et al. (2018), "CC2017", prepared as its authors do.

    seg1/cifti/seg1_1_Atlas.dtseries.nii   18 training segments × 2 repeats, 8 min each, a volume every 2 s
    test1/cifti/test1_1_Atlas.dtseries.nii  5 test segments × 10 repeats

Of each run: 245 volumes lose the first and the last four, 246 the first two and the last four, which leaves the 240 of
the film; a polynomial of order four is removed from each vertex; what remains is standardised within the run. Repeats are
averaged, or kept as trials of their own.

Reproducibility of a vertex is the correlation of both repeats of a training segment as Fisher's z, averaged over segments;
a one-sided t-test over segments against 0, Bonferroni-corrected over vertices, makes it a mask. Test segments have no part
in it.

A trial is one volume's stretch of film (2 s), named `seg01_tr017`; see `lag_windows` for which volumes answer it. Rows
of the cortex come from the brain models in the header; a file without them is taken to have 59 412, of fsLR 32k.

References:
    H. Wen et al. (2018). Neural encoding and decoding with deep learning for dynamic natural vision. Cerebral Cortex
    28. Data and code: Purdue University Research Repository, publication 2809.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_decode.data.lag_windows import gather, lag_windows
from radiata_decode.data.reading import Part, Reading, existing_folder
from radiata_imaging.declared_images import check_image

__all__ = [
    "CORTEX_ROWS",
    "CortexSeries",
    "RunFile",
    "cleaned",
    "cortex",
    "cortex_series",
    "film_runs",
    "read_movies",
    "reproducibility",
    "reproducible",
]

CORTEX_ROWS = 59412
FILM, FIRST = 240, {245: 1, 246: 2, 240: 0}
REPETITION_S = 2.0
_NAME = re.compile(r"^(seg|test)(\d+)_(\d+)_.*dtseries\.nii$")
_SIDES = {"CIFTI_STRUCTURE_CORTEX_LEFT": "left", "CIFTI_STRUCTURE_CORTEX_RIGHT": "right"}


@dataclass(frozen=True)
class RunFile:
    """One run on the disk.

    Attributes:
        kind: seg (training) or test.
        segment: From 1.
        repeat: From 1.
        path: Of the .dtseries.nii file.
    """

    kind: str
    segment: int
    repeat: int
    path: Path


def film_runs(folder: Path) -> list[RunFile]:
    """All runs below a folder, training before test, in order.

    Raises:
        InputError: none, or one twice.
    """
    folder = existing_folder(folder, "a folder with seg1/cifti/seg1_1_Atlas.dtseries.nii, …")
    found = [
        RunFile(match[1], int(match[2]), int(match[3]), path)
        for path in sorted(folder.rglob("*.dtseries.nii"))
        if (match := _NAME.match(path.name))
    ]
    if not found:
        raise InputError(
            f"expected runs named seg1_1_*.dtseries.nii or test1_1_*.dtseries.nii below {folder}; got none."
        )
    keys = [(run.kind, run.segment, run.repeat) for run in found]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        kind, segment, repeat = twice[0]
        raise InputError(
            f"expected each run once below {folder}; got {kind}{segment}_{repeat} twice. Name one person's folder."
        )
    return sorted(found, key=lambda run: (run.kind, run.segment, run.repeat))


def _open(path: Path) -> Any:
    import nibabel

    with foreign(f"expected a CIFTI series in {path}; got what cannot be read"):
        check_image(path)
        image = nibabel.load(path)
    if len(getattr(image, "shape", ())) != 2:
        raise InputError(
            f"expected a CIFTI series (time, row) in {path}; got shape {getattr(image, 'shape', None)}."
        )
    return image


def cortex(path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Rows of a file that are cortex, and their hemisphere and vertex.

    Raises:
        InputError: not CIFTI, or no cortex in it.
    """
    with foreign(f"expected brain models in {path}; got what cannot be read"):
        return _cortex(path)


def _cortex(path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    import nibabel

    image = _open(path)
    axes = [image.header.get_axis(n) for n in (0, 1)] if isinstance(image, nibabel.Cifti2Image) else []
    models = next((axis for axis in axes if isinstance(axis, nibabel.cifti2.BrainModelAxis)), None)
    if models is None:
        if image.shape[1] < CORTEX_ROWS:
            raise InputError(
                f"expected brain models in {path}, or {CORTEX_ROWS} rows; got {image.shape[1]} rows without them."
            )
        return np.arange(CORTEX_ROWS), pd.DataFrame({"row": np.arange(CORTEX_ROWS)})
    rows, tables = [], []
    for name, place, model in models.iter_structures():
        if name in _SIDES:
            rows.append(np.arange(len(models))[place])
            tables.append(pd.DataFrame({"hemisphere": _SIDES[name], "vertex": model.vertex}))
    if not rows:
        raise InputError(f"expected the cortex of a hemisphere in {path}; got other structures only.")
    return np.concatenate(rows), pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class CortexSeries:
    """A CIFTI series that was opened.

    Attributes:
        path: Of the file.
        shape: (time, row).
        step: Seconds between volumes.
    """

    path: Path
    shape: tuple[int, int]
    step: float

    def read(self, volumes: slice, rows: np.ndarray) -> np.ndarray:
        """(time, row) float32.

        Raises:
            InputError: a file that is cut short.
        """
        try:
            return np.asarray(_open(self.path).dataobj[volumes], np.float32)[:, rows]
        except Exception as error:  # nibabel raises what the bytes happen to mean
            raise InputError(
                f"expected {self.shape[0]} volumes in {self.path}; got a file that is cut short ({error}). Copy it again."
            ) from None


def cortex_series(path: Path) -> CortexSeries:
    """A series and its timing; a file without series axis is taken to have a volume every 2 s.

    Raises:
        InputError: not a CIFTI series.
    """
    with foreign(f"expected a series axis in {path}; got what cannot be read"):
        return _timed(path)


def _timed(path: Path) -> CortexSeries:
    image = _open(path)
    axis = image.header.get_axis(0) if hasattr(image.header, "get_axis") else None
    unit = {"MILLISECOND": 1e-3}.get(getattr(axis, "unit", ""), 1.0)
    return CortexSeries(path, tuple(image.shape), float(getattr(axis, "step", REPETITION_S)) * unit)


def cleaned(path: Path, rows: np.ndarray) -> np.ndarray:
    """A run as its authors prepare it, (240 volumes, row) float32.

    Raises:
        InputError: another number of volumes, another repetition time, a file that is cut short.
    """
    opened = cortex_series(path)
    count = opened.shape[0]
    if count not in FIRST:
        raise InputError(
            f"expected {', '.join(map(str, sorted(FIRST)))} volumes, a film of {FILM} with its margins; got {count} in "
            f"{path}. Is the run complete?"
        )
    if abs(opened.step - REPETITION_S) > 0.01:
        raise InputError(
            f"expected a volume every {REPETITION_S:g} s; got {opened.step:g} in {path}. Is it of another study?"
        )
    series = opened.read(slice(FIRST[count], FIRST[count] + FILM), rows).astype(np.float64)
    basis = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, FILM), 4))[0]
    series -= basis @ (basis.T @ series)
    sd = series.std(0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A vertex without signal becomes NaN, and is masked and counted by whoever writes the subject.
        return np.where(sd > 1e-6, series / sd, np.nan).astype(np.float32)


def reproducibility(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Fisher's z of the correlation of two repeats in each vertex, (vertex,) float64; both (time, vertex)."""
    a, b = (one - one.mean(0) for one in (np.float64(first), np.float64(second)))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.arctanh(np.clip(r, -0.999999, 0.999999))


def reproducible(runs: Sequence[RunFile], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean z of each vertex over training segments with two repeats, and its corrected p.

    Raises:
        InputError: fewer than two such segments.
    """
    from scipy import stats

    found = []
    for segment in sorted({run.segment for run in runs if run.kind == "seg"}):
        pair = [run.path for run in runs if run.kind == "seg" and run.segment == segment][:2]
        if len(pair) == 2:
            found.append(reproducibility(*(cleaned(path, rows) for path in pair)))
    if len(found) < 2:
        raise InputError(
            f"expected two training segments that were shown twice; got {len(found)}. Leave --reproducible out."
        )
    z = np.stack(found)
    p = stats.ttest_1samp(z, 0.0, alternative="greater").pvalue
    return z.mean(0), np.minimum(1.0, p * z.shape[1])


def read_movies(
    folder: Path,
    *,
    lag_s: float = 4.0,
    offsets: Sequence[int] = (0,),
    way: str = "stack",
    average: bool = True,
    alpha: float | None = None,
    cuts: pd.DataFrame | None = None,
    segments: Sequence[str] = (),
) -> Reading:
    """Trials of all segments, a part a segment.

    Args:
        folder: Of one person.
        lag_s: Haemodynamic lag, seconds.
        offsets: Volumes of a window relative to the lagged one.
        way: Whether they are stacked (a column a volume and vertex) or averaged.
        average: Repeats averaged, as the authors do; False: each repeat is a trial.
        alpha: Keep vertices that are reproducible at this corrected level only.
        cuts: Columns `segment` (`seg01`) and `onset_s`.
        segments: Which, such as `seg01`; empty: all.

    Raises:
        InputError: what does not fit.
    """
    runs = [run for run in film_runs(folder) if not segments or _word(run) in segments]
    if not runs:
        raise InputError(
            f"expected segments of {folder}, such as seg01; got {', '.join(segments)}, none of which is there."
        )
    rows, table = cortex(runs[0].path)
    about: dict[str, Any] = {
        "dataset": "dynamic natural vision (CC2017)",
        "repetition_time_s": REPETITION_S,
        "zscore": "run: a polynomial of order 4 removed, then divided by the run's standard deviation",
        "lag_s": lag_s,
    }
    if alpha is not None:
        z, p = reproducible(runs, rows)
        kept = p < alpha
        if not kept.any():
            raise InputError(
                f"expected reproducible vertices at p < {alpha:g}; got none of {len(rows)}. Raise --reproducible."
            )
        rows, table = rows[kept], table[kept].reset_index(drop=True).assign(reproducibility_z=z[kept])
        about |= {"reproducible": f"{int(kept.sum())} of {len(kept)} vertices at corrected p < {alpha:g}"}
    parts = []
    for word in dict.fromkeys(_word(run) for run in runs):
        group = [run for run in runs if _word(run) == word]
        onsets = [] if cuts is None else cuts["onset_s"][cuts["segment"] == word].tolist()
        windows = lag_windows(
            FILM, REPETITION_S, lag_s=lag_s, offsets=offsets, cuts=[round(s / REPETITION_S) for s in onsets]
        )
        trials = pd.concat(
            [_trials(word, group, run, windows.stretches) for run in (group[:1] if average else group)]
        )
        read = partial(_read, [run.path for run in group], rows, windows, way, average)
        scratch = 24 * FILM * len(rows)
        parts.append(
            Part(word, trials.reset_index(drop=True), read, tuple(run.path for run in group), scratch)
        )
        about.setdefault("stretches_left_out", {})[word] = windows.left_out
    if way == "stack" and len(offsets) > 1:
        table = pd.concat([table.assign(offset=offset) for offset in offsets], ignore_index=True)
    return Reading(tuple(parts), table, about)


def _word(run: RunFile) -> str:
    return f"{run.kind}{run.segment:02d}"


def _trials(word: str, group: list[RunFile], run: RunFile, stretches: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stimulus": [f"{word}_tr{number:03d}" for number in stretches],
            "session": 1,
            "run": run.segment * 100 + run.repeat,
            "repeat": run.repeat,
            "split": "train" if run.kind == "seg" else "test",
            "onset_s": stretches * REPETITION_S,
            "segment": word,
            "repeats": len(group),
        }
    )


def _read(paths: list[Path], rows: np.ndarray, windows: Any, way: str, average: bool) -> np.ndarray:
    if not average:
        return np.concatenate([gather(cleaned(path, rows), windows, way) for path in paths])
    total = np.zeros((FILM, len(rows)), np.float64)
    for path in paths:
        total += cleaned(path, rows)
    return gather((total / len(paths)).astype(np.float32), windows, way)
