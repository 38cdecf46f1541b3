r"""A volume's denoiser from a denoiser of slices: each slice of each direction denoised, and the mean over directions.

    D(x_t) = 1/|A| sum over axes a in A of stack over slices i of D_2(x_t[slice i across a])

Every voxel lies in one slice of each direction, so three estimates of it have errors that are partly their own. The squared
error of their mean is at most the mean of theirs, and the streaks that independent slices leave in the third direction are
gone. It costs a 2-D evaluation of the whole volume a direction, in memory of a few slices. With an operator of the whole
volume (`unrolled`, `posterior`) the measurement ties the slices together.

References:
    Chung et al., "Solving 3D inverse problems using pre-trained 2D diffusion models" (DiffusionMBIR), 2023,
        https://arxiv.org/abs/2211.10655 (a 2-D prior for volumes, tied by total variation across slices).
    Lee et al., "Improving 3D imaging with pre-trained perpendicular 2D diffusion models" (TPDM), 2023,
        https://arxiv.org/abs/2303.08440 (a product of two perpendicular 2-D priors).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.coefficients import Path
from radiata_core.errors import InputError
from radiata_core.kernels import Kernel, kernel_of
from radiata_core.types import Batch, Time

__all__ = ["PlanewiseDenoiser"]


class PlanewiseDenoiser(nn.Module):
    """A `Denoiser` of volumes (batch, channel, x, y, z) from one of slices (batch, channel, u, v).

    It holds no weights of its own and is not for files. Slices are continued by their mirror image to a multiple of the
    network's and cut again. A volume may stay on the CPU while the network is on another device: slices travel.

    Args:
        denoiser: E[x_0 | x_t] of slices in every direction; with an attribute `network` whose `multiple` tells what grids
            it takes.
        axes: Across which slices are cut, out of 0, 1, 2 (x, y, z).
        together: Slices a call, >= 1.
        done: Called after each call of the denoiser with the slices it was of.

    Raises:
        InputError: no axis, one twice, one out of range, or no slice a call.
    """

    def __init__(
        self,
        denoiser: Any,
        axes: Sequence[int] = (0, 1, 2),
        together: int = 8,
        done: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        if not axes or len(set(axes)) != len(axes) or not set(axes) <= {0, 1, 2} or together < 1:
            raise InputError(
                f"expected different axes out of 0, 1 and 2, and a slice a call or more; got {tuple(axes)} and {together}. "
                "(0, 1, 2) takes every direction."
            )
        self.denoiser = denoiser
        self.path: Path = denoiser.path
        self.axes, self.together, self.done = tuple(axes), together, done
        self.multiple = int(getattr(getattr(denoiser, "network", None), "multiple", 1))

    @property
    def kernel(self) -> Kernel:
        """The law of the noise of the denoiser."""
        return kernel_of(self.denoiser)

    def forward(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[x_0 | x_t], (batch, channel, x, y, z), t scalar or (batch,).

        Raises:
            InputError: not a batch of volumes.
        """
        if x.ndim != 5:
            raise InputError(
                f"expected volumes (batch, channel, x, y, z); got {tuple(x.shape)}. Slices need no planes."
            )
        total = torch.zeros_like(x)
        for axis in self.axes:
            total += self._across(x, t, axis, conditions)
        return total / len(self.axes)

    def _across(self, x: Tensor, t: Tensor, axis: int, conditions: dict[str, Any]) -> Tensor:
        """All slices across one axis, denoised."""
        moved = x.movedim(2 + axis, 1)
        batch, count = moved.shape[:2]
        rows = moved.flatten(0, 1)
        owners = torch.arange(batch).repeat_interleave(count)
        device = next((p.device for p in self.denoiser.parameters()), x.device)
        found = torch.empty_like(rows)
        for start in range(0, len(rows), self.together):
            part = slice(start, start + self.together)
            own = owners[part]
            at = t[own.to(t.device)] if t.ndim else t
            given = {
                name: value[own.to(value.device)].to(device) if isinstance(value, Tensor) else value
                for name, value in conditions.items()
            }
            found[part] = self._slices(rows[part].to(device), at, given).to(x)
            if self.done is not None:
                self.done(len(own))
        return found.unflatten(0, (batch, count)).movedim(1, 2 + axis)

    def _slices(self, rows: Tensor, t: Tensor, conditions: dict[str, Any]) -> Tensor:
        height, width = rows.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            mode = "reflect" if below < height and right < width else "replicate"
            rows = F.pad(rows, (0, right, 0, below), mode=mode)
        denoised: Tensor = self.denoiser(rows, t, **conditions)
        return denoised[..., :height, :width]
