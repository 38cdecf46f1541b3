"""The page of a folder: which results stand in it, a section for each kind, and where it all comes from.

Sections are made from files alone - volumes, their cards, tables - so that a folder can be copied and reported elsewhere.
Only *before* needs the scans: given, or where the run's record says they were.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_core.provenance import provenance
from radiata_imaging.nifti import is_volume_path
from radiata_imaging.plots import Convention
from radiata_imaging.report import Provenance, Section, Text, write_report
from radiata_medical.data.pairing import IMAGE_WORDS, LABEL_WORDS, Named, named_files
from radiata_medical.experiment.report_evaluation import evaluation_sections
from radiata_medical.experiment.report_folder import Folder

if TYPE_CHECKING:
    from radiata_medical.experiment.report import Report

__all__ = ["write_page"]

_SOURCES = ("scan", "scans", "source", "image", "images", "input", "kspace")


def write_page(task: "Report", page: Path) -> Path:
    """Write the page of a folder.

    Raises:
        InputError: there is nothing in it to report.
    """
    record = _record(task.results)
    sections: list[Section] = []
    if (task.results / "evaluation.json").is_file():
        sections += evaluation_sections(read_json(task.results / "evaluation.json"))
    if any(path.is_file() and is_volume_path(path) for path in task.results.rglob("*")):
        sections += _volumes(task, record)
    if not sections:
        raise InputError(
            f"expected restored scans, segmentations or evaluation.json in {task.results}; got none of them. "
            "Give the folder that a command wrote to."
        )
    state = record.get("state")
    if state not in (None, "done"):
        text = f"This run is {state}: what stands here may not be its end."
        sections.insert(0, Section("State", [Text(text, warning=True)]))
    made = {"run": record or "no run.json in the folder", "page made by": provenance()}
    sections.append(Section("Provenance", [Provenance(made)]))
    title = task.title or f"radiata-medical: {task.results.name}"
    warning = Section(
        "Not for clinical use",
        [Text("Made by a research program. Restored images contain what a model finds plausible, not only what was "
              "measured. Not for clinical use.", warning=True)],
    )  # fmt: skip
    return write_report(page, title, [warning, *sections])


def _record(folder: Path) -> dict[str, Any]:
    found = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    return found if isinstance(found, dict) else {}


def _volumes(task: "Report", record: Mapping[str, Any]) -> list[Section]:
    from radiata_medical.experiment.report_images import image_sections
    from radiata_medical.experiment.report_labels import label_sections

    files = named_files(task.results, "results")
    convention = Convention.RADIOLOGICAL if task.radiological else Convention.NEUROLOGICAL
    folder = Folder(files, _scans(task, record, files), task.limit, task.viewers, convention)
    sections = []
    if any(one.word in IMAGE_WORDS for one in files):
        sections += image_sections(folder)
    if any(one.word in LABEL_WORDS for one in files):
        sections += label_sections(folder, task.results)
    return sections


def _scans(task: "Report", record: Mapping[str, Any], files: tuple[Named, ...]) -> tuple[Named, ...]:
    """Scans that were given, that the run read, or that lie among the results."""
    if task.scans is not None:
        return tuple(one for one in named_files(task.scans, "scans") if not one.word)
    options = record.get("options") or {}
    given = (
        [Path(str(options[name])) for name in _SOURCES if options.get(name)]
        if isinstance(options, dict)
        else []
    )
    for path in given:
        if path.is_dir() or (path.is_file() and is_volume_path(path)):
            return tuple(one for one in named_files(path, "scans") if not one.word)
    return tuple(one for one in files if not one.word)
