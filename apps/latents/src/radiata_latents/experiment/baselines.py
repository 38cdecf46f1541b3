"""Rates of the baselines that stand in every table, fitted on the training trials and nothing else.

    mean rate                         each neuron's mean count; the forward window has its own
    smoothing + Poisson regression    `model.smoothing`, its width chosen inside training
    GPFA + Poisson regression         `model.gpfa`
    condition average                 `model.condition_average`; NaN where training has no such condition
    oracle                            E[count] of a simulation

All have the rates of all neurons; smoothing and GPFA see held-in neurons in the observed window, as the networks do, and say
nothing of the forward window (NaN). Trials with unobserved bins are not fitted on; the mean takes their other bins.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.trials import heldin_first
from radiata_latents.experiment.score_table import withheld
from radiata_latents.model.condition_average import fit_condition_average
from radiata_latents.model.gpfa import fit_gpfa_rates
from radiata_latents.model.smoothing import WIDTHS_S, fit_smoothed_rates

__all__ = ["Baselines", "baseline_rates", "fit_baselines"]

LATENTS = 8
"""Of GPFA, where there are that many neurons."""
WIDTH_S = 0.04
"""Standard deviation of the kernel of the condition average, s."""


@dataclass(frozen=True, eq=False)
class Baselines:
    """What was fitted.

    Attributes:
        rates: Name → (trial, time, neuron) in the population's order, NaN where it says nothing.
        left_out: Name → why it is not there.
    """

    rates: dict[str, np.ndarray]
    left_out: dict[str, str]


def baseline_rates(population: xr.Dataset) -> dict[str, np.ndarray]:
    """Name → rates (trial, time, neuron) of all trials, in the population's order of neurons, expected counts a bin."""
    return fit_baselines(population).rates


def fit_baselines(
    population: xr.Dataset, iterations: int = 30, say: Callable[[str], None] | None = None
) -> Baselines:
    """All baselines of a population, and why some are missing.

    Args:
        population: Checked; its training trials are fitted on.
        iterations: Of GPFA's expectation-maximisation, at most.
        say: Told the name of each before it is fitted.

    Raises:
        InputError: there are no training trials without unobserved bins.
    """
    made = _Fit(population, iterations)
    found, left_out = {}, {}
    for name, fit in made.all().items():
        if say is not None:
            say(name)
        try:
            rates = fit()
        except InputError as error:
            left_out[name] = " ".join(str(error).split())
            continue
        if rates is not None:
            found[name] = rates
    return Baselines(found, left_out)


class _Fit:
    """Training counts of a population, and a function a baseline; None where there is no such thing in the population."""

    def __init__(self, population: xr.Dataset, iterations: int) -> None:
        self.population, self.iterations = population, iterations
        self.counts = population["counts"].values.astype(float)
        self.train = population["split"].values == "train"
        self.window = ~population["forward"].values.astype(bool)
        self.observed = population["observed"].values.astype(bool)
        self.order = heldin_first(population)
        self.heldin = int((~population["heldout"]).sum())
        self.whole = self.train & self.observed.all(1) & ~withheld(population)
        if not self.whole.any():
            raise InputError(
                f"expected training trials that were recorded whole; got none of {int(self.train.sum())}. Prepare with "
                "another split or window, or pass --no-baselines."
            )

    def all(self) -> dict[str, Callable[[], np.ndarray | None]]:
        return {
            "mean rate": self.mean,
            "smoothing + Poisson regression": self.smoothing,
            "GPFA + Poisson regression": self.gpfa,
            "condition average": self.condition,
            "oracle": self.oracle,
        }

    def mean(self) -> np.ndarray:
        rates = np.empty(self.counts.shape)
        for bins in (self.window, ~self.window):
            if bins.any():
                seen = self.observed[self.train][:, bins]
                rates[:, bins] = self.counts[self.train][:, bins][seen].mean(0)
        return rates

    def smoothing(self) -> np.ndarray:
        seen, hidden = self._parts(self.whole)
        bin_s = float(self.population.attrs["bin_s"])
        model = fit_smoothed_rates(
            seen, hidden, bin_s=bin_s, widths_s=[w for w in WIDTHS_S if w >= bin_s] or WIDTHS_S
        )
        return self._placed(model.rates(self._parts()[0]))

    def gpfa(self) -> np.ndarray:
        seen, hidden = self._parts(self.whole)
        varies = (
            seen.std((0, 1)) > 0
        )  # a silent neuron has no private variance: it is predicted, not factored
        latents = min(LATENTS, int(varies.sum()) - 1)
        rest = np.concatenate([seen[..., ~varies], *([] if hidden is None else [hidden])], 2)
        model = fit_gpfa_rates(
            seen[..., varies], rest if rest.shape[2] else None, latents=latents, iterations=self.iterations
        )
        first, last = np.flatnonzero(varies), np.flatnonzero(~varies)
        columns = np.concatenate([first, last, np.arange(self.heldin, self.counts.shape[2])])
        return self._placed(model.rates(self._parts()[0][..., varies])[..., np.argsort(columns)])

    def condition(self) -> np.ndarray | None:
        labels = self.population["condition"].values
        known = np.isin(labels, labels[self.whole]) & (labels >= 0)
        if not (known & ~self.train).any():
            return None
        width = WIDTH_S / float(self.population.attrs["bin_s"])
        model = fit_condition_average(self.counts[self.whole], labels[self.whole], width)
        rates = np.full(self.counts.shape, np.nan)
        rates[known] = model.rates(labels[known])
        return rates

    def oracle(self) -> np.ndarray | None:
        known = [name for name in ("expected", "rates") if name in self.population]
        return self.population[known[0]].values.astype(float) if known else None

    def _parts(self, trials: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Held-in and held-out counts in the observed window."""
        counts = (self.counts if trials is None else self.counts[trials])[:, self.window][..., self.order]
        return counts[..., : self.heldin], counts[..., self.heldin :] if self.heldin < counts.shape[
            2
        ] else None

    def _placed(self, rates: np.ndarray) -> np.ndarray:
        """Rates of the observed window, held-in neurons first, in the population's bins and order."""
        found = np.full(self.counts.shape, np.nan)
        found[:, self.window] = rates[..., np.argsort(self.order)]
        return found
