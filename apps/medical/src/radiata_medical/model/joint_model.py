"""The joint denoiser of scans and their labels: one network for segmentation, synthesis, and both from noise.

The core's `joint_denoisers` says what it is; here is the network this application trains: the U-Net of the prior with the
label field as further channels, in and out, and a second noise level. It is local, as the prior is, and works on any grid
whose axes divide by 8.
"""

from collections.abc import Sequence

import torch

from radiata_core.errors import InputError
from radiata_core.joint_denoisers import ClassField, JointDenoiser, RealField
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.seeds import seed_of
from radiata_medical.model.prior import CHANNELS, SIGMA_DATA

__all__ = ["DISTANCE_RMS", "build_joint"]

DISTANCE_RMS = 0.85
"""Root mean square of signed distances over 5 mm, clipped, of the tissues of a head: most voxels are far from most."""


def build_joint(
    dims: int = 2,
    classes: int = 9,
    channels: Sequence[int] | None = None,
    seed: int = 0,
    *,
    distances: bool = False,
    covariates: int = 0,
) -> JointDenoiser:
    """An untrained joint denoiser of scans and their labels, local and without attention, a function of the seed.

    Args:
        dims: 2 for slices, 3 for blocks.
        classes: Label classes, background among them.
        channels: Channels a level, finest first; None: those of the prior.
        seed: Of the initial weights.
        distances: Diffuse signed distances to the surfaces of the classes instead of the classes.
        covariates: Numbers that describe the contrast; 0 for none.

    Raises:
        InputError: other dimensions.
    """
    if dims not in CHANNELS:
        raise InputError(
            f"expected a joint model of 2 or 3 dimensions; got {dims}. Slices have 2, volumes 3."
        )
    widths = tuple(channels or CHANNELS[dims])
    coarse = len(widths) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        network = UNet(
            dims=dims,
            in_channels=1 + classes,
            out_channels=1 + classes,
            patch=2,
            channels=widths,
            down_blocks=(0, *[2] * coarse) if dims == 2 else (0, *[1] * coarse),
            up_blocks=(1, *[2] * coarse),
            attention=(False,) * len(widths),
            covariates=covariates,
            destination=True,
            norm="channel",
        )
    labels = RealField(classes, DISTANCE_RMS) if distances else ClassField(classes)
    return JointDenoiser(network, LinearPath(), RealField(1, SIGMA_DATA), labels)
