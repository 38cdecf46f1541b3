r"""Attention in windows: tokens of a grid see those of their own window only, at a fraction of the cost.

Softmax attention over N tokens takes N^2 products. Cut the grid of n axes into windows of w tokens each and it takes
N w: 2^n times fewer for windows of half the grid (HiDiffusion's), linear in N for windows of a fixed size (Swin's).

    windows of half the grid    1/2^n of the products, however fine the grid
    windows of 10 x 12 x 10     1200 N products: twice the tokens, twice the cost

Windows that always lie alike leave seams which nothing crosses. So they are displaced from block to block (`shift`), and
what a roll of the grid brings from the other side of the image into one window is masked: the left edge of a head never
attends to its right edge. Grids that the windows do not divide are padded with keys that nobody sees.

Context tokens (words, covariates) are in every window, and see everything: their cost is linear.

`windowed_attention` is the operation. `windowed` puts it around any network whose attention goes through
`torch.nn.functional.scaled_dot_product_attention`, for as long as the handle is in use; no weight changes, so a network that
was trained with global attention runs windowed, and the other way round (tuning-free, with the loss that this brings).

References:
    Zhang et al., "HiDiffusion: unlocking higher-resolution creativity and efficiency in pretrained diffusion models",
        2024, https://arxiv.org/abs/2311.17528, section on modified shifted window multi-head self-attention.
    Liu et al., "Swin transformer", 2021, https://arxiv.org/abs/2103.14030, section 3.2 (shifted, masked at the seam).
"""

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from radiata_core.errors import InputError
from radiata_core.handles import Call, Handle, attached, cells_of
from radiata_core.sites import Site, chosen_sites

__all__ = ["halves", "window_of", "windowed", "windowed_attention"]


def window_of(grid: Sequence[int], splits: int | Sequence[int]) -> tuple[int, ...]:
    """Tokens of a window along each axis, for a grid cut into `splits` windows an axis (rounded up).

    Raises:
        InputError: splits below 1, or not one an axis.
    """
    parts = (splits,) * len(grid) if isinstance(splits, int) else tuple(splits)
    if len(parts) != len(grid) or min(parts) < 1:
        raise InputError(f"expected splits >= 1, one an axis of {tuple(grid)}; got {parts}. 2 is usual.")
    return tuple(math.ceil(n / s) for n, s in zip(grid, parts, strict=True))


