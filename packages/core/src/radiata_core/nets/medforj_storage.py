r"""Maps kept in bfloat16, after a trial on the device: half the memory, and a GPU's fast products.

With `network.storage = torch.bfloat16` a call without gradients goes in slabs whose maps are rounded to bfloat16 when they
are written, and whose convolutions multiply bfloat16 numbers. All else stays in the numbers of the input, float32: moments
(of the rounded map, about their mean), normalisation, SiLU, biases and embedded noise levels, sums with skips, attention,
the first and the last convolution. Statistics in bfloat16 would be lost where the mean is large: at 100 its neighbours are
half a unit apart. (PyTorch's autocast takes the other way, float32 between layers, and saves little memory.)

Rounding to bfloat16 errs by at most 2⁻⁹ of a number, 2⁻⁸ between neighbours. `trial` computes one large convolution and one
residual block, with its normalisations, on random data both ways, and a difference above 8 · 2⁻⁸ of the largest value is a
fault of the library: cuDNN 9.10 gave wrong large convolutions of bfloat16, and PyTorch 2.9 took 3 to 17 times the memory for
them. A device that fails is used in float32, with a warning of one line. Without instructions of its own (AVX-512 BF16, AMX)
a processor is some 60 times *slower* in bfloat16; nothing chooses it unasked, there or elsewhere.

This was tested on a processor only, on small grids; the parts for CUDA never ran.

References:
    https://github.com/pytorch/pytorch/issues/163539 (wrong results)
    https://github.com/pytorch/pytorch/issues/166643 (memory)
    Wu & He, "Group normalization", 2018, https://arxiv.org/abs/1803.08494, eqs. 1, 2 and 7.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from radiata_core.nets.feature_maps import MemoryMap
from radiata_core.nets.medforj_blocks import Recipe, Residual
from radiata_core.nets.medforj_plan import Plan
from radiata_core.nets.medforj_slabs import Run, convolved
from radiata_core.nets.medforj_steps import MapOf, Step

__all__ = ["BOUND", "trial"]

BOUND = 8 * 2.0**-8
"""Largest difference allowed over the largest value: eight distances of neighbours, three times what a processor shows."""


def trial(device: torch.device, dims: int = 3) -> str | None:
    """Why bfloat16 can not be trusted on a device, in a few words; None if it can.

    Args:
        device: Where to compute.
        dims: Axes of the network's grids.
    """
    generator = torch.Generator(device).manual_seed(0)
    large = device.type != "cpu"
    try:
        off = _convolution_error(
            generator, 32 if large else 8, ((64, 224, 192) if large else (8, 8, 8))[:dims]
        )
        if not off <= BOUND:  # not a number is a fault as well
            return f"a convolution differs from float32 by {off:.3g} of its largest value"
        off = _block_error(generator, ((32, 48, 48) if large else (8, 8, 8))[:dims])
        if not off <= BOUND:
            return f"a residual block differs from float32 by {off:.3g} of its largest value"
        if device.type == "cuda":
            more = _memory_ratio(generator, (64, 224, 192)[:dims])
            if more > 2:
                return f"a convolution takes {more:.1f} times the memory of float32"
    except RuntimeError as error:  # no such kernel, or out of memory
        return f"a convolution stopped with {str(error).splitlines()[0]!r}"
    return None


@torch.no_grad()
def _convolution_error(generator: torch.Generator, channels: int, grid: tuple[int, ...]) -> float:
    """Of one convolution of the same rounded numbers: only sums and the result are rounded."""
    slab = _normal(generator, *grid, channels).bfloat16()
    weight = _normal(generator, channels, channels, *[3] * len(grid)).bfloat16()
    want = convolved(slab.float(), weight.float(), None)
    return _apart(convolved(slab, weight, None).float(), want)


@torch.no_grad()
def _block_error(generator: torch.Generator, grid: tuple[int, ...]) -> float:
    """Of a residual block between two maps, in slabs, against the module in float32; the input is not centred."""
    with torch.device("meta"):  # so that building draws from no global random state
        block = Residual(Recipe(len(grid), 4, 1e-6, 8, True, False), 16, 24)
    block.to_empty(device=generator.device)
    for parameter in block.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 10
        parameter.copy_(_normal(generator, *parameter.shape) / math.sqrt(fan))
    for norm in (block.norm1, block.norm2):
        norm.weight.add_(1.0)
    x = (_normal(generator, *grid, 16) + 2).bfloat16()
    signal = _normal(generator, 8)
    want = block(x.float().movedim(-1, 0)[None], signal[None])[0].movedim(0, -1)
    given, made = MapOf(0, 0, 16), MapOf(1, 0, 24)
    step = Step("residual", block, (given,), made)
    run = Run([step], x.float().movedim(-1, 0), signal, Plan(), None, torch.bfloat16)
    run.maps[0] = MemoryMap(x.shape, torch.bfloat16, x.device)
    run.maps[0].write(0, x)
    run.do(step)
    return _apart(run.maps[1].read(0, grid[0]).float(), want)


@torch.no_grad()
def _memory_ratio(generator: torch.Generator, grid: tuple[int, ...]) -> float:
    """Peak memory of a convolution in bfloat16 over float32, besides its operands."""
    used = []
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(grid) - 1]
    for dtype in (torch.float32, torch.bfloat16):
        x = _normal(generator, 1, 32, *grid).to(dtype)
        weight = _normal(generator, 32, 32, *[3] * len(grid)).to(dtype)
        torch.cuda.reset_peak_memory_stats(generator.device)
        before = torch.cuda.memory_allocated(generator.device)
        convolve(x, weight, padding=1)
        used.append(torch.cuda.max_memory_allocated(generator.device) - before)
        del x, weight
    return used[1] / max(used[0], 1)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _apart(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest distance from a channel's mean."""
    centre = want.flatten(0, -2).mean(0)
    return float((got - want).abs().max() / (want - centre).abs().max())
