"""Splits and held-out neurons: what stays together stays together, shares are kept, the seed chooses."""

import numpy as np
import pytest
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import population
from radiata_latents.data.splits import BLOCKS, resplit, with_heldout


@pytest.fixture
def made(rng: np.random.Generator) -> xr.Dataset:
    return population(rng.poisson(3.0, (200, 4, 12)), 0.02, condition=np.repeat(np.arange(10), 20))


@pytest.mark.parametrize("by", ["trial", "condition", "block"])
def test_shares_are_kept_and_groups_stay_together(made: xr.Dataset, by: str) -> None:
    split = resplit(made, by, validation=0.2, test=0.1, seed=3)["split"].values
    assert {word: (split == word).mean() for word in ("train", "validation", "test")} == pytest.approx(
        {"train": 0.7, "validation": 0.2, "test": 0.1}
    )
    if by != "trial":
        groups = made["condition"].values if by == "condition" else np.arange(200) * BLOCKS // 200
        assert all(len(set(split[groups == g])) == 1 for g in np.unique(groups))


def test_the_seed_chooses(made: xr.Dataset) -> None:
    first, same, other = (resplit(made, seed=seed)["split"].values for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert set(resplit(made, validation=0.0)["split"].values) == {"train"}


def test_held_out_by_share_and_by_name(made: xr.Dataset) -> None:
    assert with_heldout(made, 0.25)["heldout"].values.sum() == 3
    chosen = with_heldout(made, ["3", "11"])
    assert chosen["neuron"].values[chosen["heldout"].values].tolist() == ["3", "11"]
    assert (
        with_heldout(made, 0.25, 1)["heldout"].values != with_heldout(made, 0.25, 2)["heldout"].values
    ).any()


def test_bad_input(made: xr.Dataset) -> None:
    for share in (0.0, 1.0, 0.01, -0.2):
        with pytest.raises(InputError, match="holds out a neuron"):
            with_heldout(made, share)
    with pytest.raises(InputError, match="fewer neurons held out"):
        with_heldout(made, 0.5)
    with pytest.raises(InputError, match="got 99"):
        with_heldout(made, ["3", "99"])
    with pytest.raises(InputError, match="sum is below 1"):
        resplit(made, validation=0.6, test=0.4)
    with pytest.raises(InputError, match="there are 10, too few"):
        resplit(made, "condition", validation=0.04)
    with pytest.raises(InputError, match="200 of 200 have none"):
        resplit(made.assign_coords(condition=("trial", np.full(200, -1))), "condition")
