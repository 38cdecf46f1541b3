r"""Versatile Diffusion guided by a predicted image and a predicted text at once, from a predicted first guess.

    h ← h + m (T_img(h, c_img) − h) + (1 − m) (T_txt(h, c_txt) − h)        m = 1 − `mix`, in every transformer

The mixture is inside the network, block by block, not of two predicted noises. Brain-Diffuser starts from the low-level
picture at strength .75 of 50 DDIM steps (37 of them are made), guidance 7.5, and .6 of the image to .4 of the text: the
defaults here. The pipeline of diffusers has no first guess, and its dual transformer does not run in the version that
this was written for (0.42: the blocks pass it an argument that it does not know). So the loop is ours, and each dual
transformer of one network gets a `forward` of its own; the class in diffusers stays as it is.

Targets: 257 × 768 tokens of CLIP-Vision ViT-L/14 (after its last norm and projection, divided by the length of the
first) and 77 × 768 of CLIP-Text (projected, divided by the length of the pooled one). The unconditional ones are those
of a mid-grey picture and of the empty text, computed once.

Run here on tiny networks with random weights on a CPU only, never with the published weights or on an accelerator.

References:
    X. Xu et al. (2022). Versatile Diffusion. https://arxiv.org/abs/2211.08332.
    F. Ozcelik, R. VanRullen (2023). Brain-Diffuser. https://arxiv.org/abs/2303.05334.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import noise_of
from radiata_decode.model.conditions import Condition, FeatureSpec, check_requirements
from radiata_decode.model.diffusers_images import native_size
from radiata_decode.model.guided_sampling import (
    Step,
    beside,
    guided,
    in_batches,
    resized,
    sampled_latents,
)
from radiata_decode.model.latents import AutoencoderCodec
from radiata_decode.model.pipeline_folders import diffusers_library

__all__ = ["Mixture", "VersatileDiffusionImages", "bind_mixture"]


@dataclass
class Mixture:
    """How the dual transformers of one network mix; read at each forward.

    Attributes:
        image: Weight m of the image, in [0, 1]; the text has 1 − m. What has weight 0 is not computed.
        text_tokens: How many tokens of the context, its first ones, are text.
    """

    image: float = 0.6
    text_tokens: int = 77


def bind_mixture(unet: Any) -> Mixture:
    """Give each dual transformer of this network, and of no other, a forward that mixes as the returned object says.

    Args:
        unet: A `UNet2DConditionModel` with dual cross-attention: transformers[0] of a block is for images, [1] for texts.

    Raises:
        InputError: a network without dual transformers.
    """
    diffusers_library()
    from diffusers.models import DualTransformer2DModel

    mixture = Mixture()
    found = [module for module in unet.modules() if isinstance(module, DualTransformer2DModel)]
    if not found:
        raise InputError(
            "expected a network with dual cross-attention; got none in it. Use a VersatileDiffusionPipeline."
        )
    for module in found:
        module.forward = functools.partial(_mixed, module, mixture)
    return mixture


def _mixed(
    module: Any,
    mixture: Mixture,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    timestep: Tensor | None = None,
    return_dict: bool = True,
    cross_attention_kwargs: dict[str, Any] | None = None,
    **masks: Any,
) -> Any:
    """The equation of the module. Masks are ignored: all tokens of a predicted context count."""
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    text, image = encoder_hidden_states.tensor_split([mixture.text_tokens], dim=1)
    mixed = hidden_states
    for index, context, weight in ((0, image, mixture.image), (1, text, 1 - mixture.image)):
        if weight == 0:
            continue
        there = module.transformers[index](
            hidden_states,
            encoder_hidden_states=context,
            timestep=timestep,
            cross_attention_kwargs=cross_attention_kwargs,
            return_dict=False,
        )[0]
        mixed = mixed + weight * (there - hidden_states)
    return Transformer2DModelOutput(sample=mixed) if return_dict else (mixed,)


class VersatileDiffusionImages:
    """Pictures from image tokens, text tokens and a first guess.

    Args:
        pipeline: A `VersatileDiffusionDualGuidedPipeline`; its components are used, not its call. Its network is bound to
            this object's mixture.
        size: Height and width of the pictures, pixels; None: those it was trained on.
        batch: Pictures at a time.
        progress: Fraction that is done, after each step.
    """

    requires = frozenset({"image_embeds", "prompt_embeds"})
    optional = frozenset({"init_image", "negative_image_embeds", "negative_prompt_embeds"})
    provides = "image"
    steps = 50
    guidance = 7.5

    def __init__(
        self,
        pipeline: Any,
        *,
        size: tuple[int, int] | None = None,
        batch: int = 4,
        progress: Step | None = None,
    ) -> None:
        self.pipeline, self.unet = pipeline, pipeline.image_unet
        self.mixture = bind_mixture(self.unet)
        self.size = size or native_size(self.unet, pipeline.vae)
        self.batch, self.progress = batch, progress

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Embeddings that a decoder has to predict."""
        width = int(self.unet.config.cross_attention_dim)
        return (
            FeatureSpec(
                "image_embeds", 257, width, "projected tokens of CLIP-Vision over the first's length"
            ),
            FeatureSpec(
                "prompt_embeds", 77, width, "projected tokens of CLIP-Text over the pooled one's length"
            ),
        )

    @cached_property
    def _codec(self) -> AutoencoderCodec:
        return AutoencoderCodec(self.pipeline.vae, (3, *self.size), batch=1)

    @cached_property
    def _empty_text(self) -> Tensor | None:
        encoder, tokenizer = self.pipeline.text_encoder, self.pipeline.tokenizer
        if encoder is None or tokenizer is None:
            return None
        tokens = tokenizer(
            "",
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        found = encoder(tokens.input_ids.to(encoder.device))
        projected = encoder.text_projection(found.last_hidden_state)
        return (projected / found.text_embeds.unsqueeze(1).norm(dim=-1, keepdim=True)).float()

    @cached_property
    def _grey_image(self) -> Tensor | None:
        """Tokens of a picture that is 0.5 everywhere; normalised here, since processors differ in what they rescale."""
        encoder, processor = self.pipeline.image_encoder, self.pipeline.image_feature_extractor
        if encoder is None or processor is None:
            return None
        mean, sd = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
        edge = int(encoder.config.image_size)
        first = next(encoder.parameters())
        found = encoder(((0.5 - mean) / sd).expand(1, 3, edge, edge).to(first))
        normed = encoder.vision_model.post_layernorm(found.last_hidden_state)
        projected = encoder.visual_projection(normed)
        return (projected / projected[:, :1].norm(dim=-1, keepdim=True)).float()

    @torch.no_grad()
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
        """Pictures (n, 3, y, x) in [0, 1] on the CPU; see `conditions.Generator` for the arguments.

        Args:
            condition: Image and text tokens, and the first guess.
            seeds: One a row.
            strength: 0 gives the first guess as the autoencoder sees it.
            guidance: None: 7.5.
            mix: Weight of the text, in [0, 1].
            control_scale: Not used: there is no control.
            steps: None: 50.

        Raises:
            InputError: a part is missing or of another width, or mix outside [0, 1].
        """
        check_requirements(self, condition, seeds)
        if not 0 <= mix <= 1:
            raise InputError(f"expected mix in [0, 1]; got {mix}. 0 is image alone, 1 text alone.")
        weight = self.guidance if guidance is None else float(guidance)

        def draw(part: Condition, generators: list[torch.Generator], step: Step) -> Tensor:
            init = None
            if part.init_image is not None:
                flat = self._codec.encode(resized(part.init_image.cpu(), self.size))
                init = flat.unflatten(1, self._codec.latent_shape).to(self.unet.device)
            context = self._context(part, weight)
            self.mixture.image = 1 - mix
            latents = sampled_latents(
                self.pipeline.scheduler,
                guided(self.unet, {"encoder_hidden_states": context}, weight),
                noise_of(generators, self._codec.latent_shape, device=self.unet.device),
                generators,
                init=init,
                strength=strength,
                steps=steps or self.steps,
                step=step,
            )
            return self._codec.decode(latents.flatten(1))

        return in_batches(condition, seeds, self.batch, draw, self.progress)

    def _context(self, part: Condition, guidance: float) -> Tensor:
        """Text tokens, then image tokens, both branches in one batch."""
        text = self._branches(part.prompt_embeds, part.negative_prompt_embeds, "_empty_text", guidance)
        image = self._branches(part.image_embeds, part.negative_image_embeds, "_grey_image", guidance)
        self.mixture.text_tokens = text.shape[1]
        return torch.cat([text, image], 1)

    def _branches(self, told: Any, other: Tensor | None, empty: str, guidance: float) -> Tensor:
        """Unconditional and conditional tokens of one kind; `empty` names those to use where none are given."""
        first = next(self.unet.parameters())
        positive = told.to(first.device, first.dtype)
        if guidance == 1:
            return positive
        negative = other if other is not None else getattr(self, empty)
        if negative is None:
            raise InputError(
                "expected negative_prompt_embeds and negative_image_embeds where the folder has no text_encoder and "
                "image_encoder; got none. Add them, or use guidance 1."
            )
        if negative.shape[1:] != positive.shape[1:]:
            raise InputError(
                f"expected as many unconditional tokens as conditional ones, {tuple(positive.shape[1:])}; got "
                f"{tuple(negative.shape[1:])}. Use embeddings of one encoder."
            )
        return beside(negative.to(positive), positive, guidance)
