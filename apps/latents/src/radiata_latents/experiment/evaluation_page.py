"""An evaluation on a page: scores, what could not be scored and why, latents, calibration, few-shot curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from radiata_imaging.report import Image, Section, Table, Text
from radiata_latents.experiment.figures_scores import few_shot
from radiata_latents.experiment.pages import score_section
from radiata_latents.experiment.pictures import Picture
from radiata_latents.experiment.score_table import SCORES
from radiata_latents.model.few_shot import FewShotCurve

__all__ = ["evaluation_sections"]


def evaluation_sections(
    result: Mapping[str, Any], *, synthetic: bool = False
) -> tuple[list[Section], list[Picture]]:
    """Of the content of `evaluation.json`.

    Args:
        result: As `evaluate` writes it.
        synthetic: Stamp the figures.
    """
    trials = f"{result['trials']} {result['split']} trials"
    marked = [str(row["name"]) for row in result["rows"] if row["name"] not in result.get("baselines", ())]
    scores, pictures = score_section(result["rows"], trials=trials, marked=marked, synthetic=synthetic)
    blocks = list(scores.blocks)
    if result["split"] == "test":
        blocks.insert(0, Text("These are test trials: a last number, not one to choose by.", warning=True))
    why_not = {SCORES.get(column, column): why for column, why in result.get("why_not", {}).items()}
    absent = [
        ("; ".join(name for name, reason in why_not.items() if reason == why), why)
        for why in dict.fromkeys(why_not.values())
    ]
    absent += [(name, why) for name, why in result.get("left_out", {}).items()]
    if absent:
        blocks.append(Table(("not here", "why"), absent))
    sections = [Section("Scores", blocks)]
    if result.get("few_shot"):
        section, picture = _few_shot(result["few_shot"], trials, synthetic)
        sections.append(section)
        pictures.append(picture)
    if result.get("collapse"):
        rows = [
            (name, one["total"], f"{one['active']} of {len(one['kl'])}", one["effective"], min(one["kl"]), max(one["kl"]))
            for name, one in result["collapse"].items()
        ]  # fmt: skip
        header = (
            "model",
            "KL, nats a trial",
            "active latents",
            "effective latents",
            "least KL",
            "largest KL",
        )
        said = "A latent is active from 0.1 nats a trial; effective latents share the KL equally."
        sections.append(Section("What latents carry", [Table(header, rows, f"{trials}. {said}")]))
    if result.get("calibration"):
        sections.append(_calibration(result["calibration"], trials))
    return sections, pictures


def _few_shot(found: Mapping[str, Any], trials: str, synthetic: bool) -> tuple[Section, Picture]:
    curves = {
        name: FewShotCurve(np.asarray(c["shots"]), np.asarray(c["draws"], float)) for name, c in found.items()
    }
    what = "; ".join(f"{name}: {c['from']}" for name, c in found.items())
    caption = (
        f"Bits a spike of held-out neurons in {trials}, by a read-out fitted on few training trials ({what}); mean and "
        "standard error over draws of them. Of models with equal co-bps, the one with superfluous latents falls earlier as "
        "trials get few."
    )
    picture = Picture("few-shot", few_shot(curves, synthetic=synthetic), caption)
    return Section("Few-shot co-smoothing", [Image(picture.png, caption)]), picture


def _interval(one: Mapping[str, Any]) -> str:
    """In one piece: no line is broken within it."""
    return f"[{one['dispersion_low']:.4g},\u00a0{one['dispersion_high']:.4g}]"


def _calibration(found: Mapping[str, Any], trials: str) -> Section:
    rows = [
        (name, one["of"], one["dispersion"], _interval(one), one["distance"],
         one["p_value"], one["counts"])
        for name, one in found.items()
    ]  # fmt: skip
    header = ("model", "counts", "dispersion", "95 % interval", "distance of PIT to uniform", "p", "n")
    said = (
        "Dispersion is 1 where counts are Poisson with these rates; above, rates miss something that varies."
    )
    return Section("Calibration", [Table(header, rows, f"{trials}; intervals over trials. {said}")])
