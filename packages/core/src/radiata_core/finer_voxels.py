r"""Finer voxels at the same field of view: a network trained at 4 mm samples at 2 mm, with the weights that it has.

A U-Net shows its deep levels a grid of one size. Give it an image of r times the voxels along each axis and they see
objects r times too large, and draw them several times over. HiDiffusion keeps them on the grid they know (resolution-aware
down- and up-sampling): the strided convolution of one level gets r times the stride, the dilation and the padding, and the
up-sampling that goes with it r times the factor,

    (D_r x)_i = sum_k w_k x_{r (2 i + k - 1)} = D(x_{::r})_i,        U_r h = U(h repeated r times along each axis),

k = 0, 1, 2. So nothing inside the network is touched: what goes *into* the two modules is thinned out and repeated, and
that is exact for every kernel and stride, and for residual blocks that change the resolution by means. Deep levels then
cost r^n times less than on the fine grid.

**What it means.** The field of view is that of the training; the object has r times as many voxels along each axis, of
1/r the size. It does not make the field of view larger: for that there is `overlapping_windows`. On "an image twice as
large" of the same voxels it would draw a brain of twice the size.

Only rows whose noise level is above `until` are changed: where there is much noise the deep levels settle what there is,
where there is little, details are drawn as the network draws them. HiDiffusion's $T_1$, the share of the steps from the
noise on that are changed, is 1 - `until` on an even grid.

Where the stem folds blocks of voxels into channels (`nets.unet`, patch 2) it stays as it is, since with thinned-out
input the whole network would run on the coarse grid; the first *learned* change of resolution is taken.

Thinning out folds what is finer than the coarse grid onto it, noise included, which the network expects of its noise.
`lowpass=True` takes means over r^n cells instead: no aliasing, but noise weaker than the network was told.

References:
    Zhang et al., "HiDiffusion: unlocking higher-resolution creativity and efficiency in pretrained diffusion models",
        2024, https://arxiv.org/abs/2311.17528, section on the resolution-aware U-Net.
"""

import contextlib
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.handles import Call, Handle, attached, first_of, told_module
from radiata_core.sites import some_of

__all__ = ["finer", "resolution_changes"]

_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CHANGED: ContextVar[Tensor] = ContextVar("radiata_rows_of_finer_voxels")


def resolution_changes(network: nn.Module) -> tuple[tuple[str, str], ...]:
    """Names of the modules that halve the grid, each with the one that doubles it again, finest first.

    Known are `nets.unet`, `nets.medforj`, MONAI's `DiffusionModelUNet` and diffusers' U-Nets, or a module around one.

    Raises:
        InputError: there are none.
    """
    for name, module in network.named_modules():
        pairs = _of_lists(module) or _of_blocks(module)
        if pairs:
            prefix = f"{name}." if name else ""
            return tuple((prefix + down, prefix + up) for down, up in pairs)
    raise InputError(
        f"expected a network that halves and doubles its grid; got {type(network).__name__}. "
        'Give the names of its modules: sites=[("down", "up")].'
    )


def _of_lists(module: Any) -> list[tuple[str, str]]:
    if not (hasattr(module, "shrink") and hasattr(module, "grow")):
        return []
    return [(f"shrink.{i}", f"grow.{i}") for i in range(len(module.shrink))]


def _of_blocks(module: Any) -> list[tuple[str, str]]:
    if not (hasattr(module, "down_blocks") and hasattr(module, "up_blocks")):
        return []
    downs = [
        f"down_blocks.{i}.{_change(b, 'down')}"
        for i, b in enumerate(module.down_blocks)
        if _change(b, "down")
    ]
    ups = [f"up_blocks.{i}.{_change(b, 'up')}" for i, b in enumerate(module.up_blocks) if _change(b, "up")]
    return list(zip(downs, reversed(ups), strict=True))


def _change(block: Any, way: str) -> str:
    """Name of the module in a block that changes the grid, "" for none."""
    if getattr(block, f"{way}sampler", None) is not None:
        return f"{way}sampler"
    return f"{way}samplers.0" if getattr(block, f"{way}samplers", None) else ""


