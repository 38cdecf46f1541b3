r"""Features of a frozen denoiser: what its decoder holds while it denoises an image at chosen noise levels.

To denoise, a network has to know what it sees. Its activations h_l(x_t, t) are features for other tasks, without a label:

    x_t = alpha (x + w kappa eps),   kappa the noise level the network is told, w <= 1 the share of noise that is added,

and the middle of the decoder at small and moderate kappa serves pixels best. With w = 1/2 (the default) the network looks at
a cleaner image than it is told of: less of the image is lost, and it still averages over what kappa would hide.

Maps come one at a time, at their own resolution: a head that begins with a 1x1 convolution needs no more, since
upsampling and a 1x1 convolution commute. Only `__call__` puts all of them on the image's grid; `vectors` pools them. The
noise of a row comes from the row's own generator, so features do not depend on the batch; rows of one seed share one noise,
and `draws` averages over several. Nothing is kept for a gradient.

It holds for any network inside a denoiser: layers are found in U-Nets of this library, MONAI and diffusers and in its
transformers, whose tokens are folded back onto their grid; in others they are named. A network that was trained with
conditions is left without them (NaN): told the label, its features would hold it.

Reading order: `DenoiserFeatures.maps`, then `probes` (what reads them) and `feature_selection` (which of them).

References:
    Baranchuk et al., "Label-efficient semantic segmentation with diffusion models", 2022,
        https://arxiv.org/abs/2112.03126, section 3 (decoder blocks, several steps, upsampled).
    Mukhopadhyay et al., "Diffusion models beat GANs on image classification", 2023, https://arxiv.org/abs/2307.08702.
    Mukhopadhyay et al., "Do text-free diffusion models learn discriminative visual representations?", 2023,
        https://arxiv.org/abs/2311.17921 (which block and which time).
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.coefficients import expand
from radiata_core.errors import InputError
from radiata_core.handles import cells_of, first_of, on_cells
from radiata_core.seeds import noise_of
from radiata_core.sites import sites_of
from radiata_core.types import Batch

__all__ = ["ESTIMATE", "DenoiserFeatures", "Place", "decoder_layers", "on_grid", "pooled"]

Place = tuple[str, float]
"""Where a feature comes from: the name of a layer, and the noise level kappa."""
ESTIMATE = "estimate"
"""The layer's name of the denoised image."""
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def decoder_layers(denoiser: nn.Module) -> tuple[str, ...]:
    """Names of the levels on the way up of a U-Net inside `denoiser`, coarsest first, or of a transformer's blocks.

    In the order in which they run. Levels are `up.N` here (the finest is 0), `up_blocks.N` in MONAI's, diffusers' and
    MedForJ's networks (the finest is the last).

    Raises:
        InputError: there are none.
    """
    numbered = []
    for name, _ in denoiser.named_modules():
        head, _, last = name.rpartition(".")
        if last.isdigit() and head.rpartition(".")[2] in ("up", "up_blocks"):
            down = head.rpartition(".")[2] == "up"
            numbered.append((head, -int(last) if down else int(last), name))
    found = tuple(name for _, _, name in sorted(numbered)) or _token_layers(denoiser)
    if not found:
        raise InputError(
            f"expected a network with levels named up.0, up.1, …; got none in {type(denoiser).__name__}. "
            "Name the layers to read."
        )
    return found


def _token_layers(denoiser: nn.Module) -> tuple[str, ...]:
    """Blocks that are known to work on tokens `(batch, tokens, channels)`."""
    try:
        return tuple(site.name for site in sites_of(denoiser, "residual").values() if site.axis == -1)
    except InputError:
        return ()


def on_grid(values: Tensor, grid: Sequence[int]) -> Tensor:
    """Maps `(batch, channels, *coarse)` on a finer grid, interpolated linearly between the centres of their voxels."""
    if tuple(values.shape[2:]) == tuple(grid):
        return values
    return F.interpolate(values, size=tuple(grid), mode=_MODES[len(grid)], align_corners=False)


def pooled(values: Tensor, cells: int | Sequence[int]) -> Tensor:
    """Maps averaged over a grid of cells, `(batch, channels, *cells)`.

    Args:
        values: `(batch, channels, *grid)`.
        cells: Along every axis, at most the map's own; or along each, exactly.
    """
    grid = values.shape[2:]
    wanted = [min(cells, n) for n in grid] if isinstance(cells, int) else list(cells)
    pools: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
    made: Tensor = pools[len(grid) - 1](values, wanted)
    return made


