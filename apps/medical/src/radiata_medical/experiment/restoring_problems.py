"""From a file to what is to be solved: operator, measurement and noise, for a volume at once or slice by slice.

Three ways lead here. A scan *is* the measurement (noisy, thick-sliced, with a hole); a scan is the truth, from which a
measurement is *simulated*; or real k-space is the measurement. All give `Task`: one problem for a volume, or one or more for
its slices - together in one where they share an operator - and how results come back to a volume in its place.

Everything is in units of the prior: intensities over the white of the scan (`data.intensity_scale`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import MultiCoilSampling
from radiata_core.measurement_noise import GaussianNoise, RicianNoise
from radiata_core.operators import LinearOperator
from radiata_core.seeds import generators_of
from radiata_imaging.orientation import Grid
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.coils import kspace_noise, sensitivities_of
from radiata_medical.data.degradations import Bias, Degradation, Hole
from radiata_medical.data.frames import Frame, finer_grid
from radiata_medical.data.intensity_scale import IntensityScale
from radiata_medical.data.kspace_files import KSpaceData, read_kspace
from radiata_medical.data.noise_level import estimate_noise
from radiata_medical.data.raw_data import KSpace

__all__ = ["Problem", "Task", "kspace_task", "scan_task"]

_LEAST_NOISE = 1e-3
"""Of white: where a scan seems to have none, it is taken to have this much."""
_USUAL_NOISE = {"denoise": 0.1}
"""Of full scale, in simulations; else 0.02."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Some slices that share an operator, or one volume.

    Attributes:
        operator: A.
        y: (rows, *measurement).
        noise_sd: Of every number of y, in its units.
    """

    operator: LinearOperator
    y: Tensor
    noise_sd: float


@dataclass(frozen=True, eq=False)
class Task:
    """One scan and what is to be solved for it.

    Attributes:
        problems: One for a volume; for slices, in their order.
        frame: Of each image that is solved for.
        grid: Where the result lies.
        across: The axis across which slices were taken; None: a volume.
        scale: Of the intensities.
        scan: The volume that came in, in units of the file; None: k-space.
        truth: The image a simulation started from, (x, y, z) in units of the prior.
        noise_sd: In units of the measurement.
    """

    problems: tuple[Problem, ...]
    frame: Frame
    grid: Grid
    across: int | None
    scale: IntensityScale
    scan: Volume | None
    truth: np.ndarray | None
    noise_sd: float

    def volume(self, rows: list[Tensor]) -> np.ndarray:
        """The volume, (x, y, z), of an image for each problem, (rows, 1, *space) each."""
        images = torch.cat(rows)[:, 0].cpu().numpy()
        return images[0] if self.across is None else np.moveaxis(images, 0, self.across)

    @property
    def measured_as_image(self) -> bool:
        """Whether measurements lie on the grid of the scan."""
        if self.scan is None:
            return False
        shape = [n for axis, n in enumerate(self.scan.shape) if axis != self.across]
        return all(problem.operator.measurement_shape == (1, *shape) for problem in self.problems)


def scan_task(
    scan: Volume,
    degradation: Degradation,
    *,
    across: int | None = None,
    simulate: bool = False,
    noise: float | None = None,
    rician: bool = False,
    seed: int = 0,
) -> Task:
    """The task of a scan.

    Args:
        scan: As it was read.
        degradation: What was, or is to be, measured.
        across: Axis across which slices are restored; None: the volume (a single slice: its own axis).
        simulate: The scan is the truth.
        noise: Standard deviation in percent of white; None: estimated, or in simulations 2 (denoising: 10).
        rician: Noise is that of magnitudes; its bias is removed before.
        seed: Of masks and noise in simulations.

    Raises:
        InputError: options that do not fit the scan.
    """
    thin = [axis for axis, n in enumerate(scan.shape) if n == 1]
    across = thin[0] if thin else across
    known = _looked_at(scan, degradation)
    scale = IntensityScale.of(known)
    array = scale.to_prior(scan.array)
    own = Frame.of(scan, across)
    bound = degradation if simulate else degradation.for_scan(own)
    frame = own if simulate else bound.image_frame(own)
    images = array[None] if across is None else np.moveaxis(array, across, 0)
    if simulate:
        share = _USUAL_NOISE.get(degradation.task, 0.02) if noise is None else noise / 100
        problems = _simulated(bound, frame, images, share, rician, seed, across)
    else:
        level = max(estimate_noise(known) / scale.white if noise is None else noise / 100, _LEAST_NOISE)
        if rician:
            images = RicianNoise(level).debiased(torch.from_numpy(np.ascontiguousarray(images))).numpy()
        problems = []
        for step, index in _groups(bound, len(images)):
            part = _for_slice(bound, step, across)
            a = part.operator(frame, seed)
            y = torch.cat([part.measured(image, a) for image in images[index]])
            problems.append(Problem(a, y, level))
    shape = list(frame.shape)
    if across is not None:
        shape.insert(across, scan.shape[across])
    truth = array if simulate else None
    return Task(
        tuple(problems), frame, finer_grid(scan, shape), across, scale, scan, truth, problems[0].noise_sd
    )


def _looked_at(scan: Volume, degradation: Degradation) -> np.ndarray:
    """The scan with 0 in holes: what lies in them, metal or a lesion, says nothing of white and noise."""
    missing = getattr(degradation, "missing", None)
    return scan.array if missing is None else np.where(missing, np.float32(0), scan.array)


def _simulated(
    degradation: Degradation,
    frame: Frame,
    images: np.ndarray,
    share: float,
    rician: bool,
    seed: int,
    across: int | None,
) -> list[Problem]:
    """Measurements of a known image, with noise; a row's noise follows from the seed and its place alone."""
    problems = []
    for step, index in _groups(degradation, len(images)):
        a = _for_slice(degradation, step, across).operator(frame, seed)
        clean = a(torch.from_numpy(np.ascontiguousarray(images[index]))[:, None])
        level = max(share * degradation.full_scale(clean), 1e-6)
        rows = generators_of([seed] * len(clean), 16)
        if across is not None:
            rows = [generators_of([seed], 16, place)[0] for place in range(len(images))[index]]
        if rician and not clean.is_complex():
            y = RicianNoise(level).debiased(RicianNoise(level)(clean, rows))
        else:
            y = GaussianNoise(level)(clean, rows)
        problems.append(Problem(a, y, level))
    return problems


