"""A head and its volumes as one latent: drawn together, a head of given volumes, or the volumes of a given head.

Each covariate is a modality of its own (`radiata_core.aggregated_denoisers`), standardised on the training people, painted
into the latent as a pattern of eight cells, and read back by a head of the network. Any of them may be missing in training,
given in sampling, or asked for. There is no Gaussian anchor here: heads are rougher than those of the same network alone at
equal steps.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from radiata_core.aggregated_denoisers import AggregatedDenoiser
from radiata_core.errors import InputError
from radiata_core.modality_laws import RealLaw
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of, noise_of, seed_of
from radiata_core.shared_modalities import modalities_of
from radiata_t1.model.build import Architecture
from radiata_t1.model.samplers import Sampler

__all__ = ["build_jointly", "covariates_of", "draw", "names_of"]

LATENT, FEATURES = 2, 8
IMAGE = RealLaw(1, mean=-0.5, rms=0.57)
"""A prepared head in [-1, 1]: its mean and standard deviation."""


def build_jointly(
    architecture: Architecture, names: Sequence[str], shape: Sequence[int], seed: int
) -> AggregatedDenoiser:
    """An untrained denoiser of heads and the covariates of these names; a function of the seed.

    Raises:
        InputError: a name that a model cannot hold.
    """
    for name in names:
        if not name.isidentifier() or name == "image" or hasattr(torch.nn.ModuleDict, name):
            raise InputError(
                f"expected covariates with plain names for --jointly; got {name!r}. Rename the column."
            )
    laws = {"image": IMAGE} | {name: RealLaw(1) for name in names}
    parts = modalities_of(laws, dims=3, latent=LATENT, features=FEATURES, vectors=names, seed=seed)
    levels = len(architecture.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, 0))
        network = UNet(
            in_channels=2 * LATENT + len(laws),
            out_channels=LATENT + FEATURES,
            channels=architecture.channels,
            down_blocks=architecture.down_blocks,
            up_blocks=architecture.up_blocks,
            attention=[level == levels - 1 for level in range(levels)],
            shape=shape if architecture.positions else None,
        )
    return AggregatedDenoiser(network, LinearPath(), parts, LATENT)


def names_of(denoiser: AggregatedDenoiser) -> list[str]:
    """The covariates that the denoiser holds."""
    return [name for name in denoiser.modalities if name != "image"]


def draw(
    denoiser: AggregatedDenoiser,
    sampler: Sampler,
    seeds: Sequence[int],
    shape: Sequence[int],
    row: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Heads (n, 1, *shape) and their standardised covariates (n, K); row i depends on seed i alone.

    Args:
        denoiser: Trained.
        sampler: A multistep solver.
        seeds: One a head.
        shape: Voxels an axis.
        row: Standardised covariates (K,) that are given, NaN where not; None: all are drawn.
    """
    names = names_of(denoiser)
    given = {} if row is None else {name: row[None, k : k + 1] for k, name in enumerate(names)}
    given = {name: value for name, value in given.items() if bool(torch.isfinite(value).all())}
    drawn = denoiser.sample(generators_of(seeds, 0), shape, given, sampler.table(denoiser.path))
    return drawn["image"], torch.cat([drawn[name] for name in names], 1)


def covariates_of(denoiser: AggregatedDenoiser, heads: Tensor) -> Tensor:
    """E[covariates | head], standardised, (n, K), in one evaluation; not for clinical use.

    Args:
        denoiser: Trained.
        heads: (n, 1, x, y, z) in [-1, 1].
    """
    grid = heads.shape[2:]
    noise = noise_of(generators_of(range(len(heads)), 1), (LATENT, *grid), heads.dtype, heads.device)
    with torch.no_grad():
        said = denoiser.infer({"image": heads}, noise)
    given: Mapping[str, Tensor] = {name: said[name] for name in names_of(denoiser)}
    return torch.cat([given[name] for name in names_of(denoiser)], 1)
