r"""A diffusion transformer in n dimensions: traces, images, volumes, or plain tokens, at any spacing and field of view.

Reading order: `Transformer.forward`, then `nets.patches`, `nets.rotary`, `nets.joint_attention` and `nets.conditioning`.

    x -> patches -> [ JointBlock(tokens, context, e, places) ] * depth -> modulated linear -> patches -> x

A patch of voxels (edges up to 16, and one an axis if they differ) is a token. Each block is SD3's: adaLN-zero, norms of q
and k, one softmax over tokens and context. What differs from `nets.mmdit`, which has SD3's sinusoidal positions:

- **Places are physical.** q and k turn by the tokens' coordinates in millimetres over `unit`; `spacing` and `origin` are
  arguments of a call. The network is equivariant to translations: a crop is treated as it was in the whole, up to what lies
  outside. `absolute` adds sines of the coordinates to the tokens, for heads that always lie in one field of view.
- **Windows.** `windows="WWWG"` says block by block, over and over, whether attention is within windows or global; windows
  are displaced from one such block to the next (all axes by half a window, then each proper subset of them), so that no
  seam stays (`radiata_core.attention_windows`).
- **Long skips** join the k-th block to the k-th from the end, Linear([x, skip]) as in U-ViT. They start as [1, 0]: a new
  network is one without skips.
- **Modulation** of each block (`shared_modulation=False`, adaLN-zero) or of all (True, adaLN-single: a third fewer weights).

A new network is silent: gates, modulations and the last layer are zero. With large patches let it predict x_0
(`NetworkDenoiser(network, path, "sample")`): the noise of an 8^3 patch has 512 dimensions and does not fit through 384
channels, the image of it does (Li & He).

References:
    Peebles & Xie, "Scalable diffusion models with transformers", 2023, https://arxiv.org/abs/2212.09748, section 3.2.
    Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis", 2024,
        https://arxiv.org/abs/2403.03206, section 4 and figure 2.
    Bao et al., "All are worth words: a ViT backbone for diffusion models", 2023, https://arxiv.org/abs/2209.12152
        (long skips, last convolution).
    Li & He, "Back to basics: let denoising generative models denoise", 2025, https://arxiv.org/abs/2511.13720.
"""

import contextvars
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from radiata_core.attention_windows import windowed_attention
from radiata_core.errors import InputError
from radiata_core.nets.conditioning import Conditioned, words_of, zeroed
from radiata_core.nets.joint_attention import Attend, JointBlock, attend_all, modulated
from radiata_core.nets.mmdit import sinusoids
from radiata_core.nets.patches import CONVOLUTIONS, ConvStem, fold, padded, unfold
from radiata_core.nets.rotary import Rotation, rotation_at, token_coordinates, widths_of_axes
from radiata_core.specs import buildable

__all__ = ["Placed", "Transformer"]

Geometry = Sequence[float] | Tensor | None


