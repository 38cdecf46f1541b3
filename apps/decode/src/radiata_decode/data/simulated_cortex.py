r"""A simulated visual cortex: real pictures in, responses with the noise of the Natural Scenes Dataset out.

A voxel v of `cortical_layout` pools the maps c of `gabor_energy` (of `motion_maps`, if it is in MT) over its receptive
field $p_v$, weights them, and compresses:

$$ s_v = \sqrt{\textstyle\sum_c w_{vc} \langle p_v, m_c \rangle}, \qquad w_{vc} \sim \text{Gamma}(0.3), $$

so that a few maps dominate in each; maps are in units of their mean over photographs. Signals are centred and scaled, by
photographs of the training part, so that a trial, signal plus noise, has variance 1, as betas z-scored by session:

$$ \text{Var}\,s_v = \text{NC}_v
   = \text{ncsnr}_v^2 / (1 + \text{ncsnr}_v^2), \quad \text{Var}\,\varepsilon_v = 1 - \text{NC}_v, $$

with ncsnr from Gamma(3, 0.18) clipped to [0.05, 1.6]. The mean ceiling of a single trial is then .23 and of three .41, about
NSD's. Of the noise's variance 80 % is white and 20 % is shared between voxels through ten components.
What is simulated says so wherever it is written: `SyntheticData`.

What the model leaves out matters when numbers are read: no categories, no attention, no
memory of the trial before. A linear decoder meets a pRF model here, not a brain.

References:
    E. Allen et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence.
    Nature Neuroscience 25 (ncsnr, noise ceilings).
    K. Kay, J. Winawer, A. Mezer, B. Wandell (2013). Compressive spatial summation in human visual cortex. Journal of
    Neurophysiology 110.
    T. Naselaris, C. Olman, D. Stansbury, K. Ugurbil, J. Gallant (2015). A voxel-wise encoding model for early visual
    areas decodes mental images of remembered scenes. NeuroImage 105.
"""

from functools import cache

import numpy as np
import pandas as pd
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_decode.data.cortical_layout import IMAGE_AREAS, voxel_table
from radiata_decode.data.gabor_energy import MAPS, picture_maps
from radiata_decode.data.motion_maps import MOTION_MAPS, motion_maps
from radiata_decode.data.photographs import photograph_crops

__all__ = ["SimulatedCortex", "receptive_fields"]

SPARSITY = 0.3  # shape of the tuning weights' gamma distribution
BASELINE = 1e-3  # of the drive, in units of its mean: keeps the root's slope finite
SHARED_RANK, SHARED_VARIANCE = 10, 0.2
REFERENCE_PICTURES, REFERENCE_MOVIES, REFERENCE_FRAMES = 384, 192, 8
LAYOUT, TUNING, RELIABILITY = 1, 2, 3  # keys of the person's random numbers
REFERENCE = 20


def receptive_fields(table: pd.DataFrame, size: int) -> torch.Tensor:
    """Gaussian weights of each voxel on the pixels, (voxel, y·x) float32, each row adding up to 1."""
    centres = (np.arange(size) + 0.5) / size
    sigma = table["prf_size"].to_numpy()[:, None]
    across = -0.5 * ((centres - table["prf_x"].to_numpy()[:, None]) / sigma) ** 2
    down = -0.5 * ((centres - table["prf_y"].to_numpy()[:, None]) / sigma) ** 2
    columns = np.exp(across - across.max(1, keepdims=True))
    rows = np.exp(down - down.max(1, keepdims=True))
    columns /= columns.sum(1, keepdims=True)
    rows /= rows.sum(1, keepdims=True)
    return torch.from_numpy((rows[:, :, None] * columns[:, None, :]).reshape(len(table), -1)).to(
        torch.float32
    )


