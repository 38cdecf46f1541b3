"""From a folder to its page: what stands there is recognised by content, paired, and drawn.

    log.jsonl, scores.json      a training (also in folders one level below: members of an ensemble, the demo's model)
    *.h5, *.nc                  populations and rates; rates are paired with the population whose checksum they carry
    evaluation.json             tables of scores
    decode.json                 behaviour, with predictions.h5
    run.json                    provenance

A network is found for rates by its checksum: where they or run.json say it was, in the folder, one level below, or among
those shipped.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_core.runs import provenance, read_json
from radiata_imaging.hdf5 import open_hdf5
from radiata_imaging.report import Provenance, Section, Text
from radiata_latents.data.population import FORMAT as POPULATION
from radiata_latents.data.population import load_population
from radiata_latents.data.rates_file import FORMAT as RATES
from radiata_latents.data.rates_file import check_belongs, content_sha256, load_rates
from radiata_latents.experiment.evaluation_page import evaluation_sections
from radiata_latents.experiment.latent_pictures import pictures_of_latents
from radiata_latents.experiment.models import find_model, load_network, shipped
from radiata_latents.experiment.pages import (
    decode_section,
    opening,
    picture_sections,
    population_section,
    score_section,
    train_section,
)
from radiata_latents.experiment.pictures import Picture, is_synthetic, pictures_of, pictures_of_forecast

__all__ = ["FolderPage", "content_of", "page_of"]


@dataclass
class FolderPage:
    """What a page of a folder is made of.

    Attributes:
        sections: In order.
        pictures: All figures on it, for a command that saves them too.
        synthetic: The data are simulated.
    """

    sections: list[Section] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    synthetic: bool = False


def content_of(path: Path) -> str:
    """The format that an HDF5 file says it has, "" where it says none.

    Raises:
        InputError: no file, or none of HDF5.
    """
    if not path.is_file():
        raise InputError(
            f"expected a folder, or a file of a population or of rates; got nothing at {path}. Check the path."
        )
    with (
        foreign(f"expected a population or rates (.h5); got {path}, which cannot be read", "Make it again."),
        open_hdf5(path) as file,
    ):
        said = file.attrs.get("format", "")
    return said.decode() if isinstance(said, bytes) else str(said)


def page_of(place: Path, population: Path | None = None, *, ended: bool = False) -> FolderPage:
    """The page of a folder, or of one file beside others.

    Args:
        place: A folder, or a file of a population or of rates.
        population: That the rates are of, if it lies elsewhere.
        ended: The run of the folder has made everything but this page, though its record does not say so yet.

    Raises:
        InputError: nothing to report, or a file that cannot be read.
    """
    alone = not place.is_dir()
    if alone and content_of(place) not in (POPULATION, RATES):
        raise InputError(
            f"expected a population ({POPULATION}) or rates ({RATES}) in {place}; got another file. See prepare and infer."
        )
    folder = place.parent if alone else place
    populations, rates = _data(folder, place if alone else None)
    if population is not None:
        populations[population] = load_population(population)
    if alone:
        wanted = {str(dataset.attrs["data_sha256"]) for dataset in rates.values()}
        populations = {
            path: dataset
            for path, dataset in populations.items()
            if path in (place, population) or content_sha256(dataset) in wanted
        }
    page = FolderPage(synthetic=any(map(is_synthetic, [*populations.values(), *rates.values()])))
    if not alone:
        _scores(page, folder)
        _decoded(page, folder)
        _trainings(page, folder)
    _measured(page, folder, populations, rates)
    if not page.sections:
        raise InputError(
            f"expected log.jsonl, evaluation.json, or a population or rates (.h5) in {place}; got none of them. "
            "Give the folder that a command wrote to."
        )
    record = {} if alone or not (folder / "run.json").is_file() else read_json(folder / "run.json")
    if ended:
        record.pop("state", None)
    first = [opening(page.synthetic)]
    if record.get("state", "done") != "done":
        first.append(
            Section(
                "State",
                [Text(f"This run is {record['state']}: what stands here may not be its end.", warning=True)],
            )
        )
    facts = {"run": record or "no run.json in the folder", "page made by": provenance()}
    page.sections = [*first, *page.sections, Section("Provenance", [Provenance(facts)])]
    return page


def _data(folder: Path, only: Path | None) -> tuple[dict[Path, xr.Dataset], dict[Path, xr.Dataset]]:
    """Populations and rates of a folder, other files passed over; beside a file that is asked for, broken ones too."""
    populations, rates = {}, {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in (".h5", ".nc")):
        try:
            said = content_of(path)
            if said == POPULATION:
                populations[path] = load_population(path)
            elif said == RATES and only in (None, path):
                rates[path] = load_rates(path)
        except InputError:
            if only in (None, path):
                raise
    return populations, rates


def _measured(
    page: FolderPage, folder: Path, populations: dict[Path, xr.Dataset], rates: dict[Path, xr.Dataset]
) -> None:
    for path, dataset in populations.items():
        section = population_section(dataset)
        page.sections.append(
            section if len(populations) == 1 else Section(f"Population {path.name}", section.blocks)
        )
    sums = {content_sha256(dataset): dataset for dataset in populations.values()}
    for path, dataset in rates.items():
        own = sums.get(str(dataset.attrs["data_sha256"]))
        made: list[Picture] = []
        if own is not None and "horizon" in dataset.attrs:
            made += pictures_of_forecast(own, dataset)
        elif own is not None:
            check_belongs(dataset, own)
            made += pictures_of(own, dataset)
        synthetic = is_synthetic(dataset) or (own is not None and is_synthetic(own))
        made += pictures_of_latents(dataset, _network(dataset, folder), synthetic=synthetic)
        stem = path.name.removesuffix(path.suffix)
        made = [Picture(f"{stem}-{picture.name}", picture.figure, picture.caption) for picture in made]
        page.pictures += made
        page.sections += picture_sections(f"Rates of {dataset.attrs['model']}", made) or [
            Section(
                f"Rates of {dataset.attrs['model']}",
                [
                    Text(
                        f"{path.name}: no latents, and its population is not in the folder (give --population)."
                    )
                ],
            )
        ]


def _network(rates: xr.Dataset, folder: Path) -> object | None:
    """The network whose checksum the rates carry, None where it is not to be found."""
    wanted = str(rates.attrs["model_sha256"])
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    asked = record.get("options", {}).get("model")
    places = [str(rates.attrs["model"]), *shipped(), str(folder), *map(str, _folders(folder))]
    places += [asked] if isinstance(asked, str) else []
    for place in places:
        try:
            card = read_json(find_model(place).with_suffix(".json"))
            if isinstance(card, dict) and card.get("sha256") == wanted:
                return load_network(place).network
        except (InputError, OSError):
            continue
    return None


def _folders(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.iterdir() if path.is_dir() and (path / "log.jsonl").is_file())


def _trainings(page: FolderPage, folder: Path) -> None:
    """Of the folder and of those one level below."""
    for run in ([folder] if (folder / "log.jsonl").is_file() else []) + list(_folders(folder)):
        title = "Training" if run == folder else f"Training in {run.name}"
        card = read_json(run / "model.json") if (run / "model.json").is_file() else {}
        page.synthetic |= str(card.get("metadata", {}).get("source", "")).startswith("synthetic")
        section, pictures = train_section(run, title, synthetic=page.synthetic)
        page.sections.append(section)
        page.pictures += pictures


def _scores(page: FolderPage, folder: Path) -> None:
    """Of `scores.csv` (demo) and of `evaluation.json`."""
    if (folder / "evaluation.json").is_file():
        result = read_json(folder / "evaluation.json")
        page.synthetic |= bool(result.get("synthetic"))
        sections, pictures = evaluation_sections(result, synthetic=page.synthetic)
        page.sections += sections
        page.pictures += pictures
    elif (folder / "scores.csv").is_file() and not (folder / "decode.json").is_file():
        with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = [_numbers(row) for row in csv.DictReader(file)]
        card = read_json(folder / "scores.json") if (folder / "scores.json").is_file() else {}
        section, pictures = score_section(
            rows, trials=str(card.get("Trials", "")), marked=card.get("Marked", ()), synthetic=page.synthetic
        )
        page.sections.append(section)
        page.pictures += pictures


def _decoded(page: FolderPage, folder: Path) -> None:
    """Of `decode.json` and the predictions beside it."""
    if not ((folder / "decode.json").is_file() and (folder / "predictions.h5").is_file()):
        return
    with xr.open_dataset(folder / "predictions.h5", engine="h5netcdf") as opened:
        made = opened.load()
    card = read_json(folder / "predictions.json") if (folder / "predictions.json").is_file() else {}
    page.synthetic |= bool(card.get("SyntheticData"))
    section, pictures = decode_section(read_json(folder / "decode.json"), made, synthetic=page.synthetic)
    page.sections.append(section)
    page.pictures += pictures


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    """A row of a table as it was before it was written."""
    return {key: value if key == "name" else (float(value) if value else None) for key, value in row.items()}
