r"""Features of a frozen denoiser: what its decoder holds while it denoises an image at chosen noise levels.

To denoise, a network has to know what it sees. Its activations h_l(x_t, t) are features for other tasks, without a label:

    x_t = alpha (x + w kappa eps),   kappa the noise level the network is told, w <= 1 the share of noise that is added,

and the middle of the decoder at small and moderate kappa serves pixels best. With w = 1/2 (the default) the network looks at
a cleaner image than it is told of: less of the image is lost, and it still averages over what kappa would hide.

Maps come one at a time, at their own resolution: a head that begins with a 1x1 convolution needs no more, since
upsampling and a 1x1 convolution commute. Only `__call__` puts all of them on the image's grid. The noise of a row comes from
the row's own generator, so features do not depend on the batch. Nothing is kept for a gradient.

References:
    Baranchuk et al., "Label-efficient semantic segmentation with diffusion models", 2022,
        https://arxiv.org/abs/2112.03126, section 3 (decoder blocks, several steps, upsampled).
    Mukhopadhyay et al., "Do text-free diffusion models learn discriminative visual representations?", 2023,
        https://arxiv.org/abs/2311.17921 (which block and which time).
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.coefficients import expand
from radiata_core.errors import InputError
from radiata_core.seeds import noise_of
from radiata_core.types import Batch

__all__ = ["DenoiserFeatures", "decoder_layers", "on_grid"]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def decoder_layers(denoiser: nn.Module) -> tuple[str, ...]:
    """Names of the levels on the way up of a U-Net inside `denoiser`, coarsest first: the order in which they run.

    Raises:
        InputError: there are none.
    """
    numbered = []
    for name, _ in denoiser.named_modules():
        head, _, last = name.rpartition(".")
        if head.rpartition(".")[2] == "up" and last.isdigit():
            numbered.append((head, -int(last), name))
    if not numbered:
        raise InputError(
            f"expected a network with levels named up.0, up.1, …; got none in {type(denoiser).__name__}. "
            "Name the layers to read."
        )
    return tuple(name for _, _, name in sorted(numbered))


def on_grid(values: Tensor, grid: Sequence[int]) -> Tensor:
    """Maps `(batch, channels, *coarse)` on a finer grid, interpolated linearly between the centres of their voxels."""
    if tuple(values.shape[2:]) == tuple(grid):
        return values
    return F.interpolate(values, size=tuple(grid), mode=_MODES[len(grid)], align_corners=False)


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

    Raises:
        InputError: a level or a share out of range, or a layer that is not there.
    """

    denoiser: Any
    levels: tuple[float, ...] = (0.1, 0.3, 1.0)
    layers: tuple[str, ...] = ()
    share: float = 0.5
    estimate: bool = True

    def __post_init__(self) -> None:
        if not self.levels or not all(0 < level < float("inf") for level in self.levels):
            raise InputError(f"expected noise levels > 0; got {self.levels}. Try 0.1, 0.3 and 1.")
        if not 0 <= self.share <= 1:
            raise InputError(f"expected a share of the noise in [0, 1]; got {self.share}. 0.5 is usual.")
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
        if len(generators) != len(x):
            raise InputError(f"expected one generator a row, {len(x)}; got {len(generators)}.")
        path = self.denoiser.path
        for level in self.levels:
            t = path.time_of_log_snr(-torch.tensor(float(level), dtype=torch.float64).log())
            noisy = x + self.share * level * noise_of(generators, x.shape[1:], x.dtype, x.device)
            alpha = expand(path.coefficients(t).alpha, x).to(x)
            held: dict[str, Tensor] = {}
            with torch.no_grad(), self._listening(held):
                denoised = self.denoiser(alpha * noisy, t, **conditions)
            for name in list(held):
                yield _map(held.pop(name), x, name)
            if self.estimate:
                yield denoised

    def __call__(self, x: Batch, generators: Sequence[torch.Generator], **conditions: Any) -> Tensor:
        """All maps on the grid of x, `(batch, features, *grid)`; see `maps`."""
        grid = tuple(x.shape[2:])
        return torch.cat([on_grid(values, grid) for values in self.maps(x, generators, **conditions)], 1)

    @contextlib.contextmanager
    def _listening(self, held: dict[str, Tensor]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in self.layers:

                def hook(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                    held[name] = output

                stack.callback(self.denoiser.get_submodule(name).register_forward_hook(hook).remove)
            yield


def _map(values: Any, x: Tensor, name: str) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim != x.ndim or len(values) != len(x):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"expected maps (batch, channels, {x.ndim - 2} axes) from layer {name}; got {got}. Choose another layer."
        )
    return values
