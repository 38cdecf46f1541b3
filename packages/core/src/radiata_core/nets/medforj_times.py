r"""What the blocks of MedForJ's network are told at each noise level, worked out once.

A residual block hears the level c through s(c) = silu(W₂ silu(W₁ w(c) + b₁) + b₂) and a projection of its own, P s(c) + p,
with w the sinusoid. Nothing of it depends on the volume: the 27 projections of the released network side by side are 2992
numbers a level, and a schedule of 64 levels is three products,

    (64 × 16)(16 × 64),   (64 × 64)(64 × 64),   (64 × 64)(64 × 2992),

for 29 products of a vector in each of 64 calls. They are done as products of vectors in one batch, so that a level's row
does not depend on the levels beside it.

`TimeTable` remembers rows by the value of the level: in evaluation mode and without gradients the second volume of a
schedule finds everything there, and `MedForJUNet.prepare_times` fills the table for a whole schedule. Rows are forgotten
when a weight that they came from was changed in place or replaced (PyTorch counts the changes of a tensor; only a write
through `.data` or numpy is not counted: call `train()` or `eval()` after one). Where somebody watches or replaces one of the
layers nothing is remembered. Looking a level up needs its value on the processor: on other devices the table is asked only
if it was prepared.

It is a tidiness rather than a speed: next to 400 GFLOP the vectors are nothing (docs/medforj.md has the number).
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from radiata_core.nets.medforj_blocks import Residual, Shifts, is_plain, sinusoid

if TYPE_CHECKING:
    from radiata_core.nets.medforj import MedForJUNet

__all__ = ["TimeTable"]

CAPACITY = 1024
"""Levels that are remembered without a word, the latest used: all of MedForJ's steps, 12 MB for the released network."""


class TimeTable:
    """Level → shifts of all residual blocks, for one network and as long as its weights stay."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.rows: dict[float, Tensor] = {}
        self.places: dict[nn.Module, slice] = {}
        self.weights: list[tuple[Tensor, int, int]] = []
        self.capacity, self.prepared = CAPACITY, False

    def __reduce__(self) -> tuple[Any, ...]:
        return TimeTable, ()  # a copied or saved network starts anew

    def prepare(self, network: "MedForJUNet", levels: Float[Tensor, "level"]) -> None:
        """Fill the table for a schedule, in three products."""
        if not self._current(network):
            return
        values = levels.detach().flatten().tolist()
        self.capacity, self.prepared = max(CAPACITY, len(set(values))), True
        self._remember(network, values)

    def shifts(self, network: "MedForJUNet", levels: Float[Tensor, "batch"]) -> Shifts | None:
        """What blocks are told at these levels; None where it can not be remembered."""
        if type(levels) is not Tensor or not self._current(network):
            return None
        if levels.device.type != "cpu" and not self.prepared:
            return None
        values = levels.tolist()
        self._remember(network, values)
        rows = [self.rows[value] for value in values]
        same = all(row is rows[0] for row in rows)
        found = rows[0].expand(len(rows), -1) if same else torch.stack(rows)
        while len(self.rows) > self.capacity:
            del self.rows[next(iter(self.rows))]
        return Shifts(found, self.places)

    def _current(self, network: "MedForJUNet") -> bool:
        """Whether rows may be remembered; forgets those of older weights."""
        layers = _projections(network)
        if not is_plain(network.time_embed) or not all(is_plain(layer) for layer in layers):
            return False
        if any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()):
            return False  # who watches a block sees what it is told, as it is written
        tensors = [tensor for layer in (*network.time_embed, *layers) for tensor in layer.parameters()]
        if any(tensor.is_inference() for tensor in tensors):
            return False  # their changes are not counted
        now = [(tensor, tensor.data_ptr(), tensor._version) for tensor in tensors]
        known = self.weights
        if len(now) != len(known) or any(
            a is not b or n != m for (a, *n), (b, *m) in zip(now, known, strict=True)
        ):
            self.clear()
            self.weights, start = now, 0
            for layer in layers:
                self.places[layer] = slice(start, start + layer.out_features)
                start += layer.out_features
        return True

    def _remember(self, network: "MedForJUNet", values: list[float]) -> None:
        """Rows of these levels at the young end of the table."""
        missing = [value for value in dict.fromkeys(values) if value not in self.rows]
        if missing:
            for value, row in zip(missing, _rows(network, missing).unbind(), strict=True):
                self.rows[value] = row
        for value in dict.fromkeys(values):
            self.rows[value] = self.rows.pop(value)


@torch.no_grad()
def _rows(network: "MedForJUNet", values: list[float]) -> Float[Tensor, "level shift"]:
    """The shifts of all blocks side by side, one row a level."""
    first, second = network.time_embed[0], network.time_embed[2]
    weight: Any = first.weight
    wave = sinusoid(torch.tensor(values, dtype=torch.float64, device=weight.device), network.channels[0])
    h = F.silu(_each(wave.to(weight.dtype), first.weight, first.bias))
    signal = F.silu(_each(h, second.weight, second.bias))
    layers = _projections(network)
    joined = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    return _each(signal, *joined)


def _each(rows: Tensor, weight: Any, bias: Any) -> Tensor:
    """`F.linear` of every row by itself, all in one call: what a row gives does not depend on the rows beside it."""
    count, (outputs, inputs) = len(rows), weight.shape
    products = torch.baddbmm(
        bias.expand(count, 1, outputs), rows[:, None], weight.t().expand(count, inputs, outputs)
    )
    return products[:, 0]


def _projections(network: "MedForJUNet") -> list[Any]:
    """The layers that tell the residual blocks the level."""
    middle: Any = network.middle_block
    blocks = [middle.resnet_1, middle.resnet_2]
    levels: Any = (*network.down_blocks, *network.up_blocks)
    for level in levels:
        change = level.downsampler if hasattr(level, "downsampler") else level.upsampler
        blocks += [*level.resnets, *([change] if isinstance(change, Residual) else [])]
    return [block.time_emb_proj for block in blocks]