class SimulatedCortex:
    """One simulated person.

    Attributes:
        voxels: One row a voxel: where it lies and looks (see `voxel_table`), `ncsnr`, `noise_ceiling` of a single trial.
        tuning: Weights of the maps, (voxel, 18) float32, rows adding up to 1; of MT's voxels 0.
        motion_tuning: Weights of the motion maps, (voxel, 24); 0 outside MT.
        size: Side of the pictures that the maps are computed at, pixels.

    Args:
        seed: Of the whole simulation.
        voxels: How many.
        subject: Which person of it: other numbers are people with other voxels.
        size: Side of the pictures; others are averaged to it.
        areas: Of `cortical_layout.AREAS`; with MT, films are needed to see it answer.

    Raises:
        InputError: unknown areas, or fewer voxels than areas.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        voxels: int = 2000,
        subject: int = 0,
        size: int = 32,
        areas: tuple[str, ...] = IMAGE_AREAS,
    ) -> None:
        self.size = size
        table = voxel_table(voxels, areas, rng_of(seed, subject, LAYOUT))
        moving = np.array(table["area"] == "MT")
        rng = rng_of(seed, subject, TUNING)
        weights = rng.gamma(SPARSITY, size=(len(table), len(MAPS) + len(MOTION_MAPS))).astype(np.float32)
        weights = weights + np.float32(1e-6)
        weights[moving, : len(MAPS)] = 0
        weights[~moving, len(MAPS) :] = 0
        weights /= weights.sum(1, keepdims=True)
        self.tuning, self.motion_tuning = weights[:, : len(MAPS)], weights[:, len(MAPS) :]
        rng = rng_of(seed, subject, RELIABILITY)
        ratio = np.clip(rng.gamma(3.0, 0.18, size=len(table)), 0.05, 1.6)
        loadings = rng.normal(size=(SHARED_RANK, len(table)))
        self._loadings = (loadings / np.linalg.norm(loadings, axis=0)).astype(np.float32)
        table["ncsnr"] = ratio
        table["noise_ceiling"] = ratio**2 / (ratio**2 + 1)
        self.voxels = table
        self._fields = receptive_fields(table, size)
        self._moving = moving
        self._fit_scale()

    def signal(self, images: torch.Tensor | np.ndarray) -> np.ndarray:
        """Responses without noise to pictures, (n, voxel) float32, of variance `noise_ceiling` over photographs.

        MT does not answer to stills: its columns are constant.

        Args:
            images: (n, 3, y, x) RGB in [0, 1]; or (n, y, x, 3) uint8 as they are stored.
        """
        return self._scaled(self._drive(self._still_maps(_pictures(images, 4)), None))

    def motion_signal(self, movies: torch.Tensor | np.ndarray) -> np.ndarray:
        """Responses without noise to films, (n, voxel) float32.

        MT answers to motion, the other areas to the mean of their maps over the first, middle and last frame.

        Args:
            movies: (n, frame, 3, y, x) RGB in [0, 1]; or (n, frame, y, x, 3) uint8 as they are stored.
        """
        return self._scaled(self._movie_drive(_pictures(movies, 5)))

    def noise(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Noise of single trials, (trial, voxel) float32, of variance 1 − `noise_ceiling`.

        Raises:
            InputError: another number of voxels.
        """
        if len(shape) != 2 or shape[1] != len(self.voxels):
            raise InputError(f"expected noise of (trial, {len(self.voxels)}); got {tuple(shape)}.")
        white = rng.standard_normal(shape, dtype=np.float32)
        shared = rng.standard_normal((shape[0], SHARED_RANK), dtype=np.float32) @ self._loadings
        spread = np.sqrt(1 - self.voxels["noise_ceiling"].to_numpy()).astype(np.float32)
        return (np.sqrt(1 - SHARED_VARIANCE) * white + np.sqrt(SHARED_VARIANCE) * shared).astype(
            np.float32
        ) * spread

    def _still_maps(self, images: torch.Tensor) -> torch.Tensor:
        return picture_maps(_resized(images, self.size))

    def _movie_drive(self, movies: torch.Tensor) -> np.ndarray:
        frames = sorted({0, movies.shape[1] // 2, movies.shape[1] - 1})
        drives = []
        for start in range(0, len(movies), 64):
            part = movies[start : start + 64]
            small = _resized(part.flatten(0, 1), self.size).unflatten(0, part.shape[:2])
            stills = torch.stack([picture_maps(small[:, frame]) for frame in frames]).mean(0)
            drives.append(self._drive(stills, motion_maps(small) if self._moving.any() else None))
        return np.concatenate(drives)

    def _drive(self, stills: torch.Tensor, motion: torch.Tensor | None) -> np.ndarray:
        """Root of the pooled and weighted maps, (n, voxel)."""
        drive = np.zeros((len(stills), len(self.voxels)), np.float32)
        parts = [(stills, self.tuning, ~self._moving, self._units[0])]
        if motion is not None:
            parts.append((motion, self.motion_tuning, self._moving, self._units[1]))
        for maps, tuning, members, unit in parts:
            if members.any():
                weights = torch.from_numpy(tuning[members]).T / unit[:, None]
                drive[:, members] = _pooled(maps, self._fields[torch.from_numpy(members)], weights)
        return np.sqrt(BASELINE + drive)

    def _fit_scale(self) -> None:
        """Units of the maps and of the signals, from photographs (films, if MT is there) of the training part."""
        if self._moving.any():
            movies = torch.from_numpy(_reference_movies(self.size)).permute(0, 1, 4, 2, 3) / 255.0
            stills, motion = picture_maps(movies[:, 0]), motion_maps(movies)
            self._units = (stills.mean((0, 2, 3)), motion.mean((0, 2, 3)))
            drive = self._movie_drive(movies)
        else:
            pictures = torch.from_numpy(_reference_pictures(self.size)).permute(0, 3, 1, 2) / 255.0
            stills = picture_maps(pictures)
            self._units = (stills.mean((0, 2, 3)), torch.ones(len(MOTION_MAPS)))
            drive = self._drive(stills, None)
        self._mean = drive.mean(0, dtype=np.float64)
        spread = np.maximum(drive.std(0, dtype=np.float64), 1e-6)
        self._gain = np.sqrt(self.voxels["noise_ceiling"].to_numpy()) / spread

    def _scaled(self, drive: np.ndarray) -> np.ndarray:
        return ((drive - self._mean) * self._gain).astype(np.float32)


def _pooled(maps: torch.Tensor, fields: torch.Tensor, weights: torch.Tensor, chunk: int = 32) -> np.ndarray:
    """Sum over maps of weights (map, voxel) times the maps' mean in each field (voxel, y·x): (n, voxel)."""
    pooled = [
        torch.einsum("ncv,cv->nv", part.flatten(2) @ fields.T, weights)
        for part in torch.split(maps, chunk)
        if len(part)
    ]
    return torch.cat(pooled).numpy() if pooled else np.zeros((0, len(fields)), np.float32)


def _pictures(images: torch.Tensor | np.ndarray, axes: int) -> torch.Tensor:
    """Float pictures with the colours before y and x."""
    tensor = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.array(images))
    if tensor.ndim != axes:
        raise InputError(f"expected pictures of {axes} axes; got shape {tuple(tensor.shape)}.")
    if tensor.dtype == torch.uint8:
        return tensor.movedim(-1, -3).to(torch.float32) / 255
    return tensor.to(torch.float32)


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-1] == size and images.shape[-2] == size:
        return images
    return torch.nn.functional.interpolate(images, (size, size), mode="area")


@cache
def _reference_pictures(size: int) -> np.ndarray:
    return photograph_crops(REFERENCE_PICTURES, "train", size, rng_of(0, REFERENCE)).pictures


@cache
def _reference_movies(size: int) -> np.ndarray:
    from radiata_decode.data.moving_pictures import moving_pictures

    return moving_pictures(REFERENCE_MOVIES, "train", size, REFERENCE_FRAMES, rng_of(0, REFERENCE + 1)).movies
