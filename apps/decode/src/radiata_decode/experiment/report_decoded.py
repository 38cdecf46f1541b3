"""Sections of a decoded file: pictures, motion or probabilities of stimuli drawn at random, beside what was seen.

What was seen comes from the subject folder that the run names, if it is still there. Without scores there is no best or
worst here: `evaluate` ranks.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_core.seeds import rng_of
from radiata_decode.data.decoded import Decoded, read_decoded
from radiata_decode.data.loading import unit_images
from radiata_decode.data.stimuli import Stimuli, read_stimuli
from radiata_decode.experiment.evaluation import DISCLAIMER
from radiata_decode.experiment.flow_figures import flow_gallery
from radiata_decode.experiment.galleries import labelled_pictures, picture_gallery
from radiata_imaging.report import Image, Section, Table, Text

__all__ = ["decoded_sections"]

DRAWN = 91  # key of random numbers
MOST_ROWS = 8
MOST_CELLS = 40


def decoded_sections(folder: Path, *, limit: int = 24, seed: int = 0) -> list[Section]:
    """What stands in a folder of `decode` or `synthesize`.

    Args:
        folder: With decoded.h5.
        limit: Most stimuli with pictures.
        seed: Of the stimuli that are drawn.
    """
    decoded = read_decoded(folder)
    about = _about(folder)
    synthetic = bool(about.get("SimulatedSubject", False))
    if decoded.split == "regions":
        return [_regions(decoded, synthetic)]
    rows = np.sort(rng_of(seed, DRAWN).permutation(len(decoded.stimulus))[:limit]).tolist()
    stimuli = _stimuli(folder)
    told = f"{len(decoded.stimulus)} stimuli of the {decoded.split} trials by the route {decoded.route}; {len(rows)} drawn "
    blocks: list[Any] = [Text(told + "at random. No score stands here: evaluate gives them, with controls.")]
    if "flow" in decoded.arrays:
        blocks.append(_flow(decoded, rows[:MOST_ROWS], synthetic))
    if "images" in decoded.arrays:
        blocks.append(_pictures(decoded, rows, stimuli, synthetic))
    if "movies" in decoded.arrays:
        blocks.append(_films(decoded, rows[:MOST_ROWS], stimuli, synthetic))
    if "probabilities" in decoded.arrays:
        blocks.append(_probabilities(decoded, rows))
    return [Section("Decoded", blocks)]


def _regions(decoded: Decoded, synthetic: bool) -> Section:
    figure = labelled_pictures(
        decoded.arrays["images"], decoded.stimulus, title="what drives each region", synthetic=synthetic
    )
    told = "One region active, all others at their mean, decoded: what the decoder's weights say, not what a region sees."
    return Section("Pictures of regions", [Text(told), Image(figure, f"One picture a region. {DISCLAIMER}")])


def _pictures(decoded: Decoded, rows: list[int], stimuli: Stimuli | None, synthetic: bool) -> Image:
    """Small files in rows with what was seen; many pictures in lines."""
    arrays = decoded.arrays
    names = [decoded.stimulus[row] for row in rows]
    if stimuli is None or "images" not in stimuli.shapes:
        figure = labelled_pictures(arrays["images"][rows], names, title="decoded", synthetic=synthetic)
        return Image(figure, f"Drawn at random. {DISCLAIMER}")
    kept, few = names[:MOST_ROWS], rows[:MOST_ROWS]
    columns = {"seen": unit_images(stimuli.images(kept)), "decoded": unit_images(arrays["images"][few])}
    if "low_level" in arrays:
        columns["low level"] = unit_images(arrays["low_level"][few])
    for draw in range(min(2, arrays["draws"].shape[1]) if "draws" in arrays else 0):
        columns[f"draw {draw + 1}"] = unit_images(arrays["draws"][few, draw])
    labels = {name: place for place, name in enumerate(kept)}
    return Image(picture_gallery(columns, labels, synthetic=synthetic), f"Drawn at random. {DISCLAIMER}")


def _films(decoded: Decoded, rows: list[int], stimuli: Stimuli | None, synthetic: bool) -> Image:
    """First, middle and last frame of films, decoded and seen."""
    names = [decoded.stimulus[row] for row in rows]
    columns: dict[str, torch.Tensor] = {}
    sets = {"decoded": decoded.arrays["movies"][rows]}
    if stimuli is not None and "movies" in stimuli.shapes:
        sets = {"seen": stimuli.movies(names)} | sets
    for name, films in sets.items():
        for word, frame in (("first", 0), ("middle", films.shape[1] // 2), ("last", films.shape[1] - 1)):
            columns[f"{name}, {word}"] = unit_images(np.ascontiguousarray(films[:, frame]))
    labels = {name: place for place, name in enumerate(names)}
    caption = f"Frames of films, drawn at random; the first frame may be the true one. {DISCLAIMER}"
    return Image(picture_gallery(columns, labels, synthetic=synthetic), caption)


def _flow(decoded: Decoded, rows: list[int], synthetic: bool) -> Image:
    labels = {decoded.stimulus[row]: place for place, row in enumerate(rows)}
    figure = flow_gallery({"decoded": decoded.arrays["flow"][rows]}, labels, synthetic=synthetic)
    return Image(figure, f"Decoded motion, drawn at random; the wheel reads the colours. {DISCLAIMER}")


def _probabilities(decoded: Decoded, rows: list[int]) -> Table:
    cells = []
    for row in rows[:MOST_CELLS]:
        each = decoded.arrays["probabilities"][row]
        order = np.argsort(-each, kind="stable")[:3]
        likely = [f"{decoded.categories[place]} {each[place]:.2f}" for place in order]
        cells.append((decoded.stimulus[row], *likely, *[""] * (3 - len(likely))))
    return Table(("stimulus", "likeliest", "second", "third"), cells, "Probabilities of categories.")


def _about(folder: Path) -> dict[str, Any]:
    file = folder / "decoded.json"
    found = read_json(file) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def _stimuli(folder: Path) -> Stimuli | None:
    """Of the subject that the run names, where they still are."""
    record = folder / "run.json"
    found = read_json(record) if record.is_file() else {}
    options = found.get("options", {}) if isinstance(found, dict) else {}
    subject = options.get("subject") if isinstance(options, dict) else None
    if not subject:
        return None
    try:
        return read_stimuli(Path(str(subject)))
    except InputError:
        return None
