"""What is to be doubted of a restored scan: three doubts, which stand in its card and on standard error.

Noise or voxels outside of what the models were trained on; a scan unlike those of training; a measurement that the result
does not explain.
"""

import numpy as np
import torch

from radiata_medical.experiment.restoring_problems import Task
from radiata_medical.model.restorer import Restorer, unlikeness

__all__ = ["doubts_after", "doubts_before"]

_UNLIKE = 3.0
_UNEXPLAINED = 2.0


def doubts_before(task: Task, restorer: Restorer) -> list[str]:
    """Of voxels and noise, which are known before anything is done."""
    doubts = []
    edges, (least, most) = task.frame.spacing, restorer.known.spacing
    if task.scan is not None and not all(least <= edge <= most for edge in edges):
        sizes = " x ".join(f"{edge:.3g}" for edge in edges)
        doubts.append(
            f"voxels of {sizes} mm: models know {least:.3g} to {most:.3g} mm (--task sr makes finer ones)"
        )
    if task.noise_sd > restorer.known.noise and task.measured_as_image:
        doubts.append(
            f"noise of {100 * task.noise_sd:.0f} % of white: models know up to {100 * restorer.known.noise:.0f} %"
        )
    return doubts


def doubts_after(task: Task, restorer: Restorer, image: np.ndarray, misfit: float) -> list[str]:
    """Of what was found.

    Args:
        task: What was solved.
        restorer: The models.
        image: (x, y, z), in units of the prior.
        misfit: Over the noise.
    """
    doubts = []
    if misfit > _UNEXPLAINED:
        doubts.append(
            f"the result leaves {misfit:.1f} times the noise of the measurement unexplained: is --noise too small?"
        )
    shown = task.truth
    if shown is None and task.scan is not None and task.scan.shape == image.shape:
        shown = task.scan.array / task.scale.white
    looked_at = image if shown is None else shown
    if task.across is None:
        rows = torch.from_numpy(np.ascontiguousarray(looked_at, dtype=np.float32))[None, None]
    else:
        stack = np.moveaxis(looked_at, task.across, 0)
        rows = torch.from_numpy(np.ascontiguousarray(stack[len(stack) // 2], dtype=np.float32))[None, None]
    floor = task.noise_sd if shown is not None and task.truth is None else 0.0
    ratio = unlikeness(restorer, rows, task.frame.codes, floor)
    if ratio is not None and ratio > _UNLIKE:
        doubts.append(
            f"the scan is unlike those of training: the prior errs {ratio:.1f} times as much (mean square)"
        )
    return doubts
