"""A new denoiser for a store: network, path, prediction, and the Gaussian anchor fitted on its training heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.anchors import PooledGaussian
from radiata_core.denoisers import MedForJInput, NetworkDenoiser, Scaling, UnitVariance
from radiata_core.nets.medforj import MedForJUNet
from radiata_core.nets.unet import UNet
from radiata_core.seeds import seed_of
from radiata_t1.model.predictions import PredictionType, path_and_prediction

__all__ = ["Architecture", "build_denoiser", "fit_anchor", "with_prediction"]

SIGMA_DATA = 0.75
"""Root mean square of a prepared head in [-1, 1]: mean near -0.5, sd near 0.57."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of the U-Net; the default is the shipped 4 mm network (4.2 million parameters).

    Attributes:
        channels: Channels a level, finest first.
        down_blocks: Residual blocks a level on the way down.
        up_blocks: The same on the way up.
        rank: Components of the Gaussian anchor; 0 for no anchor.
        positions: Learned positions, which bind the network to one grid.
    """

    channels: tuple[int, ...] = (24, 64, 128)
    down_blocks: tuple[int, ...] = (0, 1, 1)
    up_blocks: tuple[int, ...] = (1, 2, 2)
    rank: int = 96
    positions: bool = True


def build_denoiser(
    architecture: Architecture | None,
    kind: PredictionType,
    shape: Sequence[int],
    covariates: int,
    seed: int,
) -> NetworkDenoiser:
    """An untrained denoiser whose weights are a function of the seed.

    Args:
        architecture: Sizes; None for MedForJ's network (41 million parameters, no covariates, no anchor).
        kind: What it predicts, and so its path.
        shape: Voxels an axis.
        covariates: Number of covariates.
        seed: Seed of the initial weights.
    """
    path, prediction = path_and_prediction(kind)
    if architecture is None:
        medforj = MedForJUNet()
        medforj.initialise(torch.Generator().manual_seed(seed_of(seed, 0)))
        return NetworkDenoiser(medforj, path, prediction, MedForJInput())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        anchor = (
            PooledGaussian(shape=(1, *shape), rank=architecture.rank, covariates=covariates)
            if architecture.rank
            else None
        )
        levels = len(architecture.channels)
        network = UNet(
            in_channels=2 if anchor is not None else 1,
            channels=architecture.channels,
            down_blocks=architecture.down_blocks,
            up_blocks=architecture.up_blocks,
            attention=[level == levels - 1 for level in range(levels)],
            covariates=covariates,
            shape=shape if architecture.positions else None,
        )
    scaling: Scaling = UnitVariance(SIGMA_DATA)
    return NetworkDenoiser(network, path, prediction, scaling, anchor)


def fit_anchor(
    denoiser: NetworkDenoiser, images: Tensor, people: Sequence[int], covariates: Tensor | None
) -> None:
    """Set the anchor from training heads `(n, 1, x, y, z)` in [-1, 1] and their standardised covariates `(n, K)`."""
    if isinstance(denoiser.anchor, PooledGaussian):
        denoiser.anchor.fit(images, people, covariates)


def with_prediction(
    denoiser: NetworkDenoiser, kind: PredictionType, rank: int, covariates: int
) -> NetworkDenoiser:
    """The same network read as another prediction type, with an anchor to be fitted: the start of a fine-tuning.

    The network sees the log-SNR and a unit-variance state, so what it knows of one path holds on another up to the scale
    of its output: rectified flow to v differs by a factor between 0.71 and 1.
    """
    path, prediction = path_and_prediction(kind)
    anchor = None
    if isinstance(denoiser.anchor, PooledGaussian):
        anchor = PooledGaussian(shape=denoiser.anchor.options["shape"], rank=rank, covariates=covariates)
    return NetworkDenoiser(denoiser.network, path, prediction, denoiser.scaling, anchor)
