"""Generators by name: what stands after `--generator`.

| name | what it is |
|---|---|
| none | the decoder's own picture, unchanged |
| retrieval | the nearest training picture |
| own | the small flow-matching generator that ships with Radiata |
| warp | the first frame, moved by the flow |
| diffusers:FOLDER or diffusers:ORGANISATION/NAME | a pretrained pipeline; its class is read from model_index.json |

Pretrained pipelines are read from this disk, or from the hub's local cache; nothing is fetched unless `online` is set. An
IP-Adapter is used where its file lies as ip-adapter.safetensors beside model_index.json.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.weights import read_tensors
from radiata_decode.model.conditions import Condition, Generator, check_requirements
from radiata_decode.model.guided_sampling import Step
from radiata_decode.model.pipeline_folders import PipelineFolder, diffusers_library, read_pipeline_folder
from radiata_decode.model.retrieval import Retrieval

__all__ = [
    "ADAPTER_FILE",
    "KINDS",
    "NAMES",
    "FirstGuess",
    "WarpedFrame",
    "class_weights",
    "diffusers_generator",
    "generator",
]

NAMES = ("none", "retrieval", "own", "warp", "diffusers:FOLDER_OR_ID")
ADAPTER_FILE = "ip-adapter.safetensors"
_STABLE = {
    # Class in the folder: class that is loaded; the ones of text to image have the same parts.
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionControlNetPipeline": "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetImg2ImgPipeline": "StableDiffusionControlNetImg2ImgPipeline",
    "StableUnCLIPImg2ImgPipeline": "StableUnCLIPImg2ImgPipeline",
}
_KANDINSKY = {
    "KandinskyV22Pipeline": "KandinskyV22Pipeline",
    "KandinskyV22Img2ImgPipeline": "KandinskyV22Img2ImgPipeline",
}
_VERSATILE = {
    "VersatileDiffusionPipeline": "VersatileDiffusionDualGuidedPipeline",
    "VersatileDiffusionDualGuidedPipeline": "VersatileDiffusionDualGuidedPipeline",
}
_VIDEO = {
    "StableVideoDiffusionPipeline": "StableVideoDiffusionPipeline",
    "AnimateDiffPipeline": "AnimateDiffPipeline",
}
KINDS: dict[str, str] = _STABLE | _KANDINSKY | _VERSATILE | _VIDEO
"""Classes that a folder may name, and the class that it is loaded as."""


class FirstGuess:
    """No generator: the decoder's own picture."""

    requires = frozenset({"init_image"})
    optional: frozenset[str] = frozenset()
    provides = "image"

    def __call__(
        self,
        condition: Condition,
        *,
        seeds: Sequence[int],
        strength: float = 0.75,
        guidance: float | None = None,
        mix: float = 0.4,
        control_scale: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """The first guess, cut to [0, 1]."""
        check_requirements(self, condition, seeds)
        return condition.init_image.float().clamp(0, 1)  # type: ignore[union-attr]


class WarpedFrame:
    """The first frame, moved by the flow; the control for every other generator of films.

    Args:
        frames: Of the film; None: one more than there are steps of flow.
    """

    requires = frozenset({"first_frame", "flow"})
    optional: frozenset[str] = frozenset()
    provides = "video"

    def __init__(self, frames: int | None = None) -> None:
        self.frames = frames

    def __call__(
        self,
        condition: Condition,
        *,
        seeds: Sequence[int],
        strength: float = 0.75,
        guidance: float | None = None,
        mix: float = 0.4,
        control_scale: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """Films (n, frame, 3, y, x) in [0, 1]; `control_scale` is a factor on the flow, 0 holds the frame still."""
        from radiata_decode.model.warping import warped_film

        check_requirements(self, condition, seeds)
        first, flow = condition.first_frame, condition.flow
        return warped_film(first.float(), control_scale * flow.float(), self.frames).frames.clamp(0, 1)  # type: ignore[union-attr]


def generator(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    online: bool = False,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    gallery: tuple[Tensor, Tensor] | None = None,
    progress: Step | None = None,
) -> Generator:
    """The generator of a name.

    Args:
        name: See the table of the module.
        device: Where pretrained networks compute.
        dtype: Of their weights: float32, float16 or bfloat16.
        online: Fetch what is not on this disk.
        batch: Pictures or films at a time; None: each generator's own number.
        size: Height and width that a pretrained generator makes, pixels; None: its own.
        frames: Of films; None: the generator's own number.
        gallery: Training pictures and their latents, for retrieval.
        progress: Fraction of a call that is done, for pretrained generators.

    Raises:
        InputError: no such name, a library or file that is missing, a folder of the wrong class.
    """
    if name.startswith("diffusers:"):
        options: dict[str, Any] = {"batch": batch, "size": size, "frames": frames, "progress": progress}
        return diffusers_generator(
            name.removeprefix("diffusers:"), device=device, dtype=dtype, online=online, **options
        )
    if name == "none":
        return FirstGuess()
    if name == "warp":
        return WarpedFrame(frames)
    if name == "retrieval":
        if gallery is None:
            raise InputError("expected training pictures and their latents for retrieval; got none.")
        return Retrieval(*gallery)
    if name == "own":
        from radiata_decode.model.own_generator import own_generator

        return own_generator(device=device)
    raise InputError(f"expected one of {', '.join(NAMES)}; got {name}. Choose another --generator.")


def diffusers_generator(
    place: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    online: bool = False,
    adapter: Path | None = None,
    **options: Any,
) -> Generator:
    """The generator for a folder of diffusers, or a hub id.

    Args:
        place: Folder, or "organisation/name".
        device: Where it computes.
        dtype: Of its weights.
        online: Fetch what is not on this disk.
        adapter: File of an IP-Adapter; None: `ADAPTER_FILE` in the folder, where it is there.
        options: Of the generator's class (size, batch, frames, progress); those that are None are left out.

    Raises:
        InputError: a library or file that is missing, a folder of the wrong class.
    """
    found = read_pipeline_folder(place, tuple(KINDS), online=online)
    library = diffusers_library()
    if found.kind in _VERSATILE:
        from radiata_decode.model.versatile_folder import versatile_pipeline

        pipeline = versatile_pipeline(found, device=device, dtype=dtype)
    else:
        pipeline = found.load(getattr(library, KINDS[found.kind]), device=device, dtype=dtype)
    given = {name: value for name, value in options.items() if value is not None}
    if found.kind not in _VIDEO:
        given.pop("frames", None)
    if found.kind in _STABLE:
        return _stable(found, pipeline, adapter, given)
    if found.kind in _KANDINSKY:
        from radiata_decode.model.kandinsky_images import KandinskyImages

        return KandinskyImages(pipeline, **given)
    if found.kind in _VERSATILE:
        from radiata_decode.model.versatile_diffusion import VersatileDiffusionImages

        return VersatileDiffusionImages(pipeline, **given)
    from radiata_decode.model.diffusers_video import AnimateDiffVideo, StableVideo

    video = AnimateDiffVideo if found.kind == "AnimateDiffPipeline" else StableVideo
    return video(pipeline, **given)


def _stable(folder: PipelineFolder, pipeline: Any, adapter: Path | None, given: dict[str, Any]) -> Generator:
    from radiata_decode.model.diffusers_images import StableDiffusionImages, with_adapter

    file = adapter or folder.path / ADAPTER_FILE
    if adapter is not None or file.is_file():
        with_adapter(pipeline, read_tensors(file))
    return StableDiffusionImages(pipeline, **given)


def class_weights(names: Sequence[str], probabilities: Tensor) -> Tensor:
    """Probabilities of a decoder's categories in the order of the own generator's, (n, class); 0 where it lacks one.

    Args:
        names: Categories of the decoder.
        probabilities: (n, category).

    Raises:
        InputError: a category that the generator was not taught, or another number of columns.
    """
    from radiata_decode.model.picture_prior import CATEGORIES

    unknown = [name for name in names if name not in CATEGORIES]
    if unknown or probabilities.ndim != 2 or probabilities.shape[1] != len(names):
        raise InputError(
            f"expected probabilities (n, {len(names)}) of categories among {', '.join(CATEGORIES)}; got "
            f"{tuple(probabilities.shape)} of {', '.join(names)}. Use --generator none."
        )
    weights = torch.zeros(len(probabilities), len(CATEGORIES))
    for column, name in enumerate(names):
        weights[:, CATEGORIES.index(name)] = probabilities[:, column].float()
    return weights
