"""Which trials validate, which test, and which neurons are held out: by chance, by a seed, on a population.

    by = "trial"      single trials, anywhere in the recording
    by = "condition"  whole conditions: a model has to know the dynamics, not the trajectories
    by = "block"      stretches of neighbouring trials: for windows that touch or overlap, whose neighbours tell on them

A split of single trials leaks wherever trials share a condition or time; the word is kept in the attribute `split_by`.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_latents.data.population import check_population

__all__ = ["SplitBy", "resplit", "with_heldout"]

_SPLIT, _HOLD = 11, 12
BLOCKS = 20
"""Stretches that a recording is cut into; 5 % of it each."""


class SplitBy(StrEnum):
    """What stays together."""

    TRIAL = "trial"
    CONDITION = "condition"
    BLOCK = "block"


def resplit(
    population: xr.Dataset,
    by: SplitBy | str = SplitBy.TRIAL,
    *,
    validation: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
) -> xr.Dataset:
    """The population with another split.

    Args:
        population: See `data.population`.
        by: What stays together.
        validation: Share of trials, conditions or blocks, in [0, 1).
        test: Likewise; what is left trains.
        seed: Of the choice.

    Raises:
        InputError: shares out of range or that leave a part empty, conditions that the population does not have.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise InputError(
            f"expected shares >= 0 whose sum is below 1; got validation {validation:g} and test {test:g}. Lower one."
        )
    groups = _groups(population, SplitBy(by))
    labels = np.unique(groups)
    counts = [round(share * len(labels)) for share in (test, validation)]
    empty = [name for name, share, n in zip(("test", "validation"), (test, validation), counts, strict=True)
             if share > 0 and n == 0]  # fmt: skip
    if empty or sum(counts) >= len(labels):
        raise InputError(
            f"expected at least one {by} in every part; there are {len(labels)}, too few for validation {validation:g} "
            f"and test {test:g}. Change the shares, or --split-by."
        )
    order = rng_of(seed, _SPLIT).permutation(labels)
    split = np.full(len(groups), "train", dtype="<U10")
    split[np.isin(groups, order[: counts[0]])] = "test"
    split[np.isin(groups, order[counts[0] : sum(counts)])] = "validation"
    return population.assign_coords(split=("trial", split)).assign_attrs(split_by=str(SplitBy(by)))


def _groups(population: xr.Dataset, by: SplitBy) -> np.ndarray:
    """Number of the group that each trial belongs to."""
    trials = population.sizes["trial"]
    if by is SplitBy.CONDITION:
        conditions = population["condition"].values
        if (conditions < 0).any():
            raise InputError(
                f"expected a condition a trial; {int((conditions < 0).sum())} of {trials} have none. Name --condition, or "
                "split by trial or block."
            )
        return conditions
    if by is SplitBy.BLOCK:
        return np.arange(trials) * min(BLOCKS, trials) // trials
    return np.arange(trials)


def with_heldout(population: xr.Dataset, holdout: float | Sequence[str], seed: int = 0) -> xr.Dataset:
    """The population with other neurons held out.

    Args:
        population: See `data.population`.
        holdout: Share of the neurons, in (0, 1), chosen by the seed; or their names.
        seed: Of the choice.

    Raises:
        InputError: a share that holds out none, or too many; names that the population does not have.
    """
    names = population["neuron"].values
    if isinstance(holdout, int | float):
        count = round(float(holdout) * len(names))
        if not 0 < holdout < 1 or count == 0:
            raise InputError(
                f"expected a share in (0, 1) that holds out a neuron of {len(names)}; got {holdout:g}. Change --holdout."
            )
        chosen = names[rng_of(seed, _HOLD).permutation(len(names))[:count]]
    else:
        unknown = sorted(set(holdout) - set(names.tolist()))
        if unknown:
            raise InputError(
                f"expected names of neurons; got {', '.join(unknown[:5])}. There are {', '.join(names[:8])}"
                f"{' …' if len(names) > 8 else ''}. Change --holdout."
            )
        chosen = np.asarray(list(holdout), dtype=str)
    return check_population(population.assign_coords(heldout=("neuron", np.isin(names, chosen))))
