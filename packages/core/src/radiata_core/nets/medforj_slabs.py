r"""MedForJ's network in slabs of its maps: the same numbers with a fraction of the memory, and faster on processors.

Nothing is approximated. A group normalisation needs the whole map before its first voxel, so a residual block goes through
its maps twice; a convolution of 3 voxels needs one row more at either side:

    1   c ← conv₁(silu(affine₁(x)))   slab by slab, with a halo;  affine₁ from the moments of x, the embedding in the bias
    2   c ← conv₂(silu(affine₂(c))) + S x   in the place of c, one row of which is kept for the next slab

The moments are gathered while maps are written (`feature_maps`). A skip is never joined to the running map, only slabs of
them are. Doubled maps may be computed again, slab by slab, from the coarse ones; maps may lie on disk; attention takes its
level whole. `medforj_plan` decides all this under a limit of memory.

Samples of a batch pass one after the other. Slabs of a few MiB stay in the processor's cache and in memory that the
allocator has already; `torch.mkldnn_convolution` is called by name, since `F.conv3d` leaves oneDNN for thin
slabs of one sample (5 instead of 90 GFLOP/s at 16 channels and 8 rows of 112 × 96, one thread).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from radiata_core.nets.doubling import folded_kernel
from radiata_core.nets.feature_maps import (
    ComputedMap,
    DiskMap,
    FeatureMap,
    MemoryMap,
    group_affine,
    slabs_of,
)
from radiata_core.nets.medforj_blocks import Signal, shift_of
from radiata_core.nets.medforj_plan import Plan, thickness_of
from radiata_core.nets.medforj_steps import Step, grid_of, last_uses, steps_of

if TYPE_CHECKING:
    from radiata_core.nets.medforj import MedForJUNet

__all__ = ["Run", "convolved", "forward_in_slabs"]

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


@torch.no_grad()
def forward_in_slabs(
    network: "MedForJUNet",
    x: Tensor,
    signal: Signal,
    plan: Plan,
    folder: Path | None = None,
    kept: torch.dtype | None = None,
) -> Tensor:
    """The network's output `(batch, out, *grid)`.

    Args:
        network: Its modules without hooks.
        x: Input `(batch, in, *grid)`.
        signal: SiLU of the embedded noise level, `(batch, width)`, or what blocks make of it.
        plan: Where maps are, and how thick slabs are.
        folder: Where maps go that lie on disk; None for the system's temporary folder.
        kept: Numbers of the maps, `torch.bfloat16` or None for those of `x`; all else stays in those of `x`.

    Raises:
        InputError: the disk is full.
    """
    out = torch.empty((len(x), network.options["out_channels"], *x.shape[2:]), dtype=x.dtype, device=x.device)
    steps = steps_of(network)
    for row in range(len(x)):
        run = Run(steps, x[row], signal[row], plan, folder, kept or x.dtype)
        try:
            run.all(out[row])
        finally:
            run.close()
    return out


class Run:
    """One sample `(channels, *grid)` on its way through the steps; arguments as in `forward_in_slabs`, of one row.

    Attributes:
        maps: The maps now held, by their numbers.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        x: Tensor,
        signal: Signal,
        plan: Plan,
        folder: Path | None,
        kept: torch.dtype,
    ) -> None:
        self.steps, self.plan, self.folder, self.signal = steps, plan, folder, signal
        self.kept, self.work = kept, x.dtype
        self.x = x.movedim(0, -1).contiguous()
        self.grid, self.dims = tuple(x.shape[1:]), x.ndim - 1
        self.maps: dict[int, FeatureMap] = {}
        computed = {number for number, place in plan.places.items() if place == "computed"}
        self.last = last_uses(steps, computed)

    def all(self, out: Tensor) -> None:
        """Do every step; the network's output goes to `out` `(channels, *grid)`."""
        for index, step in enumerate(self.steps):
            if step.kind == "out":
                self._out(step, out)
            else:
                self.do(step)
            for number in [n for n, last in self.last.items() if last == index]:
                self.maps.pop(number).close()

    def do(self, step: Step) -> None:
        """One step between maps."""
        getattr(self, f"_{step.kind}")(step)

    def close(self) -> None:
        """Let go of all maps."""
        while self.maps:
            self.maps.popitem()[1].close()

    # Steps that convolve one map --------------------------------------------------------------------------------------

    def _stem(self, step: Step) -> None:
        conv = step.module.conv
        weight = _channels_last(conv.weight)
        rows = self.grid[0]

        def compute(lo: int, hi: int) -> Tensor:
            return convolved(_with_halo(self.x, lo - 1, hi + 1, rows), weight, conv.bias)

        self._keep(step, compute)

    def _double(self, step: Step) -> None:
        conv, coarse = step.module.postconv.conv, self.maps[step.inputs[0].number]
        kernel = folded_kernel(conv.weight).to(self.kept)
        padding = (3, *[1] * (self.dims - 1))

        def compute(lo: int, hi: int) -> Tensor:
            low, high = lo // 2, -(-hi // 2)
            slab = _planes(_read(coarse, low - 1, high + 1))
            bias = conv.bias if self.kept == self.work else None
            made = _TRANSPOSED[self.dims - 1](slab, kernel, bias, stride=2, padding=padding)
            rows = _voxels(made)[lo - 2 * low : hi - 2 * low]
            return rows if bias is not None else rows.to(self.work).add_(conv.bias)

        self._keep(step, compute)

    def _halve(self, step: Step) -> None:
        conv, fine = step.module.op.conv, self.maps[step.inputs[0].number]
        weight = self._weight(conv)

        def compute(lo: int, hi: int) -> Tensor:
            return self._convolved(_read(fine, 2 * lo - 1, 2 * hi), weight, conv.bias, stride=2)

        self._keep(step, compute)

    def _keep(self, step: Step, compute: Any) -> None:
        """The map that `compute` gives slab by slab: written once, or left to be computed at every reading."""
        thickness = thickness_of(step, self.plan, self.grid, self.x.element_size())
        if step.output is not None and self.plan.places.get(step.output.number) == "computed":
            rows = (
                compute if self.kept == self.work else lambda lo, hi: compute(lo, hi).to(self.kept)
            )  # as if it had been stored
            made = ComputedMap(self._shape(step), self.kept, self.x.device, rows)
            made.survey(thickness)
            self.maps[step.output.number] = made
            return
        new = self._new(step)
        for lo, hi in slabs_of(new.shape[0], thickness):
            new.write(lo, compute(lo, hi))

    def _shape(self, step: Step) -> tuple[int, ...]:
        assert step.output is not None
        return (*grid_of(self.grid, step.output.level), step.output.channels)

    def _new(self, step: Step) -> FeatureMap:
        assert step.output is not None
        kind = (self._shape(step), self.kept, self.x.device)
        on_disk = self.plan.places.get(step.output.number) == "disk"
        new = DiskMap(*kind, self.folder) if on_disk else MemoryMap(*kind)
        self.maps[step.output.number] = new
        return new

    def _weight(self, conv: Any) -> Tensor:
        return _channels_last(conv.weight.to(self.kept))

    def _convolved(self, slab: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
        """A slab with its halo → its rows without; products of the maps' numbers, the bias added in the input's."""
        if self.kept == self.work:
            return convolved(slab, weight, bias, stride)
        return convolved(slab.to(self.kept), weight, None, stride).to(self.work).add_(bias)

    # The residual block -----------------------------------------------------------------------------------------------

    def _residual(self, step: Step) -> None:
        block, parts = step.module, [self.maps[needed.number] for needed in step.inputs]
        new, dtype = self._new(step), self.work
        rows = new.shape[0]
        thickness = thickness_of(step, self.plan, self.grid, self.x.element_size())
        conv1, conv2 = block.conv1.conv, block.conv2.conv
        scale, shift = (v.to(dtype) for v in group_affine(block.norm1, [part.moments for part in parts]))
        bias = conv1.bias + shift_of(block.time_emb_proj, self.signal)
        weight = self._weight(conv1)
        for lo, hi in slabs_of(rows, thickness):
            low, high, fitting = _source(block.resolution, lo - 1, hi + 1, rows)
            slab = _joined(parts, low, high, dtype).mul_(scale).add_(shift)
            slab = fitting(F.silu(slab, inplace=True))
            new.write(lo, self._convolved(_padded(slab, lo - 1, hi + 1, rows), weight, bias))
        scale, shift = (v.to(dtype) for v in group_affine(block.norm2, [new.moments]))
        new.moments = type(new.moments)(new.shape[-1], self.x.device)
        weight, last = self._weight(conv2), None
        for lo, hi in slabs_of(rows, thickness):
            raw = new.read(lo, min(hi + 1, rows))
            slab = raw.clone() if last is None else torch.cat([last, raw])
            last = raw[hi - lo - 1 : hi - lo].clone()
            slab = F.silu(slab.to(dtype).mul_(scale).add_(shift), inplace=True)
            made = self._convolved(_padded(slab, lo - 1, hi + 1, rows), weight, conv2.bias)
            del slab, raw
            low, high, fitting = _source(block.resolution, lo, hi, rows)
            _add_skip(block.skip_connection, fitting(_joined(parts, low, high, dtype)), made, self.kept)
            new.write(lo, made)

    # The whole map, and the end -----------------------------------------------------------------------------------------

    def _attention(self, step: Step) -> None:
        number = step.inputs[0].number
        held = self.maps[number]
        whole = held.read(0, held.shape[0])
        made = _voxels(step.module(_planes(whole.to(self.work))))
        held.moments = type(held.moments)(held.shape[-1], self.x.device)
        held.write(0, made)

    def _out(self, step: Step, out: Tensor) -> None:
        norm, conv, held = step.module[0], step.module[-1].conv, self.maps[step.inputs[0].number]
        scale, shift = (v.to(self.work) for v in group_affine(norm, [held.moments]))
        weight, rows = _channels_last(conv.weight), self.grid[0]
        for lo, hi in slabs_of(rows, thickness_of(step, self.plan, self.grid, self.x.element_size())):
            slab = _joined([held], max(lo - 1, 0), min(hi + 1, rows), self.work).mul_(scale).add_(shift)
            slab = _padded(F.silu(slab, inplace=True), lo - 1, hi + 1, rows)
            out[:, lo:hi] = convolved(slab, weight, conv.bias).movedim(-1, 0)


def _planes(slab: Tensor) -> Tensor:
    """`(n, *rest, channels)` → `(1, channels, n, *rest)`, without a copy."""
    return slab.movedim(-1, 0)[None]


def _voxels(planes: Tensor) -> Tensor:
    """The inverse of `_planes`, in one piece of memory."""
    return planes[0].movedim(0, -1).contiguous()


def _padded(slab: Tensor, lo: int, hi: int, rows: int) -> Tensor:
    """A slab of the rows of lo … hi that exist, with zeros for those that do not."""
    before, after = max(-lo, 0), max(hi - rows, 0)
    return F.pad(slab, (*[0] * (2 * (slab.ndim - 1)), before, after)) if before or after else slab


def _with_halo(values: Tensor, lo: int, hi: int, rows: int) -> Tensor:
    return _padded(values[max(lo, 0) : min(hi, rows)], lo, hi, rows)


def _read(held: FeatureMap, lo: int, hi: int) -> Tensor:
    rows = held.shape[0]
    return _padded(held.read(max(lo, 0), min(hi, rows)), lo, hi, rows)


def _joined(parts: Sequence[FeatureMap], lo: int, hi: int, dtype: torch.dtype) -> Tensor:
    """A fresh slab of the maps side by side, in numbers of `dtype`."""
    slabs = [part.read(lo, hi) for part in parts]
    return torch.cat(slabs, -1).to(dtype) if len(slabs) > 1 else slabs[0].to(dtype, copy=True)


def _source(resolution: str, lo: int, hi: int, rows: int) -> tuple[int, int, Any]:
    """Rows of a block's input for its rows lo … hi, as far as there are any, and what brings them onto its grid."""
    lo, hi = max(lo, 0), min(hi, rows)
    if resolution == "down":
        return 2 * lo, 2 * hi, lambda slab: _voxels(_POOLS[slab.ndim - 2](_planes(slab), 2))
    if resolution == "up":
        low, high = lo // 2, -(-hi // 2)

        def doubled(slab: Tensor) -> Tensor:
            for axis in range(slab.ndim - 1):
                slab = slab.repeat_interleave(2, axis)
            return slab[lo - 2 * low : hi - 2 * low]

        return low, high, doubled
    return lo, hi, lambda slab: slab


def _add_skip(skip: Any, slab: Tensor, made: Tensor, kept: torch.dtype) -> None:
    """made += skip(slab); a 1×1 convolution is a product of matrices here, of numbers of `kept`."""
    if isinstance(skip, torch.nn.Identity):
        made.add_(slab)
        return
    weight, bias = skip.conv.weight.flatten(1), skip.conv.bias
    flat = made.view(-1, made.shape[-1])
    columns = slab.reshape(-1, slab.shape[-1])
    if kept == made.dtype:
        flat.addmm_(columns, weight.t()).add_(bias)
        return
    flat.add_(columns.to(kept) @ weight.to(kept).t()).add_(bias)


def _channels_last(weight: Tensor) -> Tensor:
    formats: Mapping[int, Any] = {4: torch.channels_last, 5: torch.channels_last_3d}
    return weight.contiguous(memory_format=formats[weight.ndim]) if weight.ndim in formats else weight


def convolved(slab: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """A slab with its halo → its rows without."""
    planes, dims = _planes(slab), slab.ndim - 1
    padding, steps = [0, *[1] * (dims - 1)], [stride] * dims
    if (
        dims > 1
        and planes.dtype == torch.float32
        and planes.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
    ):
        return _voxels(torch.mkldnn_convolution(planes, weight, bias, padding, steps, [1] * dims, 1))
    made: Tensor = _CONVOLUTIONS[dims - 1](planes, weight, bias, stride, padding)
    return _voxels(made)
