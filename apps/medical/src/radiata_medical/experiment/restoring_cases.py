"""One case of `restore`: solve its task, look at the result with suspicion, write files that overlay on the scan.

    head_restored     the image, on the scan's grid (`sr`: on a finer one with the same outer faces)
    head_sd           expected standard deviation of its error, from draws
    head_residual     y - A x on the scan's grid where the measurement is an image, else A'(y - A x)/|A|^2
    head_invented     |x - A^+ A x|: what the measurement does not determine, and the prior made up
    head_measured     A^+ y: what the measurement alone shows
    head_field        the bias field
    head_draw-1 ...   draws of the posterior

What is to be doubted (`restoring_doubts`) is written into the card.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from radiata_core.logs import Progress
from radiata_core.masking import Masking
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Multiplication, Scaling
from radiata_core.provenance import peak_memory_mib
from radiata_core.restoration import Mode, Restoration, RestorationModels, restore
from radiata_imaging.nifti import sidecar_path
from radiata_imaging.volume import Volume
from radiata_medical.data.scans import Case, output_path
from radiata_medical.experiment.outputs import Facts, write_image
from radiata_medical.experiment.restoring_doubts import doubts_after, doubts_before
from radiata_medical.experiment.restoring_problems import Problem, Task
from radiata_medical.model.restorer import Restorer

__all__ = ["Saved", "Settings", "Solved", "solve", "write_case"]

Saved = Literal["residual", "invented", "measured", "draws", "field"]

_TOGETHER = 8
"""Slices of a volume that a network of slices sees at once, at least."""


@dataclass(frozen=True)
class Settings:
    """How a task is solved.

    Attributes:
        mode: Of `radiata_core.restoration.restore`.
        draws: In mode sample.
        evaluations: Steps of a sampler; None: its own.
        batch_size: Slices or draws at once.
        tile: Voxels an axis of a block; 0: the whole.
        planes: Axes across which a network of slices sees a volume; None: `_planes` of the operator.
        show: A line or a bar on standard error tells how many slices of a volume are done.
        halo: Overlap of blocks.
        keep_measured: Voxels around a hole stay as they are.
        seed: Of draws.
        save: What else is written.
    """

    mode: Mode = "mean"
    draws: int = 8
    evaluations: int | None = None
    batch_size: int = 1
    tile: int = 192
    halo: int = 16
    planes: tuple[int, ...] | None = None
    show: bool = False
    keep_measured: bool = True
    seed: int = 0
    save: tuple[Saved, ...] = ("residual",)


@dataclass(frozen=True, eq=False)
class Solved:
    """What was found, in units of the prior, on the grid of the result unless said.

    Attributes:
        image: (x, y, z).
        maps: Word -> further images: sd, residual (maybe on the scan's grid), invented, measured, draw-1, ...
        misfit: Root mean square of y - A x over the noise, of all rows.
        evaluations: Of the network, a slice or volume.
        method: What was done.
        warnings: What to doubt.
    """

    image: np.ndarray
    maps: dict[str, np.ndarray]
    misfit: float
    evaluations: int
    method: str
    warnings: tuple[str, ...] = field(default=())


def _planes(operator: LinearOperator) -> tuple[int, ...]:
    """Array axes across which a network of slices cuts a volume: each slice holds the axis that was measured coarsely.

    One evaluation goes through all three directions. Where there are several, two do: the third costs half as much again
    and helps only where no axis is coarser (`benchmarks/medical.py --only volume`).
    """
    if isinstance(operator, Scaling):
        return (0, 1, 2)
    before, after = operator.event_shape[1:], operator.measurement_shape[1:]
    coarse = [axis for axis, (n, m) in enumerate(zip(before, after, strict=False)) if n != m]
    if len(before) == len(after) == 3 and len(coarse) == 1:
        return tuple(axis for axis in range(3) if axis != coarse[0])
    return (0, 1)


@torch.no_grad()
def solve(task: Task, restorer: Restorer, settings: Settings) -> Solved:
    """The image behind a task's measurements.

    Raises:
        InputError: what models, operators and samplers refuse.
    """
    warnings = doubts_before(task, restorer)
    planes = settings.planes or _planes(task.problems[0].operator)
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(None, "slices", unit="slice")) if settings.show else None
        models = restorer.on_axes(
            task.frame.codes, settings.tile, settings.halo, warnings.append, planes=planes,
            together=max(settings.batch_size, _TOGETHER), done=bar.update if bar is not None else None,
        )  # fmt: skip
        found = _found(task, models, settings)
    images = [_kept(p, r.x, settings.keep_measured) for p, r in zip(task.problems, found, strict=True)]
    misfit = float(torch.cat([one.misfit for one in found]).square().mean().sqrt())
    image = task.volume(images)
    warnings += doubts_after(task, restorer, image, misfit)
    return Solved(
        np.maximum(image, 0) if _is_magnitude(task) else image,
        _maps(task, found, images, settings),
        misfit,
        found[0].evaluations,
        _in_words(task, restorer, found[0].method, planes),
        tuple(dict.fromkeys(warnings)),
    )


def _found(task: Task, models: RestorationModels, settings: Settings) -> list[Restoration]:
    """What is found for every problem; a row's seed follows from its place."""
    found: list[Restoration] = []
    row = 0
    for problem in task.problems:
        seeds = [settings.seed + place for place in range(row, row + len(problem.y))]
        row += len(problem.y)
        found.append(
            restore(
                models, problem.operator, problem.y, problem.noise_sd, settings.mode,
                evaluations=settings.evaluations, draws=settings.draws, keep_draws="draws" in settings.save,
                seeds=seeds, batch_size=settings.batch_size,
            )
        )  # fmt: skip
    return found


def _in_words(task: Task, restorer: Restorer, method: str, planes: Sequence[int]) -> str:
    """The method, and how a volume went through the network."""
    if task.across is not None:
        return method
    dims = restorer.unrolled_dims if method == "unrolled" else restorer.prior_dims
    return f"{method}, planes across {' '.join('ijk'[axis] for axis in planes)}" if dims == 2 else method


def _maps(
    task: Task, found: list[Restoration], images: list[Tensor], settings: Settings
) -> dict[str, np.ndarray]:
    maps = {}
    if settings.mode == "sample":
        deviations = [one.sd for one in found if one.sd is not None]
        maps["sd"] = task.volume(
            [_sure(p, sd, settings) for p, sd in zip(task.problems, deviations, strict=True)]
        )
    if "residual" in settings.save:
        maps["residual"] = task.volume(
            [_residual(task, p, r.x) for p, r in zip(task.problems, found, strict=True)]
        )
    if "invented" in settings.save:
        maps["invented"] = task.volume(
            [
                (x - p.operator.pseudo_inverse(p.operator(x))).abs()
                for p, x in zip(task.problems, images, strict=True)
            ]
        )
    if "measured" in settings.save:
        maps["measured"] = task.volume([p.operator.pseudo_inverse(p.y) for p in task.problems])
    fields = [p.operator.field for p in task.problems if isinstance(p.operator, Multiplication)]
    if "field" in settings.save and fields and fields[0].ndim:
        shared = [
            field[None, None].expand(len(p.y), 1, *field.shape)
            for p, field in zip(task.problems, fields, strict=True)
        ]
        maps["field"] = task.volume(shared)
    if "draws" in settings.save and settings.mode == "sample":
        for k in range(settings.draws):
            maps[f"draw-{k + 1}"] = task.volume([one.draws[k] for one in found if one.draws is not None])
    return maps


def _kept(problem: Problem, x: Tensor, keep: bool) -> Tensor:
    """The image with what was measured around a hole as it was."""
    if not (keep and isinstance(problem.operator, Masking)):
        return x
    return torch.where(problem.operator.mask, problem.operator.adjoint(problem.y), x)


def _sure(problem: Problem, sd: Tensor, settings: Settings) -> Tensor:
    """The deviation of kept voxels is that of their noise."""
    if not (settings.keep_measured and isinstance(problem.operator, Masking)):
        return sd
    return torch.where(problem.operator.mask, torch.full_like(sd, problem.noise_sd), sd)


def _residual(task: Task, problem: Problem, x: Tensor) -> Tensor:
    left = problem.y - problem.operator(x)
    return (
        left
        if task.measured_as_image
        else problem.operator.adjoint(left) / max(problem.operator.norm, 1e-12) ** 2
    )


def _is_magnitude(task: Task) -> bool:
    return task.scan is None or float(task.scan.array.min()) >= 0


def write_case(out: Path, case: Case, task: Task, solved: Solved, facts: Facts, began: float) -> Path:
    """Write the files of a case, the restored image last, and return where that is.

    Args:
        out: Folder.
        case: Whose.
        task: What was solved.
        solved: What was found.
        facts: Command, sources, models, options.
        began: `time.monotonic()` at the start.
    """
    grid = Volume(np.zeros(task.grid.shape, np.float32), task.grid.affine)
    own = task.scan if task.scan is not None and task.measured_as_image else grid
    figures = {
        "Method": solved.method,
        "Evaluations": solved.evaluations,
        "DataConsistency": round(solved.misfit, 4),
        "NoiseSD": task.noise_sd * task.scale.white,
        "NoisePercent": round(100 * task.noise_sd, 3),
        "White": task.scale.white,
        "Warnings": list(solved.warnings),
        **_scores(task, solved),
        "Seconds": round(time.monotonic() - began, 2),
        "PeakMemoryMiB": peak_memory_mib(),
    }
    told = replace(facts, figures={**facts.figures, **figures})
    written: list[Path] = []
    try:
        for word, values in solved.maps.items():
            place = own if word == "residual" and values.shape == own.shape else grid
            share = values if word == "field" else task.scale.to_file(values)
            generated = word not in ("measured", "field", "residual")
            written.append(output_path(out, case, word))
            write_image(
                written[-1], share, place, replace(told, what=_WHAT.get(word, word), generated=generated)
            )
        return write_image(output_path(out, case, "restored"), task.scale.to_file(solved.image), grid, told)
    except BaseException:  # maps of an image that is not there tell nothing
        for path in written:
            path.unlink(missing_ok=True)
            sidecar_path(path).unlink(missing_ok=True)
        raise


_WHAT = {
    "sd": "standard deviation of a restored image",
    "residual": "residual of a measurement",
    "invented": "part the prior made up",
    "measured": "least-squares image",
    "field": "bias field",
}


def _scores(task: Task, solved: Solved) -> dict[str, Any]:
    """In simulations: peak signal-to-noise ratios, the peak being white."""
    if task.truth is None:
        return {}
    scores = {"PSNR": _psnr(solved.image, task.truth)}
    if "measured" in solved.maps:
        scores["PSNRMeasured"] = _psnr(solved.maps["measured"], task.truth)
    return scores


def _psnr(image: np.ndarray, truth: np.ndarray) -> float:
    error = float(np.mean((image.astype(np.float64) - truth) ** 2))
    return round(-10 * np.log10(max(error, 1e-12)), 3)
