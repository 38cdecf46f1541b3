r"""Random search, trial by trial or by successive halving; the score is that of validation trials, nothing else.

    trial-0007/           a run of train, whole
    rung-1/trial-0007/    the same options in fewer steps: with halving, 1/9 of them in rung-1 and 1/3 in rung-2
    sweep.json            what was searched, every trial with its score, the best
    trials.csv            the same as a table
    best.toml             the best as a preset for train

A rung is a whole training of its own length, warm-up and half cosine included: scores within a rung are comparable, which
those of a long run that was stopped early are not. Of n trials n/3 go on to the next rung (rounded up).

References:
    Bergstra & Bengio, "Random search for hyper-parameter optimization", 2012, https://jmlr.org/papers/v13/bergstra12a.html.
    Jamieson & Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016,
        https://arxiv.org/abs/1502.07943 (successive halving).
"""

import csv
import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, plain, read_json, sha256, write_json
from radiata_core.runs import Progress, Run, tidy
from radiata_latents.data.population import load_population
from radiata_latents.experiment.presets import write_preset
from radiata_latents.experiment.search_space import Law
from radiata_latents.experiment.sweep import Sweep
from radiata_latents.experiment.train import FOLDERS, Train
from radiata_latents.experiment.training_run import is_finished, network_of
from radiata_latents.experiment.trial_processes import failure, trained
from radiata_latents.experiment.validation_scores import score_name

__all__ = ["Trial", "best_of", "run", "rungs"]

ETA = 3
RUNGS = 3


@dataclasses.dataclass(frozen=True)
class Trial:
    """What became of a trial.

    Attributes:
        number: Which.
        rung: 0 for whole trainings, else how many times the steps were divided by `ETA`, counted from the longest.
        options: What was drawn.
        steps: Optimiser steps.
        score: On validation trials; None where the training failed.
        error: Why it failed.
    """

    number: int
    rung: int
    options: dict[str, Any]
    steps: int
    score: float | None
    error: str = ""


def rungs(halving: bool) -> list[int]:
    """How often the steps are divided by `ETA`, rung by rung."""
    return list(reversed(range(RUNGS))) if halving else [0]


def best_of(trials: Sequence[Trial]) -> Trial:
    """The best by its score; of equal ones the first.

    Raises:
        InputError: none has a score.
    """
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        why = trials[0].error if trials else "there is none"
        raise InputError(f"expected a trial that trains; got {len(trials)} that failed, the first: {why}")
    return max(scored, key=lambda trial: (trial.score, -trial.number))


def run(sweep: Sweep, space: Mapping[str, Law]) -> None:
    """Do the search in `sweep.out` and say which is best.

    Raises:
        InputError: a population without validation trials, a folder of another search, or no trial that trains.
    """
    population = load_population(sweep.population)
    if not (population["split"].values == "validation").any():
        raise InputError(
            f"expected validation trials to choose by; got none in {sweep.population}. Prepare it with --validation."
        )
    tasks = {k: sweep.trial(dict(space), k, sweep.out) for k in range(sweep.trials)}
    for task in tasks.values():
        network_of(task, population)
    data = {sweep.population.name: sha256(sweep.population)}
    searched = _searched(sweep, space, data)
    if sweep.resume and (sweep.out / "sweep.json").exists():
        _check_same(read_json(sweep.out / "sweep.json").get("search"), searched, sweep.out)
    earlier = sweep.overwrite and (sweep.out / "sweep.json").exists()
    with Run(
        sweep.out,
        "radiata-latents sweep",
        sweep,
        seed=sweep.seed,
        data=data,
        overwrite=sweep.overwrite,
        resume=sweep.resume,
    ) as record:
        if earlier:
            _clear(sweep.out)
        write_json(sweep.out / "sweep.json", {"format": "radiata-sweep/1", "search": searched})
        score = score_name(population)
        done: list[Trial] = []
        alive = list(tasks)
        for level in rungs(sweep.halving):
            rung = _rung(sweep, {k: tasks[k] for k in alive}, level, population, data, list(space))
            done += rung
            scored = sorted(
                (t for t in rung if t.score is not None), key=lambda t: (-float(t.score or 0), t.number)
            )
            alive = sorted(t.number for t in scored[: math.ceil(len(rung) / ETA)])
        best = best_of([trial for trial in done if trial.rung == 0] or done)
        _write(sweep, searched, score, done, best, tasks[best.number])
        record.note(best=best, score=score)
    print(f"best of {len(tasks)} trials: {best.number}, {score.replace('_', '-')} {best.score:.4f}")
    print(sweep.out / "best.toml")


