r"""Where the maps of MedForJ's network are kept, and how thick slabs are, so that a call stays within a limit of memory.

Peak memory is the largest sum, over the steps, of the maps then kept, of the step's own slabs, of input and output. Starting
from all in memory, the map that frees most at the peak is moved: one that can be computed again is (the input's convolution;
doubled maps, from the coarse ones), others go to disk. Slabs become thinner before anything moves. What is left when all has
moved, with slabs of one row, is the least that works: the levels with attention stay whole.

Time is measured on the thinnest grid that the network takes, under the same plan, so that the speed of convolutions, of
memory and of the disk are this machine's; all but attention (below one per cent) and the folding of weights, which a tiny
grid shows, grows with the number of rows.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from radiata_core.errors import InputError
from radiata_core.nets.medforj_steps import Step, grid_of, last_uses, steps_of

if TYPE_CHECKING:
    from radiata_core.nets.medforj import MedForJUNet

__all__ = ["Estimate", "Plan", "estimate", "least_memory", "plan_of", "thickness_of"]

SLAB = 32 * 2**20
"""Bytes of the slabs of a step where memory allows, all together: a last cache, and below what malloc maps anew."""

DEVICE_SLAB = 32 * SLAB
"""The same away from the processor, where a call of a kernel costs more than a miss of the cache; never measured."""


@dataclass(frozen=True)
class Plan:
    """How a call is done.

    Attributes:
        slab: Bytes that the slabs of one step may take together, where one row allows it.
        places: Map number → "disk" or "computed", for those that are not in memory.
        peak: Bytes needed at most, for one sample, besides the network.
    """

    slab: int = SLAB
    places: Mapping[int, str] = field(default_factory=dict)
    peak: int = 0

    def __str__(self) -> str:
        disk = sum(place == "disk" for place in self.places.values())
        again = sum(place == "computed" for place in self.places.values())
        return f"slabs of {self.slab / 2**20:.1f} MiB, {disk} maps on disk, {again} computed again"


@dataclass(frozen=True)
class Estimate:
    """What one call costs: seconds, MiB at most besides the network, and the plan."""

    seconds: float
    mebibytes: float
    plan: Plan

    def __str__(self) -> str:
        return f"about {self.seconds:.0f} s and {self.mebibytes:.0f} MiB an evaluation ({self.plan})"


def _row_bytes(step: Step, plan: Plan, grid: Sequence[int], item: int) -> tuple[int, int]:
    """(bytes a row of the output, bytes besides) of a step's slabs, which are float32 where maps are smaller."""
    item = max(item, 4)
    level = 0 if step.output is None else step.output.level
    area = math.prod(grid_of(grid, level)[1:]) * item
    inputs = sum(needed.channels for needed in step.inputs)
    wide = 8 if step.output is None else step.output.channels
    computed = sum(n.channels for n in step.inputs if plan.places.get(n.number) == "computed")
    disk = sum(n.channels for n in step.inputs if plan.places.get(n.number) == "disk")
    if step.kind == "residual":
        finer = 2 ** len(grid) if step.module.resolution == "down" else 1
        extra = 2 * computed + disk
        row = finer * (inputs + extra) + 3 * wide
        return area * max(row, inputs + extra + 4 * wide), area * (2 * row)
    if step.kind == "double":
        return area * (2 * wide + inputs), area * 2 * wide
    if step.kind == "halve":
        return area * (2 ** len(grid) * 2 * inputs + 3 * wide), area * 2 * inputs
    if step.kind == "stem":
        return area * (3 * wide + 8), area * 2 * wide
    return area * (2 * inputs + computed + wide), area * 4 * inputs


def _slab_bytes(step: Step, plan: Plan, grid: Sequence[int], item: int) -> int:
    if step.kind == "attention":
        level = step.inputs[0]
        return 8 * math.prod(grid_of(grid, level.level)) * level.channels * max(item, 4)
    row, fixed = _row_bytes(step, plan, grid, item)
    return fixed + row * thickness_of(step, plan, grid, item)


