"""Blocks of fine heads with what is coarse in them: what a stage of a cascade trains on.

The intensities of a stage are those of the base generator, whose heads are scaled by percentiles of coarse voxels: each fine
head is scaled so that the means over `BASE_MM` have their 0.1 and 99.9 percentiles at -1 and 1. Bright voxels that are
smaller than that lie above 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from radiata_core.errors import InputError
from radiata_core.nets.unet import space_to_depth
from radiata_core.refinement import Refinement, box_mean, interpolated
from radiata_core.seeds import generator_of
from radiata_imaging.store import Store, decode

__all__ = ["BASE_MM", "FineBlocks", "residual_rms", "scale_of", "scaled_head"]

BASE_MM = 4.0
"""Voxels whose percentiles set the scale of intensities: those of the base generators."""

_AIR = -0.9
_PERCENTILES = (0.1, 99.9)


class FineBlocks(Dataset):
    """Items of a random block: {"image": r, "coarse", "covariates": the corruption told, "coordinates" where placed}.

    Shapes `(factor^3, *block)`, `(1, *block)`, `(1,)` and `(3, *block)`; blocks are counted in coarse voxels. Heads are kept
    in memory at the spacing of the stage, 2 bytes a voxel. A block is centred near a voxel of the head, not of the air.

    Args:
        store: Heads at `spacing` or a whole fraction of it.
        split: Which part.
        stage: What is trained: its factor, scale, corruption and whether it is told places.
        spacing: Of the fine grid, mm.
        block: Coarse voxels of a block along each axis, no larger than the grid.

    Raises:
        InputError: a store of another spacing, or an empty split.
    """

    def __init__(
        self, store: Store, split: str, stage: Refinement, spacing: float, block: Sequence[int]
    ) -> None:
        self.stage, self.spacing = stage, spacing
        self.factor = stage.factor
        rows, own = store.indices(split), float(store.spec.spacing)
        pool, to_base = round(spacing / own), round(BASE_MM / own)
        fits = pool >= 1 and to_base >= 1 and abs(pool * own - spacing) + abs(to_base * own - BASE_MM) < 1e-3
        if len(rows) == 0 or not fits:
            raise InputError(
                f"expected heads at {min(spacing, BASE_MM):g} mm or a whole fraction of it in the split; got "
                f"{own:g} mm and {len(rows)} heads of {split}. Make the store with --spacing {min(spacing, BASE_MM):g}."
            )
        self.people = [str(store.subjects[i]) for i in rows]
        self.heads, self.scales, self.centres = [], [], []
        for row in rows:
            head = torch.from_numpy(decode(store.images[int(row)]))[None, None]
            scale, offset, air = scale_of(head, to_base)
            self.heads.append((box_mean(head, pool) if pool > 1 else head)[0, 0].to(torch.float16))
            self.scales.append((scale, offset))
            where = np.argwhere(~air) * BASE_MM / (spacing * self.factor)
            self.centres.append(where.astype(np.int16))
        self.grid = tuple(n // self.factor for n in self.heads[0].shape)
        self.block = tuple(min(int(b), n) for b, n in zip(block, self.grid, strict=True))

    def __len__(self) -> int:
        return len(self.heads)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.augmented(position, position)

    def augmented(self, position: int, seed: int) -> dict[str, Tensor]:
        """The item of a head and a seed: a pure function of both."""
        generator = generator_of(seed)
        start = self._start(position, generator)
        fine, coarse, beyond = self._with_margin(position, start)
        sd = self.stage.corruption * float(torch.rand((), generator=generator))
        if sd > 0:
            coarse = coarse + sd * torch.randn(coarse.shape, generator=generator)
        coarse = F.pad(coarse, beyond, mode="replicate")
        inside = tuple(slice(1, 1 + n) for n in self.block)
        within = tuple(slice(self.factor, self.factor * (1 + n)) for n in self.block)
        missed = fine - interpolated(coarse, self.factor)[:, :, *within]
        folded = space_to_depth(missed, self.factor) / self.stage.scale
        item: dict[str, Any] = {"image": folded[0], "coarse": coarse[0][:, *inside]}
        for name, value in self.stage.told(sd, 1).items():
            item[name] = value[0]
        for name, value in self.stage.places(self.grid, self.spacing * self.factor).items():
            item[name] = value[0][
                :, *(slice(a, a + n) for a, n in zip(start, self.block, strict=True))
            ].clone()
        return item

    def _start(self, position: int, generator: torch.Generator) -> list[int]:
        centres = self.centres[position]
        centre = centres[int(torch.randint(len(centres), (), generator=generator))]
        jitter = torch.randint(-4, 5, (3,), generator=generator).tolist()
        return [
            int(np.clip(int(c) + j - n // 2, 0, whole - n))
            for c, j, n, whole in zip(centre, jitter, self.block, self.grid, strict=True)
        ]

    def _with_margin(self, position: int, start: Sequence[int]) -> tuple[Tensor, Tensor, list[int]]:
        """Fine block, coarse block with a voxel more where interpolation looks, and the padding where the grid ends."""
        seen, inner = [], []
        beyond: list[int] = []
        for a, n, whole in zip(start, self.block, self.grid, strict=True):
            low, high = int(a == 0), int(a + n == whole)
            seen.append(slice(self.factor * (a - 1 + low), self.factor * (a + n + 1 - high)))
            inner.append(slice(self.factor * (1 - low), self.factor * (1 - low + n)))
            beyond = [low, high, *beyond]
        scale, offset = self.scales[position]
        head = self.heads[position][tuple(seen)].float()[None, None] * scale + offset
        return head[:, :, *inner], box_mean(head, self.factor), beyond


def scale_of(head: Tensor, to_base: int) -> tuple[float, float, np.ndarray]:
    """Factor and summand that put a head `(1, 1, x, y, z)` on the scale of base heads, and where those are air.

    Args:
        head: Intensities on any scale.
        to_base: Voxels a base voxel along each axis.
    """
    base = (box_mean(head, to_base) if to_base > 1 else head)[0, 0].numpy()
    low, high = np.percentile(base, _PERCENTILES)
    scale = 2.0 / max(float(high - low), 1e-6)
    offset = -1.0 - scale * float(low)
    return scale, offset, scale * base + offset <= _AIR


def scaled_head(store: Store, row: int) -> Tensor:
    """Head `row` of a store, `(1, 1, x, y, z)`, on the scale of base heads: what a cascade's heads are compared with."""
    head = torch.from_numpy(decode(store.images[int(row)]))[None, None]
    scale, offset, _ = scale_of(head, round(BASE_MM / store.spec.spacing))
    return head * scale + offset


def residual_rms(blocks: FineBlocks, number: int = 32) -> float:
    """Rms of the residual over some blocks, in units of intensity: the scale of a stage, where that of `blocks` is 1."""
    items = [blocks.augmented(i % len(blocks), i)["image"] for i in range(number)]
    return float(torch.stack(items).square().mean().sqrt()) * blocks.stage.scale
