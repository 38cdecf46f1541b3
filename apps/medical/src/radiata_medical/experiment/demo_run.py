"""The work of the demo, in the order in which something is to be seen.

    colin27.nii.gz                 the head, or a block of it
    colin27-kspace_measured        what a quarter of k-space shows by itself
    colin27-kspace_restored        what the model makes of it                  likewise -sr (4 mm slices), -inpaint (a hole)
    colin27_dseg                   labels, volumes.csv, qc.csv
    scores.csv                     decibels of measurement and result
    report.html                    all of it

Every file has its card. The same seed gives the same voxels.
"""

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.files import atomic_path, read_json, sha256
from radiata_core.runs import Run
from radiata_imaging.nifti import read_volume, sidecar_path
from radiata_imaging.volume import Volume
from radiata_medical.data.degradations import Degradation, Hole
from radiata_medical.data.example_head import cut_block, example_head, lesion_mask
from radiata_medical.data.raw_data import KSpace
from radiata_medical.data.scans import Case
from radiata_medical.data.thick_slices import ThickSlices
from radiata_medical.experiment.demo import Demo
from radiata_medical.experiment.outputs import Facts, write_image
from radiata_medical.experiment.report import Report
from radiata_medical.experiment.report_pages import write_page
from radiata_medical.experiment.restoring_cases import Settings, solve, write_case
from radiata_medical.experiment.restoring_problems import scan_task
from radiata_medical.experiment.segmenting_models import load_segmenter
from radiata_medical.experiment.segmenting_outputs import write_segmented, write_tables
from radiata_medical.model.restorer import Restorer, load_restorer

__all__ = ["COMMAND", "demonstrate"]

COMMAND = "radiata-medical demo"
_NAME = "colin27"
_LEAST_QUALITY = 0.65
_DRAWS = 4
_FEW = 8  # evaluations of a sampler, where there is no unrolled restorer
_TITLES = {"kspace": "4x under-sampled k-space", "sr": "4 mm slices", "inpaint": "a hole of 12 mm radius"}


@dataclass(frozen=True, eq=False)
class _Models:
    """What the tasks need; None for what they do not."""

    restorer: Restorer | None
    segmenter: Any

    @property
    def checksums(self) -> dict[str, str]:
        found = dict(self.restorer.checksums) if self.restorer else {}
        return found | (dict(self.segmenter.models) if self.segmenter else {})


def demonstrate(task: Demo) -> None:
    """Write the demo's folder and say what came out."""
    whole = read_volume(example_head())
    head = cut_block(whole, task.block)
    models = _Models(
        load_restorer(3, task.prior, task.restorer, by_planes=True if task.mode == "mean" else None)
        if set(task.tasks) - {"segment"}
        else None,
        load_segmenter("network", (task.segmenter,), seed=task.seed) if "segment" in task.tasks else None,
    )
    earlier = _is_demo(task.out)
    source = {example_head().name: sha256(example_head())}
    with Run(
        task.out, COMMAND, task, seed=task.seed, data=source | models.checksums, overwrite=task.overwrite
    ) as run:
        if earlier:
            _clear(task.out)
        facts = Facts(COMMAND, "scan", source, options={"block": task.block}, generated=False)
        write_image(task.out / f"{_NAME}.nii.gz", head.array, head, facts)
        rows = [_restored(task, name, head, models.restorer, source) for name in _TITLES if name in task.tasks
                if models.restorer is not None]  # fmt: skip
        if models.segmenter is not None:
            _segmented(task, head if 0 < task.block < 96 else whole, models.segmenter, source)
        if rows:
            _write(task.out / "scores.csv", rows)
        run.note(scores=rows)
    write_page(Report(task.out, title="radiata-medical demo", viewers=1), task.out / "report.html")
    print(f"report and files in {task.out}")


def _is_demo(folder: Path) -> bool:
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    return bool(record.get("command") == COMMAND)


def _clear(folder: Path) -> None:
    """Remove what an earlier demo left: a shorter one must not show what a longer one made."""
    for pattern in (f"{_NAME}*", "scores.csv", "volumes.csv", "qc.csv", "report.html"):
        for path in folder.glob(pattern):
            path.unlink()


def _degradation(name: str, head: Volume) -> Degradation:
    if name == "kspace":
        return KSpace(acceleration=4.0, axis="j")
    if name == "sr":
        return ThickSlices((1.0,), (4.0,), "k")
    return Hole(missing=lesion_mask(head))


def _restored(
    task: Demo, name: str, head: Volume, restorer: Restorer, source: dict[str, str]
) -> dict[str, Any]:
    """Measure the head, restore it, write both; returns what is scored."""
    began = time.monotonic()
    degradation = _degradation(name, head)
    problem = scan_task(head, degradation, simulate=True, noise=task.noise, seed=task.seed)
    few = None if restorer.unrolled is not None or task.mode == "sample" else _FEW
    settings = Settings(
        task.mode,
        draws=_DRAWS,
        evaluations=few,
        seed=task.seed,
        save=("measured", "residual"),
    )
    solved = solve(problem, restorer, settings)
    options = {"task": name, "block": task.block, "noise": task.noise, "mode": task.mode, "seed": task.seed}
    facts = Facts(
        COMMAND, "restored", source, restorer.checksums, options | {"degradation": degradation.describe()}
    )
    path = write_case(
        task.out, Case(f"{_NAME}-{name}", example_head(), Path()), problem, solved, facts, began
    )
    card = read_json(sidecar_path(path))
    row = {
        "task": name, "psnr_measured_db": card["PSNRMeasured"], "psnr_restored_db": card["PSNR"],
        "misfit_over_noise": card["DataConsistency"], "evaluations": card["Evaluations"], "seconds": card["Seconds"],
    }  # fmt: skip
    if isinstance(degradation, Hole) and problem.truth is not None and degradation.missing is not None:
        error = (solved.image - problem.truth)[degradation.missing]
        row["psnr_hole_db"] = round(float(-10 * np.log10(np.mean(error.astype(np.float64) ** 2))), 3)
    print(
        f"{_TITLES[name]}: {row['psnr_measured_db']:.1f} dB measured, {row['psnr_restored_db']:.1f} dB restored "
        f"({row['seconds']:.0f} s)",
        flush=True,
    )
    return row


def _segmented(task: Demo, head: Volume, segmenter: Any, source: dict[str, str]) -> None:
    began = time.monotonic()
    case = Case(_NAME, example_head(), Path())
    found = segmenter.segment(head)
    facts = Facts(
        COMMAND,
        "segmentation",
        source,
        segmenter.models,
        {"block": task.block, "seed": task.seed},
        generated=False,
    )
    write_segmented(
        task.out, case, head, found, segmenter.table, facts, began, entropy=True, posteriors=False
    )
    write_tables(task.out, [case], segmenter.table, _LEAST_QUALITY)
    whole = found.segmentation
    print(
        f"segmented: quality {whole.quality:.2f}, intracranial {whole.intracranial_ml:.0f} ml "
        f"({time.monotonic() - began:.0f} s)",
        flush=True,
    )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
