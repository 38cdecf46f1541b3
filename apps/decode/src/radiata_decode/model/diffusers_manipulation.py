"""The manipulation of a diffusers U-Net: a ControlNet whose hint is a map of the cortex, not a picture.

`ControlNetModel.from_unet` makes the copy and its zero convolutions; the stack that would turn a picture into a hint is
replaced by nothing, so that the map of the tokens (320 × 64 × 64 for Stable Diffusion) is added right after the copy's first
layer. With guidance both branches keep the control; only the context of the unconditional one is the empty text's.

References:
    L. Zhang, A. Rao, M. Agrawala (2023). https://arxiv.org/abs/2302.05543.
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_decode.model.manipulation_network import TokenMap, level_scales

__all__ = ["DiffusersManipulation", "manipulated_unet"]


class DiffusersManipulation(nn.Module):
    """Residuals for a diffusers `UNet2DConditionModel` from its own input and the tokens of the cortex.

    Args:
        unet: The frozen U-Net.
        tokens: Of the encoder, 1 + p.
        width: Of the encoder.
        grid: Of the latents, (y, x); None: the U-Net's sample size.

    Raises:
        InputError: diffusers is not installed, or another network.
    """

    def __init__(self, unet: Any, tokens: int, width: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        try:
            from diffusers import ControlNetModel, UNet2DConditionModel
        except ImportError:
            raise InputError(
                'expected diffusers for this generator; it is not installed. Run pip install "radiata-decode[diffusers]".'
            ) from None
        if not isinstance(unet, UNet2DConditionModel):
            raise InputError(f"expected a UNet2DConditionModel; got {type(unet).__name__}.")
        self.copy = ControlNetModel.from_unet(unet, conditioning_channels=3)
        self.copy.controlnet_cond_embedding = nn.Identity()
        size = int(unet.config.sample_size)
        self.entry = TokenMap(
            tokens, width, int(unet.config.block_out_channels[0]), grid or (size, size), zero=True
        )

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor | float,
        context: Tensor,
        tokens: Tensor,
        scale: float | Sequence[float] = 1.0,
        **conditions: Any,
    ) -> tuple[list[Tensor], Tensor]:
        """Residuals of the blocks on the way down, finest first, and of the middle one.

        Args:
            latents: (n, 4, y, x).
            timestep: Of the scheduler.
            context: (n, T, D), the semantic tokens.
            tokens: (n, 1 + p, width), of the cortex.
            scale: One for all, or one a residual, the middle one last (13 for Stable Diffusion).
            conditions: Passed to the copy.
        """
        down, middle = self.copy(
            latents,
            timestep,
            encoder_hidden_states=context,
            controlnet_cond=self.entry(tokens),
            return_dict=False,
            **conditions,
        )
        scales = level_scales(scale, len(down) + 1)
        return [s * h for s, h in zip(scales, down, strict=False)], scales[-1] * middle


def manipulated_unet(
    unet: Any,
    manipulation: DiffusersManipulation,
    latents: Tensor,
    timestep: Tensor | float,
    context: Tensor,
    tokens: Tensor,
    *,
    empty: Tensor | None = None,
    guidance: float = 5.0,
    scale: float | Sequence[float] = 1.0,
) -> Tensor:
    """The noise that the frozen U-Net predicts under control, (n, 4, y, x), guided where `empty` is given.

    Args:
        unet: The frozen U-Net.
        manipulation: Its residuals.
        latents: (n, 4, y, x).
        timestep: Of the scheduler.
        context: (n, T, D), the semantic tokens.
        tokens: (n, 1 + p, width).
        empty: Context of the empty text, (1 or n, T, D); None: no guidance.
        guidance: Weight of the difference, 5 in the paper.
        scale: Of the control, see `DiffusersManipulation`.
    """

    def noise(of: Tensor) -> Tensor:
        down, middle = manipulation(latents, timestep, of, tokens, scale)
        return unet(
            latents,
            timestep,
            encoder_hidden_states=of,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        ).sample

    given = noise(context)
    if empty is None or guidance == 1.0:
        return given
    return torch.lerp(noise(empty.expand_as(context)), given, guidance)