def thickness_of(step: Step, plan: Plan, grid: Sequence[int], item: int) -> int:
    """Rows of a step's slabs under a plan, at least one."""
    level = 0 if step.output is None else step.output.level
    row, fixed = _row_bytes(step, plan, grid, item)
    return min(grid_of(grid, level)[0], max(1, (plan.slab - fixed) // row))


def _weight_bytes(step: Step, item: int) -> int:
    """Copies of a step's weights in the convolution's own order; folding a kernel takes four."""
    copies = 4 if step.kind == "double" else 1
    return copies * max(item, 4) * max((p.numel() for p in step.module.parameters()), default=0)


def _peaks(
    steps: Sequence[Step], plan: Plan, grid: Sequence[int], item: int, weights: Sequence[int]
) -> tuple[int, list[int]]:
    """Bytes at the worst step and the maps in memory there."""
    computed = {number for number, place in plan.places.items() if place == "computed"}
    last = last_uses(steps, computed)
    sizes = {
        step.output.number: math.prod(grid_of(grid, step.output.level)) * step.output.channels * item
        for step in steps
        if step.output is not None and step.output.number not in plan.places
    }
    held: list[int] = []
    worst, there = 0, []
    for index, step in enumerate(steps):
        number = None if step.output is None else step.output.number
        if number in sizes and number not in held:
            held.append(number)
        now = sum(sizes[n] for n in held) + _slab_bytes(step, plan, grid, item) + weights[index]
        if now > worst:
            worst, there = now, list(held)
        held = [n for n in held if last[n] > index]
    return worst, there


def plan_of(
    network: "MedForJUNet", grid: Sequence[int], item: int = 4, max_memory: int | None = None
) -> Plan:
    """The fastest plan for one sample within a limit.

    Args:
        network: MedForJ's network.
        grid: Voxels along each axis of its input.
        item: Bytes of a number of a map.
        max_memory: Bytes that a call may take besides the network; None for no limit.

    Raises:
        InputError: a limit below the least that works.
    """
    plan = _smaller(network, grid, item, math.inf if max_memory is None else float(max_memory))
    if max_memory is not None and plan.peak > max_memory:
        raise InputError(
            f"expected at least {math.ceil(plan.peak / 2**20)} MiB for a grid of {'x'.join(map(str, grid))}; got "
            f"{max_memory / 2**20:.1f} MiB. Allow more memory, or take a smaller grid."
        )
    return plan


def least_memory(network: "MedForJUNet", grid: Sequence[int], item: int = 4) -> int:
    """Bytes below which no plan works for one sample: `plan_of` accepts this limit and refuses one byte less."""
    return _smaller(network, grid, item, 0.0).peak


def _smaller(network: "MedForJUNet", grid: Sequence[int], item: int, limit: float) -> Plan:
    """The first plan within the limit, or the smallest of all."""
    steps = steps_of(network)
    weights = [_weight_bytes(step, item) for step in steps]
    makers = {step.output.number: step for step in reversed(steps) if step.output is not None}
    sizes = {
        n: math.prod(grid_of(grid, step.output.level)) * step.output.channels
        for n, step in makers.items()
        if step.output is not None
    }
    ends = max(item, 4) * math.prod(grid) * (network.options["in_channels"] + network.options["out_channels"])
    places: dict[int, str] = {}
    whole = SLAB if network.conv_in.conv.weight.device.type == "cpu" else DEVICE_SLAB
    slab, best = whole, Plan(peak=2**62)
    while True:
        worst, there = _peaks(steps, Plan(slab, places), grid, item, weights)
        best = min(best, Plan(slab, dict(places), worst + ends), key=lambda plan: plan.peak)
        if best.peak <= limit or (slab <= 1 and not there):
            return best
        if slab > whole // 16 or not there:
            slab = slab // 2 if slab > whole // 16 else slab // 8
        else:
            chosen = max(there, key=lambda n: (sizes[n], makers[n].again, -n))
            places[chosen] = "computed" if makers[chosen].again else "disk"


def estimate(
    network: "MedForJUNet",
    grid: Sequence[int],
    batch: int = 1,
    max_memory: int | None = None,
    folder: Path | None = None,
) -> Estimate:
    """Time and memory of one call without gradients, from a short probe of this machine.

    Args:
        network: MedForJ's network.
        grid: Voxels along each axis.
        batch: Samples, which pass one after the other.
        max_memory: Bytes that a call may take besides the network; None for no limit.
        folder: Where maps that do not fit would go.

    Raises:
        InputError: a limit below the least that works.
    """
    weight = network.conv_in.conv.weight
    item = network.maps_dtype(weight).itemsize
    ends = (
        weight.element_size()
        * math.prod(grid)
        * (network.options["in_channels"] + network.options["out_channels"])
    )
    plan = plan_of(network, grid, item, None if max_memory is None else max_memory - (batch - 1) * ends)
    seconds = batch * _seconds(network, plan, tuple(grid), folder)
    return Estimate(seconds, (plan.peak + (batch - 1) * ends) / 2**20, plan)


def _seconds(network: "MedForJUNet", plan: Plan, grid: tuple[int, ...], folder: Path | None) -> float:
    """Seconds for one sample: what grows with the rows, from the thinnest grid, and what does not, from a tiny one."""
    from radiata_core.nets.medforj_slabs import forward_in_slabs

    weight = network.conv_in.conv.weight
    thin = 2 ** (len(network.channels) - 1)
    signal = weight.new_zeros(1, len(network.time_embed[-1].bias))  # type: ignore[arg-type]

    def timed(*sizes: int) -> float:
        x = weight.new_zeros(1, network.options["in_channels"], *sizes)
        start = time.perf_counter()
        forward_in_slabs(network, x, signal, plan, folder, network.maps_dtype(x))
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - start

    tiny = [thin] * len(grid)
    timed(*tiny)  # chooses kernels
    fixed = min(timed(*tiny), timed(*tiny))
    growing = timed(thin, *grid[1:])
    if growing < 2.0:
        growing = min(growing, timed(thin, *grid[1:]))
    return fixed + max(growing - fixed, 0.0) * grid[0] / thin