def _rung(
    sweep: Sweep,
    tasks: Mapping[int, Train],
    level: int,
    population: xr.Dataset,
    data: Mapping[str, Any],
    names: Sequence[str],
) -> list[Trial]:
    """Trials of one length, in order; those that are finished are read back."""
    place = sweep.out if level == 0 else sweep.out / f"rung-{RUNGS - level}"
    short = {
        k: dataclasses.replace(
            task, out=place / f"trial-{k:04d}", steps=max(1, round(task.steps / ETA**level))
        )
        for k, task in tasks.items()
    }
    found: dict[int, Trial] = {}

    def note(k: int, error: str) -> None:
        task = short[k]
        options = {name: getattr(task, name) for name in names}
        score = None if error else _score(task.out, score_name(population))
        found[k] = Trial(k, level, options, task.steps, score, error)

    left = []
    for k, task in short.items():
        if is_finished(task):
            tidy(task.out)
            note(k, "")
        elif error := failure(task.out):
            note(k, error)
        else:
            left.append(k)
    with Progress(
        len(short), f"{RUNGS - level if level else 'whole'} trials", unit="trial", start=len(found)
    ) as bar:
        for k, error in trained({k: short[k] for k in left}, population, data, sweep.jobs):
            note(k, error)
            scores = [trial.score for trial in found.values() if trial.score is not None]
            bar.update(1, **({"best": max(scores)} if scores else {}))
    return [found[k] for k in sorted(found)]


def _score(folder: Path, name: str) -> float:
    return float(read_json(folder / "scores.json")[name])


def _searched(sweep: Sweep, space: Mapping[str, Law], data: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same for a search to go on."""
    names = ("network", "steps", "batch_size", "halving", "seed")
    same = {name: getattr(sweep, name) for name in names} | {"data": dict(data)}
    fixed = dataclasses.replace(sweep.trial({}, 0, sweep.out), population=Path("-"), out=Path("-"))
    return plain(same | {"options": fixed, "space": dict(space)})


def _check_same(earlier: Any, now: Mapping[str, Any], folder: Path) -> None:
    for name, value in now.items():
        if not isinstance(earlier, Mapping) or earlier.get(name) != value:
            raise InputError(
                f"expected the search that {folder} holds; got one whose {name} differs. Keep it, or choose another --out."
            )


def _write(
    sweep: Sweep, searched: Any, score: str, trials: Sequence[Trial], best: Trial, task: Train
) -> None:
    names = list(best.options)
    rows = [
        {"trial": t.number, "rung": t.rung, "steps": t.steps, score: t.score, "error": t.error} | t.options
        for t in trials
    ]
    with (
        atomic_path(sweep.out / "trials.csv") as part,
        part.open("w", newline="", encoding="utf-8") as stream,
    ):
        table = csv.DictWriter(stream, ["trial", "rung", "steps", score, "error", *names])
        table.writeheader()
        table.writerows(rows)
    write_json(
        sweep.out / "sweep.json",
        {
            "format": "radiata-sweep/1",
            "search": searched,
            "score": score,
            "best": best,
            "trials": list(trials),
        },
    )
    write_preset(
        sweep.out / "best.toml",
        _preset(task),
        f"Trial {best.number}: {score} {best.score:.4f} on validation trials",
    )


def _preset(task: Train) -> dict[str, Any]:
    """Options of a trial that are not train's defaults, without what belongs to the search."""
    usual = Train(task.population, task.out)
    left = (*FOLDERS, "tensorboard", "validate_every", "seed")
    return {
        field.name: getattr(task, field.name)
        for field in dataclasses.fields(task)
        if field.name not in left and getattr(task, field.name) != getattr(usual, field.name)
    }


def _clear(folder: Path) -> None:
    """Remove the trials of an earlier search."""
    for path in [*folder.glob("trial-*"), *folder.glob("rung-*")]:
        shutil.rmtree(path)
    for name in ("sweep.json", "trials.csv", "best.toml"):
        (folder / name).unlink(missing_ok=True)
