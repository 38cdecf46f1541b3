"""What one call of a transformer costs, counted and not run: tokens, weights, floating-point operations.

A multiplication and an addition are two operations; norms, activations and positions are not counted. Layers on tokens
grow with their number N, global attention with N^2, windows of a fixed size with N again: at small patches they decide.

    layers      2 * weights * N           (24 N d^2 a block of width d and MLPs of 4 d)
    attention   4 d * queries * keys      (4 N^2 d a block)

`tests/core/nets/test_transformer_cost.py` holds the numbers against `torch.utils.flop_counter`. On the device "meta" a
network of any size is built in no memory: `with torch.device("meta"): cost_of(Transformer(...), grid)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn

from radiata_core.nets.joint_attention import JointBlock
from radiata_core.nets.patches import ConvStem
from radiata_core.nets.transformer import Transformer

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """The cost of one call.

    Attributes:
        tokens: Tokens of one sample, those of the context apart.
        parameters: Weights of the network.
        flops: Floating-point operations of one forward pass of the batch.
        attention_flops: Those of them that are products of queries with keys and of weights with values.
    """

    tokens: int
    parameters: int
    flops: int
    attention_flops: int


def cost_of(network: Transformer, grid: Sequence[int], batch: int = 1, words: int = 0) -> Cost:
    """Cost of a forward pass at a grid of voxels.

    Args:
        network: The transformer, on any device.
        grid: Voxels along each axis.
        batch: Samples, >= 1.
        words: Context tokens, >= 0.

    Raises:
        InputError: another number of axes than the network's.
    """
    tokens = network.token_grid(grid)
    count = math.prod(tokens)
    attention = sum(
        _attention(network, index, tokens, words if network.embed_context is not None else 0)
        for index in range(len(network.blocks))
    )
    total = batch * attention + batch * _convolutions(network, tokens)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            total += 2 * layer.weight.numel() * batch * _rows(name, count, words)
    return Cost(count, sum(p.numel() for p in network.parameters()), total, batch * attention)


def _rows(name: str, tokens: int, words: int) -> int:
    """How often a linear layer is applied in one sample."""
    first = name.split(".")[0]
    if "modulation" in name or first in ("embed_noise", "embed_destination", "embed_covariates", "shared"):
        return 1 if words or ".context." not in name else 0
    return words if "context" in name else tokens


def _attention(network: Transformer, index: int, grid: tuple[int, ...], words: int) -> int:
    block = cast(JointBlock, network.blocks[index])
    count, place = math.prod(grid), network.layout[index]
    asking = 0 if block.context is None or block.context.ends else words
    if place is None or all(w >= n for w, n in zip(place[0], grid, strict=True)):
        return 4 * network.width * (count + asking) * (count + words)
    window = tuple(min(w, n) for w, n in zip(place[0], grid, strict=True))
    parts, inside = math.prod(-(-n // w) for n, w in zip(grid, window, strict=True)), math.prod(window)
    return 4 * network.width * (parts * inside * (inside + words) + asking * (count + words))


def _convolutions(network: Transformer, tokens: tuple[int, ...]) -> int:
    voxels = [n * p for n, p in zip(tokens, network.patch, strict=True)]
    total = 0
    if network.final_conv is not None:
        total += 2 * cast(nn.Conv3d, network.final_conv).weight.numel() * math.prod(voxels)
    if isinstance(network.embed_patch, ConvStem):
        for layer in network.embed_patch.layers:
            convolution = cast(nn.Conv3d, layer)
            voxels = [n // s for n, s in zip(voxels, convolution.stride, strict=True)]
            total += 2 * convolution.weight.numel() * math.prod(voxels)
    return total
