"""Which figures a population and its rates are shown by, and what their captions say.

    pictures_of(population, rates)            counts, rates, rates against the truth
    pictures_of_forecast(population, rates)   what was seen, what is forecast, what came

A `Picture` is a figure with its caption and the name of its files: a page embeds it, a command saves it with its numbers.
What latents are shown by stands in `latent_pictures`.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.files import atomic_path, plain, read_json
from radiata_imaging.plots import NumberedFigure, png
from radiata_latents.experiment import figures_population
from radiata_latents.model.rate_scores import rate_r2

__all__ = [
    "Picture",
    "is_synthetic",
    "named",
    "pictures_of",
    "pictures_of_forecast",
    "splits_of",
    "spread_trials",
    "true_counts",
]

_TRIALS = 3
_NEURONS = (2, 2)  # held in and held out


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, the stem of its files, and the sentence under it."""

    name: str
    figure: NumberedFigure
    caption: str

    @cached_property
    def png(self) -> bytes:
        """Drawn once: the layout takes longer than all that is drawn."""
        return png(self.figure)

    def save(self, folder: Path) -> Path:
        """Write the numbers it shows, NAME.json, and NAME.png, atomically; returns the second."""
        path = folder / f"{self.name}.png"
        numbers = plain(self.figure.numbers)
        with atomic_path(path, (path.with_suffix(".json"), lambda _: numbers)) as part:
            part.write_bytes(self.png)
        return path

    def in_the_way(self, folder: Path) -> Path | None:
        """What `save` would replace, if it shows other numbers: the same are of a command that was killed."""
        path = folder / f"{self.name}.png"
        if not path.exists():
            return None
        card = path.with_suffix(".json")
        return None if card.is_file() and read_json(card) == plain(self.figure.numbers) else path


def is_synthetic(dataset: xr.Dataset) -> bool:
    """Whether a population, or rates of one, were simulated: its source says so, or it knows E[count]."""
    said = str(dataset.attrs.get("source", "")).startswith("synthetic") or bool(
        dataset.attrs.get("synthetic", 0)
    )
    return said or "expected" in dataset


def pictures_of(population: xr.Dataset, rates: xr.Dataset) -> list[Picture]:
    """Counts and rates of some trials, rates with their band against the truth, and all bins against it.

    Args:
        population: Whose trials the rates are of.
        rates: Of `data.rates_file`, some trials or all.
    """
    few = population.isel(trial=rates["trial"].values)
    synthetic, bin_s = is_synthetic(population), float(population.attrs["bin_s"])
    chosen = spread_trials(few)
    labels = [_label(few, rates, k) for k in chosen]
    heldout, forward = few["heldout"].values, few["forward"].values
    counts, found = few["counts"].values, rates["rates"].values
    common: dict[str, Any] = {"bin_s": bin_s, "labels": labels, "forward": forward, "synthetic": synthetic}
    times = few["time"].values
    kind = named(rates)
    pictures = [
        Picture(
            "counts-and-rates",
            figures_population.counts_and_rates(
                times, counts[chosen], found[chosen], heldout=heldout, **common
            ),
            f"Spike counts and rates of {kind}, {len(chosen)} of {len(few['trial'])} trials ({splits_of(few)}). Neurons "
            f"above the orange line ({int(heldout.sum())} of {len(heldout)}) were never shown to it.",
        )
    ]
    neurons = _neurons(few)
    at = np.ix_(chosen, np.arange(len(times)), neurons)
    truth = true_counts(few)
    sd = rates["rates_sd"].values if "rates_sd" in rates else None
    names = [_name(few, i) for i in neurons]
    draws = int(rates.attrs["passes"])
    band = "no draws, so no band" if sd is None else f"band: 5–95 % over {draws} draws of the posterior"
    pictures.append(
        Picture(
            "rates-against-truth" if truth is not None else "rates-of-neurons",
            figures_population.rates_against_truth(
                times, found[at], names=names, truth=None if truth is None else truth[at],
                band=None if sd is None else figures_population.rate_band(found[at], sd[at]), counts=counts[at], **common,
            ),
            f"Rates of {kind}, {len(chosen)} of {len(few['trial'])} trials ({splits_of(few)}); {band}; dots: spikes.",
        )
    )  # fmt: skip
    if truth is not None:
        shown = heldout if heldout.any() else np.ones_like(heldout)
        what = "held-out" if heldout.any() else "all"
        r2 = rate_r2(truth[..., shown], found[..., shown])
        pictures.append(
            Picture(
                "rates-by-truth",
                figures_population.rates_by_truth(
                    truth[..., shown], found[..., shown], bin_s=bin_s, title=f"{what} neurons", synthetic=synthetic
                ),
                f"Rates of {kind} in every bin of {len(few['trial'])} trials ({splits_of(few)}) and {int(shown.sum())} "
                f"{what} neurons; R² = {r2:.3f}. Points with bars: median and 5–95 % of the model's rate, given the true.",
            )
        )  # fmt: skip
    return pictures


