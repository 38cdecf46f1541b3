"""Untrained stages of a cascade: local U-Nets on the coarse grid, as denoisers or as flow maps."""

from collections.abc import Sequence

import torch
from torch import nn

from radiata_core.denoisers import NetworkDenoiser, UnitVariance
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.nets.unet import UNet
from radiata_core.overlapping_windows import WithCoordinates
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.refinement import GivenCoarse, Refinement
from radiata_core.seeds import seed_of

__all__ = ["build_stage", "jumping_stage"]

_FACTOR = 2


def build_stage(
    channels: Sequence[int],
    down_blocks: Sequence[int],
    up_blocks: Sequence[int],
    *,
    corruption: float,
    placed: bool,
    seed: int,
) -> Refinement:
    """A stage of factor 2 whose weights are a function of the seed: rectified flow on the folded residual.

    Args:
        channels: Channels a level; the first level is the coarse grid.
        down_blocks: Residual blocks a level on the way down.
        up_blocks: The same on the way up.
        corruption: Largest sd of the noise on the coarse grid, in units of intensity.
        placed: Whether it is told places.
        seed: Seed of the initial weights.
    """
    folded = _FACTOR**3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        network: nn.Module = UNet(
            in_channels=folded + 1 + 3 * placed,
            out_channels=folded,
            patch=1,
            channels=channels,
            down_blocks=down_blocks,
            up_blocks=up_blocks,
            attention=[False] * len(channels),
            covariates=int(corruption > 0),
            norm="channel",
        )
    network = GivenCoarse(WithCoordinates(network) if placed else network)
    denoiser = NetworkDenoiser(network, LinearPath(), Prediction.VELOCITY, UnitVariance(1.0))
    return Refinement(denoiser, _FACTOR, 1.0, corruption, placed)


def jumping_stage(teacher: Refinement) -> Refinement:
    """A student with the teacher's weights and a second time, whose embedding starts at zero.

    Raises:
        InputError: a teacher that jumps already.
    """
    if not isinstance(teacher.denoiser, NetworkDenoiser):
        raise InputError(
            f"expected a stage that was not distilled; got one of {type(teacher.denoiser).__name__}. Give its teacher."
        )
    given = teacher.denoiser.network
    assert isinstance(given, GivenCoarse)
    inner = given.network.network if teacher.placed else given.network
    assert isinstance(inner, UNet)
    with torch.random.fork_rng(devices=[]):
        network = UNet(**inner.options | {"destination": True})
    missing, unexpected = network.load_state_dict(inner.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("embed_destination") for name in missing)
    wrapped = GivenCoarse(WithCoordinates(network) if teacher.placed else network)
    denoiser = teacher.denoiser
    flow_map = NetworkFlowMap(wrapped, denoiser.path, denoiser.prediction, denoiser.scaling)
    return Refinement(flow_map, teacher.factor, teacher.scale, teacher.corruption, teacher.placed)
