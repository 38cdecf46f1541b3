"""Blocks of fine heads with what is coarse in them: what a stage of a cascade trains on.

The intensities of a stage are those of the base generator, whose heads are scaled by percentiles of coarse voxels: each fine
head is scaled so that the means over `BASE_MM` have their 0.1 and 99.9 percentiles at -1 and 1. Bright voxels that are
smaller than that lie above 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from radiata_core.errors import InputError
from radiata_core.refinement import Refinement, box_mean, residual
from radiata_core.seeds import generator_of
from radiata_imaging.store import Store, decode

__all__ = ["BASE_MM", "FineBlocks", "residual_rms"]

BASE_MM = 4.0
"""Voxels whose percentiles set the scale of intensities: those of the base generators."""

_AIR = -0.9
_PERCENTILES = (0.1, 99.9)


class FineBlocks(Dataset):
    """Items of a random block: {"image": r, "coarse", "covariates": the corruption told, "coordinates" where placed}.

    Shapes `(factor^3, *block)`, `(1, *block)`, `(1,)` and `(3, *block)`; blocks are counted in coarse voxels. Heads are kept in
    memory at the spacing of the stage, 2 bytes a voxel. A block is centred near a voxel of the head, not of the air.

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
        rows = store.indices(split)
        ratio = spacing / store.spec.spacing
        pool, to_base = round(ratio), round(BASE_MM / spacing)
        if len(rows) == 0 or pool < 1 or abs(ratio - pool) > 1e-3 or abs(to_base * spacing - BASE_MM) > 1e-3:
            raise InputError(
                f"expected heads at {spacing:g} mm, at most {BASE_MM:g} mm, or a whole fraction of it, in a split that is not empty; got "
                f"{store.spec.spacing:g} mm and {len(rows)} heads of {split}. Make the store with --spacing {spacing:g}."
            )
        self.people = [str(store.subjects[i]) for i in rows]
        self.heads, self.scales, self.centres = [], [], []
        for row in rows:
            head = torch.from_numpy(decode(store.images[int(row)]))[None, None]
            head = box_mean(head, pool) if pool > 1 else head
            base = box_mean(head, to_base)[0, 0].numpy()
            low, high = np.percentile(base, _PERCENTILES)
            scale, offset = 2.0 / max(float(high - low), 1e-6), float(low)
            self.heads.append(head[0, 0].to(torch.float16))
            self.scales.append((scale, -1.0 - scale * offset))
            where = np.argwhere(scale * (base - offset) - 1.0 > _AIR) * to_base // self.factor
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
        coarse, fine = self._with_margin(position, start)
        sd = self.stage.corruption * float(torch.rand((), generator=generator))
        if sd > 0:
            coarse = coarse + sd * torch.randn(coarse.shape, generator=generator)
        folded = residual(fine, coarse, self.factor, self.stage.scale)
        inside = tuple(slice(1, 1 + n) for n in self.block)
        item: dict[str, Any] = {"image": folded[0][:, *inside], "coarse": coarse[0][:, *inside]}
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

    def _with_margin(self, position: int, start: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Coarse and fine block with one coarse voxel more on each side, where linear interpolation looks."""
        head = self.heads[position]
        for axis, (a, n, whole) in enumerate(zip(start, self.block, self.grid, strict=True)):
            index = torch.arange(self.factor * (a - 1), self.factor * (a + n + 1))
            head = head.index_select(axis, index.clamp(0, self.factor * whole - 1))
        scale, offset = self.scales[position]
        fine = head.float()[None, None] * scale + offset
        return box_mean(fine, self.factor), fine


def residual_rms(blocks: FineBlocks, number: int = 32) -> float:
    """Rms of the residual over some blocks, in units of intensity: the scale of a stage, where that of `blocks` is 1."""
    items = [blocks.augmented(i % len(blocks), i)["image"] for i in range(number)]
    return float(torch.stack(items).square().mean().sqrt()) * blocks.stage.scale