def finer(
    network: nn.Module,
    ratio: int | Sequence[int] = 2,
    until: float = 0.4,
    sites: Sequence[tuple[str, str]] | None = None,
    *,
    lowpass: bool = False,
    level: Callable[[Tensor], Tensor] | None = None,
    told: str | None = None,
) -> Handle:
    """Handle on a network that works on voxels `ratio` times finer than those it was trained on, same field of view.

    Rows on both sides of `until` in one batch are evaluated one group after the other; a tap then sees the last group.

    Args:
        network: A network that halves its grid and doubles it again, or a module around it.
        ratio: r >= 1, how many times more voxels along each axis, or one an axis; 1 changes nothing, to the bit.
        until: Noise level in [0, 1] above which a row is changed; 0 for all that have noise.
        sites: Pairs (halves, doubles) of module names; None for the first of `resolution_changes`.
        lowpass: Means over r^n cells in place of every r-th cell.
        level: As for `handles.attached`.
        told: As for `handles.attached`.

    Raises:
        InputError: a number out of range, or names that are no modules; in a call, a grid that does not divide by 2 r.
    """
    ratios = (ratio,) if isinstance(ratio, int) else tuple(ratio)
    if not ratios or min(ratios) < 1 or not 0 <= until <= 1:
        raise InputError(
            f"expected ratios >= 1 and until in [0, 1]; got {ratio} and {until}. 2 and 0.4 are usual."
        )
    pairs = resolution_changes(network)[:1] if sites is None else tuple(sites)
    modules = dict(network.named_modules())
    unknown = [name for pair in pairs for name in pair if name not in modules]
    if not pairs or unknown:
        raise InputError(
            f"expected pairs of modules of the network; got {unknown}. It has {some_of(modules)}."
        )
    if set(ratios) == {1}:
        return Handle(lambda: None)

    def is_changed(call: Call) -> bool:
        return bool((call.level > until).all())

    def thin(call: Call, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return ((_thinned(args[0], ratios, lowpass), *args[1:]), kwargs) if is_changed(call) else None

    def repeat(call: Call, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return ((_repeated(args[0], ratios), *args[1:]), kwargs) if is_changed(call) else None

    def note(call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
        _CHANGED.set(call.level > until)

    outer, _, _ = told_module(network, told)
    name = next(name for name, module in modules.items() if module is outer)
    hooks = {down: (thin, None) for down, _ in pairs} | {up: (repeat, None) for _, up in pairs}
    undo = contextlib.ExitStack()
    undo.callback(attached(network, {name: (note, None)}, level, told).remove)
    undo.callback(attached(network, hooks, level, told, first=True).remove)
    undo.callback(_split_by_rows(outer))
    if hasattr(outer, "any_multiple"):  # learned positions are interpolated while the handle is there
        undo.callback(setattr, outer, "any_multiple", outer.any_multiple)
        outer.any_multiple = True  # type: ignore[assignment]
    return Handle(undo.close)


def _thinned(x: Tensor, ratios: Sequence[int], lowpass: bool) -> Tensor:
    grid = x.shape[2:]
    each = _each(ratios, len(grid))
    if any(n % (2 * r) for n, r in zip(grid, each, strict=True)):
        raise InputError(
            f"expected axes at the level of the change that divide by {'x'.join(str(2 * r) for r in each)}; got "
            f"{'x'.join(map(str, grid))}. Sample on a grid of {each} times the voxels of the training's."
        )
    if lowpass:
        return _POOL[len(grid)](x, each)
    every: tuple[Any, ...] = (..., *(slice(None, None, r) for r in each))
    return x[every]


def _repeated(x: Tensor, ratios: Sequence[int]) -> Tensor:
    for axis, ratio in enumerate(_each(ratios, x.ndim - 2), start=2):
        x = x.repeat_interleave(ratio, axis)
    return x


def _each(ratios: Sequence[int], axes: int) -> tuple[int, ...]:
    each = tuple(ratios) * (axes if len(ratios) == 1 else 1)
    if len(each) != axes:
        raise InputError(
            f"expected one ratio, or one for each of {axes} axes; got {tuple(ratios)}. Give as many."
        )
    return each


def _split_by_rows(outer: nn.Module) -> Callable[[], None]:
    """From now on rows that are changed and rows that are not are separate calls of the network; returns the undoing."""
    held = outer.__dict__.get("forward")

    @functools.wraps(type(outer).forward)  # its signature tells other handles where the noise level is
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        inner = type(self).forward.__get__(self) if held is None else held
        changed = _CHANGED.get()
        if bool(changed.all()) or not bool(changed.any()):
            return inner(*args, **kwargs)
        groups = [torch.nonzero(rows)[:, 0] for rows in (changed, ~changed)]
        answers = [self(*_rows(args, at, len(changed)), **_rows(kwargs, at, len(changed))) for at in groups]
        return _joined(answers, torch.cat(groups).argsort())

    # As a method, so that a deep copy of the network has its own.
    outer.forward = types.MethodType(forward, outer)

    def undo() -> None:
        del outer.__dict__["forward"]
        if held is not None:
            outer.forward = held

    return undo


def _rows(given: Any, at: Tensor, batch: int) -> Any:
    """The rows `at` of every tensor of a batch among the arguments."""
    if isinstance(given, Mapping):
        return {name: _rows(value, at, batch) for name, value in given.items()}
    if isinstance(given, tuple | list):
        return type(given)(_rows(value, at, batch) for value in given)
    is_batch = isinstance(given, Tensor) and given.ndim > 0 and len(given) == batch
    return given[at.to(given.device)] if is_batch else given


def _joined(answers: Sequence[Any], order: Tensor) -> Any:
    """Answers to groups of rows as one: tensors, tuples of them, or mappings such as diffusers' outputs."""
    one = answers[0]
    if isinstance(one, Mapping):
        return type(one)(**{name: _joined([answer[name] for answer in answers], order) for name in one})
    if isinstance(one, tuple | list):
        return type(one)(_joined(parts, order) for parts in zip(*answers, strict=True))
    if not isinstance(one, Tensor):
        return one
    return torch.cat(list(answers))[order.to(first_of(one).device)]
