"""A split of a store as training sees it: heads in [-1, 1], covariates standardised."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from radiata_imaging.store import Store, StoreDataset
from radiata_t1.data.covariates import CovariateScale

__all__ = ["TrainingHeads", "people_of"]


class TrainingHeads(Dataset):
    """Items {"image": (1, x, y, z), "covariates": (K,) standardised, NaN where unknown}.

    Args:
        store: The store.
        split: Which part.
        scale: Scale of the training split's covariates.
        columns: Which of the store's covariates, in the order of `scale`.
        in_memory: Keep the split in memory, 2 bytes a voxel.
        apart: Each covariate is an item (1,) under its own name, as a joint model wants them.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        scale: CovariateScale,
        columns: Sequence[int],
        *,
        in_memory: bool,
        apart: bool = False,
    ) -> None:
        self.heads = StoreDataset(store, split, in_memory=in_memory)
        self.scale, self.columns, self.apart = scale, list(columns), apart

    def __len__(self) -> int:
        return len(self.heads)

    def __getitem__(self, position: int) -> dict[str, Any]:
        item = self.heads[position]
        given = item.pop("covariates", None)
        if given is not None and self.columns:
            row = torch.from_numpy(self.scale.standardise(given[self.columns].numpy()))
            item |= (
                dict(zip(self.scale.names, row[:, None], strict=True)) if self.apart else {"covariates": row}
            )
        return item


def people_of(store: Store, split: str) -> list[int]:
    """The person of each item of a split, as numbers in order of appearance."""
    names = store.subjects[store.indices(split)].tolist()
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return [number[name] for name in names]
