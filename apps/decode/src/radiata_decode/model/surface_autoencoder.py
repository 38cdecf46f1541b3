r"""A calibrated encoder of many people's cortices: the whole picture through one token.

    picture → encoder → CLS → linear → bottleneck b → linear → first token of a decoder of mask tokens + positions → picture

$$ L = \frac{\sum_p m_p\,(\hat I_p - I_p)^2}{\sum_p m_p}, $$

m the person's mask. No patch is hidden from the encoder; what is narrow is the way out: the decoder sees CLS alone, so
CLS must describe the entire map, and since people share all weights, in terms that hold for all of them. Afterwards the
decoder is dropped and all tokens of the encoder are used.

References:
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (the fMRI autoencoder: width 1024, bottleneck 2048).
    K. He et al. (2022). Masked autoencoders are scalable vision learners. https://arxiv.org/abs/2111.06377 (the decoder).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.objectives import Loss
from radiata_core.specs import buildable
from radiata_decode.model.surface_encoder import SurfaceEncoder, TransformerBlock, grid_positions

__all__ = ["Autoencoding", "SurfaceAutoencoder", "masked_squared_error"]


def masked_squared_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the pixels of the mask, one a picture, (n,).

    Args:
        prediction: (n, 1, y, x).
        target: The same.
        mask: The same, 1 where there is cortex.
    """
    squares = ((prediction.float() - target.float()) ** 2 * mask).flatten(1).sum(1)
    return squares / mask.flatten(1).sum(1).clamp_min(1)


@buildable("surface-autoencoder")
class SurfaceAutoencoder(nn.Module):
    """Pictures of the cortex from pictures of the cortex, through a bottleneck.

    Args:
        encoder: Its own weights are what is kept.
        bottleneck: Width of the bottleneck, 2048 in the paper.
        width: Of the decoder's tokens, divides by 4.
        depth: Blocks of the decoder.
        heads: Of its attention.
    """

    positions: Tensor

    def __init__(
        self, encoder: SurfaceEncoder, bottleneck: int = 256, width: int = 64, depth: int = 1, heads: int = 4
    ) -> None:
        super().__init__()
        self.options = {
            "encoder": encoder,
            "bottleneck": bottleneck,
            "width": width,
            "depth": depth,
            "heads": heads,
        }
        self.encoder = encoder
        self.narrow, self.widen = nn.Linear(encoder.width, bottleneck), nn.Linear(bottleneck, width)
        self.register_buffer("positions", grid_positions(encoder.grid, width), persistent=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, encoder.patch**2)

    def codes(self, images: Tensor) -> Tensor:
        """The bottleneck, (n, b)."""
        return self.narrow(self.encoder(images)[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructed pictures, (n, 1, y, x)."""
        first = self.widen(self.codes(images)).unsqueeze(1)
        places = (self.mask_token + self.positions).expand(len(images), -1, -1)
        tokens = torch.cat([first, places], 1)
        for block in self.blocks:
            tokens = block(tokens)
        patches = self.head(self.norm(tokens[:, 1:])).transpose(1, 2)
        patch = self.encoder.patch
        return nn.functional.fold(patches, self.encoder.size, patch, stride=patch)


@dataclass(frozen=True)
class Autoencoding:
    """The objective of pre-training: items are {"image": picture, "mask": the person's mask}.

    Attributes:
        noise: Standard deviation of noise that is added to the input, not to the target, in units of the responses, >= 0.
    """

    noise: float = 0.0
    companions = ("mask",)

    def __call__(
        self, denoiser: Any, x0: Tensor, generators: Sequence[torch.Generator], **conditions: Any
    ) -> Loss:
        """Masked squared error of a batch; sample i draws its noise from generator i alone.

        Args:
            denoiser: The autoencoder.
            x0: Pictures of the cortex, (n, 1, y, x).
            generators: One a picture.
            conditions: `mask`, 1 where the person has cortex, (n, 1, y, x).
        """
        mask: Tensor = conditions["mask"]
        seen = x0
        if self.noise > 0:
            drawn = torch.stack(
                [torch.randn(x0.shape[1:], generator=g, dtype=torch.float32) for g in generators]
            )
            seen = x0 + self.noise * drawn.to(x0) * mask
        rows = masked_squared_error(denoiser(seen), x0, mask)
        return Loss(rows.mean(), rows, torch.zeros(len(rows), dtype=torch.float64))