@buildable("transformer")
class Transformer(Conditioned):
    """Denoising network `(x, noise_level, covariates, context) ->` tensor of `out_channels` on the grid of x.

    Args:
        dims: Spatial dimensions, 1, 2 or 3; 0 for plain tokens, x `(batch, in_channels, tokens)`.
        in_channels: Channels of x.
        out_channels: Channels of the output.
        patch: Edge of the blocks that become tokens, 1 … 16, one or one an axis; 1 for plain tokens. Other grids are
            continued by their last values and cut again.
        depth: Number of blocks.
        heads: Heads of the attention.
        head: Width of a head, >= 2 an axis; heads * head is the width of the tokens.
        mlp_ratio: Width of the MLPs over that of the tokens.
        context: Features of a context token; 0 for a network without context.
        covariates: Number of covariates K; 0 for none.
        frequencies: Fourier features of the noise level.
        unit: Length in mm that counts as 1 in places, one or one an axis; None: the edge of a patch at 1 mm.
        theta: Range of the frequencies of places, > 1.
        absolute: Whether tokens also know their coordinates, and not only their distances.
        conv_stem: Whether patches overlap: three strided convolutions embed them.
        final_conv: Whether a convolution of 3^n voxels, the identity at first, ends the network (against seams of patches).
        shared_modulation: adaLN-single for adaLN-zero.
        skips: Whether there are long skips.
        windows: One letter a block, W within windows or G global, repeated over the depth; "" for all global.
        window: Tokens of a window along an axis, one or one an axis; needed where there is a W.
        checkpointing: Whether blocks are computed again in the backward pass, for memory.
        destination: Whether the network is a flow map and takes the noise level of the destination. Its embedding starts at
            zero: weights of a denoiser start a flow map.

    Raises:
        InputError: a number out of range, or options that do not fit each other.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        patch: int | Sequence[int] = 2,
        depth: int = 4,
        heads: int = 4,
        head: int = 32,
        mlp_ratio: int = 4,
        context: int = 0,
        covariates: int = 0,
        frequencies: int = 64,
        unit: float | Sequence[float] | None = None,
        theta: float = 100.0,
        absolute: bool = False,
        conv_stem: bool = False,
        final_conv: bool = False,
        shared_modulation: bool = False,
        skips: bool = True,
        windows: str = "",
        window: int | Sequence[int] = 0,
        checkpointing: bool = False,
        destination: bool = False,
    ) -> None:
        options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        axes = max(dims, 1)
        edges, cut = _per_axis(patch, axes, "patch"), _per_axis(window, axes, "window")
        _check(options, edges, cut)
        width = heads * head
        super().__init__(width, frequencies, covariates, destination)
        self.options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list | tuple) else value for key, value in options.items()
        }
        self.dims, self.patch, self.width, self.head_width = dims, edges, width, head
        self.unit = tuple(map(float, edges)) if unit is None else _per_axis(unit, axes, "unit")
        self.layout = _layout(windows, cut, depth)
        self.checkpointing = checkpointing
        self._placed: dict[tuple[object, ...], tuple[Rotation, Tensor | None]] = {}
        values = math.prod(edges)
        self.embed_patch = (
            ConvStem(in_channels, width, edges) if conv_stem else nn.Linear(in_channels * values, width)
        )
        self.embed_context = nn.Linear(context, width) if context else None
        self.shared = zeroed(nn.Linear(width, 6 * width)) if shared_modulation else None
        self.blocks = nn.ModuleList(
            JointBlock(heads, head, width, mlp_ratio, index == depth - 1, bool(context), shared_modulation)
            for index in range(depth)
        )
        self.skips = nn.ModuleList(_passing(width) for _ in range(depth // 2 if skips else 0))
        if self.embed_destination is not None:
            zeroed(self.embed_destination)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.head = zeroed(nn.Linear(width, out_channels * values))
        self.final_conv = _identity(dims, out_channels) if final_conv else None

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Tokens along each axis of a grid of voxels (plain tokens: their number).

        Raises:
            InputError: another number of axes than the network's, or an empty one.
        """
        if len(grid) != len(self.patch) or min(grid) < 1:
            raise InputError(
                f"expected x of {self.dims or 1} axes >= 1 after batch and channels; got {'x'.join(map(str, grid))}. "
                "Build the network with that many dims."
            )
        return tuple(-(-n // p) for n, p in zip(grid, self.patch, strict=True))

    def _places(
        self,
        grid: tuple[int, ...],
        spacing: Geometry,
        origin: Geometry,
        coordinates: Tensor | None,
        like: Tensor,
    ) -> tuple[Rotation | None, Tensor | None]:
        """Rotations of q and k, and what is added to the tokens; none for tokens that have no place."""
        if coordinates is not None:
            return self._placed_at(self._given(coordinates, math.prod(grid), like), like)
        if self.dims == 0:
            return None, None
        if isinstance(spacing, Tensor) or isinstance(origin, Tensor):
            places = token_coordinates(grid, self.patch, spacing, origin)
            return self._placed_at(self._given(places, math.prod(grid), like), like)
        key = (grid, spacing and tuple(spacing), origin and tuple(origin), like.device, like.dtype)
        if key not in self._placed:  # the last geometry only: made once, an accelerator is not kept waiting
            with torch.inference_mode(False):  # what is made while sampling is used in training
                places = token_coordinates(grid, self.patch, spacing, origin)
                self._placed = {key: self._placed_at(places, like)}
        return self._placed[key]

    def _placed_at(self, coordinates: Tensor, like: Tensor) -> tuple[Rotation, Tensor | None]:
        unit = coordinates.new_tensor(self.unit if self.dims else [self.unit[0]] * coordinates.shape[-1])
        cells = (coordinates / unit).to(like.device)
        exact = torch.promote_types(like.dtype, torch.float32)
        rotation = rotation_at(cells, self.head_width, self.options["theta"], exact)
        if not self.options["absolute"]:
            return rotation, None
        waves = sinusoids(cells.flatten(0, 1), self.width).unflatten(0, cells.shape[:2])
        return rotation, waves.to(like.dtype)

    def _given(self, coordinates: Tensor, count: int, like: Tensor) -> Tensor:
        rows = coordinates if coordinates.ndim == 3 else coordinates[None]
        fits = rows.ndim == 3 and rows.shape[1] == count and rows.shape[0] in (1, len(like))
        if not fits or (self.dims and rows.shape[-1] != self.dims) or not rows.isfinite().all():
            raise InputError(
                f"expected finite places of {count} tokens, one row or one a sample of {len(like)}; got shape "
                f"{tuple(rows.shape)}. Guidance drops conditions by NaN: wrap the network in `Placed`."
            )
        return rows.double()

    def _attend(self, index: int, grid: tuple[int, ...]) -> Attend:
        place = self.layout[index]
        if place is None:
            return attend_all
        window, shift = place
        count = math.prod(grid)
        return lambda q, k, v, given: windowed_attention(
            q, k, v, grid, window, shift, k.shape[2] - count, given
        )

    def _run(self, block: nn.Module, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return block(*arguments)
        # The context variables of now, so that what is computed again hears the same handles.
        now = contextvars.copy_context()
        return checkpoint(
            lambda *a: now.copy().run(block, *a), *arguments, use_reentrant=False, preserve_rng_state=False
        )

    def forward(
        self,
        x: Float[Tensor, "batch channels *grid"],
        noise_level: Float[Tensor, "*levels"],
        covariates: Float[Tensor, "batch covariates"] | None = None,
        context: Float[Tensor, "batch words features"] | None = None,
        target_level: Float[Tensor, "*levels"] | None = None,
        coordinates: Float[Tensor, "*rows tokens axes"] | None = None,
        spacing: Sequence[float] | Tensor | None = None,
        origin: Sequence[float] | Tensor | None = None,
    ) -> Float[Tensor, "batch out *grid"]:
        """Output `(batch, out_channels, *grid)`.

        Args:
            x: `(batch, in_channels, *grid)`.
            noise_level: Scalar or `(batch,)`; the denoiser gives the log-SNR.
            covariates: `(batch, K)`, standardised; NaN where not given. None for none.
            context: `(batch, words, features)`; a word with a NaN is not there. Words have no place. None for none.
            target_level: Scalar or `(batch,)`; the log-SNR of a flow map's destination, None for the level itself.
            coordinates: Places of the tokens in mm, `(tokens, axes)` or `(batch, tokens, axes)`, in place of spacing and
                origin. Plain tokens without coordinates are a set: their order does not matter.
            spacing: Millimetres a voxel along each axis, `(axes,)` or `(batch, axes)`; None for 1.
            origin: Centre of the first voxel in mm, the same shapes; None for 0. Without `absolute` it changes nothing.

        Raises:
            InputError: x of another number of axes, places that do not fit, or context the network was not built for.
        """
        grid = self.token_grid(x.shape[2:])
        e = self._embedding(noise_level, covariates, target_level, len(x))
        whole = padded(x, self.patch)
        tokens = self.embed_patch(whole if self.options["conv_stem"] else fold(whole, self.patch))
        rotation, added = self._places(grid, spacing, origin, coordinates, tokens)
        tokens = tokens if added is None else tokens + added
        words, given = words_of(context, self.embed_context, tokens)
        told = e if self.shared is None else self.shared(F.silu(e))
        held: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index >= len(self.blocks) - len(self.skips):
                skip = self.skips[index - len(self.blocks) + len(self.skips)]
                tokens = skip(torch.cat([tokens, held.pop()], -1))
            tokens, words = self._run(block, tokens, words, told, given, rotation, self._attend(index, grid))
            if index < len(self.skips):
                held.append(tokens)
        shift, scale = self.modulation(F.silu(e)).chunk(2, -1)
        y = unfold(self.head(modulated(tokens, shift, scale)), self.patch, grid)
        if self.final_conv is not None:
            y = self.final_conv(y)
        kept: Any = (..., *[slice(n) for n in x.shape[2:]])
        return y[kept]


class Placed(nn.Module):
    """A network whose geometry is settled: `Guided` and others may then drop every condition that is left.

    Args:
        network: A `Transformer`.
        geometry: Any of spacing, origin and coordinates, as `Transformer.forward` takes them.
    """

    def __init__(self, network: nn.Module, **geometry: Any) -> None:
        super().__init__()
        self.network, self.geometry = network, geometry

    def forward(self, x: Tensor, noise_level: Tensor, *conditions: Any, **more: Any) -> Tensor:
        """The network's output there."""
        return self.network(x, noise_level, *conditions, **more, **self.geometry)


def _per_axis(value: Any, axes: int, name: str) -> tuple[Any, ...]:
    values = (value,) * axes if isinstance(value, int | float) else tuple(value)
    if len(values) != axes:
        raise InputError(f"expected one {name}, or one for each of {axes} axes; got {values}. Give {axes}.")
    return values


def _passing(width: int) -> nn.Linear:
    """Linear([x, skip]) = x."""
    layer = zeroed(nn.Linear(2 * width, width))
    nn.init.eye_(layer.weight[:, :width])
    return layer


def _identity(dims: int, channels: int) -> nn.Module:
    """A convolution of 3^n voxels that changes nothing yet."""
    layer = CONVOLUTIONS[dims](channels, channels, 3, padding=1)
    nn.init.dirac_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _layout(
    windows: str, window: tuple[int, ...], depth: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]] | None]:
    """Window and shift of each block; None for a global one."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]] | None] = []
    count = 0
    for index in range(depth):
        if not windows or windows[index % len(windows)] == "G":
            found.append(None)
            continue
        moved = -count % 2 ** len(window)  # its bits are the axes that are displaced: none, all, …
        found.append((window, tuple(w // 2 * (moved >> axis & 1) for axis, w in enumerate(window))))
        count += 1
    return found


def _check(options: dict[str, Any], patch: tuple[int, ...], window: tuple[int, ...]) -> None:
    o, dims = options, options["dims"]
    counts = ("depth", "heads", "mlp_ratio", "in_channels", "out_channels")
    if dims not in (0, 1, 2, 3) or min(o[c] for c in counts) < 1 or o["frequencies"] < 2 or o["theta"] <= 1:
        raise InputError(
            f"expected dims 0 … 3, {', '.join(counts)} >= 1, frequencies >= 2 and theta > 1; got dims {dims}, "
            f"{', '.join(str(o[c]) for c in counts)}, {o['frequencies']} and {o['theta']}. Start from the defaults."
        )
    if min(patch) < 1 or max(patch) > 16:
        raise InputError(f"expected a patch of 1 … 16 voxels an axis; got {patch}. 2 to 8 are usual.")
    widths_of_axes(o["head"], max(dims, 1))
    if dims == 0 and (max(patch) > 1 or o["windows"] or o["conv_stem"] or o["final_conv"]):
        raise InputError(
            "expected patch 1 and neither windows nor convolutions with dims 0; got some. Plain tokens have no grid."
        )
    if set(o["windows"]) - {"W", "G"} or ("W" in o["windows"] and min(window) < 1):
        raise InputError(
            f"expected windows of letters W and G, and window >= 1 with a W; got {o['windows']!r} and {window}. "
            'windows="WWWG", window=4 for instance.'
        )
    if o["conv_stem"] and o["heads"] * o["head"] % 4:
        raise InputError(
            f"expected a width that divides by 4 with conv_stem; got {o['heads'] * o['head']}. Use wider heads."
        )
