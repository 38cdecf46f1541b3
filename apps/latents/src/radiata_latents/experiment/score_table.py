"""One table: models and baselines, scored alike, with 95 % intervals over trials.

| column | what | of which counts or rates |
|---|---|---|
| co_bps | bits a spike (`model.bits`) | held-out neurons, observed window |
| fp_bps | the same | all neurons, forward window |
| heldin_bps | the same | held-in neurons, observed window; only where training hid what it scored (see below) |
| r2_rates | `model.rate_scores` | all neurons, observed window, against the known rates |
| r2_expected, correlation2, log_r2 | the same | against E[count] |
| behaviour_r2 | ridge regression on rates (`model.behaviour_decoding`) | fitted on training trials, observed window |
| psth_r2 | conditions' averages (`model.psth`) | against all trials of each condition; interval over conditions |

Bins that were not observed are never scored, nor are neurons that a benchmark withholds. Bits of *held-in* neurons compare a
model with spikes it was fed: smoothing with a narrow kernel copies them and "beats" the truth. They stand only for networks
trained with coordinated dropout, which never see a count that they are scored on while they learn.

The baselines (`baselines`) are scored by the same function.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.benchmark import PRESETS
from radiata_latents.experiment.behaviour import decode_behaviour
from radiata_latents.model.intervals import Interval
from radiata_latents.model.psth import smoothed_psth
from radiata_latents.model.trial_sums import (
    bits_interval,
    correlation_interval,
    log_r2_interval,
    psth_interval,
    r2_interval,
)

__all__ = ["SCORES", "Scored", "kernel_of", "score_rows", "scored_trials", "withheld"]

SCORES = {
    "co_bps": "co-bps, bits a spike",
    "fp_bps": "fp-bps, bits a spike",
    "heldin_bps": "held-in, bits a spike",
    "r2_rates": "R² of rates",
    "r2_expected": "R² of E[count]",
    "correlation2": "squared correlation",
    "log_r2": "R² of log-rates",
    "behaviour_r2": "behaviour, R²",
    "psth_r2": "PSTH, R²",
}
"""Column → its name and unit."""


class Scored:
    """What is scored of a population: windows, masks, truths, of the trials of one split.

    Args:
        population: Checked.
        split: "train", "validation" or "test".
        kernel_ms: Of histograms; None: the preset's, if the population is of the benchmark.

    Attributes:
        trials: Their numbers in the population.
        heldout: (neuron,) bool.
        observed: (trial, time) bins that count in the observed window.
        window: (time,) bool, the observed window; the others are forward bins.
        counts: (trial, time, neuron), NaN where a bin was not observed.
        why: Column → why nobody has it.

    Raises:
        InputError: a split without two trials.
    """

    def __init__(self, population: xr.Dataset, split: str, kernel_ms: float | None = None) -> None:
        self.population, self.split = population, split
        self.trials = scored_trials(population, split)
        few = population.isel(trial=self.trials)
        self.heldout = population["heldout"].values.astype(bool)
        self.window = ~population["forward"].values.astype(bool)
        seen = few["observed"].values.astype(bool)
        self.observed = seen & self.window
        self.counts = np.where(seen[..., None], few["counts"].values.astype(float), np.nan)
        self.counts[np.ix_(withheld(population)[self.trials], np.ones_like(self.window), self.heldout)] = (
            np.nan
        )
        self.rates = few["rates"].values.astype(float) if "rates" in few else None
        self.expected = few["expected"].values.astype(float) if "expected" in few else self.rates
        self.kernel_ms = kernel_of(population) if kernel_ms is None else kernel_ms
        self.condition = few["condition"].values
        self.why = self._missing()

    def _missing(self) -> dict[str, str]:
        why: dict[str, str] = {}
        if not self.heldout.any():
            why["co_bps"] = "the population has no held-out neurons (prepare --holdout)"
        elif not np.nansum(self.counts[:, self.window][..., self.heldout]) > 0:
            why["co_bps"] = f"no held-out neuron fires in the {self.split} trials"
        if self.window.all():
            why["fp_bps"] = "the population has no forward window (prepare --forward)"
        elif not np.nansum(self.counts[:, ~self.window]) > 0:
            why["fp_bps"] = f"nothing fires in the forward window of the {self.split} trials"
        if self.expected is None:
            why |= dict.fromkeys(
                ("r2_rates", "r2_expected", "correlation2", "log_r2"), "the true rates are not known"
            )
        if "behaviour" not in self.population:
            why["behaviour_r2"] = "the population has no behaviour (prepare --behaviour)"
        if not (self.condition >= 0).any():
            why["psth_r2"] = "the population has no conditions"
        elif not self.kernel_ms:
            why["psth_r2"] = "no kernel is given (--kernel-ms)"
        return why


def scored_trials(population: xr.Dataset, split: str) -> np.ndarray:
    """Numbers of the split's trials.

    Raises:
        InputError: fewer than two.
    """
    trials = np.flatnonzero(population["split"].values == split)
    if len(trials) < 2:
        words, sizes = np.unique(population["split"].values, return_counts=True)
        there = ", ".join(f"{size} {word}" for word, size in zip(words, sizes, strict=True))
        raise InputError(
            f"expected two {split} trials or more to score; got {len(trials)} ({there}). Choose another --split, or "
            "prepare with more."
        )
    return trials


def withheld(population: xr.Dataset) -> np.ndarray:
    """(trial,) True where a benchmark keeps the held-out neurons to itself: their counts stand as 0 and mean nothing."""
    if "withheld" not in population.coords:
        return np.zeros(population.sizes["trial"], bool)
    return population["withheld"].values.astype(bool)


def kernel_of(population: xr.Dataset) -> float:
    """Standard deviation of the kernel of histograms, ms: the preset's; 0 where the population is of none."""
    name = str(population.attrs.get("preset", "")).removeprefix("nlb:").split(":")[0]
    return float(PRESETS[name].kernel_ms) if name in PRESETS else 0.0


