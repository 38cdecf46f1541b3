r"""Spaces of features that encoding models predict responses from: what is in a picture or film, by several accounts.

    pixels          luminance on a small grid
    luminance-pcs   principal components of luminance, those of the training stimuli
    gabor           amplitudes of oriented energy on a grid (`gabor_energy`)
    motion-energy   spatiotemporal Gabor energy (`motion_energy`); films only
    flow            optical flow on a grid: x, y and speed; films only
    FILE            .npy or .h5, a row for each row of stimuli.tsv: whatever was computed elsewhere
    FOLDER          a model of transformers by local path: CLIP, DINOv2 (first frames), VideoMAE (films)

A space is an array (stimulus, feature). Components are those of training stimuli: `training` says which rows they are.

References:
    K. Kay, T. Naselaris, R. Prenger, J. Gallant (2008). Identifying natural images from human brain activity. Nature 452.
    BrainNRDS (2024). https://arxiv.org/abs/2406.02659 (features of VideoMAE, CLIP, DINOv2 compared).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign
from radiata_decode.data.gabor_energy import gabor_energy, luminance
from radiata_decode.data.motion_energy import MotionEnergy
from radiata_decode.data.optical_flow import grid_flow, optical_flow
from radiata_decode.data.stimuli import Stimuli
from radiata_imaging.numpy_files import npy_array

__all__ = [
    "SPACES",
    "flow_features",
    "gabor_features",
    "luminance_components",
    "pixel_features",
    "read_features",
    "stimulus_features",
]

SPACES = ("pixels", "luminance-pcs", "gabor", "motion-energy", "flow")
GRID = 8
COMPONENTS = 100
RATES = (0.0, 1 / 8, 1 / 4)  # drift rates, of the frame rate
BATCH = 64


def stimulus_features(
    name: str, stimuli: Stimuli, ids: Sequence[str], training: np.ndarray, *, device: str = "cpu"
) -> np.ndarray:
    """A space of features by its name, file or folder, (stimulus, feature) float32.

    Args:
        name: One of `SPACES`, a file (.npy, .h5), or a folder of transformers.
        stimuli: Of the subject.
        ids: Which, in the order of the rows that come back.
        training: Which of them are training stimuli, (stimulus,) bool.
        device: For networks.

    Raises:
        InputError: an unknown name, films that are not there, a file that does not fit.
    """
    if name in ("motion-energy", "flow") and "movies" not in stimuli.shapes and "flow" not in stimuli.shapes:
        raise InputError(f"expected films for the features {name}; got {', '.join(stimuli.shapes)}.")
    if name == "motion-energy":
        rate = stimuli.frames_per_s or 1.0
        bank = MotionEnergy(rate, temporal_hz=tuple(share * rate for share in RATES))
        movies = stimuli.movies(ids)
        parts = [
            bank.features(_tensor(movies[start : start + BATCH])) for start in range(0, len(movies), BATCH)
        ]
        return np.concatenate(parts)
    if name == "flow":
        known = stimuli.flow(ids) if "flow" in stimuli.shapes else optical_flow(stimuli.movies(ids))
        return flow_features(known)
    if name in SPACES:
        frames = _frames(stimuli, ids)
        if name == "pixels":
            return pixel_features(frames)
        return gabor_features(frames) if name == "gabor" else luminance_components(frames, training)
    path = Path(name)
    if path.is_dir():
        from radiata_decode.data.network_features import network_features

        return network_features(path, stimuli, ids, device=device)
    if path.suffix in (".npy", ".h5", ".hdf5"):
        return read_features(path, len(stimuli.table))[stimuli.rows(ids)]
    raise InputError(
        f"expected features of {', '.join(SPACES)}, a file (.npy, .h5) or a folder of transformers; got {name}."
    )


def pixel_features(images: Tensor, grid: int = 2 * GRID) -> np.ndarray:
    """Luminance of each cell, (n, grid²) float32, of pictures (n, 3, y, x) or means over films (n, frame, 3, y, x)."""
    grey = _over_frames(images, lambda frames: adaptive_avg_pool2d(luminance(frames)[:, None], grid))
    return grey.flatten(1).numpy()


def luminance_components(
    images: Tensor, training: np.ndarray, components: int = COMPONENTS, grid: int = 32
) -> np.ndarray:
    """Coefficients of principal components of luminance, (n, components) float32.

    Args:
        images: (n, 3, y, x) or (n, frame, 3, y, x).
        training: Rows whose components they are, (n,) bool; the others are only projected.
        components: At most as many as training rows less one.
        grid: Cells a side.

    Raises:
        InputError: fewer than two training rows.
    """
    flat = pixel_features(images, grid).astype(np.float64)
    if training.shape != (len(flat),) or training.sum() < 2:
        raise InputError(f"expected at least two training rows of {len(flat)}; got {int(training.sum())}.")
    centred = flat - flat[training].mean(0)
    _, _, rows = np.linalg.svd(centred[training], full_matrices=False)
    return (centred @ rows[: min(components, int(training.sum()) - 1)].T).astype(np.float32)


def gabor_features(images: Tensor, grid: int = GRID) -> np.ndarray:
    """Amplitudes of 12 Gabor energies in each cell, (n, 12 · grid²) float32; of films the mean over frames."""
    found = _over_frames(
        images, lambda frames: adaptive_avg_pool2d(gabor_energy(luminance(frames)).clamp(min=0).sqrt(), grid)
    )
    return found.flatten(1).numpy()


def flow_features(flow: np.ndarray, grid: int = GRID) -> np.ndarray:
    """x, y and speed of each cell, mean over steps, (n, 3 · grid²) float32; flow (n, step, 2, y, x)."""
    small = np.stack([np.stack([grid_flow(step, (grid, grid)) for step in film]) for film in flow])
    speed = np.linalg.norm(small, axis=2, keepdims=True)
    return np.concatenate([small, speed], 2).mean(1).reshape(len(flow), -1).astype(np.float32)


def read_features(path: Path, count: int) -> np.ndarray:
    """Features from a file, (count, feature) float32: a .npy, or the only data set of an .h5 (or that called features).

    Raises:
        InputError: a file that is missing, broken, of another length, or with NaN.
    """
    if not path.is_file():
        raise InputError(f"expected a file of features; got no such file: {path}. Check the path.")
    with foreign(f"expected numbers in {path}; it cannot be read", "Compute them again."):
        if path.suffix == ".npy":
            values = npy_array(path)
        else:
            from radiata_imaging.hdf5 import open_hdf5, whole_array

            with open_hdf5(path) as opened:
                key = "features" if "features" in opened else next(iter(opened), None)
                values = np.asarray(whole_array(opened[key]))
    if values.ndim < 2 or len(values) != count or not np.issubdtype(values.dtype, np.number):
        raise InputError(
            f"expected features of {count} rows, one for each row of stimuli.tsv, in {path}; got {values.shape}."
        )
    flat = np.asarray(values, np.float32).reshape(count, -1)
    if not np.isfinite(flat).all():
        raise InputError(f"expected finite features in {path}; got NaN or infinity. Compute them again.")
    return flat


def _frames(stimuli: Stimuli, ids: Sequence[str]) -> Tensor:
    return _tensor(stimuli.movies(ids) if "movies" in stimuli.shapes else stimuli.images(ids))


def _tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).movedim(-1, -3).float() / 255


def _over_frames(images: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of pictures, averaged over the frames of films; in batches."""
    found = []
    for part in images.split(BATCH):
        if part.ndim == 4:
            found.append(of(part))
        else:
            found.append(of(part.flatten(0, 1)).unflatten(0, part.shape[:2]).mean(1))
    return torch.cat(found)
