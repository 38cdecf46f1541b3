r"""What restores a scan: a prior, an unrolled restorer, what is known of their errors, for slices or for volumes.

Networks know heads with axes towards left, posterior, superior. Operators stay on the scan's own array, whatever its axes:
`Oriented` permutes and flips the state before the network and back after it, so no voxel is ever interpolated.
`TiledDenoiser` inside it bounds the memory; the data step sees the whole scan, so there are no seams.

    Oriented(TiledDenoiser(prior))          a denoiser of the scan's own grid

A prior's metadata may hold its *spread*, the mean squared error of its estimate at each noise level on held-out scans. What
a scan leaves there, relative to it, says whether the scan looks like what the prior has learnt (`unlikeness`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.checkpoint import LoadedModel, load_model
from radiata_core.coefficients import Path
from radiata_core.errors import InputError
from radiata_core.kernels import Kernel, kernel_of
from radiata_core.paths import add_noise
from radiata_core.posterior_spread import MeasuredSpread
from radiata_core.restoration import RestorationModels
from radiata_core.seeds import generator_of, noise_of
from radiata_core.tiling import TiledDenoiser
from radiata_core.types import Batch, Time
from radiata_core.unrolled import UnrolledRestorer
from radiata_medical.model.weights import find_model, shipped

__all__ = ["Oriented", "Restorer", "load_restorer", "unlikeness"]

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
    def path(self) -> Path:
        """The path of the denoiser."""
        path: Path = self.denoiser.path
        return path

    @property
    def kernel(self) -> Kernel:
        """The law of the noise of the denoiser."""
        return kernel_of(self.denoiser)

    def forward(self, x: Batch, t: Time, **conditions: Any) -> Batch:
        """E[x_0 | x_t], (batch, channel, *space), on the array's own axes."""
        turned = x.flip(self.flips).permute(self.order).contiguous()
        found: Tensor = self.denoiser(turned, t, **conditions)
        return found.permute(self.back).flip(self.flips)


@dataclass(frozen=True, eq=False)
class Restorer:
    """Models of one dimension on a device.

    Attributes:
        prior: E[x_0 | x_t].
        unrolled: The unrolled restorer, if there is one.
        dims: 2 for slices, 3 for volumes.
        checksums: Name -> SHA-256 of the weights.
        spread: Of the prior, if it was measured.
        widening: Factor on the deviations of draws, from the metadata; 1 if it was not measured.
        sigma_data: Root mean square of the data.
        device: Where the networks are.
        said: What was said on the way about memory.
    """

    prior: Any
    unrolled: UnrolledRestorer | None
    dims: int
    checksums: dict[str, str]
    spread: MeasuredSpread | None
    widening: float
    sigma_data: float
    device: str
    said: list[str] = field(default_factory=list)

    def on_axes(
        self, codes: str, tile: int, halo: int, say: Callable[[str], None] | None = None
    ) -> RestorationModels:
        """The models for arrays whose axes run as `codes`, in blocks.

        Args:
            codes: One letter an axis, such as "RAS".
            tile: Voxels along each axis of a block, 0: the whole.
            halo: Overlap of blocks on each side, voxels.
            say: Called when memory did not suffice and blocks were halved.
        """

        def wrapped(denoiser: Any) -> Any:
            return Oriented(TiledDenoiser(denoiser, tile, halo, say=say), codes)

        unrolled = None if self.unrolled is None else self.unrolled.on(wrapped(self.unrolled.denoiser))
        return RestorationModels(wrapped(self.prior), unrolled, self.spread, self.widening, self.sigma_data)


def load_restorer(
    dims: int, prior: str | None = None, unrolled: str | None = None, device: str = "cpu"
) -> Restorer:
    """The models named, or the shipped ones.

    Args:
        dims: 2 or 3.
        prior: Name, file or run of a prior; None: the shipped one.
        unrolled: Of an unrolled restorer; None: the shipped one beside the shipped prior, "none": no such network.
        device: Where to.

    Raises:
        InputError: a model is not there, is another kind, or is made for other dimensions.
    """
    name = prior or f"prior-{dims}d"
    file = find_model(name)
    loaded = load_model(file)
    _require_dims(loaded, dims, name)
    if isinstance(loaded.denoiser, UnrolledRestorer):
        raise InputError(
            f"expected a prior as --model; got the unrolled restorer {name}. Give it as --restorer."
        )
    second = unrolled
    if second is None and prior is None and f"restorer-{dims}d" in shipped():
        second = f"restorer-{dims}d"
    checksums = {file.stem if file.stem != "model" else file.parent.name: loaded.sha256}
    network = None
    if second not in (None, "none"):
        other_file = find_model(str(second))
        other = load_model(other_file)
        _require_dims(other, dims, str(second))
        if not isinstance(other.denoiser, UnrolledRestorer):
            raise InputError(
                f"expected an unrolled restorer as --restorer; got another network: {second}. Or say none."
            )
        network = other.denoiser.to(device).eval()
        checksums[other_file.stem if other_file.stem != "model" else other_file.parent.name] = other.sha256
    given = loaded.metadata.get("spread")
    spread = MeasuredSpread(tuple(given["kappa"]), tuple(given["variance"])) if given else None
    return Restorer(
        loaded.denoiser.to(device).eval(),
        network,
        dims,
        checksums,
        spread,
        float(loaded.metadata.get("widening", 1.0)),
        float(loaded.metadata.get("sigma_data", 0.45)),
        device,
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
    window = image[
        (slice(0, 1), slice(None), *(_middle(n, 64 if restorer.dims == 3 else 256) for n in image.shape[2:]))
    ]
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


def _require_dims(loaded: LoadedModel, dims: int, name: str) -> None:
    kinds = {2: nn.Conv2d, 3: nn.Conv3d}
    own = next(
        (d for d, kind in kinds.items() if any(isinstance(m, kind) for m in loaded.denoiser.modules())), None
    )
    found = int(loaded.metadata.get("dims", own or dims))
    if found != dims or (own is not None and own != dims):
        raise InputError(
            f"expected a model for {'slices' if dims == 2 else 'volumes'}; got {name}, which is {own or found}-D. "
            + ("Leave --slices out." if dims == 2 else "Add --slices k for slice by slice.")
        )
