"""Which figures a population and its rates are shown by, and what their captions say.

    pictures_of(population, rates)      counts, rates, rates against the truth
    pictures_of_latents(rates, …)       planes, KL, drive; of a `LangevinFlow` also frequencies and potential

A `Picture` is a figure with its caption and the name of its files: a page embeds it, a command saves it with its numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from radiata_core.runs import atomic_path, write_json
from radiata_imaging.plots import NumberedFigure, png
from radiata_latents.experiment import figures_latents, figures_population
from radiata_latents.model.langevin_flow import LangevinFlow
from radiata_latents.model.rate_scores import rate_r2

__all__ = [
    "Picture",
    "energies_along",
    "is_synthetic",
    "pictures_of",
    "pictures_of_forecast",
    "pictures_of_latents",
    "true_counts",
]

_TRIALS = 3
_NEURONS = (2, 2)  # held in and held out
_GRID = 61


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
        """Write NAME.png and the numbers it shows, NAME.json, atomically; returns the first."""
        path = folder / f"{self.name}.png"
        with atomic_path(path) as part:
            part.write_bytes(self.png)
        write_json(path.with_suffix(".json"), self.figure.numbers)
        return path


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
    chosen = _spread(few)
    labels = [_label(few, rates, k) for k in chosen]
    heldout, forward = few["heldout"].values, few["forward"].values
    counts, found = few["counts"].values, rates["rates"].values
    common: dict[str, Any] = {"bin_s": bin_s, "labels": labels, "forward": forward, "synthetic": synthetic}
    times = few["time"].values
    kind = _kind(rates)
    pictures = [
        Picture(
            "counts-and-rates",
            figures_population.counts_and_rates(
                times, counts[chosen], found[chosen], heldout=heldout, **common
            ),
            f"Spike counts and rates of {kind}, {len(chosen)} of {len(few['trial'])} trials ({_splits(few)}). Neurons above "
            f"the orange line ({int(heldout.sum())} of {len(heldout)}) were never shown to it.",
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
            f"Rates of {kind}, {len(chosen)} of {len(few['trial'])} trials ({_splits(few)}); {band}; dots: spikes.",
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
                f"Rates of {kind} in every bin of {len(few['trial'])} trials ({_splits(few)}) and {int(shown.sum())} {what} "
                f"neurons; R² = {r2:.3f}. Points with bars: median and 5–95 % of the model's rate, given the true one.",
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
    chosen, neurons = _spread(few), _neurons(few)

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
        f"Forecast of {_kind(rates)} from {seen} observed bins for {ahead} more (shaded), {len(chosen)} of "
        f"{len(few['trial'])} trials ({_splits(few)}); band: 5–95 % over {int(rates.attrs['passes'])} draws of the "
        "dynamics; dots: spikes."
    )
    return [Picture("forecast", figure, caption)]


def pictures_of_latents(
    rates: xr.Dataset, network: object | None = None, *, synthetic: bool = False
) -> list[Picture]:
    """What stands in the file of the latents behind its rates; empty for a model without latents.

    Args:
        rates: Of `data.rates_file`.
        network: The model that made them, for its frequencies and its potential, if it has any.
        synthetic: Stamp the figures.
    """
    if "latents" not in rates:
        return []
    states, bin_s = rates["latents"].values.astype(float), float(rates.attrs["bin_s"])
    trials, kind = len(states), _kind(rates)
    pictures = []
    if states.shape[1] > 2 and states.shape[2] > 1 and np.ptp(states) > 0:
        pictures.append(
            Picture(
                "latent-trajectories",
                figures_latents.trajectories(
                    states, rates["condition"].values, bin_s=bin_s, synthetic=synthetic
                ),
                f"Latents of {kind}, {trials} trials ({_splits(rates)}). Thick: averages of conditions, thin: single "
                "trials; a dot where a path starts. The plane of rotation is fitted to averages of all conditions less "
                "their common average; a plane is found in any data, so read how much variance it holds.",
            )
        )
    if isinstance(network, LangevinFlow) and states.shape[2] == 2 * len(network.damping):
        pictures += _of_flow(states[..., : len(network.damping)], network, bin_s, kind, synthetic)
    if "kl" in rates:
        pictures.append(
            Picture(
                "kl-by-latent",
                figures_latents.kl_by_latent(rates["kl"].values, synthetic=synthetic),
                f"What each latent of {kind} says about a trial: KL of posterior to prior, mean and 95 % interval of the "
                f"mean, n = {trials} trials. Orange: collapsed.",
            )
        )
    if "drive" in rates and rates.sizes["step"] > 1:
        few = _spread(rates)
        steps = rates.sizes["step"]
        order = np.concatenate([few, np.setdiff1d(np.arange(trials), few)])
        noise = rates["drive"].values[order].astype(float)
        used = np.abs(noise).max((0, 1)) > 0  # first-order dynamics have no noise of velocities
        labels = [int(rates["trial"].values[k]) for k in order]
        pictures.append(
            Picture(
                "inferred-drive",
                figures_latents.drive(
                    noise[..., used], rates["time"].values[1 : steps + 1], labels=labels, synthetic=synthetic
                ),
                f"Mean of the noise that {kind} infers, in standard deviations of its prior: what its dynamics alone do not "
                f"explain. Right: its size, median and 5–95 % of {trials} trials.",
            )
        )
    return pictures


def _of_flow(
    positions: np.ndarray, network: LangevinFlow, bin_s: float, kind: str, synthetic: bool
) -> list[Picture]:
    """Frequencies and potential of a flow."""
    hz, damping = (value.detach().double().numpy() for value in (network.frequency_hz, network.damping))
    options: Any = network.options
    low, high = map(float, options["band_hz"])
    spread = positions.var((0, 1))
    swings = int((damping < 1).sum())
    pairs = _pairs(spread)
    grid = np.linspace(-1, 1, _GRID) * max(2.0, float(np.quantile(np.abs(positions), 0.999)))
    flat = positions.reshape(-1, positions.shape[2])
    return [
        Picture(
            "frequencies",
            figures_latents.frequencies(
                hz, damping, (low, high), positions, bin_s=bin_s, weight=spread, synthetic=synthetic
            ),
            f"Learned oscillators of {kind}: {swings} of {len(hz)} swing (damping below 1); {low:.2g} to {high:.2g} Hz "
            f"could be learned. Right: power of their inferred positions, n = {len(positions)} trials; what is slower than "
            "a trial is not seen.",
        ),
        Picture(
            "potential",
            figures_latents.energy_slices(
                energies_along(network, pairs, grid), grid, flat, synthetic=synthetic
            ),
            f"Potential of {kind} along {len(pairs)} pairs of neighbours that vary most, with positions of {len(positions)} "
            "trials. Closed contours: the potential is bounded below.",
        ),
    ]


def energies_along(
    network: LangevinFlow, pairs: Sequence[tuple[int, int]], grid: np.ndarray
) -> dict[tuple[int, int], np.ndarray]:
    """Pair → U on (grid, grid) in units of the temperature, all other latents at zero, rows along the first of the pair."""
    first, second = (torch.from_numpy(part.ravel()) for part in np.meshgrid(grid, grid, indexing="ij"))
    found = {}
    for i, j in pairs:
        q = torch.zeros(len(first), len(network.damping), dtype=next(network.parameters()).dtype)
        q[:, i], q[:, j] = first.to(q), second.to(q)
        with torch.no_grad():
            found[i, j] = network.energy(q).double().numpy().reshape(len(grid), len(grid))
    return found


def _pairs(spread: np.ndarray) -> list[tuple[int, int]]:
    """Neighbours on the ring, which the potential couples, three at most, by the variance that both have."""
    count = len(spread)
    ring = sorted(range(count), key=lambda k: -min(spread[k], spread[(k + 1) % count]))
    return [(k, (k + 1) % count) for k in ring[: min(3, count)]]


def _spread(dataset: xr.Dataset) -> np.ndarray:
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


def _splits(dataset: xr.Dataset) -> str:
    return " and ".join(sorted(set(dataset["split"].values.tolist())))


def _kind(rates: xr.Dataset) -> str:
    return f"the network “{rates.attrs['model']}”"
