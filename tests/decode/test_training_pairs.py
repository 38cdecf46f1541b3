"""Pairs for training: the right picture beside each response, the same order from the same generator."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.repeats import Averaged
from radiata_decode.data.stimuli import Stimuli, write_stimuli
from radiata_decode.data.training_pairs import pair_loader, paired


@pytest.fixture
def stimuli(tmp_path: Path, rng: np.random.Generator) -> Stimuli:
    images = np.broadcast_to(np.arange(9, dtype=np.uint8)[:, None, None, None] * 20, (9, 6, 6, 3)).copy()
    return write_stimuli(tmp_path, pd.DataFrame({"stimulus": [f"s{i}" for i in range(9)]}), images=images)


def means(names: list[int]) -> Averaged:
    rows = np.array(names, np.float32)[:, None] * [1.0, 10.0]
    return Averaged([f"s{i}" for i in names], rows.astype(np.float32), np.ones(len(names), int))


@pytest.mark.parametrize("cache", [False, True])
def test_pictures_belong_to_their_responses(stimuli: Stimuli, cache: bool) -> None:
    dataset = paired(means([4, 2, 8, 0, 7]), stimuli, size=4, cache=cache)
    orders = []
    for _ in range(2):
        batches = list(pair_loader(dataset, 2, torch.Generator().manual_seed(3)))
        assert [len(batch["stimulus"]) for batch in batches] == [2, 2, 1]
        for batch in batches:
            assert batch["image"].shape[1:] == (3, 4, 4) and batch["image"].dtype == torch.float32
            torch.testing.assert_close(batch["image"][:, 0, 0, 0] * 255 / 20, batch["response"][:, 0])
        orders.append([name for batch in batches for name in batch["stimulus"]])
    assert orders[0] == orders[1] and sorted(orders[0]) == ["s0", "s2", "s4", "s7", "s8"]


def test_refuses(stimuli: Stimuli, generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="got s11"):
        paired(means([1, 11]), stimuli)
    with pytest.raises(InputError, match="at least one pair a batch; got 0"):
        pair_loader(paired(means([1]), stimuli), 0, generator)
