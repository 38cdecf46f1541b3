"""A tiny decoder of the cortex and a tiny generator that never trains, with every weight awake: shared by three tests."""

import torch

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_decode.model.latents import PcaCodec
from radiata_decode.model.manipulated_generator import FrozenGenerator
from radiata_decode.model.manipulation_network import ManipulationNetwork
from radiata_decode.model.semantic_tokens import SemanticTokens
from radiata_decode.model.surface_decoder import SurfaceDecoder
from radiata_decode.model.surface_encoder import SurfaceEncoder

__all__ = ["SHAPE", "awake", "frozen_generator", "surface_decoder"]

SHAPE = (3, 8, 8)


def awake(module, seed, spread=0.2):
    """The module with all weights drawn anew: no zero convolution is zero any more."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=source))
    return module


def frozen_generator():
    """Pictures of 8 pixels."""
    with torch.random.fork_rng(devices=[]):
        unet = UNet(
            dims=2, in_channels=3, out_channels=3, channels=(8, 8), down_blocks=(1, 1), up_blocks=(1, 1),
            attention=(False, False), embedding=8, frequencies=8,
        )  # fmt: skip
    denoiser = NetworkDenoiser(awake(unet, 0), LinearPath(), "velocity").requires_grad_(False)
    return FrozenGenerator(denoiser, SHAPE)


def surface_decoder(prior, codec: PcaCodec):
    """Of cortices of 16 pixels, controlling that generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SurfaceEncoder((16, 16), 8, 8, 1, 2)
        control = ManipulationNetwork.of(prior.denoiser, SHAPE[1:], encoder.tokens, 8, 4, 3)
        network = SurfaceDecoder(encoder, SemanticTokens(encoder.tokens, 8, 2, 4), control, 6, SHAPE)
    network.set_basis(codec)
    return network.eval()
