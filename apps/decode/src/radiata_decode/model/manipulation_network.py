r"""Low-level manipulation: a copy of the generator's encoder that adds the cortex to every level of a frozen generator.

                 x_t ── stem ── down ── … ── deepest ──┐                      frozen U-Net
                          │       │            │       up ── … ── out
    cortex ── map ──(+)   0·      0·           0·      ↑
             copy: stem + map ── down ── … ── deepest  │      residual of level l = s_l · zero convolution of the copy

The copy starts with the generator's weights and sees the same state, noise level and conditions, plus a map of the cortex
tokens after its first layer. Its outputs pass through convolutions that start at zero, so an untrained manipulation changes
nothing, to the bit. The control scale s, one number or one a level, is a knob at inference: 0 is the generator alone.

The tokens become a map as in the paper: channels are mixtures of tokens, places are linear in the features,

    (n, 1 + p, width) → Conv1d → 2(1 + p) → channels → linear width → y·x → SiLU → convolution → (n, channels, y, x)

A first picture, where the decoder has one, enters beside the map, as hints do in ControlNet.
A context (`semantic_tokens`) steers the copy through its embedding, since the core's U-Net has no place for a text; that
layer starts at zero too, and an empty context, all zero, is none.

Residuals enter the core's U-Net by hooks before the blocks on the way up (`residuals_added`): adding there is adding to
the skip, and the generator's class and state dict stay as they are. The same for diffusers' U-Nets is in
`diffusers_manipulation`.

References:
    L. Zhang, A. Rao, M. Agrawala (2023). Adding conditional control to text-to-image diffusion models.
    https://arxiv.org/abs/2302.05543, section 3 (the copy, zero convolutions).
    J. Huo et al. (2024). NeuroPictor. https://arxiv.org/abs/2403.18211 (low-level manipulation network).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet, space_to_depth
from radiata_core.specs import buildable

__all__ = ["ManipulationNetwork", "TokenMap", "level_scales", "residuals_added", "the_unet"]


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class TokenMap(nn.Module):
    """Tokens (n, tokens, width) as a map (n, channels, y, x).

    Args:
        tokens: Of the encoder.
        width: Of the encoder.
        channels: Of the map.
        grid: Its (y, x).
        zero: Whether the map is all zero at the start, as published. Behind zero outlets it need not be, and two zeros in
            a row learn slowly.
    """

    def __init__(
        self, tokens: int, width: int, channels: int, grid: tuple[int, int], zero: bool = False
    ) -> None:
        super().__init__()
        self.grid = (int(grid[0]), int(grid[1]))
        self.mix = nn.Sequential(
            nn.Conv1d(tokens, 2 * tokens, 1), nn.GELU(), nn.Conv1d(2 * tokens, channels, 1)
        )
        self.spread = nn.Linear(width, self.grid[0] * self.grid[1])
        self.out: nn.Module = nn.Conv1d(channels, channels, 3, padding=1)
        if zero:
            _zeroed(self.out)

    def forward(self, tokens: Tensor) -> Tensor:
        """The map."""
        places = nn.functional.silu(self.spread(self.mix(tokens)))
        return self.out(places).unflatten(2, self.grid)


def level_scales(scale: float | Sequence[float], levels: int) -> list[float]:
    """One scale a level.

    Args:
        scale: One for all, or one a level, finest first.
        levels: How many residuals there are.

    Raises:
        InputError: another number of scales, or one that is not finite.
    """
    found = [float(scale)] * levels if isinstance(scale, int | float) else [float(s) for s in scale]
    if len(found) != levels or not torch.isfinite(torch.tensor(found)).all():
        raise InputError(
            f"expected one control scale, or one for each of {levels} levels, finite; got {scale}. 1 is usual, 0 is without."
        )
    return found


def the_unet(generator: nn.Module) -> UNet:
    """The core's U-Net inside a generator.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [module for module in generator.modules() if isinstance(module, UNet)]
    if len(found) != 1:
        raise InputError(
            f"expected a generator with one U-Net; got {type(generator).__name__} with {len(found)}. Use our own, or a "
            "diffusers U-Net through diffusers_manipulation."
        )
    return found[0]


