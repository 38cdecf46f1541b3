"""Trials for networks: held-in neurons first, every count where it belongs, the same batches for the same seed."""

import numpy as np
import pytest
import torch
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import population
from radiata_latents.data.trials import TrialCounts, heldin_first, loader


@pytest.fixture
def made(rng: np.random.Generator) -> xr.Dataset:
    counts = rng.poisson(2.0, (9, 6, 5)).astype(float)
    counts[3, 4:] = np.nan
    return population(
        counts,
        0.02,
        heldout=np.array([True, False, False, True, False]),
        split=["train", "train", "validation"] * 3,
    )


def test_heldin_neurons_come_first_each_group_in_its_order(made: xr.Dataset) -> None:
    order = heldin_first(made)
    np.testing.assert_array_equal(order, [1, 2, 4, 0, 3])
    back = np.argsort(order)
    np.testing.assert_array_equal(made["neuron"].values[order][back], made["neuron"].values)


def test_items_are_the_populations_counts(made: xr.Dataset) -> None:
    items = TrialCounts(made, ("train",))
    assert len(items) == 6
    np.testing.assert_array_equal(items.trials, [0, 1, 3, 4, 6, 7])
    for index, trial in enumerate(items.trials):
        item = items[index]
        assert item["image"].dtype == torch.float32 and item["observed"].dtype == torch.bool
        for place, neuron in enumerate([1, 2, 4, 0, 3]):
            np.testing.assert_array_equal(
                item["image"][:, place].numpy(), made["counts"].values[trial, :, neuron]
            )
        assert torch.equal(items.counts[index], item["image"])
    assert items[2]["observed"].tolist() == [True] * 4 + [False] * 2


def test_counts_beyond_a_byte_are_kept() -> None:
    counts = np.array([[[300, 1]], [[2, 65_535]]])
    assert TrialCounts(population(counts, 0.1)).counts.tolist() == [[[300.0, 1.0]], [[2.0, 65_535.0]]]


def test_batches_hold_every_trial_once_and_depend_on_the_seed(made: xr.Dataset) -> None:
    splits = ("train", "validation")
    plain = torch.cat([batch["image"] for batch in loader(made, splits, 4)])
    assert torch.equal(plain, TrialCounts(made, splits).counts)
    assert [len(batch["observed"]) for batch in loader(made, splits, 4)] == [4, 4, 1]

    def shuffled(seed: int) -> list[list[float]]:
        batches = loader(made, splits, 4, shuffle=True, seed=seed)
        return [row.flatten().tolist() for batch in batches for row in batch["image"]]

    assert shuffled(1) == shuffled(1) != shuffled(2)
    assert sorted(shuffled(1)) == sorted(row.flatten().tolist() for row in plain)


def test_bad_input(made: xr.Dataset) -> None:
    with pytest.raises(InputError, match="got dev"):
        TrialCounts(made, ("dev",))
    with pytest.raises(InputError, match="has train, validation only"):
        TrialCounts(made, ("test",))
    with pytest.raises(InputError, match="one trial a batch; got 0"):
        loader(made, ("train",), 0)
