"""Features of networks of the `transformers` library by local path: CLIP, DINOv2 of first frames, VideoMAE of films.

Nothing is downloaded: the folder is one that `save_pretrained` wrote, with its config and safetensors. Frames are resized
and normalised here, once, from [0, 1]. The features are the pooled output, or the mean of the last layer's tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.data.stimuli import Stimuli

__all__ = ["network_features"]

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, where a folder does not say
BATCH = 8


def network_features(
    folder: Path, stimuli: Stimuli, ids: Sequence[str], *, device: str = "cpu"
) -> np.ndarray:
    """Features, (stimulus, feature) float32.

    Args:
        folder: Of `save_pretrained`.
        stimuli: Of a subject: films for a video model, films or pictures for one of pictures.
        ids: Which.
        device: cpu or auto.

    Raises:
        InputError: transformers is missing, no model in the folder, or pictures for a video model.
    """
    model, side, mean, sd = _loaded(folder)
    video = getattr(model.config, "num_frames", None)
    if video and "movies" not in stimuli.shapes:
        raise InputError(
            f"expected films for the video model in {folder}; got pictures. Use a model of pictures."
        )
    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else "cpu")
    model = model.to(where)
    found = []
    for start in range(0, len(ids), BATCH):
        part = list(ids[start : start + BATCH])
        movies = stimuli.movies(part) if "movies" in stimuli.shapes else stimuli.images(part)[:, None]
        chosen = np.linspace(0, movies.shape[1] - 1, int(video or 1)).round().astype(int)
        frames = torch.from_numpy(np.ascontiguousarray(movies[:, chosen])).movedim(-1, 2).float() / 255
        pixels = _normalised(frames.flatten(0, 1), side, mean, sd).unflatten(0, frames.shape[:2]).to(where)
        with torch.no_grad():
            found.append(_pooled(model, pixels if video else pixels[:, 0]).float().cpu())
    return torch.cat(found).numpy()


def _pooled(model: Any, pixels: Tensor) -> Tensor:
    if hasattr(model, "get_image_features"):
        found = model.get_image_features(pixel_values=pixels)
    else:
        found = model(pixel_values=pixels)
    pooled = found if isinstance(found, Tensor) else getattr(found, "pooler_output", None)
    return found.last_hidden_state.mean(1) if pooled is None else pooled.flatten(1)


def _normalised(frames: Tensor, side: int, mean: Sequence[float], sd: Sequence[float]) -> Tensor:
    large = interpolate(frames, (side, side), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    centre, scale = (torch.tensor(values)[:, None, None] for values in (mean, sd))
    return (large - centre) / scale


def _loaded(folder: Path) -> tuple[Any, int, tuple[float, ...], tuple[float, ...]]:
    if not (folder / "config.json").is_file():
        raise InputError(
            f"expected a folder with config.json and model.safetensors, as `save_pretrained` writes it; got {folder}. "
            "Download the model (MCG-NJU/videomae-large, facebook/dinov2-base) and give its folder."
        )
    try:
        from transformers import AutoModel
    except ImportError:
        raise InputError(
            'expected the library transformers for these features. pip install "radiata-decode[diffusers]".'
        ) from None
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected a model in safetensors in {folder}; got none that loads ({' '.join(str(error).split())[:160]})."
        ) from None
    config = getattr(model.config, "vision_config", model.config)
    side = getattr(config, "image_size", None) or 224
    about = folder / "preprocessor_config.json"
    told = read_json(about) if about.is_file() else {}
    mean, sd = tuple(told.get("image_mean", MEAN)), tuple(told.get("image_std", SD))
    return model.eval().requires_grad_(False), int(side if isinstance(side, int) else side[0]), mean, sd