def score_rows(
    population: xr.Dataset,
    predictions: Mapping[str, np.ndarray],
    split: str,
    rng: np.random.Generator,
    *,
    heldin_scored: Collection[str] = (),
    kernel_ms: float | None = None,
    draws: int = 200,
) -> list[dict[str, Any]]:
    """A row a model: name, then each column of `SCORES` with `_low` and `_high`; None where there is no such score.

    Args:
        population: Checked.
        predictions: Name → rates (trial, time, neuron) of all trials, in the population's order of neurons, expected counts
            a bin; NaN where nothing is predicted (a forward window that a baseline does not have).
        split: Which trials are scored.
        rng: Of the bootstrap; every row is scored on the same draws.
        heldin_scored: Names whose bits of held-in neurons mean something.
        kernel_ms: Of the conditions' histograms; None: the preset's.
        draws: Resamples of trials.

    Raises:
        InputError: rates of another shape, or a split that cannot be scored.
    """
    scored = Scored(population, split, kernel_ms)
    wanted = population["counts"].shape
    seed = int(rng.integers(2**32))
    rows = []
    for name, rates in predictions.items():
        if rates.shape != wanted:
            raise InputError(
                f"expected rates of (trial, time, neuron) {wanted} of {name!r}; got {rates.shape}. Infer all trials."
            )
        row: dict[str, Any] = {"name": name}
        found = _scores(scored, np.asarray(rates, float), name in heldin_scored, seed, draws)
        for column in SCORES:
            interval = found.get(column)
            parts = (None,) * 3 if interval is None else (interval.value, interval.low, interval.high)
            for end, value in zip(("", "_low", "_high"), parts, strict=True):
                row[column + end] = value if value is not None and np.isfinite(value) else None
        rows.append(row)
    return rows


def _scores(
    scored: Scored, rates: np.ndarray, heldin: bool, seed: int, draws: int
) -> dict[str, Interval | None]:
    """Column → score, for those that the population and the prediction allow."""
    mine = rates[scored.trials]
    window, heldout = scored.window, scored.heldout
    found: dict[str, Interval | None] = {}

    def rng() -> np.random.Generator:
        return np.random.default_rng(seed)

    def bits(bins: np.ndarray, neurons: np.ndarray) -> Interval | None:
        r, n = mine[:, bins][..., neurons], scored.counts[:, bins][..., neurons]
        there = np.isfinite(n).any((1, 2))
        r, n = r[there], n[there]
        if len(n) < 2 or not np.isfinite(r).all() or not np.nansum(n) > 0:
            return None
        return bits_interval(r, n, rng(), draws)

    if "co_bps" not in scored.why:
        found["co_bps"] = bits(window, heldout)
    if "fp_bps" not in scored.why:
        found["fp_bps"] = bits(~window, np.ones_like(heldout))
    if heldin:
        found["heldin_bps"] = bits(window, ~heldout)
    known = scored.observed
    if not np.isfinite(mine[known]).all():
        return found
    if scored.rates is not None:
        found["r2_rates"] = r2_interval(scored.rates, mine, known, rng(), draws)
    if scored.expected is not None:
        found["r2_expected"] = r2_interval(scored.expected, mine, known, rng(), draws)
        found["correlation2"] = correlation_interval(scored.expected, mine, known, rng(), draws)
        found["log_r2"] = log_r2_interval(scored.expected, mine, known, rng(), draws)
    if "behaviour_r2" not in scored.why:
        found["behaviour_r2"] = _behaviour(scored, rates, rng(), draws)
    if "psth_r2" not in scored.why:
        found["psth_r2"] = _psth(scored, mine, rng(), draws)
    return found


def _behaviour(scored: Scored, rates: np.ndarray, rng: np.random.Generator, draws: int) -> Interval | None:
    made = decode_behaviour(scored.population, rates, scored.trials)
    return None if made is None else r2_interval(made.truth, made.found, made.known, rng, draws)


def _psth(scored: Scored, mine: np.ndarray, rng: np.random.Generator, draws: int) -> Interval | None:
    """Averages of the scored trials of each condition against the histogram of all its trials, completely observed ones."""
    cells, window = scored.population, scored.window
    whole = cells["observed"].values[:, window].all(1) & ~withheld(cells)
    labels = np.unique(scored.condition[scored.condition >= 0])
    members = [np.flatnonzero((cells["condition"].values == label) & whole) for label in labels]
    histograms = smoothed_psth(
        cells["counts"].values[:, window],
        members,
        bin_s=float(cells.attrs["bin_s"]),
        kernel_ms=float(scored.kernel_ms),
    )
    there = np.isfinite(histograms).all((1, 2))
    if not there.any():
        return None

    own = [np.flatnonzero(scored.condition == label) for label in labels[there]]
    return psth_interval(histograms[there], mine[:, window], own, rng, draws)
