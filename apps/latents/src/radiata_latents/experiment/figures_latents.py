"""What a network's latents do: their paths, their frequencies, their potential, what they cost and what drives them.

Paths are drawn in two planes: of the first two principal components, and of the fastest rotation (`model.jpca`). The first
shows where the variance is, the second whether there is rotation in it; how much is said in the panel.

A latent whose KL is near zero says nothing about a trial: its posterior is its prior. Below `model.collapse.ACTIVE` nats
a trial it counts as collapsed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from radiata_core.errors import InputError
from radiata_imaging.plots import COLOURS, NumberedFigure
from radiata_latents.experiment.figures_panels import MODEL, SECOND, dressed, label_colours, panels, stamp
from radiata_latents.model.collapse import ACTIVE, collapse_of
from radiata_latents.model.jpca import Plane, principal_plane, rotation_plane

__all__ = ["drive", "energy_slices", "frequencies", "kl_by_latent", "spectrum_of", "trajectories"]

_SHOWN = 4  # conditions in colour: more hide each other
_SINGLE = 3  # trials of a condition drawn


def trajectories(
    latents: np.ndarray, conditions: np.ndarray, *, bin_s: float, synthetic: bool = False
) -> NumberedFigure:
    """Paths in two planes: averages of up to four conditions (thick, a dot where they start) and single trials (thin).

    The plane of rotation is fitted to the averages of all conditions, each minus their common average, and drawn so; where
    there are fewer than three conditions, trials stand in for them.

    Args:
        latents: (trial, time, latent).
        conditions: (trial,) labels.
        bin_s: Width of a bin, s.
        synthetic: Stamp the figure.

    Raises:
        InputError: latents that cannot be projected.
    """
    conditions = np.asarray(conditions)
    known = np.unique(conditions)
    labelled = len(known) > 2
    groups = known if labelled else np.arange(min(len(latents), 24))
    rows = {int(g): np.flatnonzero(conditions == g) if labelled else np.array([g]) for g in groups}
    averages = np.stack([latents[rows[int(g)]].mean(0) for g in groups])
    turning = rotation_plane(averages, bin_s)
    chosen = [int(g) for g in groups[np.unique(np.linspace(0, len(groups) - 1, _SHOWN).astype(int))]]
    common = averages.mean(0) - averages.mean((0, 1))  # what all conditions do is no rotation of theirs
    shown = ((principal_plane(latents), 0.0, "PC"), (turning, common, "jPC"))
    words = "condition" if labelled else "trial"
    figure, axes = panels("trajectories", 1, 2, (9.4, 4.5), {"of": words, "shown": chosen})
    colours = label_colours(chosen)
    for one, (plane, less, letters) in zip(axes[0], shown, strict=True):
        paths = {g: plane.project(averages[list(groups).index(g)] - less) for g in chosen}
        figure.numbers[letters] = {
            "variance": plane.variance, "axes": plane.axes.tolist(), "paths": {str(g): p.tolist() for g, p in paths.items()},
        }  # fmt: skip
        for g, path in paths.items():
            if labelled:
                for trial in rows[g][:_SINGLE]:
                    one.plot(*plane.project(latents[trial] - less).T, color=colours[g], lw=0.5, alpha=0.35)
            one.plot(*path.T, color=colours[g], lw=1.7, label=f"{words} {g}")
            one.plot(*path[0], "o", color=colours[g], ms=5, mec="white", mew=0.7)
        one.set_aspect("equal", adjustable="datalim")
        across, up = (f"{letters} {k + 1} ({100 * plane.variance[k]:.0f} % of variance)" for k in (0, 1))
        dressed(one, _said(plane), across, up)
    figure.numbers["rotation"] = {"frequency_hz": turning.frequency_hz, "share": turning.share}
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    return stamp(figure, synthetic)


def _said(plane: Plane) -> str:
    if np.isnan(plane.frequency_hz):
        return "Principal components"
    turned = f"R² of a pure rotation over any linear: {plane.share:.2f}"
    return f"Plane of rotation (jPCA): {plane.frequency_hz:.2f} Hz;\n{turned}"


def frequencies(
    frequency_hz: np.ndarray,
    damping: np.ndarray,
    band_hz: tuple[float, float],
    latents: np.ndarray,
    *,
    bin_s: float,
    weight: np.ndarray | None = None,
    synthetic: bool = False,
) -> NumberedFigure:
    """Learned damping against learned frequency, and the power spectrum of the inferred latents.

    Args:
        frequency_hz: (latent,) undamped frequencies.
        damping: (latent,) damping ratios; below 1 an oscillator swings.
        band_hz: Frequencies that could be learned.
        latents: (trial, time, latent) positions.
        bin_s: Width of a bin, s.
        weight: (latent,) area of the dots, e.g. variances; alike by default.
        synthetic: Stamp the figure.

    Raises:
        InputError: another number of latents than of frequencies.
    """
    if latents.shape[2] != len(frequency_hz):
        raise InputError(f"expected positions of {len(frequency_hz)} latents; got {latents.shape[2]}.")
    hz, power = spectrum_of(latents, bin_s)
    numbers = {
        "frequency_hz": frequency_hz.tolist(), "damping": damping.tolist(), "band_hz": list(band_hz),
        "spectrum_hz": hz.tolist(), "power": power.tolist(), "trials": len(latents),
    }  # fmt: skip
    figure, axes = panels("frequencies", 1, 2, (9.4, 3.7), numbers)
    left, right = axes[0]
    left.axvspan(*band_hz, color="#eef3f8", lw=0, zorder=0)
    left.axhline(1, color="#777777", lw=1, ls="--")
    sizes = (
        np.full(len(frequency_hz), 40.0) if weight is None else 15 + 110 * weight / max(weight.max(), 1e-12)
    )
    if weight is not None:
        figure.numbers["weight"] = weight.tolist()
    left.scatter(frequency_hz, damping, s=sizes, color=MODEL, alpha=0.75, lw=0.7, edgecolor="white")
    left.set(xscale="log", yscale="log", xlim=(band_hz[0] * 0.8, band_hz[1] * 1.25))
    left.set_ylim(min(0.1, damping.min() * 0.7), max(2.0, damping.max() * 1.4))
    left.text(
        band_hz[1] * 1.2, 1.04, "above: no swing", fontsize=7.5, color="#555555", ha="right", va="bottom"
    )
    _plain_ticks(left)
    area = "" if weight is None else "; area: variance of the latent"
    dressed(
        left,
        f"{len(damping)} oscillators{area}",
        "frequency (Hz); shaded: what can be learned",
        "damping ratio ζ",
    )
    for column in power.T:
        right.plot(hz, column, color=MODEL, lw=0.6, alpha=0.4)
    right.plot(hz, power.mean(1), color=SECOND, lw=2, label="mean of latents")
    for f in frequency_hz:
        right.plot(
            [f, f], [0.0, 0.035], transform=right.get_xaxis_transform(), color="black", lw=0.9, clip_on=False
        )
    right.set(xscale="log", yscale="log")
    _plain_ticks(right, ("x",))
    dressed(right, f"Spectra of positions, {len(latents)} trials; ticks: learned frequencies", "frequency (Hz)",
            "power (1/Hz)").legend(frameon=False, fontsize=8)  # fmt: skip
    return stamp(figure, synthetic)


def spectrum_of(latents: np.ndarray, bin_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies above zero, Hz, and one-sided power densities (frequency, latent): their sum times df is the variance.

    Trials are centred on their own mean, not tapered: what is slower than a trial is not in it.
    """
    bins = latents.shape[1]
    waves = np.fft.rfft(latents - latents.mean(1, keepdims=True), axis=1)[:, 1:]
    power = (np.abs(waves) ** 2).mean(0) * 2 * bin_s / bins
    if bins % 2 == 0:
        power[-1] /= 2  # Nyquist's frequency has no partner
    return np.fft.rfftfreq(bins, bin_s)[1:], power


