"""Rates as the Neural Latents Benchmark's file of predictions: which trials and bins go under which key.

    train_rates_*   trials of the split train, and of validation where there is a test split
    eval_rates_*    trials of the split test; where there is none, of validation

each for held-in and held-out neurons in the observed window, `eval_rates_*_forward` in the forward window. Keys and checks
are `data.submission`'s; rates are compared with counts wherever counts are known, so none leaves in Hz.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import plain, read_json
from radiata_latents.data.rates_file import content_sha256
from radiata_latents.data.sidecar import card_of
from radiata_latents.data.submission import group_name, save_submission
from radiata_latents.experiment.score_table import withheld

__all__ = ["Parts", "is_submission_of", "parts_of", "submission_card", "write_submission"]


@dataclass(frozen=True, eq=False)
class Parts:
    """Where each block of a submission is in the population.

    Attributes:
        group: The data set's name in the file.
        trials: "train" and "eval" → numbers of trials.
    """

    group: str
    trials: dict[str, np.ndarray]


def parts_of(population: xr.Dataset, preset: str | None) -> Parts:
    """The blocks of this population.

    Args:
        population: Cut as the benchmark does.
        preset: "nlb:NAME", or None: what the population says of itself.

    Raises:
        InputError: no or an unknown preset, bins that the benchmark has not, no held-out neurons, or no evaluated trials.
    """
    name = (preset or str(population.attrs.get("preset", ""))).removeprefix("nlb:")
    if not name:
        raise InputError("expected the benchmark's data set; got none. Give --preset nlb:mc_maze_small, say.")
    group = group_name(name, round(1000 * float(population.attrs["bin_s"])))
    words = population["split"].values
    evaluated = words == ("test" if (words == "test").any() else "validation")
    if not population["heldout"].any() or not evaluated.any() or evaluated.all():
        raise InputError(
            f"expected held-out neurons, and trials of train and of test or validation; got "
            f"{int(population['heldout'].sum())} held out and {int(evaluated.sum())} of {len(words)} evaluated trials. "
            f"Prepare with --preset nlb:{name}."
        )
    return Parts(group, {"train": np.flatnonzero(~evaluated), "eval": np.flatnonzero(evaluated)})


def write_submission(path: Path, parts: Parts, population: xr.Dataset, rates: xr.Dataset) -> None:
    """Write the file and its card.

    Args:
        path: Ends in .h5.
        parts: From `parts_of`.
        population: Whose counts the unit is checked against.
        rates: Of all its trials.

    Raises:
        InputError: rates in another unit; as `data.submission.save_submission`.
    """
    counts = population["counts"].values.astype(float)
    counts[~population["observed"].values] = np.nan
    heldout, window = population["heldout"].values, ~population["forward"].values
    counts[np.ix_(withheld(population), np.ones_like(window), heldout)] = np.nan
    made, known = {}, {}
    for part, trials in parts.trials.items():
        for word, neurons in (("heldin", ~heldout), ("heldout", heldout)):
            blocks = {f"{part}_rates_{word}": window}
            if part == "eval" and not window.all():
                blocks[f"{part}_rates_{word}_forward"] = ~window
            for key, bins in blocks.items():
                block = np.ix_(trials, bins, neurons)
                made[key] = rates["rates"].values[block]
                if np.isfinite(counts[block]).any():
                    known[key.replace("rates", "spikes")] = counts[block]
    card = submission_card(path, parts, population, rates)
    save_submission(path, {parts.group: made}, {parts.group: known}, card)


def submission_card(
    path: Path, parts: Parts, population: xr.Dataset, rates: xr.Dataset
) -> tuple[Path, Callable[[Path], Any]]:
    """The card of a submission; equal cards are of equal submissions. Arguments as `write_submission`."""
    return card_of(
        path,
        {str(population.attrs.get("source", "population")): content_sha256(population),
         str(rates.attrs["model"]): str(rates.attrs["model_sha256"])},
        Description="Predictions for the Neural Latents Benchmark.",
        Units="expected counts a bin",
        Group=parts.group,
        Passes=int(rates.attrs["passes"]),
        Seed=int(rates.attrs["seed"]),
        Trials={part: len(trials) for part, trials in parts.trials.items()},
    )  # fmt: skip


def is_submission_of(path: Path, parts: Parts, population: xr.Dataset, rates: xr.Dataset) -> bool:
    """Whether that is there already, of this population, this model and these options; arguments as `write_submission`."""
    card, content = submission_card(path, parts, population, rates)
    return path.is_file() and card.is_file() and read_json(card) == plain(content(path))
