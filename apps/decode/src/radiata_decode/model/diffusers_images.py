r"""Pictures by any Stable Diffusion that diffusers can load, told embeddings instead of words.

| folder | told | how |
|---|---|---|
| StableDiffusion(Img2Img)Pipeline | prompt_embeds | context of the cross-attention |
| with ip-adapter.safetensors in the folder | image_embeds (and prompt_embeds) | more keys and values, weight 1 − mix |
| StableDiffusionControlNet(Img2Img)Pipeline | control, a picture | residuals of the ControlNet, weight control_scale |
| StableUnCLIPImg2ImgPipeline | image_embeds | added to the time embedding |
| any of these | control, a list of residuals (n, c, y, x), middle one last | added to the skips, weight control_scale |
| any of these | init_image | noised latents to start from, see strength |

An IP-Adapter is the shortest way from brain to picture: one CLIP vector to regress, and nothing of the pipeline changes.
(The img2img call of diffusers 0.42 repeats given vectors once too often in a batch of pictures; the loop here does not.)
The context of the empty text is computed once from the folder's text encoder; a folder without one asks for
`negative_prompt_embeds`, or for guidance 1.

Run here on tiny networks with random weights on a CPU only, never with pretrained weights or on an accelerator.

References:
    H. Ye et al. (2023). IP-Adapter. https://arxiv.org/abs/2308.06721.
    L. Zhang, A. Rao, M. Agrawala (2023). https://arxiv.org/abs/2302.05543 (ControlNet).
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (residuals from the cortex, in both branches).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import noise_of
from radiata_decode.model.conditions import Condition, FeatureSpec, check_requirements
from radiata_decode.model.guided_sampling import (
    Control,
    Step,
    beside,
    guided,
    in_batches,
    resized,
    sampled_latents,
)
from radiata_decode.model.latents import AutoencoderCodec
from radiata_decode.model.manipulation_network import level_scales

__all__ = ["StableDiffusionImages", "empty_context", "native_size", "with_adapter"]


def empty_context(pipeline: Any) -> Tensor | None:
    """Embedding of the empty text, (1, T, D); None where the pipeline has no text encoder."""
    encoder, tokenizer = getattr(pipeline, "text_encoder", None), getattr(pipeline, "tokenizer", None)
    if encoder is None or tokenizer is None:
        return None
    tokens = tokenizer(
        "", padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        return encoder(tokens.input_ids.to(encoder.device))[0].float()


def native_size(unet: Any, vae: Any) -> tuple[int, int]:
    """Height and width of the pictures that a network was trained on, pixels."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return int(height) * factor, int(width) * factor


def with_adapter(pipeline: Any, tensors: dict[str, Tensor]) -> Any:
    """The pipeline with an IP-Adapter, from the tensors of its file: image_proj.*, ip_adapter.*.

    Raises:
        InputError: tensors of something else, or of another network.
    """
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in tensors.items():
        head, _, rest = name.partition(".")
        if head not in groups:
            raise InputError(
                f"expected tensors image_proj.* and ip_adapter.*; got {name}. Use an IP-Adapter file."
            )
        groups[head][rest] = value
    try:
        with torch.random.fork_rng(devices=[]):  # layers are drawn before they are filled
            pipeline.load_ip_adapter(groups, subfolder="", weight_name="", image_encoder_folder=None)
    except (KeyError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"expected an IP-Adapter of this network; got another ({first}). Use its own."
        ) from None
    return pipeline