def windowed_attention(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch heads keys head"],
    v: Float[Tensor, "batch heads keys value"],
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int] = (),
    words: int = 0,
    mask: Bool[Tensor, "batch words"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries value"]:
    """Attention of tokens on a grid within windows, and of words with everything, `(batch, heads, queries, value)`.

    Args:
        q: Queries: the tokens of the grid, last axis fastest, then the words; the words may be left out of the queries.
        k: Keys: the tokens, then the words.
        v: Values, like the keys.
        grid: Tokens along each axis, >= 1.
        window: Tokens of a window along each axis, >= 1; one that covers the axis is global there.
        shift: Tokens by which the windows are displaced along each axis, taken modulo the window; none for 0.
        words: Number of context tokens behind those of the grid, >= 0.
        mask: Which words are there, `(batch, words)`; None for all.
        scale: Of the logits; None for 1/sqrt(head).

    Raises:
        InputError: axes that do not agree, a window below 1, or tokens that do not fill the grid.
    """
    sizes, cut, moved = _checked(grid, window, shift)
    count = math.prod(sizes)
    if k.shape[2] != count + words or q.shape[2] not in (count, count + words):
        raise InputError(
            f"expected {count} tokens on a grid of {'x'.join(map(str, sizes))} and {words} words; got {q.shape[2]} "
            f"queries and {k.shape[2]} keys. Give the grid of the tokens."
        )
    if all(w >= n for w, n in zip(cut, sizes, strict=True)):
        seen = None if mask is None else F.pad(mask, (count, 0), value=True)[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    layout = _Layout(sizes, cut, moved)
    mixed = _within(q, k, v, layout, words, mask, scale)
    if q.shape[2] == count:
        return mixed
    seen = None if mask is None else F.pad(mask, (count, 0), value=True)[:, None, None]
    heard = F.scaled_dot_product_attention(q[:, :, count:], k, v, attn_mask=seen, scale=scale)
    return torch.cat([mixed, heard], 2)


def halves(site: int) -> tuple[float, ...]:
    """Displacement in windows, the same on every axis: half a window at every second attention site, else none."""
    return (0.5 * (site % 2),)


def windowed(
    network: nn.Module,
    splits: int | Sequence[int] = 2,
    *,
    window: Sequence[int] | None = None,
    shift: Callable[[int], Sequence[float]] = halves,
    sites: Sequence[str | Site] | None = None,
    level: Callable[[Tensor], Tensor] | None = None,
    told: str | None = None,
) -> Handle:
    """Handle on a network whose attention sites attend within windows.

    Args:
        network: Any network with attention sites that call `scaled_dot_product_attention`; MONAI's are made to.
        splits: Windows along each axis of a site's grid, >= 1; 1 changes nothing, to the bit.
        window: Tokens of a window along each axis, for a cost that is linear in the grid; None for `splits`.
        shift: Displacement of the windows of the n-th site, in windows: one number, or one an axis.
        sites: Names or sites of attention; None for all. HiDiffusion takes those of the finest grid.
        level: As for `handles.attached`; windows do not depend on it.
        told: As for `handles.attached`.

    Raises:
        InputError: no attention sites, or a number out of range; in a call, attention that is not the fused kernel's.
    """
    chosen = chosen_sites(network, "attention", sites)
    if window is None and (splits == 1 if isinstance(splits, int) else set(splits) == {1}):
        return Handle(lambda: None)
    undo, modules = contextlib.ExitStack(), dict(network.named_modules())
    for index, site in enumerate(chosen):
        module = modules[site.name]
        place, entered = tuple(shift(index)), dict[int, _Windows]()

        def enter(
            call: Call, module: nn.Module, args: Any, kwargs: Any, site: Site = site, place: Any = place,
            entered: dict[int, _Windows] = entered,
        ) -> None:  # fmt: skip
            grid = tuple(args[0].shape[2:]) if site.axis == 1 else cells_of(network, call.grid)
            mode = _Windows(grid, window_of(grid, splits) if window is None else tuple(window), place, site)
            mode.__enter__()
            entered[threading.get_ident()] = mode

        def leave(module: nn.Module, args: Any, output: Any, entered: dict[int, _Windows] = entered) -> None:
            mode = entered.pop(threading.get_ident(), None)
            if mode is not None:
                mode.__exit__(None, None, None)
                mode.check(output)

        undo.callback(attached(network, {site.name: (enter, None)}, level, told).remove)
        undo.callback(module.register_forward_hook(leave, always_call=True).remove)
        for part in module.modules():
            if (
                getattr(part, "use_flash_attention", None) is False
            ):  # MONAI's own products cannot be seen from outside
                part.use_flash_attention = True
                undo.callback(setattr, part, "use_flash_attention", False)
    return Handle(undo.close)


class _Windows(TorchFunctionMode):
    """Attention over the tokens of one site becomes windowed while the site runs."""

    def __init__(
        self, grid: tuple[int, ...], window: tuple[int, ...], place: tuple[float, ...], site: Site
    ) -> None:
        super().__init__()
        places = place if len(place) == len(grid) else place * len(grid)
        self.grid, self.window, self.site, self.met = grid, window, site, False
        self.shift = tuple(int(p * w) for p, w in zip(places, window, strict=True))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        named = dict(
            zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)
        )
        given = named | kwargs
        q, k, v = given["query"], given["key"], given["value"]
        words = k.shape[2] - math.prod(self.grid)
        if words < 0 or (words and not self.site.joint):  # across to another modality: not ours
            return func(*args, **kwargs)
        self.met, mask = True, given.get("attn_mask")
        if given.get("dropout_p") or given.get("is_causal") or (mask is not None and mask.shape[-2] != 1):
            raise InputError(
                f"expected attention without dropout, causality or a mask of pairs at {self.site.name!r}; got some. "
                "Leave this site out of sites=."
            )
        seen = None if mask is None else mask[:, 0, 0, math.prod(self.grid) :]
        return windowed_attention(
            q, k, v, self.grid, self.window, self.shift, words, seen, given.get("scale")
        )

    def check(self, output: Any) -> None:
        if output is not None and not self.met:
            raise InputError(
                f"expected scaled_dot_product_attention at {self.site.name!r}; got attention of another kind. "
                "Switch the network to its fused attention, or leave this site out of sites=."
            )


class _Layout:
    """Where the tokens of a grid lie when it is padded, rolled and cut."""

    def __init__(self, grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> None:
        self.grid = grid
        self.window = tuple(min(w, n) for w, n in zip(window, grid, strict=True))
        # One window along an axis is the whole axis: nothing to displace.
        self.shift = tuple(s if w < n else 0 for s, w, n in zip(shift, self.window, grid, strict=True))
        self.parts = tuple(math.ceil(n / w) for n, w in zip(grid, self.window, strict=True))
        self.padded = tuple(p * w for p, w in zip(self.parts, self.window, strict=True))

    @property
    def is_plain(self) -> bool:
        """Whether every window is whole and in its place: no mask is needed."""
        return self.padded == self.grid and not any(self.shift)

    def cut(self, tokens: Tensor) -> Tensor:
        """`(batch, heads, tokens, head)` -> `(batch, windows, heads, tokens of a window, head)`."""
        batch, heads, _, head = tokens.shape
        field = tokens.reshape(batch * heads, *self.grid, head)
        spare = [
            n for p, g in zip(reversed(self.padded), reversed(self.grid), strict=True) for n in (0, p - g)
        ]
        field = F.pad(field, (0, 0, *spare)) if any(spare) else field
        axes = tuple(range(1, len(self.grid) + 1))
        if any(self.shift):
            field = field.roll(tuple(-s for s in self.shift), axes)
        split = [n for pair in zip(self.parts, self.window, strict=True) for n in pair]
        dims = len(self.grid)
        outer, inner = [2 + 2 * i for i in range(dims)], [3 + 2 * i for i in range(dims)]
        blocks = field.reshape(batch, heads, *split, head).permute(0, *outer, 1, *inner, 2 + 2 * dims)
        return blocks.reshape(batch, math.prod(self.parts), heads, math.prod(self.window), head)

    def join(self, windows: Tensor) -> Tensor:
        """The inverse of `cut`."""
        batch, _, heads, _, head = windows.shape
        dims = len(self.grid)
        blocks = windows.reshape(batch, *self.parts, heads, *self.window, head)
        order = [0, 1 + dims, *[n for i in range(dims) for n in (1 + i, 2 + dims + i)], 2 + 2 * dims]
        field = blocks.permute(order).reshape(batch * heads, *self.padded, head)
        if any(self.shift):
            field = field.roll(self.shift, tuple(range(1, dims + 1)))
        field = field[(slice(None), *[slice(n) for n in self.grid])]
        return field.reshape(batch, heads, math.prod(self.grid), head)

    def seen(self, device: torch.device) -> Bool[Tensor, "windows tokens tokens"]:
        """Which key a query of the same window may see: on its own side of the seam, and not padding."""
        side = torch.zeros(self.grid, dtype=torch.long, device=device)
        for axis, shift in enumerate(self.shift):
            beyond = torch.arange(self.grid[axis], device=device) < shift
            side = side + (beyond.long() << axis).view(-1, *[1] * (len(self.grid) - axis - 1))
        flat = self.cut(side.flatten()[None, None, :, None].double() + 1)[0, :, 0, :, 0]  # padding is 0
        query, key = flat[:, :, None], flat[:, None, :]
        return ((query == key) & (key > 0)) | (query == 0)  # padding asks too: a row without keys is NaN


def _within(
    q: Tensor, k: Tensor, v: Tensor, layout: _Layout, words: int, mask: Tensor | None, scale: float | None
) -> Tensor:
    count, batch = math.prod(layout.grid), len(q)
    asked, keys, values = (
        layout.cut(q[:, :, :count]),
        layout.cut(k[:, :, :count]),
        layout.cut(v[:, :, :count]),
    )
    parts = asked.shape[1]
    seen = None if layout.is_plain else layout.seen(q.device)[None, :, None]
    if words:
        keys, values = (
            torch.cat([part, whole[:, None, :, count:].expand(-1, parts, -1, -1, -1)], 3)
            for part, whole in ((keys, k), (values, v))
        )
        if seen is not None or mask is not None:
            inner = asked.shape[3]
            if seen is None:
                seen = torch.ones(1, 1, 1, 1, inner, dtype=torch.bool, device=q.device)
            given = torch.ones(batch, words, dtype=torch.bool, device=q.device) if mask is None else mask
            shape = (batch, seen.shape[1], 1, seen.shape[3])
            seen = torch.cat(
                [seen.expand(*shape, inner), given[:, None, None, None].expand(*shape, words)], -1
            )
    if seen is not None:
        seen = seen.expand(batch, parts, -1, -1, -1).flatten(0, 1)
    asked, keys, values = asked.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
    mixed = F.scaled_dot_product_attention(asked, keys, values, attn_mask=seen, scale=scale)
    return layout.join(mixed.unflatten(0, (batch, parts)))


def _checked(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    sizes, cut = tuple(grid), tuple(window)
    moved = tuple(shift) or (0,) * len(sizes)
    if not sizes or not len(sizes) == len(cut) == len(moved) or min(*sizes, *cut) < 1:
        raise InputError(
            f"expected one size >= 1 an axis in grid and window, and one shift; got {sizes}, {cut} and {moved}. "
            "Give as many of each."
        )
    return sizes, cut, tuple(s % w for s, w in zip(moved, cut, strict=True))
