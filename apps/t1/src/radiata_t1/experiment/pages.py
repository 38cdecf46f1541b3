"""What stands on the page of each kind of run: training curves, sampled heads, an evaluation."""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.runs import read_json, read_log
from radiata_imaging.nifti import is_volume_path, read_volume, sidecar_path
from radiata_imaging.plots import losses, mosaic, validation_by_log_snr
from radiata_imaging.report import Image, Section, Table, Text, Viewer

__all__ = ["CAPTIONS", "evaluation_sections", "sample_sections", "train_sections"]

CAPTIONS = {
    "heads": "Middle slices on one grey scale: synthetic heads beside people the generator never saw. Not matched pairs.",
    "intensities": "Intensity histograms; the unit is the person on the real side, the volume on the synthetic side.",
    "spectrum": "Radially averaged power; a synthetic curve below the real one at the right end is blur.",
}
_MOSAICS = 4
_VIEWER_VOLUMES = 8


def evaluation_sections(result: Mapping[str, Any]) -> list[Section]:
    """Tables of an `evaluation.json`."""
    sets = [
        (s["name"], s["volumes"], s["people"] if s["people"] is not None else "–") for s in result["sets"]
    ]
    findings = [
        (
            f["measure"],
            f["features"],
            f["value"],
            f["interval"],
            f["p_value"],
            f["floor"],
            f["floor_interval"],
        )
        for f in result["findings"]
    ]
    first = result["findings"][0]
    counts = f"N = {first['n_synthetic']} synthetic volumes against {first['n_people']} people"
    sections = [
        Section(
            "What was compared",
            [
                Table(("set", "volumes", "people"), sets),
                Text(
                    "The sample size on the real side is the number of people, not of scans or renderings: scans of one "
                    "person are averaged into one unit before they are tested or resampled. The floor is the same figure "
                    "between random halves of the held-out people. No figure here is comparable with a published FID."
                ),
                *[Text(note, warning=True) for note in result.get("notes", ())],
            ],
        ),
        Section(
            "Distances",
            [
                Table(
                    (
                        "measure",
                        "features",
                        "synthetic vs real",
                        "95 % interval",
                        "p",
                        "real vs real",
                        "95 % range",
                    ),
                    findings,
                    f"{counts}; bootstrap intervals over units, permutation p-values, floor from random halves of people.",
                )
            ],
        ),
        Section("Regional volumes", _region_blocks(result.get("regions") or {})),
        Section("Copies of training heads", _copy_blocks(result.get("memorisation") or [])),
        Section("Diversity", [_diversity(result.get("diversity") or [])]),
    ]
    return sections


def _region_blocks(found: Mapping[str, Any]) -> list[Any]:
    if not found:
        return [Text("Not measured: give --labels, --regions or --meshnet.")]
    rows = [
        (
            t["region"],
            t["mean_x"],
            t["mean_y"],
            t["difference"],
            t["interval"],
            t["effect"],
            t["p_value"],
            t["p_holm"],
        )
        for t in found["tests"]
    ]
    whole = found["sliced_wasserstein"]
    differ = sum(t["p_holm"] is not None and t["p_holm"] < 0.05 for t in found["tests"])
    return [
        Text(f"{differ} of {len(rows)} regions differ at Holm-corrected p < 0.05."),
        Table(
            (
                "region",
                "synthetic ml",
                "real ml",
                "difference ml",
                "95 % interval",
                "Cohen's d",
                "p",
                "p Holm",
            ),
            rows,
            f"N = {found['n_synthetic']} synthetic volumes, {found['n_people']} people; permutation test of the energy "
            "distance, so differences of spread count as well.",
        ),
        Table(
            ("sliced Wasserstein-2, standardised volumes", "p", "real vs real", "95 % range", "regions"),
            [(whole["value"], whole["p_value"], whole["floor"], whole["floor_interval"], whole["regions"])],
            "WASABI-like: one multivariate figure over all regions, in sd of real people.",
        ),
    ]


def _copy_blocks(found: list[Mapping[str, Any]]) -> list[Any]:
    if not found:
        return [Text("Not measured: it needs three held-out volumes of two people or more.")]
    rows = [
        (m["features"], m["median_ratio"], m["median_ratio_real"], m["threshold"], f"{m['flagged']} of {m['n']}",
         m["expected_by_chance"], m["control_detected"], m["nearer_to_train"])
        for m in found
    ]  # fmt: skip
    blind = [m["features"] for m in found if not m["usable"]]
    nearest = [
        (m["features"], n["volume"], n["training"], n["ratio"]) for m in found[:1] for n in m["nearest"]
    ]
    blocks: list[Any] = [
        Text(
            "Ratio of the distance to the nearest training head over that to the nearest held-out head. A head is flagged "
            "below the threshold that one real unseen person in a hundred would cross. The positive control is training "
            "heads with slight noise. No alignment is done before distances are taken."
        ),
        Table(
            ("features", "median ratio", "of real people", "threshold", "flagged", "expected by chance", "control found",
             "nearer to training (0.5 if blind to it)"),
            rows,
        ),
        Table(("features", "synthetic head", "nearest training head", "ratio"), nearest, "The nearest five."),
    ]  # fmt: skip
    if blind:
        text = (
            f"The positive control was missed with {'; '.join(blind)}: those rows cannot clear the generator."
        )
        blocks.insert(1, Text(text, warning=True))
    return blocks


