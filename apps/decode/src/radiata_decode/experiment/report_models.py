"""Sections of a trained decoder: what it was trained on, what was measured while it was, and its losses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radiata_core.logs import read_log
from radiata_decode.experiment.trained_models import read_card
from radiata_imaging.plots import losses
from radiata_imaging.report import Image, Section, Table, Text

__all__ = ["model_sections"]

MOST = 12
LOGS = ("log.jsonl", "*/log.jsonl")


def model_sections(folder: Path) -> list[Section]:
    """What stands in a folder of `train`.

    Raises:
        InputError: a card of another format.
    """
    card = read_card(folder)
    facts = dict(card.facts)
    measured = facts.pop("measured", {})
    rows = [("route", card.route), *((name, _short(value)) for name, value in facts.items())]
    told = (
        "Nothing below is a test score: it was measured on training stimuli, each left out once where the name says loo, or "
        "on runs or groups left out. Test stimuli are for evaluate."
    )
    blocks: list[Any] = [Table(("fact", "value"), rows)]
    if isinstance(measured, Mapping) and measured:
        cells = [(name, _short(value)) for name, value in measured.items()]
        blocks += [Text(told), Table(("measured", "value"), cells)]
    sections = [Section("Decoder", blocks)]
    images = [
        image for pattern in LOGS for path in sorted(folder.glob(pattern)) if (image := _losses(path, folder))
    ]
    if images:
        sections.append(Section("Training", images))
    return sections


def _losses(path: Path, folder: Path) -> Image | None:
    records = read_log(path)
    if not any("loss" in record and "step" in record for record in records):
        return None
    where = "" if path.parent == folder else f" of {path.parent.name}"
    return Image(losses(records), f"Training loss{where}, with its running median.")


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        words = ", ".join(f"{one:.3g}" if isinstance(one, float) else str(one) for one in value[:MOST])
        more = f", … ({len(value)})" if len(value) > MOST else ""
        return f"{words}{more}" if words else "none"
    return value
