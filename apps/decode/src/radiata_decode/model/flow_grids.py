r"""Flow on another grid and with other steps: vectors change with the cells they are counted in.

A vector is in cells of its grid a step. From G cells to g it is averaged over what a cell covers and multiplied by g/G. In
time, steps are averaged in groups (each is still "a frame step"), or repeated. So a film of eight frames (seven steps) and
a decoder of three predicted steps speak one language.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from radiata_core.errors import InputError

__all__ = ["check_flow", "resampled_flow"]


def check_flow(flow: Tensor, what: str = "flow") -> None:
    """Refuse what is not flow.

    Raises:
        InputError: another number of axes, components or NaN.
    """
    if flow.ndim != 5 or flow.shape[2] != 2 or 0 in flow.shape:
        raise InputError(
            f"expected {what} (n, step, 2, y, x), x component first; got {tuple(flow.shape)}. Reorder its axes."
        )
    if not torch.isfinite(flow).all():
        raise InputError(f"expected finite {what}; got NaN or infinity. Leave those stimuli out.")


def resampled_flow(flow: Tensor, grid: tuple[int, int] | None = None, steps: int | None = None) -> Tensor:
    """The same motion on another grid, (n, steps, 2, *grid), in cells of the new grid a frame step.

    Args:
        flow: (n, step, 2, y, x).
        grid: Cells (y, x); None: as they are. Fewer are averages, more are interpolated.
        steps: Groups of steps, as even as they can be; more than there are repeat them. None: as they are.

    Raises:
        InputError: not flow, or a grid or number of steps below 1.
    """
    check_flow(flow)
    if (grid is not None and min(grid) < 1) or (steps is not None and steps < 1):
        raise InputError(f"expected a grid and steps of 1 or more; got {grid} and {steps}.")
    moved = flow
    if steps is not None and steps < flow.shape[1]:
        edges = [round(flow.shape[1] * k / steps) for k in range(steps + 1)]
        moved = torch.stack([flow[:, a:b].mean(1) for a, b in pairwise(edges)], dim=1)
    elif steps is not None and steps > flow.shape[1]:
        moved = flow[:, torch.arange(steps, device=flow.device) * flow.shape[1] // steps]
    if grid is None or tuple(grid) == tuple(flow.shape[3:]):
        return moved
    planes = moved.flatten(0, 1)
    smaller = grid[0] <= flow.shape[3] and grid[1] <= flow.shape[4]
    planes = (
        adaptive_avg_pool2d(planes, grid)
        if smaller
        else interpolate(planes, grid, mode="bilinear", align_corners=False)
    )
    scale = torch.tensor([grid[1] / flow.shape[4], grid[0] / flow.shape[3]], dtype=flow.dtype)
    return (planes * scale.to(flow.device)[:, None, None]).unflatten(0, moved.shape[:2])
