"""Layout and options → a reading: readers of files joined with models of single trials.

Readers (`data`) know files, the single-trial model (`model`) knows arrays; what joins them is here, for the verb `prepare`.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_decode.data import arrays, bids_betas, cifti_movies, haxby, nsd, surface_arrays
from radiata_decode.data.film_clips import FilmClips, film_of
from radiata_decode.data.reading import Part, Reading, existing_folder
from radiata_decode.data.resized_pictures import named_pictures, picture_files
from radiata_decode.data.stimuli import StimulusArrays
from radiata_decode.data.tables import read_table
from radiata_decode.model import single_trial_glm

if TYPE_CHECKING:
    from radiata_decode.experiment.prepare import Prepare

__all__ = ["open_layout"]

FILM_SIZE = 64


def open_layout(task: "Prepare") -> Reading:
    """What the layout of a task holds; nothing but headers and tables is read.

    Raises:
        InputError: what is missing or does not fit.
    """
    opened = {
        "from-nsd": _nsd,
        "from-bids": _bids,
        "from-cifti": _cifti,
        "from-surface": _surface,
        "from-arrays": _arrays,
        "from-haxby": _haxby,
    }[task.layout](task)
    if not len(opened.voxels):
        raise InputError("expected voxels; got none. Choose another mask.")
    return opened


def _source(task: "Prepare") -> Path:
    if task.source is None:
        raise InputError(f"expected a folder or file after {task.layout}; got none. Name it there.")
    return task.source


def _rois(task: "Prepare") -> tuple[str, ...] | None:
    return task.rois or None


def _nsd(task: "Prepare") -> Reading:
    number = task.subject.lower().removeprefix("subj").lstrip("0")
    if not number.isdigit():
        raise InputError(f"expected --subject 1 to 8 of NSD; got {task.subject}.")
    space = task.space or "func1pt8mm"
    default = "all" if space == "fsaverage" else "nsdgeneral"
    return nsd.read_nsd(
        _source(task), subject=int(number), betas=task.betas, space=space, sessions=task.sessions,
        mask=task.mask or default, rois=_rois(task), ncsnr=not task.without_ncsnr, image_size=task.image_size,
    )  # fmt: skip


def _surface(task: "Prepare") -> Reading:
    return surface_arrays.read_surface(
        _source(task),
        trials=task.trials,
        mask=task.mask,
        rois=_rois(task),
        images=task.images,
        image_size=task.image_size,
    )


def _arrays(task: "Prepare") -> Reading:
    return arrays.read_arrays(
        _source(task),
        task.trials,
        key=task.key,
        voxels=task.voxels,
        images=task.images,
        image_size=task.image_size,
    )


def _haxby(task: "Prepare") -> Reading:
    return haxby.read_haxby(
        task.source or haxby.shipped_example(), mask=Path(task.mask) if task.mask else None,
        lag_s=2.5 if task.lag is None else task.lag, order=task.detrend, average=not task.volumes,
    )  # fmt: skip


def _cifti(task: "Prepare") -> Reading:
    reading = cifti_movies.read_movies(
        _source(task), lag_s=4.0 if task.lag is None else task.lag, offsets=task.window,
        way="mean" if task.mean_window else "stack", average=task.repeats == "average", alpha=task.reproducible,
        cuts=None if task.cuts is None else read_table(task.cuts, ("segment", "onset_s")), segments=task.segments,
    )  # fmt: skip
    if task.films is None:
        return reading
    if task.frames < 1:
        raise InputError(f"expected at least one picture of a stretch of film; got --frames {task.frames}.")
    folder = existing_folder(task.films, "a folder of films")
    return replace(reading, stimuli=partial(_clips, folder, task.frames, task.image_size or FILM_SIZE))


def _clips(folder: Path, frames: int, size: int, names: list[str]) -> StimulusArrays:
    """Stretches of film named `seg01_tr017`."""
    segments = [name.split("_tr")[0] for name in names]
    starts = [int(name.split("_tr")[1]) * cifti_movies.REPETITION_S for name in names]
    films = {
        word: film_of(folder, [word.replace("g0", "g").replace("t0", "t"), word]) for word in set(segments)
    }
    clips = FilmClips([films[word] for word in segments], starts, cifti_movies.REPETITION_S, frames, size)
    table = pd.DataFrame({"stimulus": names, "group": segments})
    return StimulusArrays(table, movies=clips, frames_per_s=frames / cifti_movies.REPETITION_S)


def _bids(task: "Prepare") -> Reading:
    if task.estimator not in single_trial_glm.ESTIMATORS:
        raise InputError(
            f"expected --estimator {', '.join(single_trial_glm.ESTIMATORS)}; got {task.estimator}."
        )
    if not task.shrinkage > 0 or not 0 < task.high_pass < 1:
        raise InputError(
            f"expected --shrinkage above 0 and --high-pass between 0 and 1 Hz; got {task.shrinkage:g} and "
            f"{task.high_pass:g}."
        )
    found = bids_betas.bids_runs(
        _source(task), subject=task.subject, task=task.task, space=task.space, events=task.events,
        mask=Path(task.mask) if task.mask else None, stimulus_column=task.stimulus_column,
        repetition_time_s=task.repetition_time,
    )  # fmt: skip
    times = sorted({round(run.repetition_time_s, 4) for run in found.runs})
    if len(times) > 1:
        raise InputError(
            f"expected one repetition time of all runs; got {', '.join(map(str, times))} s. Prepare them apart."
        )
    parts = tuple(
        Part(
            run.name,
            _bids_trials(run),
            partial(_betas, task, run, found.inside),
            run.files,
            scratch=8 * run.volumes * len(found.voxels),
        )
        for run in found.runs
    )
    about = {
        "repetition_time_s": times[0],
        "estimator": task.estimator,
        "haemodynamic_response": task.hrf,
        "confounds": [word for word in task.confounds if word != "none"],
        "unit": "percent of the mean" if task.percent else "units of the series",
    }
    stimuli = (
        None if task.images is None else partial(named_pictures, picture_files(task.images), task.image_size)
    )
    return Reading(parts, found.voxels, about, stimuli, found.files)


def _bids_trials(run: bids_betas.BidsRun) -> pd.DataFrame:
    words = run.trials.drop(columns=[c for c in ("session", "run", "trial", "repeat") if c in run.trials])
    renamed = words.rename(columns={"onset": "onset_s", "duration": "duration_s"})
    renamed = renamed.rename(columns={"condition": "category"} if "category" not in renamed else {})
    stems = [
        Path(name).stem if "/" in name or "." in name else name for name in renamed["stimulus"].astype(str)
    ]
    return renamed.assign(stimulus=stems, session=run.session, run=run.run)


def _betas(task: "Prepare", run: bids_betas.BidsRun, inside: np.ndarray | None) -> np.ndarray:
    """One response a trial of a run."""
    series = bids_betas.read_series(run, inside)
    words = [word for word in task.confounds if word != "none"]
    confounds, kept = bids_betas.read_confounds(run, words)
    times = run.frame_times
    slowest = None if "high_pass" in words else task.high_pass
    nuisance = single_trial_glm.nuisances(times, _full(confounds, kept, run.volumes), slowest)
    regressors = single_trial_glm.trial_regressors(
        run.trials["onset"].to_numpy(float), run.trials["duration"].to_numpy(float), times, task.hrf
    )
    finite = np.isfinite(series).all(0) & (series.std(0) > 0)
    fitted = single_trial_glm.trial_betas(
        np.where(finite, series, 0)[kept],
        regressors[kept],
        nuisance[kept],
        task.estimator,
        shrinkage=task.shrinkage,
    )
    betas = fitted.betas
    if task.percent:
        with np.errstate(divide="ignore", invalid="ignore"):
            betas = 100 * betas / np.where(np.abs(fitted.baseline) > 1e-6, fitted.baseline, np.nan)
    # Voxels without signal stay NaN, so that the writer masks and counts them.
    return np.where(finite, betas, np.nan).astype(np.float32)


def _full(confounds: np.ndarray | None, kept: np.ndarray, volumes: int) -> np.ndarray | None:
    """Confounds with a row a volume of the series: nilearn leaves out the rows it drops."""
    if confounds is None or len(confounds) == volumes:
        return confounds
    full = np.zeros((volumes, confounds.shape[1]))
    full[kept] = confounds
    return full
