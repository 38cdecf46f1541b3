r"""Films by diffusers: from a first frame (and flow), or from text embeddings.

| folder | told | frames |
|---|---|---|
| StableVideoDiffusionPipeline | first_frame | as many as it was trained on |
| the same, its network widened (`flow_conditioned_video`) | first_frame, flow | the same |
| AnimateDiffPipeline | prompt_embeds | 16 unless asked otherwise |

An image-to-film model without flow invents the motion: it shows what a still alone suggests, and is a control for
decoders of motion, not a decoder. Strength and mix mean nothing here; guidance of Stable Video Diffusion rises from 1 at
the first frame to the number given at the last, its own being 3.

Run here on tiny networks with random weights on a CPU only, never with pretrained weights or on an accelerator.

References:
    A. Blattmann et al. (2023). Stable Video Diffusion. https://arxiv.org/abs/2311.15127.
    Y. Guo et al. (2023). AnimateDiff. https://arxiv.org/abs/2307.04725.
"""

import contextlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import noise_of
from radiata_decode.model.conditions import Condition, FeatureSpec, check_requirements
from radiata_decode.model.diffusers_images import empty_context, native_size
from radiata_decode.model.flow_conditioned_video import (
    flow_beside,
    flow_channels,
    flow_maps,
    pictures_of,
    widened,
)
from radiata_decode.model.guided_sampling import Step, after_step, in_batches, resized

__all__ = ["AnimateDiffVideo", "StableVideo"]


