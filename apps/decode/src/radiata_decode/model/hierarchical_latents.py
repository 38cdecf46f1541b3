r"""Latents of a hierarchical autoencoder: a stack from global to fine, of which the upper part is predicted.

A very deep VAE draws a picture from a stack of latents $z_1, z_2, \dots$ of growing resolution; the first few dozen hold
layout and colour, the rest texture that fMRI does not show. Brain-Diffuser predicts the first 31 of 75 layers (91 168
numbers) and lets the network draw the others from its prior. The codec here does that for any `LatentStack`; `VdvaeStack`
is one for networks that are built like OpenAI's VDVAE, which has to be installed and loaded by its own code.

References:
    R. Child (2021). Very deep VAEs generalize autoregressive models and can outperform them on images.
    https://arxiv.org/abs/2011.10650.
    F. Ozcelik, R. VanRullen (2023). https://arxiv.org/abs/2303.05334 (which layers).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_decode.model.latents import check_images

__all__ = ["HierarchicalCodec", "LatentStack", "VdvaeStack"]


class LatentStack(Protocol):
    """An autoencoder with stacked latents."""

    def encode(self, images: Tensor) -> Sequence[Tensor]:
        """Latents of each layer, global first, each (n, ...), of pictures in [0, 1]."""

    def decode(self, latents: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """Pictures in [0, 1] of the first layers; the others are drawn from the prior, or set to its mean."""


class HierarchicalCodec:
    """The first layers of a stack as one vector.

    Args:
        stack: The autoencoder.
        shape: Of a picture, (3, y, x).
        layers: How many layers are predicted; 31 as in Brain-Diffuser.
        batch: Pictures at a time in `encode`.
        seed: Of what the stack draws below them; each picture starts from it, alone or in a batch.
    """

    def __init__(
        self,
        stack: LatentStack,
        shape: tuple[int, int, int],
        *,
        layers: int = 31,
        batch: int = 8,
        seed: int = 0,
    ) -> None:
        self.stack, self.shape, self.batch, self.seed = stack, tuple(shape), batch, seed
        with torch.no_grad():
            found = stack.encode(torch.full((1, *self.shape), 0.5))
        if not 1 <= layers <= len(found):
            raise InputError(f"expected 1 to {len(found)} layers of latents; got {layers}.")
        self.layer_shapes = [tuple(latent.shape[1:]) for latent in found[:layers]]
        self.sizes = [torch.Size(each).numel() for each in self.layer_shapes]

    @property
    def groups(self) -> Tensor:
        """The layer of each component: a layer shares a penalty."""
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents of the first layers, flattened and joined, (n, d).

        Raises:
            InputError: not pictures, or of another size.
        """
        check_images(images, self.shape)
        parts = []
        for some in images.float().split(self.batch):
            found = self.stack.encode(some)[: len(self.sizes)]
            parts.append(torch.cat([latent.flatten(1).float().cpu() for latent in found], 1))
        return torch.cat(parts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in [0, 1], one at a time, so that what is drawn does not depend on the others.

        Raises:
            InputError: another number of components.
        """
        if latents.ndim != 2 or latents.shape[1] != sum(self.sizes):
            raise InputError(
                f"expected vectors (n, {sum(self.sizes)}); got {tuple(latents.shape)}. Use their own codec."
            )
        pictures = []
        for row in latents.float().split(1):
            parts = row.split(self.sizes, 1)
            shaped = [part.unflatten(1, each) for part, each in zip(parts, self.layer_shapes, strict=True)]
            generator = torch.Generator().manual_seed(self.seed)
            pictures.append(self.stack.decode(shaped, generator).float().cpu().clamp(0, 1))
        return torch.cat(pictures)


class VdvaeStack:
    """A network built like OpenAI's VDVAE (ImageNet, 64 × 64), loaded by its own code.

    Args:
        module: With `encoder.forward`, `decoder.forward(…, get_latents=True)`, `decoder.forward_manual_latents` and
            `decoder.out_net.sample`; pictures (n, y, x, 3).
        shift: Added to 8-bit values before the network; of the 64 × 64 ImageNet weights.
        scale: Multiplies them after that.
    """

    def __init__(
        self, module: nn.Module, *, shift: float = -115.92961967, scale: float = 1 / 69.37404
    ) -> None:
        self.module: Any = module.eval()
        self.shift, self.scale = shift, scale

    def encode(self, images: Tensor) -> Sequence[Tensor]:
        """Latents of all layers; draws are fixed, as the network samples its posterior."""
        pixels = ((images * 255).round() + self.shift).permute(0, 2, 3, 1) * self.scale
        device = next(self.module.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            activations = self.module.encoder.forward(pixels.to(device))
            _, layers = self.module.decoder.forward(activations, get_latents=True)
        return [layer["z"] for layer in layers]

    def decode(self, latents: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """Pictures with the other layers drawn from the prior, from the generator's seed."""
        device = next(self.module.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed())
            given = [latent.to(device) for latent in latents]
            drawn = self.module.decoder.forward_manual_latents(len(given[0]), given, t=None)
            pixels = self.module.decoder.out_net.sample(drawn)
        return torch.as_tensor(pixels).permute(0, 3, 1, 2).float() / 255
