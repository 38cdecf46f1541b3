r"""Restoration: the one function that an application calls, with what was best by measurement behind it.

    y = A x_0 + n        restore(models, A, y, s)        ->  x, and in mode "sample" its standard deviation

| mode | A = identity | other A, with an unrolled restorer | without |
|---|---|---|---|
| `mean`: the best single image | `denoise_once`, 1 evaluation | `unrolled`, as many as it has levels | `relaxed_prox`, 24 |
| `fast` | the same | the same | `relaxed_prox`, 8 |
| `sample`: draws, their mean and spread | `calibrated`, 12 a draw | the same | the same |

The mean of the posterior has the least error and is smoother than any image; draws look like images and have a larger one.
An error bar comes with draws only. With K of them, of variance V at a voxel, the error of their mean has the variance
(1 + 1/K) V if they are exact; that of training-free samplers is too small or too large by a factor that is measured on
validation images (`posterior_calibration`), which is what `RestorationModels.widening` repairs.

A draw is a function of its seed, its number and the measurement: draws are made in batches of any size, so memory is chosen
freely, and 3-D priors go in as `tiling.TiledDenoiser`. What is best among 14 samplers on one prior is in docs/posterior.md.

References:
    `posterior`, `posterior_presets`, `unrolled` hold the papers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.operators import LinearOperator
from radiata_core.pointwise import Identity
from radiata_core.posterior import denoise_once, misfit, sample_posterior
from radiata_core.posterior_presets import calibrated, relaxed_prox
from radiata_core.posterior_spread import Spread, UnitSpread
from radiata_core.posterior_walk import PosteriorMethod
from radiata_core.seeds import generator_of
from radiata_core.tiling import TiledDenoiser
from radiata_core.times import KarrasGrid
from radiata_core.types import Batch, Measurement, Row, Times
from radiata_core.unrolled import UnrolledRestorer

__all__ = ["Mode", "Restoration", "RestorationModels", "restore"]

Mode = Literal["mean", "fast", "sample"]
_EVALUATIONS = {"mean": 24, "fast": 8, "sample": 12}
_DRAW = 11
"""Purpose of the generators, part of their key."""


@dataclass(frozen=True, eq=False)
class RestorationModels:
    """What restores.

    Attributes:
        prior: E[x_0 | x_t].
        restorer: An unrolled restorer, if there is one.
        spread: r^2 of the prior, `measured_spread`; None: that of data N(m, data_sd^2 I), too wide for most.
        widening: Factor on the draws' deviations from their mean, > 0: sqrt(1/ratio) of validation images.
        data_sd: Standard deviation of the data, in its units, > 0: walks start at 10 and end at 0.02 times it.

    Raises:
        InputError: a number is not positive.
    """

    prior: Denoiser
    restorer: UnrolledRestorer | None = None
    spread: Spread | None = None
    widening: float | int = 1.0
    data_sd: float | int = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.widening < math.inf and 0 < self.data_sd < math.inf):
            raise InputError(
                f"expected a widening and a standard deviation of the data > 0; got {self.widening} and {self.data_sd}. "
                "Read them from the model's metadata."
            )

    def tiled(
        self, tile: int, halo: int, together: int = 2, say: Callable[[str], None] | None = None
    ) -> "RestorationModels":
        """The same models in blocks, for volumes of any size: see `tiling.TiledDenoiser`."""

        def blocks(denoiser: Any) -> TiledDenoiser:
            return TiledDenoiser(denoiser, tile, halo, together, say=say)

        restorer = None if self.restorer is None else self.restorer.on(blocks(self.restorer.denoiser))
        return RestorationModels(blocks(self.prior), restorer, self.spread, self.widening, self.data_sd)


@dataclass(frozen=True, eq=False)
class Restoration:
    """What was found.

    Attributes:
        x: The estimate, (batch, *event): in mode `sample` the mean of the draws.
        sd: Expected standard deviation of its error at every voxel, (batch, *event); None: not sampled.
        draws: (draws, batch, *event), widened; None: not sampled, or not kept.
        misfit: Root mean square of y - A x of every row over the noise: near 1 if x explains y, less if it explains noise
            as well. Over the root mean square of y where the noise is 0.
        evaluations: Calls of the denoiser for a row, all draws together.
        method: What was done, a word for tables.
    """

    x: Batch
    sd: Batch | None
    draws: Float[Tensor, "draws batch *event"] | None
    misfit: Row
    evaluations: int
    method: str


@torch.no_grad()
def restore(
    models: RestorationModels,
    operator: LinearOperator,
    y: Measurement,
    noise_sd: float | int,
    mode: Mode = "mean",
    *,
    evaluations: int | None = None,
    draws: int = 8,
    keep_draws: bool = True,
    seeds: Sequence[int] | None = None,
    batch_size: int = 1,
    callback: Callable[[int, int], None] | None = None,
    **conditions: Any,
) -> Restoration:
    """The image behind a measurement; a row depends on its own y, its seed and its conditions only.

    Args:
        models: Prior, restorer, calibration.
        operator: A, on real events.
        y: (batch, *measurement).
        noise_sd: s, of every (real and imaginary) number of y, in units of y, >= 0; > 0 for the identity.
        mode: See the table above.
        evaluations: Steps of a sampler (of each draw); None: 24, 8 or 12 by mode. One-shot and unrolled have their own.
        draws: K >= 2, in mode `sample`.
        keep_draws: Whether the draws themselves are returned; they are K images a row.
        seeds: Of the rows, >= 0; None: 0, 1, 2, ...
        batch_size: Rows a call of the network, over rows and draws, >= 1.
        callback: Called after each batch with the rows (draws counted) done and in all.
        conditions: Passed on to the networks, tensors with a row a sample, or None.

    Raises:
        InputError: a number or shape out of range; see `sample_posterior`, `UnrolledRestorer.restore`, `denoise_once`.
    """
    if mode not in _EVALUATIONS:
        raise InputError(
            f"expected a mode of mean, fast or sample; got {mode!r}. mean is the best single image."
        )
    seeds = range(len(y)) if seeds is None else seeds
    steps = _EVALUATIONS[mode] if evaluations is None else evaluations
    if len(seeds) != len(y) or min(batch_size, steps) < 1 or (mode == "sample" and draws < 2):
        raise InputError(
            f"expected a seed for each of {len(y)} rows, a batch size and evaluations >= 1 and draws >= 2; got "
            f"{len(seeds)} seeds, {batch_size}, {steps} and {draws}. Leave them out for the defaults."
        )
    work = _Work(models, operator, y, float(noise_sd), steps, seeds, conditions)
    name, one, calls = work.method(mode)
    count = draws if mode == "sample" else 1
    tasks = [(draw, row) for draw in range(count) for row in range(len(y))]
    running = _RunningMoments()
    kept: list[Tensor] = []
    for start in range(0, len(tasks), batch_size):
        some = tasks[start : start + batch_size]
        for (_, row), x in zip(some, one(some), strict=True):
            running.add(row, x)
            if mode == "sample" and keep_draws:
                kept.append(x)
        if callback is not None:
            callback(start + len(some), len(tasks))
    x = torch.stack([running.means[row] for row in range(len(y))])
    sd = all_draws = None
    if mode == "sample":
        squares = torch.stack([running.squares[row] for row in range(len(y))])
        sd = models.widening * (squares / (count - 1) * (1 + 1 / count)).sqrt()
        if keep_draws:
            all_draws = torch.stack(kept).reshape(count, *x.shape)
            all_draws = x + models.widening * (all_draws - x)
    unit = noise_sd if noise_sd > 0 else float(y.abs().square().mean().sqrt()) or 1.0
    return Restoration(x, sd, all_draws, misfit(operator, x, y) / unit, count * calls, name)


_Tasks = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class _Work:
    """Estimates of some (draw, row) pairs, by whichever method."""

    models: RestorationModels
    operator: LinearOperator
    y: Tensor
    noise_sd: float
    steps: int
    seeds: Sequence[int]
    conditions: dict[str, Any]

    def method(self, mode: Mode) -> tuple[str, Callable[[_Tasks], Tensor], int]:
        """Its name, itself, and its evaluations for a row."""
        if mode == "sample":
            spread = self.models.spread or UnitSpread(self.models.data_sd**2)
            return "calibrated", lambda tasks: self._walked(calibrated(spread), tasks), self.steps
        if isinstance(self.operator, Identity):
            return "denoise-once", self._denoised, 1
        if self.models.restorer is not None:
            return "unrolled", self._unrolled, self.models.restorer.evaluations(self.operator)
        return "relaxed-prox", lambda tasks: self._walked(relaxed_prox(), tasks), self.steps

    def _times(self) -> Times:
        scale = self.models.data_sd
        return KarrasGrid(sigma_min=0.02 * scale, sigma_max=10 * scale)(self.steps, self.models.prior.path)

    def _of(self, tasks: _Tasks) -> tuple[Tensor, dict[str, Any]]:
        rows = [row for _, row in tasks]
        given = {
            name: value[rows] if isinstance(value, Tensor) else value
            for name, value in self.conditions.items()
        }
        return self.y[rows], given

    def _denoised(self, tasks: _Tasks) -> Tensor:
        y, given = self._of(tasks)
        return denoise_once(self.models.prior, y, self.noise_sd, **given)

    def _unrolled(self, tasks: _Tasks) -> Tensor:
        assert self.models.restorer is not None
        y, given = self._of(tasks)
        return self.models.restorer.restore(self.operator, y, self.noise_sd, **given)

    def _walked(self, method: PosteriorMethod, tasks: _Tasks) -> Tensor:
        y, given = self._of(tasks)
        generators = [generator_of(self.seeds[row], _DRAW, draw) for draw, row in tasks]
        found = sample_posterior(
            self.models.prior, self.operator, y, self.noise_sd, self._times(), method, generators, **given
        )
        return found.x


class _RunningMoments:
    """Mean and sum of squared deviations of each row's draws, one at a time: the same in batches of any size."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.means: dict[int, Tensor] = {}
        self.squares: dict[int, Tensor] = {}

    def add(self, row: int, x: Tensor) -> None:
        """Welford's update."""
        count = self.counts.get(row, 0) + 1
        mean = self.means.get(row, torch.zeros_like(x))
        off = x - mean
        self.counts[row] = count
        self.means[row] = mean + off / count
        self.squares[row] = self.squares.get(row, torch.zeros_like(x)) + off * (x - self.means[row])
