"""What `segment` writes of a scan, and the two tables of all scans.

    head_dseg.nii.gz .json .tsv     labels on the scan's grid; volumes, expected Dice and quality in the card
    head_entropy.nii.gz             entropy of the mean probabilities, nats                            --entropy
    head_disagreement.nii.gz        of heads or draws, nats                                            --entropy
    head_label-NAME_probseg.nii.gz  probabilities of a structure; in a BIDS tree before its desc-      --posteriors
    volumes.csv                     a row a scan: millilitres of each structure, total intracranial
    qc.csv                          a row a scan: quality, whether to look at it, expected Dice of each structure

The tables are made from the cards, so that a stopped command that goes on has all rows.
"""

import csv
import io
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from radiata_core.files import atomic_path, read_json
from radiata_core.provenance import peak_memory_mib
from radiata_imaging.nifti import sidecar_path
from radiata_imaging.volume import Volume
from radiata_medical.data.scans import Case, output_path
from radiata_medical.experiment.outputs import Facts, write_image, write_labels
from radiata_medical.experiment.segmenting_models import Segmented
from radiata_medical.experiment.segmenting_tables import LabelTable

__all__ = ["DOUBTFUL", "labels_path", "probability_path", "write_segmented", "write_tables"]

DOUBTFUL = 0.5
"""Expected Dice of a structure below which its name is put into the card."""


def labels_path(out: Path, case: Case) -> Path:
    """Where the label map of a case goes."""
    return output_path(out, case, "dseg")


def probability_path(out: Path, case: Case, name: str) -> Path:
    """Where the probabilities of a structure go: BIDS wants its label before the description."""
    path = output_path(out, case, "probseg")
    word = re.sub(r"[^a-zA-Z0-9]", "", name.title())
    return path.with_name(re.sub(r"(_desc-[^_]*)?_probseg", rf"_label-{word}\g<0>", path.name))


def write_segmented(
    out: Path,
    case: Case,
    scan: Volume,
    found: Segmented,
    table: LabelTable,
    facts: Facts,
    began: float,
    *,
    entropy: bool,
    posteriors: bool,
) -> None:
    """Write the files of a scan, its label map last.

    Args:
        out: Folder of the results.
        case: Whose.
        scan: Its grid.
        found: What was found.
        table: Names and colours.
        facts: Command, sources, models, options.
        began: `time.monotonic()` at the start.
        entropy: Write maps of what is unsure.
        posteriors: Write the probabilities of all structures that have any.
    """
    whole = found.segmentation
    figures: dict[str, Any] = {
        "VolumesMl": whole.volumes_ml,
        "ExpectedVolumesMl": whole.expected_ml,
        "IntracranialMl": whole.intracranial_ml,
        "Quality": whole.quality,
        "ExpectedDice": whole.dice,
        "Doubtful": [
            name
            for name, dice in whole.dice.items()
            if dice < DOUBTFUL and whole.volumes_ml.get(name, 0.0) > 0
        ],
        "Evaluations": whole.evaluations,
        "Window": whole.window,
        "Notes": list(found.notes),
        "Seconds": round(time.monotonic() - began, 2),
        "PeakMemoryMiB": peak_memory_mib(),
    }
    told = replace(facts, figures={**facts.figures, **figures})
    if entropy:
        maps = {"entropy": whole.entropy, **found.maps}
        for word, values in maps.items():
            write_image(output_path(out, case, word), values, scan, replace(told, what=f"{word}, nats"))
    if posteriors and whole.probability is not None:
        for code, name in zip(table.labelling.codes, table.labelling.names, strict=True):
            if code and whole.volumes_ml[name] == 0.0 and whole.expected_ml[name] < 0.01:
                continue
            path = probability_path(out, case, name)
            write_image(path, whole.probability(code), scan, replace(told, what=f"probability of {name}"))
    write_labels(labels_path(out, case), whole.codes, scan, told, table.names)


def write_tables(out: Path, cases: Sequence[Case], table: LabelTable, least: float) -> None:
    """`volumes.csv` and `qc.csv` of the cases that have a label map, from their cards.

    Args:
        out: Folder of the results.
        cases: In the order of the rows.
        table: Names of the columns.
        least: Quality below which a scan is to be looked at.
    """
    names = table.labelling.names[1:]
    volumes = [["case", *(f"{name} (ml)" for name in names), "total intracranial (ml)"]]
    quality = [["case", "quality", "look", *(f"{name} (expected Dice)" for name in names)]]
    for case in cases:
        card = sidecar_path(labels_path(out, case))
        if not card.is_file():
            continue
        told = read_json(card)
        name = (case.relative / case.name).as_posix()
        sizes, dice = told.get("VolumesMl", {}), told.get("ExpectedDice", {})
        volumes.append(
            [name, *(f"{sizes.get(n, 0.0):.4f}" for n in names), f"{told.get('IntracranialMl', 0.0):.4f}"]
        )
        look = "yes" if told.get("Quality", 0.0) < least else "no"
        quality.append(
            [name, f"{told.get('Quality', 0.0):.4f}", look, *(f"{dice.get(n, 0.0):.4f}" for n in names)]
        )
    _write_csv(out / "volumes.csv", volumes)
    _write_csv(out / "qc.csv", quality)


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_path(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