def kspace_task(
    path: Path,
    *,
    axcodes: str = "",
    sensitivities: Path | None = None,
    voxel: tuple[float, ...] = (1.0,),
    noise: float | None = None,
    thinned: KSpace | None = None,
    seed: int = 0,
) -> Task:
    """The task of a file of k-space, of one slice, a stack of slices or a volume.

    Args:
        path: Of the file.
        axcodes: Which way its axes run.
        sensitivities: Of the coils, a file; None: in the file, or estimated from the middle of k-space.
        voxel: Edges in mm; the file does not say.
        noise: Standard deviation in percent of white; None: read off the outermost samples.
        thinned: Take only the samples of this mask: a simulation of a faster scan.
        seed: Of the mask.

    Raises:
        InputError: the file cannot be used, or nothing is missing in it.
    """
    slices = read_kspace(path, axcodes, sensitivities)
    shape = slices[0].mask.shape
    grid = _grid(slices, voxel)
    edges = tuple(float(edge) for edge in np.linalg.norm(grid.affine[:3, : len(shape)], axis=0))
    frame = Frame(shape, edges, slices[0].codes, "ijk"[: len(shape)])
    if thinned is not None:
        mask = thinned.mask(frame, seed).numpy()
        slices = tuple(replace(data, kspace=data.kspace * mask, mask=data.mask & mask) for data in slices)
    if all(data.mask.all() for data in slices):
        raise InputError(
            f"expected under-sampled k-space; got every sample in {path}. Add --simulate --acceleration 4 to thin it, or "
            "transform it and use --task denoise."
        )
    found = [_coils(data) for data in slices]
    scale = _white(found)
    own = max(kspace_noise(data) for data in slices) / scale.white if noise is None else noise / 100
    level = max(own, _LEAST_NOISE)
    problems = tuple(Problem(a, y / scale.white, level) for a, y in found)
    return Task(problems, frame, grid, None if len(shape) == 3 else 2, scale, None, None, level)


def _coils(data: KSpaceData) -> tuple[LinearOperator, Tensor]:
    """A real image seen by coils that hold its phase, and the samples."""
    maps = torch.from_numpy(sensitivities_of(data))
    a = MultiCoilSampling(torch.from_numpy(data.mask), maps, (1, *data.mask.shape), real=True)
    a.iterations = 30  # of conjugate gradients: an unrolled step starts near its end
    return a, a.observe(torch.from_numpy(data.kspace)[None, None])


def _white(found: list[tuple[LinearOperator, Tensor]]) -> IntensityScale:
    """The scale of images that ridge solutions of k-space show."""
    return IntensityScale.of(np.stack([a.solve(a.adjoint(y), 1e-2)[0, 0].abs().numpy() for a, y in found]))


def _grid(slices: tuple[KSpaceData, ...], voxel: tuple[float, ...]) -> Grid:
    """Where a file's image lies: in the middle of the world, slices side by side."""
    shape, codes = slices[0].mask.shape, slices[0].codes
    if len(shape) == 2:
        rest = next(axis[0] for axis in ("LR", "PA", "SI") if not set(axis) & set(codes))
        shape, codes = (*shape, len(slices)), codes + rest
    edges = tuple(float(edge) for edge in (tuple(voxel) * 3 if len(voxel) == 1 else voxel))
    if len(edges) != 3 or not all(0 < edge < np.inf for edge in edges):
        raise InputError(f"expected --voxel as one or three edges > 0 in mm; got {voxel}. 1 is usual.")
    x, y, z = shape
    return Grid((x, y, z), centred_affine(shape, edges, codes))


def _groups(degradation: Degradation, slices: int) -> list[tuple[int, slice]]:
    """Slices that share an operator: all, unless the degradation has a map of the volume."""
    parts = getattr(degradation, "parts", (degradation,))
    maps = [getattr(part, name, None) for part in parts for name in ("missing", "known")]
    own = any(found is not None for found in maps)
    return [(i, slice(i, i + 1)) for i in range(slices)] if own else [(0, slice(0, slices))]


def _for_slice(degradation: Any, step: int, across: int | None) -> Degradation:
    """The degradation of one slice: its maps of the volume cut there."""
    if across is None:
        found: Degradation = degradation
        return found

    def cut(part: Any) -> Any:
        if isinstance(part, Hole) and part.missing is not None:
            return replace(part, missing=np.take(part.missing, step, across))
        if isinstance(part, Bias) and part.known is not None:
            return replace(part, known=np.take(part.known, step, across))
        return part

    parts = getattr(degradation, "parts", None)
    found = cut(degradation) if parts is None else replace(degradation, parts=tuple(map(cut, parts)))
    return found
