"""Time and memory of drawing, foretold by one evaluation measured now."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radiata_core.provenance import peak_memory_mib
from radiata_t1.model.samplers import Sampler

__all__ = ["Estimate", "clock", "estimate_of"]


@dataclass(frozen=True)
class Estimate:
    """Seconds and memory of one batch."""

    seconds: float
    mebibytes: float


def estimate_of(
    sampler: Sampler, denoiser: Any, event: Sequence[int], batch: int, covariates: Mapping[str, Tensor]
) -> Estimate:
    """Time and memory of a batch, from one evaluation measured now.

    Args:
        sampler: How many evaluations a head takes.
        denoiser: On the device where it works.
        event: Shape of a row.
        batch: Rows.
        covariates: One row of conditions, `{"covariates": (1, K)}`, or nothing.
    """
    device = next(denoiser.parameters()).device
    on_gpu = device.type == "cuda"
    x = torch.zeros(batch, *event, device=device)
    t = torch.tensor(0.5, dtype=torch.float64)
    rows = {name: value.expand(batch, -1) for name, value in covariates.items()}
    with torch.inference_mode():
        denoiser(x[:1], t, **covariates)  # first calls choose and compile kernels
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        denoiser(x, t, **rows)
        if on_gpu:
            torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - start) * sampler.evaluations(bool(covariates))
    return Estimate(seconds, peak_memory_mib()["gpu" if on_gpu else "process"])


def clock(seconds: float) -> str:
    """A duration in words: 12 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