class StableVideo:
    """Films from a first frame, moved by a flow where the network was taught to.

    Args:
        pipeline: A `StableVideoDiffusionPipeline`.
        size: Height and width of the frames, pixels; None: the network's own.
        frames: Of a film; None: the network's own.
        batch: Films at a time.
        fps: Frames a second that the network is told.
        motion_bucket: Amount of motion that it is told, 0 to 255.
        noise_aug: Noise on the first frame, in units of its range [-1, 1].
        decode_chunk: Frames that are decoded at once, a divisor of their number; None: all.
        progress: Fraction that is done, after each step.

    Raises:
        InputError: chunks that would mix two films, or a network of other channels.
    """

    provides = "video"
    requires = frozenset({"first_frame"})
    steps = 25
    guidance = 3.0

    def __init__(
        self,
        pipeline: Any,
        *,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        batch: int = 1,
        fps: int = 7,
        motion_bucket: int = 127,
        noise_aug: float = 0.02,
        decode_chunk: int | None = None,
        progress: Step | None = None,
    ) -> None:
        self.pipeline, self.unet = pipeline, pipeline.unet
        self.flow = flow_channels(self.unet) > 0
        if self.flow:
            widened(self.unet)
        self.size = size or native_size(self.unet, pipeline.vae)
        self.frames = frames or int(self.unet.config.num_frames)
        if decode_chunk is not None and (decode_chunk < 1 or self.frames % decode_chunk):
            raise InputError(
                f"expected a decode chunk that divides the {self.frames} frames; got {decode_chunk}. A chunk of two films "
                "would mix them."
            )
        self.batch, self.progress = batch, progress
        self.told = {
            "fps": fps,
            "motion_bucket_id": motion_bucket,
            "noise_aug_strength": noise_aug,
            "decode_chunk_size": decode_chunk,
        }

    @property
    def optional(self) -> frozenset[str]:
        """Flow, where the network has channels for it."""
        return frozenset({"flow"} if self.flow else set())

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
        """Films (n, frame, 3, y, x) in [0, 1] on the CPU; see `conditions.Generator` for the arguments.

        Args:
            condition: First frames, and flow.
            seeds: One a row.
            strength: Not used.
            guidance: Of the last frame; None: 3.
            mix: Not used.
            control_scale: Factor on the flow where it is told; 0 withholds it.
            steps: None: 25.

        Raises:
            InputError: no first frame, or not one seed a row.
        """
        check_requirements(self, condition, seeds)
        number = steps or self.steps
        height, width = self.size
        factor = 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)
        grid = (height // factor, width // factor)

        def draw(part: Condition, generators: list[torch.Generator], step: Step) -> Tensor:
            first = next(self.unet.parameters())
            shape = (self.frames, int(self.unet.config.out_channels), *grid)
            noise = noise_of(generators, shape, first.dtype, first.device)
            frames = resized(part.first_frame.cpu(), self.size)  # type: ignore[union-attr]
            with self._told_flow(part, grid, control_scale):
                return self.pipeline(
                    pictures_of(frames),
                    height=height,
                    width=width,
                    num_frames=self.frames,
                    num_inference_steps=number,
                    max_guidance_scale=self.guidance if guidance is None else float(guidance),
                    latents=noise,
                    generator=generators,
                    output_type="pt",
                    callback_on_step_end=after_step(step, number),
                    **self.told,
                ).frames

        return in_batches(condition, seeds, self.batch, draw, self.progress)

    def _told_flow(self, part: Condition, grid: tuple[int, int], scale: float) -> Any:
        """The flow's channels for the time of a call; zeros where there is none, or scale is 0."""
        if not self.flow:
            return contextlib.nullcontext()
        if part.flow is None or scale == 0:
            maps = torch.zeros(part.count, self.frames, flow_channels(self.unet), *grid)
        else:
            maps = flow_maps(scale * part.flow.cpu(), self.frames, grid)
        return flow_beside(self.unet, maps)


class AnimateDiffVideo:
    """Films from text embeddings.

    Args:
        pipeline: An `AnimateDiffPipeline`.
        size: Height and width of the frames, pixels; None: the network's own.
        frames: Of a film.
        batch: Films at a time.
        progress: Fraction that is done, after each step.
    """

    provides = "video"
    requires = frozenset({"prompt_embeds"})
    optional = frozenset({"negative_prompt_embeds"})
    steps = 25
    guidance = 7.5

    def __init__(
        self,
        pipeline: Any,
        *,
        size: tuple[int, int] | None = None,
        frames: int = 16,
        batch: int = 1,
        progress: Step | None = None,
    ) -> None:
        self.pipeline, self.unet = pipeline, pipeline.unet
        self.size = size or native_size(self.unet, pipeline.vae)
        self.frames, self.batch, self.progress = frames, batch, progress

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Embeddings that a decoder has to predict."""
        width = int(self.unet.config.cross_attention_dim)
        return (FeatureSpec("prompt_embeds", 77, width, "last hidden state of the pipeline's text encoder"),)

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
        control_scale: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """Films (n, frame, 3, y, x) in [0, 1] on the CPU; see `conditions.Generator` for the arguments.

        Args:
            condition: Text embeddings.
            seeds: One a row.
            strength: Not used.
            guidance: None: 7.5.
            mix: Not used.
            control_scale: Not used.
            steps: None: 25.

        Raises:
            InputError: no text embeddings, or no unconditional ones where they are needed.
        """
        check_requirements(self, condition, seeds)
        number, weight = steps or self.steps, self.guidance if guidance is None else float(guidance)
        if weight != 1 and condition.negative_prompt_embeds is None and self._empty is None:
            raise InputError(
                "expected negative_prompt_embeds where the pipeline has no text encoder; got none. Add them, use guidance "
                "1, or add the folder text_encoder."
            )

        def draw(part: Condition, generators: list[torch.Generator], step: Step) -> Tensor:
            positive = self._to(part.prompt_embeds)
            other = part.negative_prompt_embeds if part.negative_prompt_embeds is not None else self._empty
            return self.pipeline(
                num_frames=self.frames,
                height=self.size[0],
                width=self.size[1],
                num_inference_steps=number,
                guidance_scale=weight,
                prompt_embeds=positive,
                negative_prompt_embeds=None if other is None else self._to(other).expand_as(positive),
                generator=generators,
                output_type="pt",
                callback_on_step_end=after_step(step, number),
            ).frames

        return in_batches(condition, seeds, self.batch, draw, self.progress)

    def _to(self, embeds: Any) -> Tensor:
        first = next(self.unet.parameters())
        return embeds.to(first.device, first.dtype)