@dataclass(frozen=True, eq=False)
class DenoiserFeatures:
    """Activations of a denoiser's layers at several noise levels.

    Attributes:
        denoiser: A module with a `path`; frozen as far as this is concerned.
        levels: Noise levels kappa = sigma/alpha that the network is told, in units of the data, > 0.
        layers: Names of modules inside the denoiser whose outputs are read, `(batch, channels, *coarse)`; empty for the
            levels of its decoder (`decoder_layers`).
        share: Part w of the level's noise that is added, 0 to 1.
        estimate: Whether the denoised image is a map too, the last of its level.
        draws: Noises that maps are the mean over, each one evaluation.

    Raises:
        InputError: a level, a share or draws out of range, or a layer that is not there.
    """

    denoiser: Any
    levels: tuple[float, ...] = (0.1, 0.3, 1.0)
    layers: tuple[str, ...] = ()
    share: float = 0.5
    estimate: bool = True
    draws: int = 1

    def __post_init__(self) -> None:
        if not self.levels or not all(0 < level < float("inf") for level in self.levels):
            raise InputError(f"expected noise levels > 0; got {self.levels}. Try 0.1, 0.3 and 1.")
        if not 0 <= self.share <= 1:
            raise InputError(f"expected a share of the noise in [0, 1]; got {self.share}. 0.5 is usual.")
        if self.draws < 1:
            raise InputError(f"expected draws >= 1; got {self.draws}. 1 is usual, 8 are steadier.")
        if not self.layers:
            object.__setattr__(self, "layers", decoder_layers(self.denoiser))
        known = dict(self.denoiser.named_modules())
        for name in self.layers:
            if name not in known:
                raise InputError(
                    f"expected layers of the denoiser; got {name!r}. It has {', '.join(list(known)[1:7])}, …"
                )

    def maps(self, x: Batch, generators: Sequence[torch.Generator], **conditions: Any) -> Iterator[Tensor]:
        """Maps `(batch, channels, *coarse)`, one at a time: level by level, layer by layer as they run in the network.

        Args:
            x: Images `(batch, channels, *grid)` as the denoiser knows them, without noise that it is to be told of.
            generators: One a row; each level draws anew.
            conditions: Passed on to the denoiser.

        Raises:
            InputError: not one generator a row, or a layer that gives no map.
        """
        for _, values in self.named_maps(x, generators, **conditions):
            yield values

    def named_maps(
        self, x: Batch, generators: Sequence[torch.Generator], **conditions: Any
    ) -> Iterator[tuple[Place, Tensor]]:
        """`maps`, each with its place: (layer, level). The denoised image is the layer `ESTIMATE`."""
        if len(generators) != len(x):
            raise InputError(f"expected one generator a row, {len(x)}; got {len(generators)}.")
        for level in self.levels:
            means: dict[str, Tensor] = {}
            for _ in range(self.draws):
                for name, values in self._evaluated(x, level, generators, conditions).items():
                    means[name] = (
                        values / self.draws if name not in means else means[name] + values / self.draws
                    )
            for name in list(means):
                yield (name, level), means.pop(name)

    def _evaluated(
        self, x: Batch, level: float, generators: Sequence[torch.Generator], conditions: dict[str, Any]
    ) -> dict[str, Tensor]:
        """What the layers hold under one noise, in the order in which they run."""
        path = self.denoiser.path
        t = path.time_of_log_snr(-torch.tensor(float(level), dtype=torch.float64).log()).expand(len(x))
        noisy = x + self.share * level * noise_of(generators, x.shape[1:], x.dtype, x.device)
        alpha = expand(path.coefficients(t).alpha, x).to(x)
        held: dict[str, Any] = {}
        with torch.no_grad(), self._listening(held):
            denoised = self.denoiser(alpha * noisy, t, **conditions)
        tokens = _token_layers(self.denoiser)
        maps = {name: self._map(values, x, name, name in tokens) for name, values in held.items()}
        return maps | ({ESTIMATE: denoised} if self.estimate else {})

    def vectors(
        self, x: Batch, generators: Sequence[torch.Generator], cells: int = 1, **conditions: Any
    ) -> dict[Place, Tensor]:
        """(layer, level) -> features `(batch, channels * cells^n)`: each map averaged over a grid of cells.

        Args:
            x: Images `(batch, channels, *grid)`.
            generators: One a row.
            cells: Along each axis, >= 1; fewer where a map is coarser. 1 forgets where, more do not.
            conditions: Passed on to the denoiser.

        Raises:
            InputError: no cell, or not one generator a row.
        """
        if cells < 1:
            raise InputError(f"expected cells >= 1; got {cells}. 1 is the mean of a map.")
        found = self.named_maps(x, generators, **conditions)
        return {place: pooled(values, cells).flatten(1) for place, values in found}

    def __call__(self, x: Batch, generators: Sequence[torch.Generator], **conditions: Any) -> Tensor:
        """All maps on the grid of x, `(batch, features, *grid)`; see `maps`."""
        grid = tuple(x.shape[2:])
        return torch.cat([on_grid(values, grid) for values in self.maps(x, generators, **conditions)], 1)

    @contextlib.contextmanager
    def _listening(self, held: dict[str, Any]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in self.layers:

                def hook(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                    held[name] = output

                stack.callback(self.denoiser.get_submodule(name).register_forward_hook(hook).remove)
            yield

    def _map(self, output: Any, x: Tensor, name: str, tokens: bool) -> Tensor:
        """A layer's output as `(batch, channels, *coarse)`; tokens of known blocks, and any as many as cells, are folded."""
        values = first_of(output) if isinstance(output, tuple | list) else output
        if isinstance(values, Tensor) and values.ndim == 3:
            cells = cells_of(self.denoiser, x.shape[2:])
            if tokens or (x.ndim > 3 and values.shape[1] == math.prod(cells)):
                values = on_cells(values, cells)
        if not isinstance(values, Tensor) or values.ndim != x.ndim or len(values) != len(x):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"expected maps (batch, channels, {x.ndim - 2} axes) from layer {name}; got {got}. Choose another layer."
            )
        return values