def pictures_of_forecast(population: xr.Dataset, rates: xr.Dataset) -> list[Picture]:
    """Some neurons of some trials: spikes that were seen, the forecast with its quantiles, and what came.

    Args:
        population: Whose trials were forecast.
        rates: Of `forecast`: bins after the observed window, perhaps beyond the population's own.
    """
    few, bin_s = population.isel(trial=rates["trial"].values), float(population.attrs["bin_s"])
    seen = int((~few["forward"].values).sum())
    ahead, known = rates.sizes["time"], few.sizes["time"]
    times = np.concatenate([few["time"].values[:seen], rates["time"].values])
    shown = min(known, seen + ahead)
    chosen, neurons = spread_trials(few), _neurons(few)

    def placed(values: np.ndarray, first: int) -> np.ndarray:
        """Of the trials and neurons shown, in all bins, NaN elsewhere."""
        out = np.full((len(chosen), len(times), len(neurons)), np.nan)
        part = values[np.ix_(chosen, np.arange(min(values.shape[1], len(times) - first)), neurons)]
        out[:, first : first + part.shape[1]] = part
        return out

    truth = true_counts(few)
    quantiles = [placed(rates[name].values, seen) for name in ("rates_low", "rates_high") if name in rates]
    figure = figures_population.rates_against_truth(
        times, placed(rates["rates"].values, seen), bin_s=bin_s, names=[_name(few, i) for i in neurons],
        labels=[_label(few, rates, k) for k in chosen], forward=np.arange(len(times)) >= seen,
        truth=None if truth is None else placed(truth[:, :shown], 0),
        band=(quantiles[0], quantiles[1]) if len(quantiles) == 2 else None,
        counts=placed(few["counts"].values[:, :shown].astype(float), 0), synthetic=is_synthetic(population),
    )  # fmt: skip
    caption = (
        f"Forecast of {named(rates)} from {seen} observed bins for {ahead} more (shaded), {len(chosen)} of "
        f"{len(few['trial'])} trials ({splits_of(few)}); band: 5–95 % over {int(rates.attrs['passes'])} draws of the "
        "dynamics; dots: spikes."
    )
    return [Picture("forecast", figure, caption)]


def spread_trials(dataset: xr.Dataset) -> np.ndarray:
    """Some trials, of different conditions where there are any."""
    labels = dataset["condition"].values
    firsts = np.unique(labels, return_index=True)[1]
    pool = np.sort(firsts) if len(firsts) >= _TRIALS else np.arange(len(labels))
    return pool[np.unique(np.linspace(0, len(pool) - 1, min(_TRIALS, len(pool))).astype(int))]


def _neurons(dataset: xr.Dataset) -> np.ndarray:
    """Two held-in and two held-out neurons, of high and of middling rate."""
    rate = dataset["counts"].values.mean((0, 1))
    heldout = dataset["heldout"].values
    chosen: list[int] = []
    for group, most in zip((np.flatnonzero(~heldout), np.flatnonzero(heldout)), _NEURONS, strict=True):
        ranked = group[np.argsort(-rate[group], kind="stable")]
        chosen += (
            ranked[np.unique(np.linspace(0, len(ranked) // 2, most).astype(int))].tolist()
            if len(ranked)
            else []
        )
    return np.array(chosen)


def true_counts(dataset: xr.Dataset) -> np.ndarray | None:
    """True expected counts of a simulation, None of a recording."""
    for name in ("expected", "rates"):
        if name in dataset and dataset.attrs.get("format", "").startswith("radiata-population"):
            return dataset[name].values
    return None


def _name(dataset: xr.Dataset, neuron: int) -> str:
    held = ",\nheld out" if bool(dataset["heldout"].values[neuron]) else ""
    return f"neuron {dataset['neuron'].values[neuron]}{held}"


def _label(dataset: xr.Dataset, rates: xr.Dataset, row: int) -> str:
    condition = int(dataset["condition"].values[row])
    return f"{int(rates['trial'].values[row])}" + (f", condition {condition}" if condition >= 0 else "")


def splits_of(dataset: xr.Dataset) -> str:
    """The splits that trials are of, in words."""
    return " and ".join(sorted(set(dataset["split"].values.tolist())))


def named(rates: xr.Dataset) -> str:
    """The model that rates are of, in words."""
    return f"the network “{rates.attrs['model']}”"
