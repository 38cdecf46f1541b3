r"""Coarse to fine: a fine grid drawn given a coarse one, voxel space throughout.

A generator of whole heads at 4 mm knows where everything is; what 1 mm adds is local. So a cascade draws the coarse grid
once, and then, stage by stage, voxels `factor` times finer given it. A stage is a flow on what interpolation U misses,

$$r = \mathrm{fold}\big(x - U\tilde c\big) / s, \qquad \tilde c = c + \tau\,\eta, \quad \eta \sim \mathcal N(0, I), \qquad
  c = \text{box mean of } x,$$

where fold puts the factor^n fine voxels of each coarse voxel into channels, an invertible rearrangement, and s makes r of
order 1. The network sees the noisy r beside c̃ on the coarse grid, which is factor^n times cheaper than the fine one.
Noise of sd τ on the condition (drawn at random in training, and told) is what makes a stage forgive a coarse grid that was
drawn and not measured (Ho et al. 2022, "conditioning augmentation"); at τ > 0 it may also change what is coarse.

A stage of a local network (`nets.unet`, norm "channel", no attention) is the same on a block as on the whole, and its noise
belongs to a place (`overlapping_windows.noise_of_box`): so a head does not depend on how it was cut, there are no seams, and
any box of it can be drawn alone, given the coarse head.

    coarse grid ──► Refinement, factor 2 ──► Refinement, factor 2 ──► fine grid          `refine` is one arrow, `Cascade` all

Reading order: `residual` and `finer`, `Refinement`, `refine`, `Cascade`.

References:
    Ho, Saharia, Chan, Fleet, Norouzi & Salimans, "Cascaded diffusion models for high fidelity image generation", JMLR 2022,
        https://arxiv.org/abs/2106.15282, section 3 (conditioning augmentation).
    Saharia et al., "Image super-resolution via iterative refinement", 2021, https://arxiv.org/abs/2104.07636, section 2.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core import tables
from radiata_core.denoisers import Autoguided, Denoiser, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap, sample_flow_map
from radiata_core.nets.unet import depth_to_space, space_to_depth
from radiata_core.overlapping_windows import JoinedInput, coordinates_of, noise_of_box
from radiata_core.paths import Path
from radiata_core.predictions import Prediction
from radiata_core.seeds import seed_of
from radiata_core.solvers import integrate
from radiata_core.specs import buildable
from radiata_core.tiling import TiledDenoiser, TiledFlowMap
from radiata_core.times import Grid, LinearGrid, LogSNRGrid
from radiata_core.types import Batch, Time

__all__ = ["Cascade", "GivenCoarse", "Refinement", "box_mean", "finer", "interpolated", "refine", "residual"]

Fine: TypeAlias = Float[Tensor, "batch channels *fine"]
Coarse: TypeAlias = Float[Tensor, "batch channels *coarse"]
Folded: TypeAlias = Float[Tensor, "batch folded *coarse"]

_NOISE, _CORRUPTION, _STEPS = 11, 12, 100
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def box_mean(fine: Fine, factor: int) -> Coarse:
    """Mean over blocks of factor^n voxels: `(batch, channels, *grid)` to `(batch, channels, *grid / factor)`.

    Raises:
        InputError: an axis that does not divide by `factor`.
    """
    if any(n % factor for n in fine.shape[2:]):
        raise InputError(
            f"expected grid axes that divide by {factor}; got {tuple(fine.shape[2:])}. Crop or pad the volume."
        )
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[fine.ndim - 2]
    return pool(fine, factor)


def interpolated(coarse: Coarse, factor: int) -> Fine:
    """U c: linear interpolation between the centres of coarse voxels, constant beyond the outermost; grid times factor."""
    return F.interpolate(
        coarse, scale_factor=float(factor), mode=_MODES[coarse.ndim - 2], align_corners=False
    )


def residual(fine: Fine, coarse: Coarse, factor: int, scale: float) -> Folded:
    """r = fold(x - U c) / s, `(batch, channels factor^n, *coarse grid)`; the inverse of `finer` at the same coarse grid."""
    return space_to_depth(fine - interpolated(coarse, factor), factor) / scale


def finer(folded: Folded, coarse: Coarse, factor: int, scale: float) -> Fine:
    """x = U c + s unfold(r), `(batch, channels, *fine grid)`."""
    return interpolated(coarse, factor) + scale * depth_to_space(folded, factor)


@buildable("given-coarse")
class GivenCoarse(JoinedInput):
    """A network whose last input channels are the coarse grid, given as the condition `coarse`.

    Args:
        network: Any network `(x, noise_level, ...)` with as many further input channels as the coarse grid has.
    """

    def forward(
        self, x: Tensor, noise_level: Tensor, *more: Any, coarse: Tensor, **conditions: Any
    ) -> Tensor:
        """What the network says of x, `(batch, channels, *grid)`, given `coarse`, `(batch, channels, *grid)`."""
        said: Tensor = self.network(torch.cat([x, coarse.to(x)], 1), noise_level, *more, **conditions)
        return said


@buildable("refinement")
class Refinement(nn.Module):
    """One stage: the law of a fine grid given the coarse one, as a denoiser or a flow map of the folded residual.

    Args:
        denoiser: Of r, with the conditions `coarse`, `covariates` (the sd of the corruption, as `told` writes it; without
            corruption none) and, where `placed`, `coordinates`.
        factor: Fine voxels a coarse one along each axis, >= 2.
        scale: s, the rms of the residual in the units of x, > 0.
        corruption: Largest sd of the corruption in training, >= 0, in the units of x.
        placed: Whether the network is told places, in units of 100 mm from the centre of the field of view.
        worse: An earlier or smaller version of the denoiser, by which `refine` guides it (`denoisers.Autoguided`).
        guidance: Weight of that guidance; 1 is none.

    Raises:
        InputError: a number out of range; guidance of a stage that was distilled.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser | NetworkFlowMap,
        factor: int = 2,
        scale: float = 0.1,
        corruption: float = 0.0,
        placed: bool = False,
        worse: NetworkDenoiser | None = None,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        if worse is not None and not isinstance(denoiser, NetworkDenoiser):
            raise InputError(
                "expected a denoiser to guide; got a stage that was distilled. Leave out the worse one."
            )
        if factor < 2 or not scale > 0 or not corruption >= 0:
            raise InputError(
                f"expected factor >= 2, scale > 0 and corruption >= 0; got {factor}, {scale} and {corruption}. "
                "A factor of 2 and the rms of the residual are usual."
            )
        self.denoiser = denoiser
        self.factor, self.scale, self.corruption, self.placed = (
            int(factor),
            float(scale),
            float(corruption),
            placed,
        )
        self.worse, self.guidance = worse, float(guidance)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that rebuild this stage."""
        guided = {} if self.worse is None else {"worse": self.worse, "guidance": self.guidance}
        return {
            "denoiser": self.denoiser,
            "factor": self.factor,
            "scale": self.scale,
            "corruption": self.corruption,
            "placed": self.placed,
        } | guided

    @property
    def guided(self) -> Denoiser | NetworkFlowMap:
        """What is solved: the denoiser, guided by the worse one where there is one."""
        if self.worse is None or isinstance(self.denoiser, NetworkFlowMap):
            return self.denoiser
        return Autoguided(self.denoiser, self.worse, self.guidance)  # type: ignore[return-value]  # its path is read only

    @property
    def told_like(self) -> tuple[int, float, float, bool]:
        """Factor, scale, corruption and places: two stages that agree in them see the same and say the same."""
        return self.factor, self.scale, self.corruption, self.placed

    @property
    def multiple(self) -> int:
        """What the axes of the coarse grid divide by."""
        return int(getattr(self.denoiser.network, "multiple", 1))

    def told(self, sd: float | Tensor, rows: int) -> dict[str, Tensor]:
        """The sd of the corruption as the network is told it, `{"covariates": (rows, 1)}`, between -2 and 2."""
        if self.corruption == 0:
            return {}
        level = torch.as_tensor(sd, dtype=torch.float32).reshape(-1, 1).expand(rows, 1)
        return {"covariates": 4.0 * level / self.corruption - 2.0}

    def places(self, grid: Sequence[int], spacing: float) -> dict[str, Tensor]:
        """`{"coordinates": (1, n, *grid)}` of a whole coarse grid of `spacing` mm, or nothing where places are not told."""
        if not self.placed:
            return {}
        step = spacing / 100.0
        return {"coordinates": coordinates_of(grid, step, [-0.5 * (n - 1) * step for n in grid])}

    @property
    def path(self) -> Path:
        """That of the residual."""
        return self.denoiser.path

    @property
    def prediction(self) -> Prediction:
        """What the network predicts of the residual."""
        return self.denoiser.prediction

    def predict(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """The network's prediction of the residual."""
        return self.denoiser.predict(x, t, **conditions)

    def jump(self, x: Batch, t: Time, s: Time, **conditions: Any) -> Batch:
        """The residual at s from that at t, of a stage that was distilled.

        Raises:
            InputError: a stage that was not.
        """
        if not isinstance(self.denoiser, NetworkFlowMap):
            raise InputError(
                "expected a stage that was distilled; got a denoiser, which does not jump. Distil it."
            )
        return self.denoiser.jump(x, t, s, **conditions)

    def forward(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[r | r_t], `(batch, channels factor^n, *coarse grid)`."""
        said: Tensor = self.denoiser(x, t, **conditions)
        return said


def refine(
    stage: Refinement,
    coarse: Coarse,
    seeds: Sequence[int],
    *,
    steps: int = 4,
    corruption: float = 0.0,
    spacing: float = 1.0,
    origin: Sequence[int] | None = None,
    tile: int = 0,
    halo: int = 32,
    together: int = 1,
    stochastic: bool = False,
) -> Fine:
    """One arrow of a cascade: fine grids, `(batch, channels, *grid times factor)`, row i by seed i and coarse row i alone.

    A distilled stage (a flow map) jumps `steps` times, or, stochastically, jumps to the data and is given new noise for the
    next jump (gamma = 1 of `flowmaps.sample_flow_map`), so that one jump mends what another did. A denoiser, guided if the
    stage has a worse one, is solved by DPM-Solver++(2M) in as many evaluations, or by its stochastic form: more
    evaluations, fewer of the errors that a deterministic solver carries along. All noise belongs to a place.

    Args:
        stage: The stage, in evaluation mode.
        coarse: Coarse grids, `(batch, channels, *grid)`, axes multiples of the stage's.
        seeds: One a row.
        steps: Evaluations of the network, >= 1.
        corruption: Sd of the noise put on the coarse grid, in its units, 0 to the stage's largest.
        spacing: Of the coarse grid, mm; used where the stage is told places.
        origin: Index of the first coarse voxel in the field of view; None for 0. With it a box is drawn as in the whole.
        tile: Coarse voxels along each axis that a block is good for; 0: the whole grid at once.
        halo: Overlap of blocks on each side; exact where it covers the receptive field.
        together: Blocks a call.
        stochastic: Whether noise is added between the steps.

    Raises:
        InputError: a corruption out of range, seeds that do not agree with the rows, a box of a stage that is told places.
    """
    if not 0 <= corruption <= stage.corruption:
        raise InputError(
            f"expected a corruption from 0 to {stage.corruption:g}, the largest of the training; got {corruption:g}. "
            "Take less."
        )
    if len(seeds) != len(coarse):
        raise InputError(f"expected one seed a row, {len(coarse)}; got {len(seeds)}. Give as many.")
    grid, channels = tuple(coarse.shape[2:]), coarse.shape[1]
    start = tuple(origin) if origin is not None else (0,) * len(grid)
    if stage.placed and any(start):
        raise InputError(
            "expected a whole grid for a stage that is told places; got a box of it. Draw it whole."
        )
    if corruption > 0:
        noise = noise_of_box(seeds, start, grid, channels, key=_CORRUPTION)
        coarse = coarse + corruption * noise.to(coarse)
    fine = [n * stage.factor for n in grid]
    noise = noise_of_box(seeds, [n * stage.factor for n in start], fine, channels, key=_NOISE)
    x = space_to_depth(noise, stage.factor).to(coarse)
    conditions: dict[str, Any] = (
        {"coarse": coarse} | stage.told(corruption, len(coarse)) | stage.places(grid, spacing)
    )
    conditions = {name: value.to(coarse.device) for name, value in conditions.items()}
    path = stage.denoiser.path
    corner = [n * stage.factor for n in start]

    def drawn(step: int) -> Tensor:
        return space_to_depth(noise_of_box(seeds, corner, fine, channels, key=_STEPS + step), stage.factor)

    if isinstance(stage.denoiser, NetworkFlowMap):
        jumps = TiledFlowMap(stage.denoiser, tile, halo, together)
        fresh = float(stochastic)
        folded = sample_flow_map(jumps, x, LinearGrid()(steps, path), gamma=fresh, noise=drawn, **conditions)
    else:
        blocks = TiledDenoiser(stage.guided, tile, halo, together)
        table = tables.sde_dpmpp_2m if stochastic else tables.dpmpp_2m
        grid_of_times: Grid = LogSNRGrid() if stochastic else LinearGrid()
        folded = integrate(blocks, x, table(grid_of_times(steps, path), path), noise=drawn, **conditions)
    return finer(folded, coarse, stage.factor, stage.scale)


@buildable("cascade")
class Cascade(nn.Module):
    """Stages one after another: from a coarse grid to one that is finer by the product of their factors.

    Args:
        stages: Coarsest first.
        spacing: Of the coarsest grid, mm, > 0.
        steps: Evaluations a stage.
        corruptions: Sd of the noise put on the coarse grid of each stage.
        stochastic: Whether a stage is solved stochastically; None: none is.

    Raises:
        InputError: no stage, or not one number a stage.
    """

    def __init__(
        self,
        stages: Sequence[Refinement],
        spacing: float,
        steps: Sequence[int],
        corruptions: Sequence[float],
        stochastic: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        stochastic = tuple(stochastic) if stochastic is not None else (False,) * len(stages)
        if (
            not len(stages) == len(steps) == len(corruptions) == len(stochastic)
            or not stages
            or not spacing > 0
        ):
            raise InputError(
                f"expected at least one stage, a spacing > 0, and steps and corruptions of each; got {len(stages)}, "
                f"{spacing}, {len(steps)} and {len(corruptions)}. Give as many."
            )
        self.stages = nn.ModuleList(stages)
        self.factors = [stage.factor for stage in stages]
        self.spacing, self.steps, self.corruptions = float(spacing), tuple(steps), tuple(corruptions)
        self.stochastic = stochastic

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that rebuild this cascade."""
        return {
            "stages": list(self.stages),
            "spacing": self.spacing,
            "steps": self.steps,
            "corruptions": self.corruptions,
            "stochastic": self.stochastic,
        }

    def spacings(self) -> tuple[float, ...]:
        """Spacing of each stage's output, mm, coarsest first."""
        found, spacing = [], self.spacing
        for factor in self.factors:
            spacing /= factor
            found.append(spacing)
        return tuple(found)

    def forward(self, coarse: Coarse, seeds: Sequence[int], *, until: float = 0.0, **how: Any) -> Fine:
        """Fine grids, `(batch, channels, *grid)`, row i by seed i and coarse row i alone.

        Args:
            coarse: Grids at `spacing`.
            seeds: One a row.
            until: Stop at the first spacing that is not above this, mm; 0 goes on to the end.
            how: Of `refine`: `tile`, `halo`, `together`.
        """
        spacing = self.spacing
        stages: list[Any] = list(self.stages)
        for number, stage in enumerate(stages):
            if spacing <= until * (1 + 1e-6):
                break
            coarse = refine(
                stage,
                coarse,
                [seed_of(seed, number) for seed in seeds],  # noise of another stage is other noise
                steps=self.steps[number],
                corruption=self.corruptions[number],
                spacing=spacing,
                stochastic=self.stochastic[number],
                **how,
            )
            spacing /= self.factors[number]
        return coarse