def _plain_ticks(axes: Axes, which: Sequence[str] = ("x", "y")) -> None:
    """1, 2, 5, 10 … as plain numbers on a logarithmic axis."""
    for axis in (getattr(axes, f"{letter}axis") for letter in which):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def energy_slices(
    energies: Mapping[tuple[int, int], np.ndarray],
    grid: np.ndarray,
    states: np.ndarray,
    *,
    synthetic: bool = False,
) -> NumberedFigure:
    """Potential energy along pairs of latents, all others at zero, with inferred positions over it.

    Args:
        energies: Pair → (grid, grid) energies in units of the temperature, rows along the first latent.
        grid: (grid,) positions, increasing.
        states: (state, latent) inferred positions; some hundred are drawn.
        synthetic: Stamp the figure.

    Raises:
        InputError: no pair.
    """
    if not energies:
        raise InputError("expected at least one pair of latents; got none.")
    numbers = {"grid": grid.tolist(), "energy": {f"{i},{j}": e.tolist() for (i, j), e in energies.items()}}
    figure, axes = panels(
        "energy slices", 1, len(energies), (3.0 * len(energies) + 1.1, 3.5), numbers, sharey=False
    )
    top = max(1, int(np.ceil(max(np.quantile(e, 0.85) for e in energies.values()))))
    levels = np.linspace(0, top, 2 * top + 1 if top < 10 else 13)
    few = states[np.unique(np.linspace(0, len(states) - 1, 400).astype(int))]
    for one, ((i, j), energy) in zip(axes[0], energies.items(), strict=True):
        filled = one.contourf(grid, grid, energy.T, levels=levels, cmap="cividis", extend="max")
        one.contour(grid, grid, energy.T, levels=levels[::2], colors="white", linewidths=0.5, alpha=0.6)
        one.plot(few[:, i], few[:, j], "o", color="white", ms=2, mec="black", mew=0.25, alpha=0.8)
        one.set(xlim=(grid[0], grid[-1]), ylim=(grid[0], grid[-1]), aspect="equal")
        dressed(one, "", f"position of latent {i}", f"position of latent {j}")
    bar = figure.colorbar(filled, ax=list(axes[0]), pad=0.02, aspect=22)
    bar.set_label("energy U (units of kT)", fontsize=8.5)
    bar.set_ticks(MaxNLocator(8, integer=True).tick_values(0, top))
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(
        f"Potential, other latents at 0; dots: {len(few)} inferred positions", fontsize=9, x=0.01, ha="left"
    )
    return stamp(figure, synthetic)