def _diversity(found: list[Mapping[str, Any]]) -> Table:
    rows = [
        (
            d["measure"],
            d["value"],
            d.get("interval"),
            d.get("n"),
            d.get("real"),
            d.get("real_interval"),
            d.get("n_real"),
        )
        for d in found
    ]
    return Table(
        ("measure", "synthetic", "95 % interval", "n", "real, different people", "95 % interval", "people"),
        rows,
    )


def train_sections(folder: Path) -> list[Section]:
    """Loss curves and held-out error by noise level from `log.jsonl`."""
    records = read_log(folder / "log.jsonl")
    keys = [key for key in ("loss", "validation_loss") if any(_number(r.get(key)) for r in records)]
    if not keys:
        return [Section("Training", [Text("The log holds no loss yet.")])]
    last = [r for r in records if _number(r.get("loss"))]
    blocks: list[Any] = [
        Image(losses(records, keys=keys), "Loss against step; the thick line is a running median.")
    ]
    if last:
        blocks.append(
            Table(
                ("last step", "last loss", "records"), [(last[-1].get("step"), last[-1]["loss"], len(last))]
            )
        )
    binned = [r for r in records if _bins(r)]
    if binned:
        edges, values = _bins(binned[-1]) or ([], [])
        figure = validation_by_log_snr(edges, {"model": values})
        blocks.append(Image(figure, f"Validation error by noise level at step {binned[-1].get('step')}."))
    return [Section("Training", blocks)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


_BIN = re.compile(r"validation_loss_log_snr_(-?[\d.e+]+|-inf)_(-?[\d.e+]+|inf)$")


def _bins(record: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """Edges and errors of a validation record; open bins at the ends are drawn one unit wide, empty ones left out."""
    found = [(match, value) for key, value in record.items() if (match := _BIN.match(key)) and _number(value)]
    if not found:
        return None
    bins = {(float(match[1]), float(match[2])): float(value) for match, value in found}
    finite = [edge for pair in bins for edge in pair if np.isfinite(edge)] or [0.0]
    low, high = min(finite) - 1.0, max(finite) + 1.0
    closed = {(max(a, low), min(b, high)): value for (a, b), value in bins.items()}
    edges = sorted({edge for pair in closed for edge in pair})
    return edges, [closed.get(pair, float("nan")) for pair in pairwise(edges)]


def sample_sections(folder: Path, real: Path | None = None) -> list[Section]:
    """Viewer, mosaics and a table of the volumes in a folder; a real head stands left of the slider, if there is one."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and is_volume_path(path))
    volumes = {path.name: read_volume(path) for path in paths[:_VIEWER_VOLUMES]}
    facts = {
        path.name: read_json(sidecar_path(path)) if sidecar_path(path).is_file() else {} for path in paths
    }
    synthetic = any(fact.get("SyntheticImage") for fact in facts.values())
    shown = f"The first {len(volumes)} of {len(paths)} volumes."
    viewed, compare = dict(volumes), None
    if real is not None:
        shown += " Real on the left of the slider, synthetic on the right: not the same person, each on its own grey scale."
        viewed = {f"real: {real.name}": read_volume(real)} | viewed
        compare = (f"real: {real.name}", next(iter(volumes)))
    keys = ("Seed", "Model", "Sampler", "Steps", "Guidance", "Conditions")
    present = [key for key in keys if any(key in fact for fact in facts.values())]
    rows = [(name, *(str(fact.get(key, "–")) for key in present)) for name, fact in facts.items()]
    pictures = [
        Image(
            mosaic(volume, title=name, synthetic=bool(facts[name].get("SyntheticImage"))),
            f"{name}: axial, coronal and sagittal slices, {len(paths)} volumes in the folder.",
        )
        for name, volume in list(volumes.items())[:_MOSAICS]
    ]
    return [
        Section("Viewer", [Viewer(viewed, synthetic, compare=compare), Text(shown)]),
        Section("Mosaics", pictures),
        Section("Files", [Table(("file", *present), rows)]),
    ]
