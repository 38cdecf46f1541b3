r"""What restores a scan: a prior, an unrolled restorer, what is known of their errors, for slices or for volumes.

Networks know heads with axes towards left, posterior, superior. Operators stay on the scan's own array, whatever its axes:
`Oriented` permutes and flips the state before the network and back after it, so no voxel is ever interpolated.
The data step sees the whole scan, so there are no seams. A network of volumes goes through it in blocks, which bounds the
memory; a network of slices through every slice of two directions or three, which is better and takes several times as long.

    Oriented(TiledDenoiser(prior))          a denoiser of the scan's own grid, from one of volumes
    Oriented(PlanewiseDenoiser(prior))      the same from one of slices

A prior's metadata may hold its *spread*, the mean squared error of its estimate at each noise level on held-out scans. What
a scan leaves there, relative to it, says whether the scan looks like what the prior has learnt (`unlikeness`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.checkpoint import LoadedModel, load_model
from radiata_core.coefficients import Path as NoisePath
from radiata_core.errors import InputError
from radiata_core.kernels import Kernel, kernel_of
from radiata_core.paths import add_noise
from radiata_core.planes import PlanewiseDenoiser
from radiata_core.posterior_spread import MeasuredSpread
from radiata_core.restoration import RestorationModels
from radiata_core.seeds import generator_of, noise_of
from radiata_core.tiling import TiledDenoiser
from radiata_core.types import Batch, Time
from radiata_core.unrolled import UnrolledRestorer
from radiata_medical.model.weights import find_model, shipped

__all__ = ["Known", "Oriented", "Restorer", "load_restorer", "unlikeness"]

_WORLD = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}


class Oriented(nn.Module):
    """A denoiser of heads in LPS, for arrays whose axes run otherwise. It holds no weights of its own.

    Args:
        denoiser: E[x_0 | x_t] of (batch, channel, *space) with axes towards L, P and S, or two of them in this order.
        codes: Direction in which each index of the array grows, such as "RAS" or "SL".
    """

    def __init__(self, denoiser: Any, codes: str) -> None:
        super().__init__()
        self.denoiser = denoiser
        order = sorted(range(len(codes)), key=lambda axis: _WORLD[codes[axis]])
        self.order = (0, 1, *(axis + 2 for axis in order))
        self.back = tuple(self.order.index(axis) for axis in range(len(self.order)))
        self.flips = tuple(axis + 2 for axis, code in enumerate(codes) if code in "RAI")

    @property
    def path(self) -> NoisePath:
        """The path of the denoiser."""
        path: NoisePath = self.denoiser.path
        return path

    @property
    def kernel(self) -> Kernel:
        """The law of the noise of the denoiser."""
        return kernel_of(self.denoiser)

    def inner_axis(self, axis: int) -> int:
        """Which axis of the denoiser's space an axis of the array's is."""
        return self.order.index(axis + 2) - 2

    def forward(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[x_0 | x_t], (batch, channel, *space), on the array's own axes."""
        turned = x.flip(self.flips).permute(self.order).contiguous()
        found: Tensor = self.denoiser(turned, t, **conditions)
        return found.permute(self.back).flip(self.flips)


@dataclass(frozen=True)
class Known:
    """What a prior has learnt, from its metadata.

    Attributes:
        spacing: Voxel edges, least and largest, mm.
        noise: Largest standard deviation of noise, in units of the prior.
    """

    spacing: tuple[float, float] = (0.6, 1.6)
    noise: float = 0.3


@dataclass(frozen=True, eq=False)
class Restorer:
    """Models for slices or for volumes, on a device.

    Attributes:
        prior: E[x_0 | x_t].
        unrolled: The unrolled restorer, if there is one.
        dims: 2 for slices, 3 for volumes.
        checksums: Name -> SHA-256 of the weights.
        spread: Of the prior, if it was measured.
        widening: Factor on the deviations of draws, from the metadata; 1 if it was not measured.
        sigma_data: Root mean square of the data.
        device: Where the networks are.
        prior_dims: Of the prior's network: 2 goes through volumes by planes.
        unrolled_dims: Of the unrolled restorer's, likewise.
        known: What the prior has learnt.
    """

    prior: Any
    unrolled: UnrolledRestorer | None
    dims: int
    checksums: dict[str, str]
    spread: MeasuredSpread | None
    widening: float
    sigma_data: float
    device: str
    prior_dims: int
    unrolled_dims: int
    known: Known = Known()

    def on_axes(
        self,
        codes: str,
        tile: int,
        halo: int,
        say: Callable[[str], None] | None = None,
        *,
        planes: Sequence[int] = (0, 1, 2),
        together: int = 8,
        done: Callable[[int], None] | None = None,
    ) -> RestorationModels:
        """The models for arrays whose axes run as `codes`.

        Args:
            codes: One letter an axis, such as "RAS".
            tile: Voxels along each axis of a block of a network of volumes, 0: the whole.
            halo: Overlap of blocks on each side, voxels.
            say: Called when memory did not suffice and blocks were halved.
            planes: Array axes across which a network of slices cuts volumes.
            together: Slices that it sees at once, >= 1.
            done: Called with the slices that have gone through it.
        """

        def wrapped(denoiser: Any, dims: int) -> Any:
            if dims == self.dims:
                return Oriented(TiledDenoiser(denoiser, tile if dims == 3 else 0, halo, say=say), codes)
            whole = TiledDenoiser(denoiser, 0, halo, together, say=say)
            inner = [Oriented(whole, codes).inner_axis(axis) for axis in planes]
            return Oriented(PlanewiseDenoiser(whole, inner, together, done), codes)

        unrolled = self.unrolled
        if unrolled is not None:
            unrolled = unrolled.on(wrapped(unrolled.denoiser, self.unrolled_dims))
        prior = wrapped(self.prior, self.prior_dims)
        return RestorationModels(prior, unrolled, self.spread, self.widening, self.sigma_data)