def kl_by_latent(kl: np.ndarray, *, synthetic: bool = False) -> NumberedFigure:
    """KL of each latent to its prior, nats a trial, mean and 95 % interval of the mean over trials, largest first.

    Args:
        kl: (trial, latent), nats.
        synthetic: Stamp the figure.

    Raises:
        InputError: as `collapse_of`.
    """
    found = collapse_of(kl)
    mean, count = found.kl, len(found.kl)
    half = 1.96 * kl.std(0, ddof=1) / np.sqrt(len(kl)) if len(kl) > 1 else np.zeros(count)
    order = np.argsort(mean)[::-1]
    numbers = {
        "latent": order.tolist(), "kl_nats": mean[order].tolist(), "half_interval": half[order].tolist(),
        "threshold": ACTIVE, "active": found.active, "effective": found.effective, "total_nats": found.total,
        "trials": len(kl),
    }  # fmt: skip
    figure, axes = panels("kl by latent", 1, 1, (7.2, 3.2), numbers)
    one = axes[0, 0]
    for place, k in enumerate(order):
        colour = MODEL if mean[k] >= ACTIVE else SECOND
        one.errorbar(place, max(mean[k], 1e-6), half[k], fmt="o", ms=5, capsize=2, lw=1.2, color=colour)
    one.axhline(ACTIVE, color="black", lw=1, ls="--")
    one.text(count - 0.6, ACTIVE * 1.08, f"collapsed below {ACTIVE:g}", ha="right", va="bottom", fontsize=7.5)
    one.set_yscale("log")
    one.set_ylim(bottom=min(ACTIVE / 3, max(mean.min() / 2, 1e-4)))
    one.set_xticks(range(count), [str(k) for k in order], fontsize=7)
    one.grid(axis="y", alpha=0.25)
    active = f"{found.active} of {count} latents active, {found.effective:.1f} effective"
    title = f"{found.total:.1f} nats a trial; {active}; n = {len(kl)} trials"
    dressed(one, title, "latent, largest KL first", "KL to the prior (nats a trial)")
    return stamp(figure, synthetic)


def drive(
    inferred: np.ndarray,
    times: np.ndarray,
    *,
    labels: Sequence[Any],
    trials: int = 3,
    synthetic: bool = False,
) -> NumberedFigure:
    """Mean of the inferred noise, in standard deviations of the prior: some trials, and its size over time.

    Args:
        inferred: (trial, step, noise): of positions, then of velocities, where both are driven.
        times: (step,) end of each step, s.
        labels: One a trial.
        trials: How many are drawn one by one.
        synthetic: Stamp the figure.
    """
    trials = min(trials, len(inferred))
    size = np.sqrt(np.square(inferred).mean(2))
    low, middle, high = np.quantile(size, [0.05, 0.5, 0.95], axis=0)
    numbers = {"times_s": times.tolist(), "shown": inferred[:trials].tolist(), "trials": len(inferred),
               "rms_5_50_95": [low.tolist(), middle.tolist(), high.tolist()]}  # fmt: skip
    figure, axes = panels("drive", 1, trials + 1, (2.5 * (trials + 1) + 1.2, 3.2), numbers)
    top = float(np.quantile(np.abs(inferred[:trials]), 0.995)) or 1.0
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    edges = (times[0] - half, times[-1] + half, -0.5, inferred.shape[2] - 0.5)
    for k in range(trials):
        image = axes[0, k].imshow(inferred[k].T, aspect="auto", origin="lower", extent=edges, cmap="PuOr_r", vmin=-top,
                                  vmax=top, interpolation="nearest")  # fmt: skip
        dressed(axes[0, k], f"trial {labels[k]}", "time (s)", "noise number" if k == 0 else "")
    bar = figure.colorbar(image, ax=list(axes[0, :trials]), pad=0.02, aspect=22, extend="both")
    bar.set_label("drive (sd of the prior)", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    last = axes[0, -1]
    last.fill_between(times, low, high, color=MODEL, alpha=0.22, lw=0)
    last.plot(times, middle, color=MODEL, lw=1.5)
    last.axhline(1, color=COLOURS[6], lw=1, ls="--")
    last.set_ylim(bottom=0)
    last.text(times[-1], 1.0, "sd of the prior", fontsize=7.5, ha="right", va="bottom")
    dressed(last, f"Size over latents, n = {len(inferred)}", "time (s)", "root mean square; 5–95 % of trials")
    return stamp(figure, synthetic)
