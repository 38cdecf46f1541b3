"""The work of the demo, in the order in which something is to be seen.

    population.h5                 simulated, as `prepare --preset lorenz --holdout 0.25` makes it, with fewer trials
    rates-lorenz.h5, .png         of the shipped network, on conditions that it never saw: seconds
    model/                        a network trained here
    rates-trained.h5              of that one
    scores.csv                    both beside the baselines, on the held-out conditions
    report.html, pictures/        everything, figures with their numbers

The shipped network was trained on the same conditions, neurons and read-out (their draws depend on seeds alone, not on how
many trials there are), so the 13 conditions kept here were kept from it too.
"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.files import remove_folder
from radiata_core.runs import Run, atomic_path, read_json, sha256
from radiata_core.seeds import rng_of
from radiata_imaging.report import write_report
from radiata_latents.data.population import save_population
from radiata_latents.data.rates_file import content_sha256, save_rates
from radiata_latents.data.sidecar import write_sidecar
from radiata_latents.experiment.baselines import fit_baselines
from radiata_latents.experiment.cuts import cut
from radiata_latents.experiment.demo import Demo
from radiata_latents.experiment.folder_page import page_of
from radiata_latents.experiment.inference import infer_rates
from radiata_latents.experiment.models import LoadedNetwork, check_fits, load_network, shipped
from radiata_latents.experiment.pictures import pictures_of
from radiata_latents.experiment.prepare import Prepare
from radiata_latents.experiment.score_table import score_rows
from radiata_latents.experiment.train import Train
from radiata_latents.experiment.training_run import train_one

__all__ = ["demo_population", "demonstrate"]

COMMAND = "radiata-latents demo"
_PICTURES = ("first", "rates", "training")
_SCORES = 41  # purpose of the bootstrap's generator
_SPLIT = "validation"
_SHOWN = ("co_bps", "r2_expected")


def demo_population(trials: int) -> xr.Dataset:
    """65 Lorenz trajectories, 13 for validation; 29 neurons, 7 held out; so many trials a condition."""
    return cut(Prepare(out=Path("population.h5"), preset="lorenz", holdout=("0.25",), trials=trials))[0]


def demonstrate(task: Demo) -> None:
    """Write the demo's folder and say what came out."""
    given = load_network(task.model)
    population = demo_population(task.trials)
    check_fits(given.metadata, population)
    earlier = _is_demo(task.out)
    with Run(task.out, COMMAND, task, seed=task.seed, overwrite=task.overwrite) as run:
        if earlier:
            _clear(task.out)
        _write_population(population, task.out / "population.h5")
        run.note(data={"population.h5": content_sha256(population), task.model: given.sha256})
        name = f"{Path(task.model).stem} ({'shipped' if task.model in shipped() else 'given'})"
        found = {name: _inferred(task, population, given, Path(task.model).name, "rates-lorenz.h5")}
        _first_picture(task, population, found[name])
        if task.train_steps:
            found["trained here"] = _trained(task, population)
        rows = _scored(task, population, found)
        run.note(scores=rows)
        page = page_of(task.out, ended=True)
        for picture in page.pictures:
            picture.save(task.out / "pictures")
        write_report(
            task.out / "report.html", "radiata-latents demo", page.sections, synthetic=page.synthetic
        )
    _say(rows)
    print(f"report and pictures in {task.out}")


