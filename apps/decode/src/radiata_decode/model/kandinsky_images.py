"""Pictures by Kandinsky 2.2 from one predicted CLIP vector, and a first guess where there is one.

Its network takes the vector that a prior would have made of a text; here the brain makes it. Without a first guess the
decoder pipeline starts from noise, with one the img2img pipeline from its noised latents. The unconditional vector is
that of an all-zero picture, which only Kandinsky's prior can make: give it as `negative_image_embeds`, or use guidance
1.

Run here on tiny networks with random weights on a CPU only, never with pretrained weights or on an accelerator.

References:
    A. Razzhigaev et al. (2023). Kandinsky. https://arxiv.org/abs/2310.03502.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.conditions import Condition, FeatureSpec, check_requirements
from radiata_decode.model.diffusers_images import native_size
from radiata_decode.model.guided_sampling import Step, after_step, in_batches, resized
from radiata_decode.model.pipeline_folders import diffusers_library

__all__ = ["KandinskyImages"]


class KandinskyImages:
    """Pictures from an image vector.

    Args:
        pipeline: A `KandinskyV22Pipeline` or `KandinskyV22Img2ImgPipeline`.
        size: Height and width of the pictures, pixels, multiples of 64; None: those it was trained on.
        batch: Pictures at a time.
        progress: Fraction that is done, after each step.
    """

    requires = frozenset({"image_embeds"})
    optional = frozenset({"init_image", "negative_image_embeds"})
    provides = "image"
    steps = 50
    guidance = 4.0

    def __init__(
        self,
        pipeline: Any,
        *,
        size: tuple[int, int] | None = None,
        batch: int = 4,
        progress: Step | None = None,
    ) -> None:
        library = diffusers_library()
        parts = {"unet": pipeline.unet, "scheduler": pipeline.scheduler, "movq": pipeline.movq}
        self.from_noise = library.KandinskyV22Pipeline(**parts)
        self.from_picture = library.KandinskyV22Img2ImgPipeline(**parts)
        for each in (self.from_noise, self.from_picture):
            each.set_progress_bar_config(disable=True)
        self.unet, self.movq = pipeline.unet, pipeline.movq
        self.size = size or native_size(self.unet, self.movq)
        self.batch, self.progress = batch, progress

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The vector that a decoder has to predict."""
        width = int(self.unet.config.encoder_hid_dim)
        return (FeatureSpec("image_embeds", 1, width, "projected CLIP-Vision vector of Kandinsky's prior"),)

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
            condition: Image vectors, and the first guess.
            seeds: One a row.
            strength: 0 gives the first guess as the autoencoder sees it.
            guidance: None: 4.
            mix: Not used.
            control_scale: Not used.
            steps: None: 50.

        Raises:
            InputError: a part is missing or of another width.
        """
        check_requirements(self, condition, seeds)
        weight = self.guidance if guidance is None else float(guidance)
        if weight != 1 and condition.negative_image_embeds is None:
            raise InputError(
                f"expected negative_image_embeds for guidance {weight:g}; got none. Add those of an all-zero picture, or "
                "use guidance 1."
            )
        number = steps or self.steps

        def draw(part: Condition, generators: list[torch.Generator], step: Step) -> Tensor:
            common = self._told(part) | {
                "height": self.size[0],
                "width": self.size[1],
                "num_inference_steps": number,
                "guidance_scale": weight,
                "generator": generators,
                "output_type": "pt",
            }
            if part.init_image is None:
                return self.from_noise(**common, callback_on_step_end=after_step(step, number)).images
            kept = min(int(number * strength), number)
            picture = self._to(resized(part.init_image.cpu(), self.size))
            if kept == 0:
                latents = self.movq.encode(2 * picture - 1).latents
                found = self.movq.decode(latents, force_not_quantize=True).sample
                return (found / 2 + 0.5).clamp(0, 1)
            pictures = [one.unsqueeze(0) for one in picture]
            return self.from_picture(
                image=pictures, strength=strength, **common, callback_on_step_end=after_step(step, kept)
            ).images

        return in_batches(condition, seeds, self.batch, draw, self.progress)

    def _to(self, embeds: Tensor) -> Tensor:
        first = next(self.unet.parameters())
        return embeds.to(first.device, first.dtype)

    def _told(self, part: Condition) -> dict[str, Tensor]:
        vector = part.image_embeds
        if vector is None or vector.shape[1] != 1:
            raise InputError("expected one vector a picture for Kandinsky; got several tokens.")
        other = part.negative_image_embeds
        told = self._to(vector[:, 0])
        return {
            "image_embeds": told,
            "negative_image_embeds": torch.zeros_like(told) if other is None else self._to(other[:, 0]),
        }