@contextlib.contextmanager
def residuals_added(
    unet: UNet,
    network: nn.Module,
    tokens: Tensor,
    scale: float | Sequence[float] = 1.0,
    context: Tensor | None = None,
    hint: Tensor | None = None,
) -> Iterator[None]:
    """Inside the block, calls of the U-Net get the residuals of `network` added level by level.

    Args:
        unet: Frozen; nothing of it changes.
        network: `network(x, noise_level, tokens, covariates, target_level, context, hint) -> ` residuals.
        tokens: Of the cortex, (n, tokens, width), one row a row of the U-Net's input.
        scale: See `level_scales`.
        context: Of the same rows, (n, T, D), or None.
        hint: Of the same rows, a first picture in the state's units, or None.
    """
    scales = level_scales(scale, len(unet.up))
    residuals: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = ("x", "noise_level", "covariates", "target_level")
        given = dict(zip(names, args, strict=False)) | kwargs
        residuals[:] = network(
            given["x"],
            given["noise_level"],
            tokens,
            given.get("covariates"),
            given.get("target_level"),
            context,
            hint,
        )

    def entering(level: int) -> Any:
        def add(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            return (args[0] + scales[level] * residuals[level], *args[1:]) if scales[level] else None

        return add

    if not any(scales):
        yield
        return
    handles = [unet.register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_pre_hook(entering(level)) for level, block in enumerate(unet.up)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _EncoderCopy(UNet):
    """The way down of a U-Net: its features at every level."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.up, self.grow, self.head_norm, self.head

    def features(
        self,
        x: Tensor,
        noise_level: Tensor,
        added: Tensor,
        covariates: Tensor | None,
        target_level: Tensor | None,
        steering: Tensor | None,
    ) -> list[Tensor]:
        """Features of each level, finest first, with `added` put in after the first layer and `steering` into the
        embedding."""
        self._check(tuple(x.shape[2:]))
        e = self._embedding(noise_level, covariates, len(x), target_level)
        e = e if steering is None else e + steering
        h = self.stem(space_to_depth(x, self.patch)) + added
        found = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
                if len(self.positions):
                    h = h + self.positions[level - 1]
            h = blocks(h, e)
            found.append(h)
        return found


@buildable("manipulation-network")
class ManipulationNetwork(nn.Module):
    """Residuals for the levels of a U-Net from its own input and the tokens of the cortex.

    Args:
        unet: Options of the U-Net (its attribute `options`).
        shape: Of its grid, (y, x).
        tokens: Of the encoder, 1 + p.
        width: Of the encoder.
        dim: D of the context, 0 for none.
        hint: Channels of a first picture that enters beside the map, 0 for none.
    """

    def __init__(
        self, unet: dict[str, Any], shape: Sequence[int], tokens: int, width: int, dim: int = 0, hint: int = 0
    ) -> None:
        if unet.get("dims", 3) != 2:
            raise InputError(f"expected a U-Net of pictures (dims 2); got {unet.get('dims', 3)}.")
        super().__init__()
        self.options: dict[str, Any] = {
            "unet": dict(unet),
            "shape": tuple(shape),
            "tokens": tokens,
            "width": width,
            "dim": dim,
            "hint": hint,
        }
        self.copy = _EncoderCopy(**unet)
        patch, channels = int(unet["patch"]), tuple(unet["channels"])
        self.entry = TokenMap(tokens, width, channels[0], (shape[0] // patch, shape[1] // patch))
        self.steer = _zeroed(nn.Linear(dim, int(unet["embedding"]))) if dim else None
        self.hint = nn.Conv2d(hint * patch**2, channels[0], 3, padding=1) if hint else None
        self.outlets = nn.ModuleList(_zeroed(nn.Conv2d(c, c, 1)) for c in channels)

    @classmethod
    def of(
        cls, generator: nn.Module, shape: Sequence[int], tokens: int, width: int, dim: int = 0, hint: int = 0
    ) -> "ManipulationNetwork":
        """The manipulation of a generator, its copy with the generator's weights.

        Raises:
            InputError: a generator without a U-Net.
        """
        unet = the_unet(generator)
        network = cls(unet.options, shape, tokens, width, dim, hint)
        own = network.copy.state_dict()
        network.copy.load_state_dict({k: v for k, v in unet.state_dict().items() if k in own})
        return network

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        tokens: Tensor,
        covariates: Tensor | None = None,
        target_level: Tensor | None = None,
        context: Tensor | None = None,
        hint: Tensor | None = None,
    ) -> list[Tensor]:
        """Residuals (n, channels, y, x), finest level first."""
        steering = None if self.steer is None or context is None else self.steer(context.mean(1))
        added = self.entry(tokens)
        if self.hint is not None and hint is not None:
            added = added + self.hint(space_to_depth(hint, self.copy.patch))
        found = self.copy.features(x, noise_level, added, covariates, target_level, steering)
        return [outlet(h) for outlet, h in zip(self.outlets, found, strict=True)]
