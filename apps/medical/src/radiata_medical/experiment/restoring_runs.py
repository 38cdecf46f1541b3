"""All cases of one `restore`: which there are, which are done, which fail; one after another or several at once.

A case fails alone: its reason stands in `failures.json`, the others go on, and the command ends with exit 1. A single case
is read before the folder is made, so a mistake leaves nothing behind. A case is done if its restored image is there and its
card names the same scan, models and options; made from others, it is kept, and counts as a failure unless --overwrite is
given.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_core.files import plain, write_json
from radiata_core.runs import Progress, Run
from radiata_imaging.nifti import open_image, read_volume
from radiata_imaging.scale_out import Workers, device_of_worker
from radiata_imaging.volume import Volume, times
from radiata_medical.data.bias_estimate import estimate_bias
from radiata_medical.data.degradations import Bias, Degradation, Hole
from radiata_medical.data.kspace_files import find_kspace, read_kspace
from radiata_medical.data.raw_data import KSpace
from radiata_medical.data.scans import Case, case_of, find_cases, output_path, read_mask, read_scan, same_grid
from radiata_medical.experiment.outputs import (
    Facts,
    free_path,
    is_finished,
    sources_of,
    write_description,
)
from radiata_medical.experiment.restoring_cases import Settings, solve, write_case
from radiata_medical.experiment.restoring_problems import Task, kspace_task, scan_task
from radiata_medical.model.restorer import Restorer, load_restorer

if TYPE_CHECKING:
    from radiata_medical.experiment.restore import Restore

__all__ = ["COMMAND", "run_cases"]

COMMAND = "radiata-medical restore"
_NO_MATTER = (
    "source",
    "out",
    "overwrite",
    "dry_run",
    "processes",
    "scheduler",
    "device",
    "mask",
    "field",
    "sensitivities",
    "spec",
    "model",
    "restorer",
)
"""Options that do not change voxels, or whose files and models are told by their checksums."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        name: Of the case.
        source: Its file.
        path: The restored image; None: it failed.
        reason: Why.
        warnings: What to doubt.
        skipped: It was there already.
    """

    name: str
    source: str
    path: Path | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()
    skipped: bool = False


def run_cases(verb: "Restore") -> None:
    """Restore all cases of the verb's source.

    Raises:
        InputError: nothing to restore, models or options that cannot be used, or a case that failed.
    """
    cases = cases_of(verb)
    degradation = verb.degradation()
    task = task_of(verb, cases[0], degradation) if len(cases) == 1 else None
    restorer = _models_of(verb, _dims(verb, cases[0], task))
    if verb.dry_run:
        _foretell(verb, cases, degradation, restorer)
        return
    failures: list[Outcome] = []
    with Run(verb.out, COMMAND, verb, seed=verb.seed, resume=True) as run:
        if cases[0].bids:
            write_description(verb.out, "Restored images")
        with Progress(len(cases), "restore", unit="scan") as bar:
            for outcome in _outcomes(verb, cases, task):
                run.log.write(**plain(outcome))
                for warning in outcome.warnings:
                    print(f"{COMMAND}: warning: {outcome.name}: {warning}", file=sys.stderr)
                if outcome.path is None:
                    failures.append(outcome)
                bar.update(1)
        _write_failures(verb.out / "failures.json", failures)
        if failures:
            raise InputError(
                failures[0].reason
                if len(cases) == 1
                else f"expected to restore {len(cases)} scans; got {len(failures)} failures, listed in "
                f"{verb.out / 'failures.json'}; the first, {failures[0].name}: {failures[0].reason}"
            )
    print(verb.out)


def cases_of(verb: "Restore") -> tuple[Case, ...]:
    """The scans of the source, or its files of k-space.

    Raises:
        InputError: there are none.
    """
    if verb.task == "kspace" and verb.spec is None and (files := find_kspace(verb.source)):
        root = verb.source if verb.source.is_dir() else verb.source.parent
        return tuple(replace(case_of(path, root), name=path.stem) for path in files)
    return find_cases(verb.source)


def task_of(verb: "Restore", case: Case, degradation: Degradation) -> Task:
    """What is to be solved for a case.

    Raises:
        InputError: the case or its maps cannot be used.
    """
    if find_kspace(case.path):
        thinned = degradation if verb.simulate and isinstance(degradation, KSpace) else None
        return kspace_task(
            case.path, axcodes=verb.kspace_axcodes, sensitivities=verb.sensitivities, voxel=verb.voxel,
            noise=verb.noise, thinned=thinned, seed=verb.seed,
        )  # fmt: skip
    scan = read_scan(case.path, assume_axcodes=verb.assume_axcodes)
    if isinstance(degradation, Hole) and verb.mask is not None:
        missing = read_mask(_mask_of(verb.mask, case), scan, assume_axcodes=verb.assume_axcodes)
        degradation = replace(degradation, missing=missing)
    if isinstance(degradation, Bias) and verb.field is not None:
        known = read_volume(verb.field, assume_axcodes=verb.assume_axcodes, allow_constant=True, min_axis=1)
        same_grid(scan, known, ("the scan", "the field"))
        degradation = replace(degradation, known=known.array)
    across = None if verb.slices == "no" else "ijk".index(verb.slices)
    asked: dict[str, Any] = {"across": across, "noise": verb.noise, "rician": verb.rician, "seed": verb.seed}
    if isinstance(degradation, Bias) and verb.field is None:
        return _blind(scan, degradation, verb.simulate, asked)
    return scan_task(scan, degradation, simulate=verb.simulate, **asked)


def _blind(scan: Volume, degradation: Bias, simulate: bool, asked: dict[str, Any]) -> Task:
    """A bias field that only the scan tells of; in simulations the one that was drawn is forgotten."""
    truth = None
    if simulate:
        made = scan_task(scan, degradation, simulate=True, **asked)
        truth = made.truth
        seen = made.volume([problem.y for problem in made.problems])
        scan = Volume(made.scale.to_file(np.maximum(seen, 0)), scan.affine)
        asked = asked | {"noise": 100 * made.noise_sd}
    known = estimate_bias(scan.array, degradation.order)
    task = scan_task(scan, replace(degradation, known=known), **asked)
    return replace(task, truth=truth)


def restore_case(verb: "Restore", case: Case, task: Task | None = None) -> Outcome:
    """Restore one case, whose task may be known already; what is wrong with it becomes its outcome."""
    began = time.monotonic()
    try:
        degradation = verb.degradation()
        restorer = _models_of(verb, _dims(verb, case, task))
        path = output_path(verb.out, case, "restored")
        extra = [p for p in (verb.sensitivities, verb.field) if p is not None]
        extra += [_mask_of(verb.mask, case)] if verb.mask is not None else []
        facts = Facts(
            COMMAND,
            "restored",
            sources_of(case.path, *extra),
            restorer.checksums,
            _options(verb, degradation),
        )
        if is_finished(path, facts) and not verb.overwrite:
            return Outcome(case.name, str(case.path), path, skipped=True)
        free_path(path, verb.overwrite, facts)
        task = task_of(verb, case, degradation) if task is None else task
        solved = solve(task, restorer, _settings(verb))
        write_case(verb.out, case, task, solved, facts, began)
    except InputError as error:
        return Outcome(case.name, str(case.path), reason=" ".join(str(error).split()))
    except (MemoryError, torch.OutOfMemoryError):
        reason = "expected more memory; got none left. Use a smaller --tile, or --slices k."
        return Outcome(case.name, str(case.path), reason=reason)
    return Outcome(case.name, str(case.path), path, warnings=solved.warnings)


def _outcomes(verb: "Restore", cases: tuple[Case, ...], task: Task | None) -> Iterator[Outcome]:
    workers = Workers(verb.processes, verb.scheduler).at_most(len(cases))
    if workers.here:
        for case in cases:
            yield restore_case(verb, case, task)
        return
    with workers.started() as crew:
        for ended in crew.outcomes(_restored_elsewhere, cases, (verb,)):
            yield ended.value or Outcome(ended.item.name, str(ended.item.path), reason=ended.error)


def _restored_elsewhere(case: Case, verb: "Restore") -> Outcome:
    return restore_case(verb, case)


def _settings(verb: "Restore") -> Settings:
    planes = tuple("ijk".index(axis) for axis in verb.planes) or None
    return Settings(
        verb.mode, verb.draws, verb.evaluations, verb.batch_size, verb.tile, verb.halo, planes,
        Workers(verb.processes, verb.scheduler).here, verb.keep_measured, verb.seed, verb.save,
    )  # fmt: skip


def _foretell(verb: "Restore", cases: tuple[Case, ...], degradation: Degradation, restorer: Restorer) -> None:
    """What would be done; scans are read, nothing is written.

    Raises:
        InputError: a scan that cannot be used.
    """
    for case in cases:
        path = output_path(verb.out, case, "restored")
        task = task_of(verb, case, degradation)
        state = "is there" if path.exists() else "to do"
        print(
            f"{case.path} -> {path} ({state}): {times(task.grid.shape)} voxels, noise {100 * task.noise_sd:.2g} %, "
            f"by {', '.join(restorer.checksums)}"
        )


def _options(verb: "Restore", degradation: Degradation) -> dict[str, Any]:
    kept = {name: value for name, value in vars(verb).items() if name not in _NO_MATTER}
    return kept | {"degradation": degradation.describe()}


def _dims(verb: "Restore", case: Case, task: Task | None) -> int:
    """2 for slices: where they are asked for, of a single slice, of k-space of slices."""
    if task is not None:
        return len(task.frame.shape)
    if verb.slices != "no":
        return 2
    if find_kspace(case.path):
        return read_kspace(case.path, verb.kspace_axcodes)[0].mask.ndim
    return 2 if case.path.is_file() and 1 in (*open_image(case.path, min_axis=1).shape, 1)[:3] else 3


def _models_of(verb: "Restore", dims: int) -> Restorer:
    """The models named; of the shipped ones, for the best image of a volume those of slices (by planes)."""
    by_planes = True if verb.mode == "mean" else None
    return _models(dims, verb.model, verb.restorer, _device(verb.device), by_planes)


@lru_cache(maxsize=4)
def _models(
    dims: int, prior: str | None, unrolled: str | None, device: str, by_planes: bool | None
) -> Restorer:
    return load_restorer(dims, prior, unrolled, device, by_planes=by_planes)


def _device(word: str) -> str:
    if word != "auto":
        return word
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return device_of_worker(found)


def _mask_of(mask: Path, case: Case) -> Path:
    """The mask of a case: the file itself, or the one of its name in a folder."""
    if not mask.is_dir():
        return mask
    folders = (mask / case.relative, mask)
    names = (case.path.name, f"{case.name}_mask.nii.gz", f"{case.name}_mask.nii")
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise InputError(f"expected a mask of {case.name} in {mask}; got none. Name it {names[0]} or {names[1]}.")


def _write_failures(path: Path, failures: list[Outcome]) -> None:
    path.unlink(missing_ok=True)
    if failures:
        write_json(path, [{"scan": failure.source, "error": failure.reason} for failure in failures])
