"""What a training step is fed: the items of its rows, each a pure function of the seed and the row's number in the stream.

    order → (item, row) of every step → item → batch → image and conditions

The batch of a process may come in pieces; a row keeps its number however the batch is cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from radiata_core.errors import InputError
from radiata_core.orders import Order, micro_batches
from radiata_core.seeds import seed_of

__all__ = ["DROPOUT", "HIDE", "NOISE", "VALIDATE", "AddressedRows", "StepBatches", "split_batch"]

NOISE, HIDE, DROPOUT, VALIDATE = 1, 2, 3, 4
"""What random numbers are for: part of the key of every generator of a training."""


class AddressedRows(Dataset):
    """A data set addressed by (item, row of the stream).

    A data set whose items are augmented at random offers `augmented(item, seed)`: a pure function keeps resuming exact.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: tuple[int, int]) -> Mapping[str, Any]:
        item, row = key
        if hasattr(self.dataset, "augmented"):
            return self.dataset.augmented(item, seed_of(self.seed, NOISE, row, 0))
        return self.dataset[item]


class StepBatches:
    """The batches of the remaining steps, as DataLoader wants them."""

    def __init__(self, order: Order, steps: range, batch_size: int, positions: Sequence[range]) -> None:
        self.order, self.steps, self.batch_size, self.positions = order, steps, batch_size, positions

    def __iter__(self):
        return micro_batches(self.order, self.steps, self.batch_size, self.positions)

    def __len__(self) -> int:
        return len(self.steps) * len(self.positions)


def split_batch(
    batch: Mapping[str, Any], device: torch.device
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Image (batch, channels, *grid) and conditions (batch, …) of a collated batch, on the device.

    Raises:
        InputError: an entry is no tensor, or there is no "image".
    """
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"expected tensors in every item; {name!r} is {type(value).__name__}. Leave it out."
            )
    if "image" not in batch:
        raise InputError(
            f"expected items with the key 'image'; got {sorted(batch)}. Prepare the store again."
        )
    tensors = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return tensors.pop("image"), tensors
