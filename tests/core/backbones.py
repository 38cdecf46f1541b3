"""Five denoising networks of three libraries, small, with no layer at zero; shared by the tests of handles."""

import warnings

import torch

from radiata_core.nets.medforj import MedForJUNet
from radiata_core.nets.mmdit import MMDiT
from radiata_core.nets.transformer import Transformer
from radiata_core.nets.unet import UNet
from radiata_core.seeds import generator_of


def _monai():
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(
        2, 1, 1, (1, 1), (16, 32), (False, True), norm_num_groups=8, num_head_channels=8, resblock_updown=True
    )


def _diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import UNet2DModel

        return UNet2DModel(
            16, 1, 1, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip


MAKERS = {
    "unet": lambda: UNet(dims=2, channels=(16, 32, 32), patch=2),
    "unet-3d": lambda: UNet(channels=(16, 32), down_blocks=(0, 1), up_blocks=(1, 1), attention=(False, True)),
    "mmdit": lambda: MMDiT(dims=2, patch=2, depth=3, heads=2, head=16, context=5),
    "transformer": lambda: Transformer(dims=2, patch=(2, 4), depth=3, heads=2, head=16, context=5),
    "medforj": lambda: MedForJUNet(2, 1, 1, (16, 32), 1, (False, True), resblock_updown=True),
    "monai": _monai,
    "diffusers": _diffusers,
}  # fmt: skip
TOLD_STEPS = ("medforj", "monai", "diffusers")


def backbone(name):
    """The network in float64, its weights from a seed."""
    with torch.random.fork_rng():
        network = MAKERS[name]().double().eval()
    for index, parameter in enumerate(network.parameters()):
        noise = torch.randn(parameter.shape, generator=generator_of(5, index), dtype=torch.float64)
        scale = 0.3 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.data = parameter.data * (parameter.data.abs().max() > 0) * 0.5 + scale * noise
    return network


def told(name, levels=(0.1, 0.5, 0.95)):
    """What the network is told of noise levels in [0, 1]."""
    level = torch.tensor(levels, dtype=torch.float64)
    return level * 1000 - 1 if name in TOLD_STEPS else -level.logit()


def picture(name, rows=3):
    """An input."""
    grid = (8, 8, 8) if name == "unet-3d" else (16, 16)
    return torch.randn(rows, 1, *grid, generator=generator_of(6), dtype=torch.float64)


def answer(network, x, level):
    """What the network says, without a gradient."""
    with torch.no_grad():
        found = network(x, level)
    return found if isinstance(found, torch.Tensor) else found.sample