def load_restorer(
    dims: int,
    prior: str | None = None,
    unrolled: str | None = None,
    device: str = "cpu",
    *,
    by_planes: bool | None = False,
) -> Restorer:
    """The models named, or the shipped ones.

    Args:
        dims: 2 or 3: of what is restored.
        prior: Name, file or run of a prior; None: the shipped one.
        unrolled: Of an unrolled restorer; None: the shipped one beside the shipped prior, "none": no such network.
        device: Where to.
        by_planes: For volumes, whether the shipped models are those of slices; None: those of volumes, but a named model
            may be of slices. False refuses one.

    Raises:
        InputError: a model is not there, is another kind, or is made for other dimensions.
    """
    shipped_dims = 2 if by_planes else dims
    taken = (2, 3) if dims == 3 and by_planes is not False else (dims,)
    name = prior or f"prior-{shipped_dims}d"
    file = find_model(name)
    loaded = load_model(file)
    prior_dims = _dims_of(loaded, dims, taken, name)
    if isinstance(loaded.denoiser, UnrolledRestorer):
        raise InputError(
            f"expected a prior as --model; got the unrolled restorer {name}. Give it as --restorer."
        )
    second = unrolled
    if second is None and prior is None and f"restorer-{shipped_dims}d" in shipped():
        second = f"restorer-{shipped_dims}d"
    checksums = {_named(file): loaded.sha256}
    network, unrolled_dims = None, dims
    if second not in (None, "none"):
        other_file = find_model(str(second))
        other = load_model(other_file)
        unrolled_dims = _dims_of(other, dims, taken, str(second))
        if not isinstance(other.denoiser, UnrolledRestorer):
            raise InputError(
                f"expected an unrolled restorer as --restorer; got another network: {second}. Or say none."
            )
        network = other.denoiser.to(device).eval()
        checksums[_named(other_file)] = other.sha256
    given = loaded.metadata.get("spread")
    return Restorer(
        loaded.denoiser.to(device).eval(),
        network,
        dims,
        checksums,
        MeasuredSpread(tuple(given["kappa"]), tuple(given["variance"])) if given else None,
        float(loaded.metadata.get("widening", 1.0)),
        float(loaded.metadata.get("sigma_data", 0.45)),
        device,
        prior_dims,
        unrolled_dims,
        _known(loaded),
    )


@torch.no_grad()
def unlikeness(restorer: Restorer, image: Batch, codes: str, floor: float = 0.0) -> float | None:
    """How much larger the denoiser's error on an image is than on held-out scans: near 1 for scans like those of training.

    The largest ratio of mean squared errors over three noise levels, in a window in the middle.

    Args:
        restorer: Models with a measured spread; without one, there is nothing to compare with (None).
        image: (batch, 1, *space) in units of the prior.
        codes: Of its axes.
        floor: Standard deviation of the image's own noise: only levels above twice it tell.
    """
    if restorer.spread is None:
        return None
    if restorer.prior_dims < image.ndim - 2:
        axis = next(axis for axis, code in enumerate(codes) if code in "SI")
        image = image.select(axis + 2, image.shape[axis + 2] // 2)
        codes = codes[:axis] + codes[axis + 1 :]
    most = 64 if restorer.prior_dims == 3 else 256
    window = image[(slice(0, 1), slice(None), *(_middle(n, most) for n in image.shape[2:]))]
    denoiser = Oriented(TiledDenoiser(restorer.prior, 0, 0), codes)
    ratios = []
    for level in (0.15, 0.3, 0.6):
        if level < 2 * floor:
            continue
        t = denoiser.path.time_of_log_snr(-torch.tensor(level, dtype=torch.float64).log())
        noise = noise_of([generator_of(0, 15)], window.shape[1:])
        found = denoiser(add_noise(denoiser.path, window, noise, t).to(window), t)
        ratios.append(float((found - window).square().mean()) / restorer.spread.variance(level))
    return max(ratios, default=None)


def _middle(n: int, most: int) -> slice:
    start = max((n - most) // 2, 0)
    return slice(start, start + min(n, most))


def _dims_of(loaded: LoadedModel, dims: int, taken: Sequence[int], name: str) -> int:
    """Axes of space of a network, which must be among those taken."""
    kinds = {2: nn.Conv2d, 3: nn.Conv3d}
    own = next(
        (d for d, kind in kinds.items() if any(isinstance(m, kind) for m in loaded.denoiser.modules())), None
    )
    found = int(loaded.metadata.get("dims", own or dims))
    if found not in taken or (own is not None and own != found):
        raise InputError(
            f"expected a model for {'slices' if dims == 2 else 'volumes'}; got {name}, which is {own or found}-D. "
            + ("Leave --slices out." if dims == 2 else "Add --slices k for slice by slice.")
        )
    return found


def _named(file: Path) -> str:
    """A shipped model's name, or the run's."""
    return file.stem if file.stem != "model" else file.parent.name


def _known(loaded: LoadedModel) -> Known:
    """Ranges of the metadata, in which a voxel's edge alone stands for 0.6 to 1.6 times it."""
    edge = float(loaded.metadata.get("voxel_mm", 1.0))
    low, high = loaded.metadata.get("spacing_mm", (0.6 * edge, 1.6 * edge))
    return Known((float(low), float(high)), float(loaded.metadata.get("noise_most", Known.noise)))
