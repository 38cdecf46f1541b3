r"""A volume from a prior of its slices: score distillation of slices of every direction, tied together by a measurement.

    min over theta of  1/|axes| sum over axes, slices i of  w/2 |x[i] - x^_0[i]|^2  +  data,          x = x(theta)

x^_0[i] is the slice, noised and denoised by a prior that was trained on slices only (`score_distillation`); a step takes
some slices across one axis. What no slice sees, the agreement with its neighbours, comes from the slices of the other
directions and from the data:

| data | on a grid of voxels | on a field of Gaussians |
|---|---|---|
| `Held(operator, y)`: no noise | after each step x + A^+ (y - A x): what was measured is exact | not possible |
| `Measured(operator, y, weight)` | weight/2 \|A x - y\|^2 | the same |

with any operator of the core: `masking` for slices that are missing, `downsampling.thick_slices`, `projection.ParallelBeam`
for few views. The volume is a `VoxelVolume`, or a `FieldOnGrid` of Gaussians; in two stages the first initialises the second
(`field_fits.fit_field`). Volumes have any number n of axes and slices n - 1.

The result is one point estimate, near a mode. It says nothing about what else would have fitted; see `score_distillation`.

References:
    Guo et al., "StableDreamer", 2023, https://arxiv.org/abs/2312.02189 (annealed distillation; two stages, Gaussians last).
    Chung et al., "Solving 3D inverse problems using pre-trained 2D diffusion models" (DiffusionMBIR), 2023,
        https://arxiv.org/abs/2211.10655 (a posterior sampler with a prior of slices: the calibrated alternative).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.gaussian_field import GaussianField, voxel_centres
from radiata_core.operators import LinearOperator
from radiata_core.score_distillation import Distilled, ScoreDistillation
from radiata_core.types import Batch, Measurement, Scalar

__all__ = ["FieldOnGrid", "Held", "Measured", "VoxelVolume", "volume_from_slices"]


class VoxelVolume(nn.Module):
    """A volume whose voxels are the parameters.

    Args:
        start: First guess, (1, channel, *grid); an interpolation, say.
    """

    def __init__(self, start: Batch) -> None:
        super().__init__()
        self.voxels = nn.Parameter(start.detach().clone())

    def forward(self) -> Batch:
        """(1, channel, *grid)."""
        return self.voxels


class FieldOnGrid(nn.Module):
    """A field of Gaussians, seen on a grid.

    Args:
        field: Its parameters are this module's.
        shape: Of the grid.
        affine: Voxel to world, mm.
    """

    def __init__(self, field: GaussianField, shape: Sequence[int], affine: Tensor) -> None:
        super().__init__()
        self.field, self.shape = field, tuple(shape)
        self.register_buffer("places", voxel_centres(shape, affine).to(field.centres), persistent=False)

    def forward(self) -> Batch:
        """(1, channel, *grid)."""
        return self.field(self.places).mT.reshape(1, -1, *self.shape)


@runtime_checkable
class Data(Protocol):
    """What was measured of the volume."""

    operator: LinearOperator

    def loss(self, x: Batch) -> Scalar:
        """What is added to the objective, ()."""
        ...

    def held(self, x: Batch) -> Batch | None:
        """The volume nearest to x that fits exactly; None where nothing is held."""
        ...


@dataclass(frozen=True, eq=False)
class Held:
    """A measurement without noise: y = A x to rounding, for operators whose pseudo-inverse has a closed form.

    Attributes:
        operator: A.
        y: (1, *measurement).
    """

    operator: LinearOperator
    y: Measurement

    def loss(self, x: Batch) -> Scalar:
        return x.new_zeros(())

    def held(self, x: Batch) -> Batch | None:
        """x + A^+ (y - A x)."""
        return x + self.operator.pseudo_inverse(self.y - self.operator(x))


@dataclass(frozen=True, eq=False)
class Measured:
    """A measurement that weighs: weight/2 |A x - y|^2.

    Attributes:
        operator: A.
        y: (1, *measurement).
        weight: Relative to the pull of the prior on all slices, > 0; r^2/s^2 for noise s of y and an error r of the prior.
    """

    operator: LinearOperator
    y: Measurement
    weight: float = 10.0

    def loss(self, x: Batch) -> Scalar:
        return 0.5 * self.weight * (self.operator(x) - self.y).square().sum()

    def held(self, x: Batch) -> Batch | None:
        return None


def volume_from_slices(
    distillation: ScoreDistillation,
    scene: nn.Module,
    data: Data,
    generator: torch.Generator,
    *,
    axes: Sequence[int] = (0, 1, 2),
    steps: int = 300,
    slices: int = 16,
    rate: float = 0.02,
    optimiser: torch.optim.Optimizer | None = None,
    callback: Callable[[int, Distilled], None] | None = None,
    **conditions: Any,
) -> Batch:
    """The volume that fits the data and whose slices the prior leaves where they are, (1, channel, *grid), detached.

    Args:
        distillation: Of the prior of slices, with the levels of noise. Slices are continued by their mirror image to the
            multiple that the prior's network asks for.
        scene: What is optimised, in place: `VoxelVolume`, `FieldOnGrid` or any module that returns (1, channel, *grid).
        data: `Held` or `Measured`.
        generator: Of axes, slices, times and noise; on the CPU.
        axes: Across which slices are cut, 0 the first of space. The two directions through thick slices are enough.
        steps: Of the optimiser, whose rate falls to 0 as a cosine, >= 1.
        slices: A step, >= 1; all of them where there are fewer.
        rate: First step size of Adam in units of the volume, > 0.
        optimiser: Of the scene's parameters, in place of Adam (`field_fits.field_optimiser` for a field).
        callback: Called after each step with its number and what was distilled: `x0` is what the prior made of the slices.
        **conditions: Of the denoiser, one row for all slices.

    Raises:
        InputError: shapes, axes or numbers that do not fit, or data to be held by a scene without voxels.
    """
    with torch.no_grad():
        space = scene().ndim - 2
    _check(scene, data, space, axes, steps, slices, rate)
    optimiser = optimiser or torch.optim.Adam(scene.parameters(), rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    _hold(scene, data)
    for step in range(steps):
        axis = axes[int(torch.randint(len(axes), (), generator=generator))]
        x = scene()
        count = x.shape[2 + axis]
        rows = torch.randperm(count, generator=generator)[:slices]
        views = _mirrored(x[0].movedim(1 + axis, 0)[rows.to(x.device)], distillation)
        given = {name: v.expand(len(rows), *v.shape[1:]) for name, v in conditions.items()}
        found = distillation(views, step / steps, [generator] * len(rows), **given)
        loss = found.value * (count / len(rows)) + data.loss(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        _hold(scene, data)
        if callback is not None:
            callback(step, found)
    with torch.no_grad():
        return scene().clone()


def _hold(scene: nn.Module, data: Data) -> None:
    if isinstance(scene, VoxelVolume):
        with torch.no_grad():
            exact = data.held(scene.voxels)
            if exact is not None:
                scene.voxels.copy_(exact)


def _mirrored(views: Tensor, distillation: ScoreDistillation) -> Tensor:
    multiple = int(getattr(getattr(distillation.denoiser, "network", None), "multiple", 1))
    pad: list[int] = []
    for n in reversed(views.shape[2:]):
        pad += [0, -n % multiple]
    return F.pad(views, pad, mode="reflect") if any(pad) else views


def _check(
    scene: nn.Module, data: Data, space: int, axes: Sequence[int], steps: int, slices: int, rate: float
) -> None:
    if space < 2 or not axes or len(set(axes)) != len(axes) or not set(axes) <= set(range(space)):
        raise InputError(
            f"expected different axes out of 0 to {space - 1} of a volume of two axes or more; got {tuple(axes)}. "
            "0 is the first axis of space."
        )
    if steps < 1 or slices < 1 or not rate > 0:
        raise InputError(
            f"expected steps >= 1, slices >= 1 and a rate > 0; got {steps}, {slices} and {rate}."
            " 300, 16 and 0.02 suit data of order 1."
        )
    with torch.no_grad():
        x = scene()
        if len(x) != 1:
            raise InputError(
                f"expected one volume (1, channel, *grid); got {tuple(x.shape)}. Take them in turn."
            )
        if not isinstance(scene, VoxelVolume) and data.held(x) is not None:
            raise InputError(
                f"expected Measured data for {type(scene).__name__}; got data to be held. Only voxels can be held exactly."
            )
        data.loss(x)
