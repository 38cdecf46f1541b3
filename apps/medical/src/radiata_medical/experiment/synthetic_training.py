"""Training on scans that are made as they are needed: the label maps stay on the device, and a row is a person's number.

A data set of people gives each item the number of its head; the objective renders the scans of its rows (`data.synthesis`)
and hands image, contrast and labels to the objective of the task. Rows that stand `together` are slices or parts of one
rendering, drawn from the generator of the first of them: all is a function of the seed and the row's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.structures import CONTRAST, tissue_channels
from radiata_medical.data.synthesis import Head, ScanSpec, head_of, synthesise

__all__ = ["Heads", "OnSyntheticScans", "People", "load_heads"]


@dataclass(frozen=True, eq=False)
class Heads:
    """Label maps on a device.

    Attributes:
        heads: One a case, training ones first.
        people: Whose each is.
        training: How many of them are for training.
    """

    heads: tuple[Head, ...]
    people: tuple[str, ...]
    training: int


def load_heads(store: LabelMaps, device: torch.device | str, images: bool = False) -> Heads:
    """Training and validation cases of a store, on a device (a byte a voxel each; two bytes more with images)."""
    names = [*store.of_split("train"), *store.of_split("validation")]
    heads, people = [], []
    for name in names:
        case = store.read(name)
        heads.append(head_of(case.codes, device, case.image if images else None))
        people.append(case.person)
    return Heads(tuple(heads), tuple(people), len(store.of_split("train")))


class People(torch.utils.data.Dataset):
    """Items {"image": number of the head, (1,)}: of the training heads, or of the validation heads, each `repeats` times."""

    def __init__(self, heads: Heads, split: str, repeats: int = 1) -> None:
        first, last = (0, heads.training) if split == "train" else (heads.training, len(heads.heads))
        self.numbers = [n for n in range(first, last) for _ in range(repeats)]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {"image": torch.tensor([float(self.numbers[item])])}


@dataclass(frozen=True, eq=False)
class OnSyntheticScans:
    """An objective on images, made one on rendered scans.

    Attributes:
        objective: Of the task.
        heads: The people.
        spec: How scans are drawn; a window of `(x, y, 1)` gives slices.
        slices: Whether events are slices `(1, x, y)`; else volumes `(1, x, y, z)`.
        together: Rows that are taken from one rendering; slices lie `gap` apart, parts of a volume side by side.
        gap: Voxels between two slices of a rendering.
        contrast: Whether the objective is told the contrast, as `covariates`.
        contrast_dropout: Probability that all four numbers are hidden, and that each is.
        labels: "none", "structures" or "tissues": what the objective is told as `labels`.
    """

    objective: Any
    heads: Heads
    spec: ScanSpec
    slices: bool
    together: int = 1
    gap: int = 3
    contrast: bool = True
    contrast_dropout: tuple[float, float] = (0.5, 0.15)
    labels: str = "none"

    @property
    def path(self) -> Any:
        return getattr(self.objective, "path", None)

    def __call__(
        self, denoiser: Any, x0: Tensor, generators: Sequence[torch.Generator], **conditions: Any
    ) -> Any:
        """Loss of the rows `x0`, (batch, 1) numbers of heads."""
        images, labels, contrasts = [], [], []
        numbers = x0[:, 0].long().tolist()
        with torch.no_grad(), torch.autocast(x0.device.type, enabled=False):
            for first in range(0, len(numbers), self.together):
                count = min(self.together, len(numbers) - first)
                scan = synthesise(self.heads.heads[numbers[first]], self.drawn, generators[first])
                cut = self._cut(scan.image, count), self._cut(scan.labels, count)
                images.append(cut[0])
                labels.append(cut[1])
                contrasts += [self._told(scan.contrast, generators[first + row]) for row in range(count)]
        image = torch.cat(images)[:, None]
        if self.contrast:
            conditions["covariates"] = torch.stack(contrasts).to(image)
        if self.labels != "none":
            wanted = torch.cat(labels).long()
            if self.labels == "tissues":
                wanted = torch.from_numpy(tissue_channels()).to(wanted)[wanted]
            conditions["labels"] = wanted
        return self.objective(denoiser, image, generators, **conditions)

    @property
    def drawn(self) -> ScanSpec:
        """The window that holds all rows of a rendering."""
        import dataclasses

        x, y, z = self.spec.shape
        depth = 1 + self.gap * (self.together - 1) if self.slices else z * self.together
        return dataclasses.replace(self.spec, shape=(x, y, depth))

    def _cut(self, block: Tensor, count: int) -> Tensor:
        """Rows of a rendering, `(count, x, y)` or `(count, x, y, z)`."""
        if self.slices:
            return block.movedim(-1, 0)[:: self.gap][:count]
        return torch.stack(block.chunk(self.together, -1)[:count])

    def _told(self, contrast: Tensor, generator: torch.Generator) -> Tensor:
        whole, single = self.contrast_dropout
        hidden = torch.rand(len(CONTRAST), generator=generator) < single
        hidden = hidden | (torch.rand((), generator=generator) < whole)
        return contrast.masked_fill(hidden, torch.nan)
