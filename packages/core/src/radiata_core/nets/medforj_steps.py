"""MedForJ's network as a list of steps on numbered maps, from which running it, planning it and counting it all follow.

A step reads maps and makes one. What a map costs, how long it must be kept and what can be done without it is seen before
anything is computed:

    stem       conv_in of the input; cheap enough to be computed again
    residual   a residual block over one map, or over the running map and a skip that is never joined to it
    attention  in place
    halve      convolution of stride 2
    double     nearest neighbours and convolution, folded (`doubling`); can be computed again from the coarse map
    out        normalisation, SiLU and the last convolution

`medforj_plan` decides where maps are; `medforj_slabs` does the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radiata_core.nets.medforj_blocks import Residual

if TYPE_CHECKING:
    from radiata_core.nets.medforj import MedForJUNet

__all__ = ["MapOf", "Step", "grid_of", "last_uses", "steps_of"]


@dataclass(frozen=True)
class MapOf:
    """A map that a step makes: its number, its level (0 the finest) and its channels."""

    number: int
    level: int
    channels: int


@dataclass(frozen=True, eq=False)
class Step:
    """One step: what is done, by which module, from which maps to which (None: the network's output)."""

    kind: str
    module: Any
    inputs: tuple[MapOf, ...]
    output: MapOf | None

    @property
    def again(self) -> bool:
        """Whether its map can be computed at every reading instead of being kept."""
        return self.kind in ("stem", "double")


def grid_of(grid: Sequence[int], level: int) -> tuple[int, ...]:
    """Voxels along each axis at a level."""
    return tuple(n >> level for n in grid)


def steps_of(network: "MedForJUNet") -> list[Step]:
    """The steps of a network in their order."""
    steps: list[Step] = []

    def make(kind: str, module: Any, inputs: tuple[MapOf, ...], level: int, channels: int) -> MapOf:
        made = MapOf(len(steps), level, channels)
        steps.append(Step(kind, module, inputs, made))
        return made

    def change(module: Any, h: MapOf, by: int) -> MapOf:
        kind = "residual" if isinstance(module, Residual) else ("halve" if by > 0 else "double")
        return make(kind, module, (h,), h.level + by, h.channels)

    def block(level: Any, index: int, inputs: tuple[MapOf, ...]) -> MapOf:
        residual = level.resnets[index]
        made = make("residual", residual, inputs, inputs[0].level, residual.conv2.conv.out_channels)
        if len(level.attentions):
            steps.append(Step("attention", level.attentions[index], (made,), made))
        return made

    h = make("stem", network.conv_in, (), 0, network.channels[0])
    skips = [h]
    downs: Any = network.down_blocks
    for down in downs:
        for index in range(len(down.resnets)):
            h = block(down, index, (h,))
            skips.append(h)
        if down.downsampler is not None:
            h = change(down.downsampler, h, 1)
            skips.append(h)
    middle = network.middle_block
    h = make("residual", middle.resnet_1, (h,), h.level, h.channels)
    steps.append(Step("attention", middle.attention, (h,), h))
    h = make("residual", middle.resnet_2, (h,), h.level, h.channels)
    ups: Any = network.up_blocks
    for up in ups:
        for index in range(len(up.resnets)):
            h = block(up, index, (h, skips.pop()))
        if up.upsampler is not None:
            h = change(up.upsampler, h, -1)
    steps.append(Step("out", network.out, (h,), None))
    return steps


def last_uses(steps: Sequence[Step], computed: set[int]) -> dict[int, int]:
    """Map number → index of the last step that needs it, the maps in `computed` needing what they are computed from."""
    makers = {step.output.number: step for step in steps if step.output is not None}
    last: dict[int, int] = {}

    def use(number: int, index: int) -> None:
        last[number] = max(last.get(number, 0), index)
        if number in computed:
            for needed in makers[number].inputs:
                use(needed.number, index)

    for index, step in enumerate(steps):
        for needed in step.inputs:
            use(needed.number, index)
        if step.output is not None:
            last.setdefault(step.output.number, index)
    return last
