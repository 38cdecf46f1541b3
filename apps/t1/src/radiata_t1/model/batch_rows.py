"""The largest batch that fits: memory of a batch as a line through two measured evaluations.

    M(b) = M(1) + (b − 1) (M(2) − M(1)),        rows = max {b : M(b) ≤ share of what is free}

M is the peak of one evaluation: resident memory of the process on a CPU (the kernel's high-water mark, reset before;
where it cannot be, its growth), the allocator's on a GPU. A line, since activations grow with the rows and weights do not.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiata_core.allocation import return_freed_memory
from radiata_core.errors import InputError
from radiata_core.provenance import peak_memory_mib

__all__ = ["SHARE", "free_bytes", "measured_bytes", "rows_that_fit"]

SHARE = 0.7
"""Of the free memory that a batch may take: the solver's states, the file being written and other programs need some too."""


def rows_that_fit(peak: Callable[[int], float], free: float, most: int) -> int:
    """The largest number of rows, at most `most`, whose memory fits.

    Args:
        peak: Memory of an evaluation of so many rows, bytes; asked for 1 and 2.
        free: Bytes that may be taken.
        most: Rows that are wanted at most.

    Raises:
        InputError: not even one row fits.
    """
    one = peak(1)
    if one > free:
        raise InputError(
            f"expected memory for one row, {one / 2**20:.0f} MiB; got {free / 2**20:.0f} MiB. Use fewer --processes, "
            "--max-memory, or a machine with more."
        )
    if most < 2:
        return 1
    slope = peak(2) - one
    return most if slope <= 0 else min(most, 1 + int((free - one) // slope))


def free_bytes(device: torch.device) -> float:
    """Memory that can be had now: the kernel's estimate of the host's, or what the GPU has left.

    Raises:
        InputError: the system does not tell.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    raise InputError(
        "expected a system that tells its free memory; got none in /proc. Give --batch-size a number."
    )


def measured_bytes(denoiser: Any, event: Sequence[int], covariates: Mapping[str, Tensor], rows: int) -> float:
    """What one evaluation of so many rows takes besides what is held already, bytes.

    Args:
        denoiser: On the device where it works.
        event: Shape of a row.
        covariates: One row of conditions, `{"covariates": (1, K)}`, or nothing.
        rows: How many.
    """
    device = next(denoiser.parameters()).device
    x = torch.zeros(rows, *event, device=device)
    t = torch.tensor(0.5, dtype=torch.float64)
    given = {name: value.expand(rows, -1) for name, value in covariates.items()}
    with torch.inference_mode():
        denoiser(x, t, **given)  # first calls choose and compile kernels
        if device.type == "cuda":
            held = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            denoiser(x, t, **given)
            return float(torch.cuda.max_memory_allocated(device) - held)
        return_freed_memory()  # else this call is served by what the last one left, and seems to take less
        resident = _resident("VmRSS")
        reset = _reset_peak()
        denoiser(x, t, **given)
    peak = _resident("VmHWM") if reset else 2**20 * peak_memory_mib()["process"]
    return max(peak - resident, 4.0 * x.numel())


def _resident(key: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process, bytes; 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(key)), 0.0)


def _reset_peak() -> bool:
    """Whether the high-water mark could be set back to what is resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
