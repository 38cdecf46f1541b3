"""Rows of a step: shared without overlap, addressed by their number in the stream, refused where they are no images."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.feeding import AddressedRows, StepBatches, split_batch
from radiata_core.orders import ShuffledOrder, rows_of_process
from radiata_core.seeds import generators_of


def test_processes_share_the_batch_and_no_noise():
    """Two processes of two pieces: every position once, so no two rows of a step draw from one generator."""
    parts = [rows_of_process(8, 2, 2, rank) for rank in (0, 1)]
    assert sorted(p for part in parts for piece in part for p in piece) == list(range(8))
    assert [len(piece) for part in parts for piece in part] == [2, 2, 2, 2]
    draws = [torch.randn(3, generator=g) for part in parts for piece in part for g in generators_of(piece, 1)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 8
    with pytest.raises(InputError, match="multiple of 6"):
        rows_of_process(8, 2, 3, 0)


class Augmented:
    """Items that tell the seed they are augmented with."""

    def __len__(self) -> int:
        return 11

    def augmented(self, item: int, seed: int) -> dict[str, int]:
        return {"item": item, "seed": seed}


def test_a_row_keeps_its_item_and_seed_however_the_batch_is_cut() -> None:
    """One piece of six or three of two, from the start or resumed at step 2: the same (item, seed) for every row."""
    rows = AddressedRows(Augmented(), seed=5)

    def read(first: int, pieces: int) -> list[dict[str, int]]:
        batches = StepBatches(ShuffledOrder(11, 5), range(first, 5), 6, rows_of_process(6, pieces, 1, 0))
        assert len(list(batches)) == len(batches) == (5 - first) * pieces
        return [rows[key] for batch in batches for key in batch]

    whole = read(0, 1)
    assert read(0, 3) == whole
    assert read(2, 2) == whole[12:]
    assert len({row["seed"] for row in whole}) == 30


def test_batches_that_are_no_images_are_refused() -> None:
    cpu = torch.device("cpu")
    image, conditions = split_batch({"image": torch.zeros(2, 1), "age": torch.ones(2)}, cpu)
    assert image.shape == (2, 1)
    assert list(conditions) == ["age"]
    with pytest.raises(InputError, match="expected items with the key 'image'; got"):
        split_batch({"age": torch.ones(2)}, cpu)
    with pytest.raises(InputError, match="expected tensors in every item; 'name' is list"):
        split_batch({"image": torch.zeros(2, 1), "name": ["a", "b"]}, cpu)  # type: ignore[dict-item]
