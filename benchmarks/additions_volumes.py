"""A volume from a prior of its slices, beside cubic interpolation and total variation; Gaussians beside voxels.

Real T1 heads, blocks of 48 x 48 x 48 voxels of 1 mm at the height of the ventricles; a "seed" is a subject: Colin27 (comes
with radiata-medical), and from `../shared/data/t1` beside the checkout `chris` and `studyforrest sub-02`; without these, two
other blocks of Colin27. The prior is radiata-medical's shipped `prior-2d`, trained on *renderings* of other people's label
maps, never on a scan. Intensities are in units of the scan's white, PSNR is for a range of 1.

missing slices    every fourth axial slice is kept, PSNR on the others. `psnr_volume_from_slices` annealed distillation with
                  the slices held exactly, `psnr_random_t` the same steps with times even in [0.02, 0.98], `psnr_small_t` the
                  same with little noise throughout, `psnr_tricubic` (cubic along the missing direction, where the others are
                  complete), `psnr_linear`, `psnr_tv` (TV in three dimensions, best of two weights on the subject itself:
                  favoured)
thick slices      means over four voxels: `psnr_thick_slices` against `psnr_thick_slices_tricubic` and `_tv` (favoured)
projections       ten parallel views in each axial plane, noise of standard deviation 0.2: `psnr_projections`, least squares
                  `psnr_projections_pinv` and `psnr_projections_tv` (favoured)
Gaussians         the block averaged to 2 mm; 130 turned Gaussians (1430 numbers) `psnr_gaussians`, 286 round ones
                  `psnr_isotropic`, and means on a grid of 11^3 = 1331 numbers, cubic between, `psnr_pooled_grid`
two stages        600 Gaussians of the annealed volume of the missing slices (its inner 32 mm) before, in
                  `psnr_second_stage_before`, and after, `psnr_second_stage`, refining under known slices and prior

Steps and levels were chosen among six on a fourth head (`t1_brain`), not among these. The interval is over subjects:
three heads are three heads.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radiata_core.checkpoint import load_model
from radiata_core.classical_restoration import tv_restoration
from radiata_core.cubic_resampling import cubic_matrix, cubic_upsampling
from radiata_core.denoisers import Denoiser
from radiata_core.downsampling import box_average, thick_slices
from radiata_core.field_fits import field_optimiser, fit_field
from radiata_core.gaussian_field import GaussianField
from radiata_core.masking import Masking
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.operators import LinearOperator
from radiata_core.projection import ParallelBeam, view_angles
from radiata_core.score_distillation import AnnealedTimes, ScoreDistillation
from radiata_core.seeds import generator_of, generators_of
from radiata_core.slice_distillation import (
    Data,
    FieldOnGrid,
    Held,
    Measured,
    VoxelVolume,
    volume_from_slices,
)
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient, resample
from radiata_medical.data.example_head import example_head
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.model.weights import find_model

CLAIMS: list[tuple[str, str, str, str]] = [
    ("slice prior beats tricubic", "psnr_volume_from_slices", ">", "psnr_tricubic"),
    ("slice prior beats linear", "psnr_volume_from_slices", ">", "psnr_linear"),
    ("slice prior beats TV", "psnr_volume_from_slices", ">", "psnr_tv"),
    ("annealing is decisive", "psnr_volume_from_slices", ">", "psnr_random_t"),
    ("annealed beats little noise throughout", "psnr_volume_from_slices", ">", "psnr_small_t"),
    ("thick slices: prior beats tricubic", "psnr_thick_slices", ">", "psnr_thick_slices_tricubic"),
    ("thick slices: prior beats TV", "psnr_thick_slices", ">", "psnr_thick_slices_tv"),
    ("few views: prior beats least squares", "psnr_projections", ">", "psnr_projections_pinv"),
    ("few views: prior beats TV", "psnr_projections", ">", "psnr_projections_tv"),
    ("turned Gaussians beat round ones", "psnr_gaussians", ">", "psnr_isotropic"),
    ("Gaussians beat a pooled grid", "psnr_gaussians", ">", "psnr_pooled_grid"),
    ("second stage improves Gaussians", "psnr_second_stage", ">", "psnr_second_stage_before"),
]
SIDE, KEPT, VIEWS, NOISE = 48, 4, 10, 0.2
ANNEALED = AnnealedTimes(high=(0.2, 0.05), low=(0.05, 0.02))
SMALL = AnnealedTimes(high=(0.1, 0.1), low=(0.02, 0.02))
RANDOM = AnnealedTimes(high=(0.98, 0.98), low=(0.02, 0.02))
SCANS = ("chris_t1.nii.gz", "studyforrest_sub02_T1w.nii.gz")


def block_of(subject: int, side: int) -> Tensor:
    """A block (1, 1, side, side, side) of 1 mm, LPS, units of the scan's white."""
    beside = [Path(__file__).resolve().parents[2] / "shared" / "data" / "t1" / name for name in SCANS]
    scans = [example_head(), *(path for path in beside if path.is_file())]
    volume = resample(reorient(read_volume(scans[subject % len(scans)])), 1.0)
    array = IntensityScale.of(volume.array).to_prior(np.maximum(volume.array, 0))
    inside = np.argwhere(array > 0.2)
    low, high = np.percentile(inside, 2, axis=0), np.percentile(inside, 98, axis=0)
    centre = (low + high) / 2
    centre[2] = high[2] - 65 - 20 * (subject // len(scans))  # the ventricles, 65 mm below the top
    start = np.clip(centre - side / 2, 0, np.array(array.shape) - side).astype(int)
    cut = array[tuple(slice(s, s + side) for s in start)]
    return torch.from_numpy(np.ascontiguousarray(cut, dtype=np.float32))[None, None]


def psnr(x: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """dB for a range of 1."""
    squared = (x.detach() - truth).double().square()[0, 0]
    return float(-10 * torch.log10(squared.mean() if where is None else squared[where].mean()))


def known_slices(side: int) -> Masking:
    """Every fourth slice across the last axis."""
    mask = torch.zeros(side, side, side, dtype=torch.bool)
    mask[..., KEPT // 2 :: KEPT] = True
    return Masking(mask, (1, side, side, side))


def interpolated(kept: Tensor, side: int, *, cubic: bool) -> Tensor:
    """Known slices (1, 1, x, y, kept) between which the rest is filled in."""
    if cubic:
        rows = torch.zeros(kept.shape[-1], side)
        rows[torch.arange(kept.shape[-1]), torch.arange(KEPT // 2, side, KEPT)] = 1
        return kept @ cubic_matrix(rows).mT.float()
    at = ((torch.arange(side) - KEPT // 2) / KEPT).clamp(0, kept.shape[-1] - 1)
    low = at.floor().long().clamp_max(kept.shape[-1] - 2)
    return torch.lerp(kept[..., low], kept[..., low + 1], at - low)


def distilled(
    prior: Denoiser, times: AnnealedTimes, start: Tensor, data: Data, subject: int, steps: int, axes=(0, 1)
) -> Tensor:
    """The volume from a start, under the data."""
    generator = generator_of(subject, 83)
    return volume_from_slices(
        ScoreDistillation(prior, times),
        VoxelVolume(start),
        data,
        generator,
        axes=axes,
        steps=steps,
        slices=12,
    )


def best_tv(operator: LinearOperator, y: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """The best of two weights, chosen on the truth."""
    views = isinstance(operator, ParallelBeam)
    weights, iterations, penalty = ((1.0, 2.0), 40, 0.3) if views else ((0.001, 0.003), 60, 0.01)
    return max(psnr(tv_restoration(operator, y, w, iterations, penalty), truth, where) for w in weights)


def missing(prior: Denoiser, truth: Tensor, subject: int, steps: int) -> tuple[dict[str, float], Tensor]:
    """Every fourth slice."""
    side = truth.shape[-1]
    operator = known_slices(side)
    y, where = operator(truth), ~operator.mask
    kept = truth[..., KEPT // 2 :: KEPT]
    cubic = interpolated(kept, side, cubic=True)
    arms = {"psnr_volume_from_slices": ANNEALED, "psnr_small_t": SMALL, "psnr_random_t": RANDOM}
    found = {
        name: distilled(prior, times, cubic, Held(operator, y), subject, steps)
        for name, times in arms.items()
    }
    figures = {name: psnr(x, truth, where) for name, x in found.items()}
    figures["psnr_tricubic"] = psnr(cubic, truth, where)
    figures["psnr_linear"] = psnr(interpolated(kept, side, cubic=False), truth, where)
    figures["psnr_tv"] = best_tv(operator, y, truth, where)
    return figures, found["psnr_volume_from_slices"]


def thick(prior: Denoiser, truth: Tensor, subject: int, steps: int) -> dict[str, float]:
    """Means over four voxels across the slices, held exactly."""
    operator = thick_slices(truth.shape[1:], -1, KEPT)
    y = operator(truth)
    cubic = cubic_upsampling(operator, y)
    found = distilled(prior, ANNEALED, cubic, Held(operator, y), subject, steps)
    return {
        "psnr_thick_slices": psnr(found, truth),
        "psnr_thick_slices_tricubic": psnr(cubic, truth),
        "psnr_thick_slices_tv": best_tv(operator, y, truth),
    }


def projections(prior: Denoiser, truth: Tensor, subject: int, steps: int) -> dict[str, float]:
    """Ten noisy views of each axial plane; the prior sees slices of all directions."""
    operator = ParallelBeam(view_angles(VIEWS), truth.shape[1:], axes=(-3, -2))
    operator.iterations = 12  # semi-convergence: more would fit the noise
    y = GaussianNoise(NOISE)(operator(truth), generators_of([subject], 84))
    start = operator.pseudo_inverse(y)
    data = Measured(operator, y, 0.1)
    found = distilled(prior, ANNEALED, start, data, subject, steps, axes=(0, 1, 2))
    return {
        "psnr_projections": psnr(found, truth),
        "psnr_projections_pinv": psnr(start, truth),
        "psnr_projections_tv": best_tv(operator, y, truth),
    }


def gaussians(truth: Tensor, subject: int, steps: int) -> dict[str, float]:
    """Turned and round Gaussians, and a grid, of about 1400 numbers for 24^3 voxels."""
    coarse = F.avg_pool3d(truth, 2)
    affine, shape = torch.diag(torch.tensor([2.0, 2, 2, 1])).double(), coarse.shape[2:]
    figures = {}
    for name, count, isotropic in (("psnr_gaussians", 130, False), ("psnr_isotropic", 286, True)):
        generator = generator_of(subject, 85)
        field = fit_field(coarse, affine, count, generator, steps=steps, points=2048, isotropic=isotropic)
        figures[name] = psnr(FieldOnGrid(field, shape, affine)(), coarse)
    matrix = box_average(shape[0], min(11, shape[0]))
    pooled, up = coarse, cubic_matrix(matrix).float()
    for axis in (2, 3, 4):
        pooled = (pooled.movedim(axis, -1) @ matrix.float().mT @ up.mT).movedim(-1, axis)
    return figures | {"psnr_pooled_grid": psnr(pooled, coarse)}


def second_stage(prior: Denoiser, truth: Tensor, first: Tensor, subject: int, steps: int) -> dict[str, float]:
    """Gaussians of the first stage's volume, refined under known slices and the prior; the inner 32 mm at 1 mm."""
    inner = (..., *[slice(8, 40)] * 3) if truth.shape[-1] == SIDE else (...,)
    truth, first = truth[inner], first[inner]
    operator, affine = known_slices(truth.shape[-1]), torch.eye(4).double()
    field: GaussianField = fit_field(first, affine, 600, generator_of(subject, 86), steps=steps, points=2048)
    scene = FieldOnGrid(field, truth.shape[2:], affine)
    before = psnr(scene(), truth, ~operator.mask)
    after = volume_from_slices(
        ScoreDistillation(prior, SMALL),
        scene,
        Measured(operator, operator(truth), 10.0),
        generator_of(subject, 87),
        axes=(0, 1),
        steps=max(1, steps // 8),
        slices=4,
        optimiser=field_optimiser(field, 0.01),
    )
    return {"psnr_second_stage_before": before, "psnr_second_stage": psnr(after, truth, ~operator.mask)}


def measure(seeds: Sequence[int], quick: bool = False) -> dict[str, list[float]]:
    """Every figure, one value a subject."""
    prior = load_model(find_model("prior-2d")).denoiser.eval()
    side, steps, fits = (32, 3, 4) if quick else (SIDE, 150, 200)
    rows: list[dict[str, float]] = []
    for subject in seeds:
        truth = block_of(subject, side)
        row, first = missing(prior, truth, subject, steps)
        row |= thick(prior, truth, subject, steps)
        row |= projections(prior, truth, subject, steps)
        row |= gaussians(truth, subject, fits)
        row |= second_stage(prior, truth, first, subject, fits)
        rows.append(row)
    return {key: [row[key] for row in rows] for key in rows[0]}