class StableDiffusionImages:
    """Pictures from embeddings, a first guess and a control.

    Args:
        pipeline: Of one of the classes in the table above; its components are used, not its call.
        size: Height and width of the pictures, pixels; None: those it was trained on.
        batch: Pictures at a time; changes nothing but memory (and the last bits).
        noise_level: unCLIP: of the noise on the embedding, a step of its scheduler.
        progress: Fraction that is done, after each step.
    """

    provides = "image"
    steps = 50
    guidance = 7.5

    def __init__(
        self,
        pipeline: Any,
        *,
        size: tuple[int, int] | None = None,
        batch: int = 4,
        noise_level: int = 0,
        progress: Step | None = None,
    ) -> None:
        self.pipeline, self.unet = pipeline, pipeline.unet
        self.controlnet = getattr(pipeline, "controlnet", None)
        self.adapter = getattr(self.unet.config, "encoder_hid_dim_type", None) == "ip_image_proj"
        self.unclip = getattr(pipeline, "image_normalizer", None) is not None
        self.size = size or native_size(self.unet, pipeline.vae)
        self.batch, self.noise_level, self.progress = batch, noise_level, progress

    @property
    def requires(self) -> frozenset[str]:
        """Image embeddings with an adapter or unCLIP, else text embeddings; a control picture with a ControlNet."""
        first = "image_embeds" if self.adapter or self.unclip else "prompt_embeds"
        return frozenset({first} | ({"control"} if self.controlnet is not None else set()))

    @property
    def optional(self) -> frozenset[str]:
        """What is used where it is there."""
        known = {"init_image", "prompt_embeds", "negative_prompt_embeds", "control"}
        return frozenset((known | ({"negative_image_embeds"} if self.adapter else set())) - self.requires)

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Embeddings that a decoder has to predict."""
        width = int(self.unet.config.cross_attention_dim)
        text = FeatureSpec(
            "prompt_embeds", 77, width, "last hidden state of the pipeline's text encoder, of captions"
        )
        if self.unclip:
            width = int(self.pipeline.image_normalizer.mean.shape[-1])
            return text, FeatureSpec("image_embeds", 1, width, "projected CLIP-Vision vector, not normalised")
        if self.adapter:
            layer = self.unet.encoder_hid_proj.image_projection_layers[0]
            if hasattr(layer, "image_embeds"):
                width = int(layer.image_embeds.in_features)
                return text, FeatureSpec(
                    "image_embeds", 1, width, "projected CLIP-Vision vector of the adapter"
                )
        return (text,)

    @cached_property
    def _codec(self) -> AutoencoderCodec:
        return AutoencoderCodec(self.pipeline.vae, (3, *self.size), batch=1)

    @cached_property
    def _empty(self) -> Tensor | None:
        return empty_context(self.pipeline)

    @torch.no_grad()
    def __call__(
        self,
        condition: Condition,
        *,
        seeds: Sequence[int],
        strength: float = 0.75,
        guidance: float | None = None,
        mix: float = 0.4,
        control_scale: float | Sequence[float] = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """Pictures (n, 3, y, x) in [0, 1] on the CPU; see `conditions.Generator` for the arguments.

        Args:
            condition: See the table of the module.
            seeds: One a row.
            strength: 0 gives the first guess as the autoencoder sees it.
            guidance: None: 7.5.
            mix: Where text and adapter are both told, the adapter has weight 1 − mix.
            control_scale: One number, or one a residual, the middle one last.
            steps: None: 50.

        Raises:
            InputError: a part is missing or of another width.
        """
        check_requirements(self, condition, seeds)
        weight = self.guidance if guidance is None else float(guidance)

        def draw(part: Condition, generators: list[torch.Generator], step: Step) -> Tensor:
            noise = noise_of(generators, self._codec.latent_shape, device=self.unet.device)
            init = self._init(part)
            inputs = self._inputs(part, generators, weight, mix)
            latents = sampled_latents(
                self.pipeline.scheduler,
                guided(self.unet, inputs, weight, self._control(part, control_scale, weight)),
                noise,
                generators,
                init=init,
                strength=strength,
                steps=steps or self.steps,
                step=step,
            )
            return self._codec.decode(latents.flatten(1))

        return in_batches(condition, seeds, self.batch, draw, self.progress)

    def _init(self, part: Condition) -> Tensor | None:
        if part.init_image is None:
            return None
        found = self._codec.encode(resized(part.init_image.cpu(), self.size))
        return found.unflatten(1, self._codec.latent_shape).to(self.unet.device)

    def _to(self, embeds: Any) -> Tensor:
        first = next(self.unet.parameters())
        return embeds.to(first.device, first.dtype)

    def _inputs(
        self, part: Condition, generators: list[torch.Generator], guidance: float, mix: float
    ) -> dict[str, Any]:
        """Keyword arguments of the network, both branches in one batch."""
        positive = part.prompt_embeds if part.prompt_embeds is not None else self._empty
        negative = part.negative_prompt_embeds if part.negative_prompt_embeds is not None else self._empty
        if positive is None or (negative is None and guidance != 1):
            raise InputError(
                "expected prompt_embeds and negative_prompt_embeds where the pipeline has no text encoder; got "
                f"{', '.join(sorted(part.given))}. Add them, use guidance 1, or add the folder text_encoder."
            )
        if negative is not None and negative.shape[1:] != positive.shape[1:]:
            raise InputError(
                f"expected negative_prompt_embeds of {tuple(positive.shape[1:])} like prompt_embeds; got "
                f"{tuple(negative.shape[1:])}. Pad both to the same number of tokens."
            )
        positive = self._to(positive).expand(part.count, -1, -1)
        inputs = {
            "encoder_hidden_states": beside(
                positive if negative is None else self._to(negative), positive, guidance
            )
        }
        if self.adapter:
            inputs |= self._adapter_inputs(part, guidance, mix)
        if self.unclip:
            inputs["class_labels"] = self._unclip_label(part, generators, guidance)
        return inputs

    def _adapter_inputs(self, part: Condition, guidance: float, mix: float) -> dict[str, Any]:
        told = self._to(part.image_embeds)
        other = part.negative_image_embeds
        both = beside(torch.zeros_like(told) if other is None else self._to(other), told, guidance)
        layer = self.unet.encoder_hid_proj.image_projection_layers[0]
        if not hasattr(layer, "image_embeds"):  # projections of token sequences want an axis of pictures
            both = both.unsqueeze(1)
        self.pipeline.set_ip_adapter_scale(1.0 if part.prompt_embeds is None else 1.0 - mix)
        return {"added_cond_kwargs": {"image_embeds": [both]}}

    def _unclip_label(self, part: Condition, generators: list[torch.Generator], guidance: float) -> Tensor:
        tokens = self._to(part.image_embeds)
        if tokens.shape[1] != 1:
            raise InputError(f"expected one vector a picture for unCLIP; got {tokens.shape[1]} tokens.")
        vector = tokens[:, 0]
        noise = self._to(noise_of(generators, vector.shape[1:]))
        label = self.pipeline.noise_image_embeddings(vector, self.noise_level, noise=noise)
        return beside(torch.zeros_like(label), label, guidance)

    def _control(self, part: Condition, scale: float | Sequence[float], guidance: float) -> Control | None:
        """Residuals of the ControlNet's picture, or those that are given."""
        if part.control is None or scale == 0:
            return None
        if not isinstance(part.control, Tensor):
            given = [beside(one, one, guidance).to(self.unet.device) for one in part.control]
            scales = level_scales(scale, len(given))
            scaled = [s * one for s, one in zip(scales, given, strict=True)]
            return lambda latents, time, context: (scaled[:-1], scaled[-1])
        if self.controlnet is None:
            raise InputError(
                "expected residuals, or the folder of a ControlNet pipeline; got a control picture. "
                "Choose a StableDiffusionControlNetImg2ImgPipeline."
            )
        network = self.controlnet
        picture = self._to(resized(part.control.cpu(), self.size))
        hint = beside(picture, picture, guidance)

        def residuals(latents: Tensor, time: Tensor, context: Tensor) -> tuple[Sequence[Tensor], Tensor]:
            down, middle = network(
                latents,
                time,
                encoder_hidden_states=context,
                controlnet_cond=hint,
                return_dict=False,
            )
            scales = level_scales(scale, len(down) + 1)
            return [s * one for s, one in zip(scales, down, strict=False)], scales[-1] * middle

        return residuals