def _is_demo(folder: Path) -> bool:
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    return bool(record.get("command") == COMMAND)


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left: a shorter one must not show what a longer one trained."""
    for pattern in (
        "population.*",
        "rates-*.*",
        "scores.*",
        "report.html",
        *(f"pictures/{kind}-*.*" for kind in _PICTURES),
    ):
        for path in folder.glob(pattern):
            path.unlink()
    if (folder / "model" / "run.json").is_file():
        remove_folder(folder / "model")


def _write_population(population: xr.Dataset, path: Path) -> None:
    save_population(population, path)
    write_sidecar(
        path, {}, Description="Simulated spike counts (trial, time, neuron).", SyntheticData=True,
        SHA256=sha256(path), Units="spikes a bin", BinWidth=population.attrs["bin_s"],
    )  # fmt: skip


def _inferred(task: Demo, population: xr.Dataset, given: LoadedNetwork, model: str, file: str) -> xr.Dataset:
    """Rates of the held-out conditions, written."""
    rates = infer_rates(
        [given.network], population, task.passes, task.seed, splits=(_SPLIT,),
        model=model, model_sha256=given.sha256, kind=given.metadata["kind"],
    )  # fmt: skip
    save_rates(rates, task.out / file, SyntheticData=True)
    return rates


def _first_picture(task: Demo, population: xr.Dataset, rates: xr.Dataset) -> None:
    """Rates against the truth, before anything is trained."""
    picture = next(p for p in pictures_of(population, rates) if p.name == "rates-against-truth")
    path = replace(picture, name=f"first-{picture.name}").save(task.out / "pictures")
    print(f"first picture: {path}", flush=True)


def _trained(task: Demo, population: xr.Dataset) -> xr.Dataset:
    """Rates of a network trained on the other conditions; its run is in model/."""
    folder = task.out / "model"
    options = Train(
        task.out / "population.h5", folder, steps=task.train_steps, seed=task.seed, tensorboard=False,
        validate_every=max(1, task.train_steps // 4), log_every=max(1, min(25, task.train_steps // 5)),
        overwrite=task.overwrite,
    )  # fmt: skip
    train_one(options, population, {"population.h5": content_sha256(population)})
    return _inferred(task, population, load_network(folder), "trained here", "rates-trained.h5")


def _scored(task: Demo, population: xr.Dataset, found: dict[str, xr.Dataset]) -> list[dict[str, Any]]:
    """Rows of networks and baselines on the held-out conditions, written to scores.csv."""
    baselines = fit_baselines(population, say=lambda name: print(f"baseline: {name}", flush=True))
    predictions = {name: _placed(population, rates) for name, rates in found.items()} | baselines.rates
    rows = score_rows(population, predictions, _SPLIT, rng_of(task.seed, _SCORES), heldin_scored=tuple(found))
    columns = [
        "name",
        *(key for key in rows[0] if key != "name" and any(row[key] is not None for row in rows)),
    ]
    path = task.out / "scores.csv"
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows
        )
    trials = next(iter(found.values())).sizes["trial"]
    held = len(np.unique(next(iter(found.values()))["condition"].values))
    write_sidecar(
        path, {"population.h5": content_sha256(population)}, SyntheticData=True, Marked=list(found),
        Trials=f"{trials} trials of {held} conditions that no network saw", LeftOut=baselines.left_out,
    )  # fmt: skip
    return rows


def _placed(population: xr.Dataset, rates: xr.Dataset) -> np.ndarray:
    """Rates of some trials among all, NaN where there are none."""
    found = np.full(population["counts"].shape, np.nan)
    found[rates["trial"].values] = rates["rates"].values
    return found


def _say(rows: list[dict[str, Any]]) -> None:
    """A short table."""
    width = max(len(row["name"]) for row in rows)
    print(f"\n{'held-out conditions':<{width}}  {'co-bps':>22}  {'R² of E[count]':>22}")
    for row in sorted(rows, key=lambda r: -(r[_SHOWN[0]] if r[_SHOWN[0]] is not None else -np.inf)):
        print(f"{row['name']:<{width}}  " + "  ".join(f"{_interval(row, column):>22}" for column in _SHOWN))
    print()


def _interval(row: dict[str, Any], column: str) -> str:
    if row[column] is None:
        return "–"
    return f"{row[column]:.3f} [{row[f'{column}_low']:.2f}, {row[f'{column}_high']:.2f}]"
