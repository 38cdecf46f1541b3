"""The parts of Versatile Diffusion, put together from its folder.

An index of that time names libraries and classes that current diffusers (0.42) and transformers (5) do not resolve: a
module of the pipeline's own for the text network, an image processor under an old name. So each component is loaded by
itself, and of the processor only two numbers are read, mean and standard deviation of its channels. The pipeline then
merges the text network's attention into the image network's.

Tried here on a folder of tiny networks with such an index, not on the published one.
"""

from types import SimpleNamespace
from typing import Any

import torch

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.model.pipeline_folders import PipelineFolder, diffusers_library, ready

__all__ = ["versatile_pipeline"]

_PROCESSOR = "image_feature_extractor"


def versatile_pipeline(folder: PipelineFolder, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """A `VersatileDiffusionDualGuidedPipeline` from a folder of it, or of `VersatileDiffusionPipeline`.

    Args:
        folder: Checked.
        device: Where it computes.
        dtype: Of its weights.

    Raises:
        InputError: this diffusers has the pipeline no more, or files that cannot be read.
    """
    library = diffusers_library()
    try:
        from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import (
            UNetFlatConditionModel,
        )

        pipeline_class = library.VersatileDiffusionDualGuidedPipeline
    except (ImportError, AttributeError):
        raise InputError(
            f"expected a diffusers that has Versatile Diffusion; got {library.__version__}. pip install diffusers==0.42.1."
        ) from None
    parts = {
        name: folder.component(name)
        for name in ("tokenizer", "text_encoder", "image_encoder", "image_unet", "vae", "scheduler")
    }
    parts["text_unet"] = folder.component("text_unet", UNetFlatConditionModel)
    with torch.random.fork_rng(devices=[]):  # merged blocks are drawn before they are filled
        pipeline = pipeline_class(**parts, image_feature_extractor=None)
    if _PROCESSOR in folder.components:
        pipeline.image_feature_extractor = _channels(folder)
    if parts["text_unet"] is not None:
        pipeline.remove_unused_weights()
    return ready(pipeline, device=device, dtype=dtype)


def _channels(folder: PipelineFolder) -> SimpleNamespace:
    """Mean and standard deviation of the channels that the image encoder expects.

    Raises:
        InputError: they do not stand in the processor's file.
    """
    file = folder.path / _PROCESSOR / "preprocessor_config.json"
    content = read_json(file)
    if not isinstance(content, dict) or not {"image_mean", "image_std"} <= set(content):
        raise InputError(f"expected image_mean and image_std in {file}; got neither. Fetch it again.")
    return SimpleNamespace(image_mean=content["image_mean"], image_std=content["image_std"])
