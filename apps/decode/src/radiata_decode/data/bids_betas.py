r"""Runs of fMRIPrep's derivatives: series, events and confounds that belong together, ready for single-trial models.

    derivatives/fmriprep/sub-01/ses-01/func/sub-01_ses-01_task-x_run-1_space-T1w_desc-preproc_bold.nii.gz
                                            …_space-T1w_desc-brain_mask.nii.gz
                                            …_desc-confounds_timeseries.tsv (.json)
                                            …_hemi-L_space-fsaverage5_bold.func.gii      surfaces
                                            …_space-fsLR_den-91k_bold.dtseries.nii       CIFTI
    sub-01/ses-01/func/sub-01_ses-01_task-x_run-1_events.tsv        onset, duration, trial_type, ...

Events lie in the raw data set, which is found above `derivatives`, or is named. Voxels are those in the brain masks of all
runs. Volumes that nilearn's `load_confounds` would drop (the first few, before the magnetisation is steady) are left out of
the fit. The repetition time of the sidecar is the one that counts; a header that says otherwise is refused, since every
onset hangs on it. `StartTime` of the sidecar (half a repetition time after slice timing correction) shifts the volumes.

References:
    O. Esteban et al. (2019). fMRIPrep: a robust preprocessing pipeline for functional MRI. Nature Methods 16.
    BIDS, task events, https://bids-specification.readthedocs.io.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.data.cifti_movies import cortex, cortex_series
from radiata_decode.data.reading import existing_folder, natural_order
from radiata_decode.data.surface_files import SURFACES, surface_length, surface_series, volume_interval
from radiata_decode.data.tables import read_table
from radiata_decode.data.volumes import (
    check_affine,
    check_grid,
    masked_series,
    read_mask,
    series_length,
    voxel_positions,
)

__all__ = ["BidsRun", "BidsRuns", "bids_runs", "read_confounds", "read_series"]

STIMULUS_COLUMNS = ("stimulus", "stim_file", "trial_type")
NOT_TRIALS = ("", "n/a", "nan", "rest", "fixation", "baseline", "blank")


@dataclass(frozen=True)
class BidsRun:
    """One run.

    Attributes:
        name: `ses-01_task-x_run-2`, what tells it from the others.
        session: Whole number.
        run: Whole number within all runs of the session.
        files: Series: one file, or left and right.
        trials: onset and duration (s), stimulus, condition, and the other columns of the events.
        volumes: How many.
        repetition_time_s: Seconds.
        start_s: When the first volume counts as taken.
    """

    name: str
    session: int
    run: int
    files: tuple[Path, ...]
    trials: pd.DataFrame
    volumes: int
    repetition_time_s: float
    start_s: float

    @property
    def frame_times(self) -> np.ndarray:
        """Seconds, (time,)."""
        return self.start_s + self.repetition_time_s * np.arange(self.volumes)


@dataclass(frozen=True)
class BidsRuns:
    """All runs of a subject in one space.

    Attributes:
        runs: In order.
        inside: Mask of volumes (x, y, z); rows of CIFTI; None for surfaces.
        voxels: One row a voxel.
        files: Masks and events.
    """

    runs: tuple[BidsRun, ...]
    inside: np.ndarray | None
    voxels: pd.DataFrame
    files: tuple[Path, ...]


def bids_runs(
    folder: Path,
    *,
    subject: str,
    task: str | None = None,
    space: str | None = None,
    events: Path | None = None,
    mask: Path | None = None,
    stimulus_column: str | None = None,
    repetition_time_s: float | None = None,
) -> BidsRuns:
    """Runs of a subject.

    Args:
        folder: Of the derivatives.
        subject: Label without `sub-`.
        task: Label; None: the only one there is.
        space: `T1w`, `MNI152NLin2009cAsym`, `fsaverage5`, `fsLR`, …; None: the only one there is.
        events: Folder of the raw data; None: looked for above the derivatives.
        mask: Instead of the brain masks.
        stimulus_column: Of the events; None: the first of stimulus, stim_file, trial_type.
        repetition_time_s: What it should be; None: what the sidecar says.

    Raises:
        InputError: what is missing, ambiguous, or does not fit.
    """
    folder = existing_folder(folder, "a folder of fMRIPrep derivatives")
    label = subject.removeprefix("sub-")
    top = existing_folder(folder / f"sub-{label}", f"the folder of subject {label}")
    series = _one_kind(_series(top), task, space, top)
    raw = [Path(events)] if events else [folder, *list(folder.resolve().parents)[:3]]
    runs: list[BidsRun] = []
    read: list[Path] = []
    for name, files in series:
        table = _events(name, label, raw)
        read.append(table)
        volumes, header_s = _length(files)
        repetition, start = _timing(files, header_s, repetition_time_s)
        session = _number(name, "ses", 1)
        place = 1 + sum(run.session == session for run in runs)
        trials = _trials(table, stimulus_column)
        runs.append(BidsRun(name, session, place, files, trials, volumes, repetition, start))
    inside, voxels, masks = _voxels(runs, mask)
    return BidsRuns(tuple(runs), inside, voxels, (*masks, *read))


def _series(top: Path) -> dict[Path, tuple[Path, ...]]:
    files = [p for p in top.rglob("*") if re.search(r"_bold\.(nii(\.gz)?|func\.gii|dtseries\.nii)$", p.name)]
    files = [p for p in files if "_space-" in p.name or "desc-preproc" in p.name]
    found: dict[Path, tuple[Path, ...]] = {}
    for path in sorted(files, key=lambda p: natural_order(p.name)):
        if "hemi-R" in path.name:
            continue
        if "hemi-L" in path.name:
            other = path.with_name(path.name.replace("hemi-L", "hemi-R"))
            if not other.is_file():
                raise InputError(f"expected {other} beside the left hemisphere; got no such file. Copy both.")
            found[path] = (path, other)
        else:
            found[path] = (path,)
    return found


def _label(name: str, entity: str) -> str | None:
    match = re.search(rf"(?:^|_){entity}-([a-zA-Z0-9+]+)", name)
    return match[1] if match else None


def _number(name: str, entity: str, default: int) -> int:
    digits = re.sub(r"\D", "", _label(name, entity) or "")
    return int(digits) if digits else default


def _one_kind(
    found: dict[Path, tuple[Path, ...]], task: str | None, space: str | None, top: Path
) -> list[tuple[str, tuple[Path, ...]]]:
    """Runs of one task and space, each with the part of its name that events and masks share."""
    kept = list(found)
    for entity, wanted, option in (("task", task, "--task"), ("space", space, "--space")):
        labels = sorted({_label(p.name, entity) or "" for p in kept})
        if wanted is not None:
            kept = [p for p in kept if _label(p.name, entity) == wanted]
            if not kept:
                raise InputError(
                    f"expected runs of {entity} {wanted} in {top}; got {', '.join(labels) or 'none'}."
                )
        elif len(labels) > 1:
            raise InputError(
                f"expected one {entity} in {top}; got {', '.join(labels)}. Choose with {option}."
            )
    if not kept:
        raise InputError(
            f"expected *_space-*_bold.nii.gz, .func.gii or .dtseries.nii in {top}; got none. Is it fMRIPrep's output?"
        )
    return [(re.split(r"_(?:hemi|space|res|den|desc)-", p.name)[0], found[p]) for p in kept]


def _events(name: str, subject: str, folders: Sequence[Path]) -> Path:
    short = re.sub(r"_(?:acq|dir|rec|echo)-[a-zA-Z0-9]+", "", name)
    for folder in folders:
        for wanted in dict.fromkeys((name, short)):
            for path in sorted((folder / f"sub-{subject}").glob(f"**/{wanted}_events.tsv")):
                return path
    raise InputError(
        f"expected {name}_events.tsv of the raw data; got none above or in {folders[0]}. Name its folder with --events."
    )


def _trials(path: Path, column: str | None) -> pd.DataFrame:
    table = read_table(path, ("onset", "duration"))
    named = column or next((name for name in STIMULUS_COLUMNS if name in table), None)
    if named is None or named not in table:
        raise InputError(
            f"expected a column {column or ', '.join(STIMULUS_COLUMNS)} in {path}; got "
            f"{', '.join(table.columns)}. Choose with --stimulus-column."
        )
    words = table[named].astype(str)
    kept = ~words.str.lower().isin(NOT_TRIALS)
    if "trial_type" in table:
        kept &= ~table["trial_type"].astype(str).str.lower().isin(NOT_TRIALS)
    if not kept.any():
        raise InputError(f"expected trials in column {named} of {path}; got rest only.")
    trials = table[kept].reset_index(drop=True)
    numbers = trials[["onset", "duration"]].apply(pd.to_numeric, errors="coerce")
    if numbers.isna().any(axis=None):
        raise InputError(
            f"expected an onset and a duration of each trial in {path}; got n/a. Fill in or drop those rows."
        )
    trials = trials.assign(
        stimulus=words[kept].to_numpy(), onset=numbers["onset"], duration=numbers["duration"]
    )
    condition = trials["trial_type"].astype(str) if "trial_type" in trials else "trial"
    return trials.assign(condition=condition)


def _length(files: tuple[Path, ...]) -> tuple[int, float]:
    if files[0].name.endswith(".gii"):
        return surface_length(files[0])[1], volume_interval(files[0])
    if files[0].name.endswith(".dtseries.nii"):
        series = cortex_series(files[0])
        return series.shape[0], series.step
    _, count, step = series_length(files[0])
    return count, step


def _timing(files: tuple[Path, ...], header_s: float, wanted: float | None) -> tuple[float, float]:
    name = re.sub(r"\.(nii(\.gz)?|func\.gii|dtseries\.nii)$", ".json", files[0].name)
    card = files[0].with_name(name)
    about = read_json(card) if card.is_file() else {}
    said = float(about.get("RepetitionTime", header_s) or 0)
    for number, source in ((header_s, f"the header of {files[0]}"), (wanted or 0, "--repetition-time")):
        if number and said and abs(number - said) > 0.01 * said:
            raise InputError(
                f"expected the repetition time of {card if card.is_file() else files[0]}, {said:g} s; got "
                f"{number:g} s in {source}. Onsets would drift: correct the one that is wrong."
            )
    said = said or float(wanted or 0)
    if not 0.1 <= said <= 30:
        raise InputError(
            f"expected a repetition time of 0.1 to 30 s for {files[0]}; got {said:g}. Pass --repetition-time."
        )
    return said, float(about.get("StartTime", 0.0))


def _voxels(runs: list[BidsRun], mask: Path | None) -> tuple[np.ndarray | None, pd.DataFrame, list[Path]]:
    first = runs[0].files[0]
    if len(runs[0].files) == 2:
        sizes = [surface_length(file)[0] for file in runs[0].files]
        words = np.repeat(list(SURFACES.values()), sizes)
        return (
            None,
            pd.DataFrame({"hemisphere": words, "vertex": np.concatenate([np.arange(n) for n in sizes])}),
            [],
        )
    if first.name.endswith(".dtseries.nii"):
        rows, table = cortex(first)
        return rows, table, []
    masks = [mask] if mask else [_brain_mask(run.files[0]) for run in runs]
    inside, affine = read_mask(masks[0])
    for path in masks[1:]:
        other, there = read_mask(path)
        check_grid(path, other.shape, inside.shape, "the brain mask")
        check_affine(path, there, affine, "the brain mask")
        inside &= other
    if not inside.any():
        raise InputError(
            f"expected voxels in the brain masks of all runs; got none in common ({masks[0]}, …). Pass --mask."
        )
    for run in runs:
        check_grid(run.files[0], series_length(run.files[0])[0], inside.shape, "the series")
    return inside, voxel_positions(inside, affine), list(masks)


def _brain_mask(bold: Path) -> Path:
    path = bold.with_name(bold.name.replace("_desc-preproc_bold", "_desc-brain_mask"))
    if path == bold or not path.is_file():
        raise InputError(f"expected the brain mask {path} beside the series; got no such file. Pass --mask.")
    return path


def read_series(run: BidsRun, inside: np.ndarray | None) -> np.ndarray:
    """(time, voxel) float32 of a run, in the voxels of `BidsRuns`.

    Raises:
        InputError: another length than that of the header.
    """
    if len(run.files) == 2:
        sides = [surface_series(file) for file in run.files]
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"expected as many volumes in both hemispheres of {run.name}; got {len(sides[0])} and {len(sides[1])}."
            )
        return np.concatenate(sides, axis=1)
    assert inside is not None
    if run.files[0].name.endswith(".dtseries.nii"):
        return cortex_series(run.files[0]).read(slice(None), inside)
    return masked_series(run.files[0], inside, "the series")


def read_confounds(run: BidsRun, strategy: Sequence[str]) -> tuple[np.ndarray | None, np.ndarray]:
    """Confounds (time, confound), by nilearn, and the volumes (whole numbers) that take part in the fit.

    Args:
        run: Which.
        strategy: Words of nilearn's `load_confounds`: motion (six parameters; motion-derivatives: with their derivatives;
            motion-full: and their squares, 24), wm_csf, high_pass, compcor, global_signal, scrub; empty: none. Volumes
            before the steady state are always left out.

    Raises:
        InputError: a strategy that the table cannot serve, or no table.
    """
    volumes = np.arange(run.volumes)
    if not strategy:
        return None, volumes
    from nilearn.interfaces.fmriprep import load_confounds

    words = [word.split("-")[0] for word in strategy if word != "non_steady_state"]
    detail = next((word.partition("-")[2] for word in strategy if word.startswith("motion")), "") or "basic"
    file = [[str(path) for path in run.files]] if len(run.files) == 2 else str(run.files[0])
    try:
        table, kept = load_confounds(file, strategy=tuple(words), motion=detail, demean=False)
    except Exception as error:  # nilearn's own errors for missing tables, columns and files
        raise InputError(
            f"expected confounds for {', '.join(strategy)} beside {run.files[0]}; got {' '.join(str(error).split())[:160]}. "
            "Choose other words with --confounds, or none."
        ) from None
    table, kept = (table[0], kept[0]) if isinstance(table, list) else (table, kept)
    values = table.to_numpy(float)
    if len(values) != run.volumes:
        raise InputError(
            f"expected {run.volumes} rows of confounds for {run.files[0]}; got {len(values)}. Are they of another run?"
        )
    return values, volumes if kept is None else np.asarray(kept, np.int64)
