"""The page of a folder: what its files say it is, section by section, under one warning and above its provenance.

    scores.json     evaluate                   model.json      train
    decoded.h5      decode, synthesize         encoding.tsv    encode

A folder may be several of these. One that is none, but holds some, gives a page of all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.experiment.report_decoded import decoded_sections
from radiata_decode.experiment.report_encoding import encoding_sections
from radiata_decode.experiment.report_models import model_sections
from radiata_decode.experiment.report_scores import score_sections
from radiata_imaging.report import Provenance, Section, Text

__all__ = ["Page", "page_of"]

WARNING = (
    "Reconstructions are outputs of a model, not photographs of thoughts. Research only, not for clinical use. No number "
    "here means anything without the controls beside it."
)
SIMULATED = "The cortex was simulated: responses were computed from the stimuli, and no brain was measured."
MOST_FOLDERS = 12
KINDS = ("scores.json", "decoded.h5", "model.json", "encoding.tsv")


@dataclass(frozen=True)
class Page:
    """What goes onto a page.

    Attributes:
        sections: In order.
        synthetic: Responses were simulated: the page is stamped.
    """

    sections: list[Section]
    synthetic: bool


def page_of(folder: Path, *, limit: int = 24, seed: int = 0) -> Page:
    """Sections of a folder, or of the folders in it.

    Args:
        folder: That a verb wrote.
        limit: Most decoded stimuli with pictures.
        seed: Of the stimuli that are drawn.

    Raises:
        InputError: nothing that a verb wrote, or files that are broken.
    """
    folder = Path(folder)
    parts = [folder] if _kinds(folder) else []
    if not parts:
        parts = [one for one in sorted(folder.iterdir()) if one.is_dir() and _kinds(one)][:MOST_FOLDERS]
    if not parts:
        raise InputError(
            f"expected a folder with {', '.join(KINDS)}, or folders of such; got none of them in {folder}. Run train, "
            "decode, encode, synthesize or evaluate first."
        )
    synthetic = any(_simulated(part) for part in parts)
    blocks = [Text(WARNING, warning=True)]
    if synthetic:
        blocks.append(Text(SIMULATED, warning=True))
    sections = [Section("What this is", blocks)]
    for part in parts:
        name = "" if part == folder else f"{part.name}: "
        made = [section for kind in _kinds(part) for section in _writer(kind, limit, seed)(part)]
        sections += [Section(f"{name}{section.title}", section.blocks) for section in made]
        if (part / "run.json").is_file():
            sections.append(Section(f"{name}Provenance", [Provenance(_record(part / "run.json"))]))
    return Page(sections, synthetic)


def _kinds(folder: Path) -> list[str]:
    return [name for name in KINDS if (folder / name).is_file()]


def _writer(kind: str, limit: int, seed: int) -> Callable[[Path], list[Section]]:
    if kind == "decoded.h5":
        return lambda folder: decoded_sections(folder, limit=limit, seed=seed)
    return {"scores.json": score_sections, "model.json": model_sections, "encoding.tsv": encoding_sections}[
        kind
    ]


def _record(path: Path) -> dict[str, Any]:
    found = read_json(path)
    return found if isinstance(found, dict) else {"run.json": found}


def _simulated(folder: Path) -> bool:
    """What the cards of a folder say of the subject."""
    said = {"scores.json": "synthetic", "model.json": "synthetic", "decoded.json": "SimulatedSubject",
            "encoding.json": "SyntheticData"}  # fmt: skip
    for name, key in said.items():
        file = folder / name
        if file.is_file():
            found = read_json(file)
            if isinstance(found, dict) and found.get(key):
                return True
    return False
