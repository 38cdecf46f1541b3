r"""The generative prior of restoration: E[x_0 | x_t] of slices or blocks of head scans, in one network for any contrast.

Intensities are in units of the scan's white (`data.intensity_scale`): linear and without an offset, so that every linear
operator keeps its meaning. The network is the core's U-Net without attention and with a norm over channels: it is local, so
blocks with a halo give what the whole volume gives, on any grid whose axes divide by 8. Preconditioning is EDM's on the
linear path, kappa = sigma/alpha.

The contrast of a scan enters as four numbers, the mean intensities of fluid, cortex, white matter and deep grey
(`data.structures.CONTRAST`); NaN says unknown, and is what most restoration uses.

References:
    Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
        https://arxiv.org/abs/2206.00364, table 1 (preconditioning).
"""

from collections.abc import Sequence

import torch

from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.joint_denoisers import ClassField, JointDenoiser, RealField
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.seeds import seed_of

__all__ = ["CHANNELS", "SIGMA_DATA", "build_joint", "build_prior"]

SIGMA_DATA = 0.45
"""Root mean square of a head scan in units of its white."""

CHANNELS: dict[int, tuple[int, ...]] = {2: (48, 96, 160), 3: (24, 56, 112)}
"""Channels a level, finest first, of the shipped priors by dimension."""


def build_prior(
    dims: int, channels: Sequence[int] | None = None, covariates: int = 4, seed: int = 0
) -> EDMDenoiser:
    """An untrained prior whose weights are a function of the seed.

    Args:
        dims: 2 for slices, 3 for blocks.
        channels: Channels a level, finest first; None: `CHANNELS`.
        covariates: Numbers that describe the contrast; 0 for none.
        seed: Of the initial weights.

    Raises:
        InputError: other dimensions.
    """
    return EDMDenoiser(_network(dims, channels, covariates, seed), LinearPath(), SIGMA_DATA)


def build_joint(
    dims: int, classes: int, channels: Sequence[int] | None = None, covariates: int = 4, seed: int = 0
) -> JointDenoiser:
    """An untrained joint denoiser of a scan and its classes: the same network with a channel a class and two noise levels.

    Args:
        dims: 2 for slices, 3 for blocks.
        classes: Classes of the label field, background first, >= 2.
        channels: As `build_prior`.
        covariates: As `build_prior`.
        seed: As `build_prior`.

    Raises:
        InputError: other dimensions, or fewer classes.
    """
    labels = ClassField(classes)
    network = _network(dims, channels, covariates, seed, 1 + classes)
    return JointDenoiser(network, LinearPath(), RealField(1, SIGMA_DATA), labels)


def _network(dims: int, channels: Sequence[int] | None, covariates: int, seed: int, fields: int = 1) -> UNet:
    if dims not in CHANNELS:
        raise InputError(f"expected a prior of 2 or 3 dimensions; got {dims}. Slices have 2, volumes 3.")
    widths = tuple(channels or CHANNELS[dims])
    coarse = len(widths) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        return UNet(
            dims=dims,
            in_channels=fields,
            out_channels=fields,
            patch=2,
            channels=widths,
            down_blocks=(0, *[2] * coarse) if dims == 2 else (0, *[1] * coarse),
            up_blocks=(1, *[2] * coarse),
            attention=(False,) * len(widths),
            covariates=covariates,
            norm="channel",
            destination=fields > 1,
        )
