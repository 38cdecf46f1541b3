r"""What a population did and what a model says of it: counts, rates in Hz, rates against the truth.

Where a model gives draws of its posterior, their spread is shown as the 5–95 % range of a log-normal law with the mean m and
the standard deviation s of the draws, $\exp(\mu \pm 1.645\,\sigma)$ with $\sigma^2 = \log(1 + s^2/m^2)$ and
$\mu = \log m - \sigma^2/2$: read-outs are exponential, and a band of a rate does not go below zero. It is the model's own
belief of the rate, not of spikes, which scatter around it.
"""

from collections.abc import Sequence

import numpy as np

from radiata_core.errors import InputError
from radiata_imaging.plots import NumberedFigure
from radiata_latents.data.population import to_hz
from radiata_latents.experiment.figures_panels import (
    MODEL,
    TRUTH,
    check_alike,
    dressed,
    legend_above,
    panels,
    shade,
    stamp,
)

__all__ = ["counts_and_rates", "rate_band", "rates_against_truth", "rates_by_truth"]

_Z = 1.6448536269514722  # 95 % of a standard normal law


def rate_band(mean: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """5 and 95 % of log-normal laws of this mean and standard deviation, in their unit.

    Args:
        mean: > 0.
        sd: Of the same shape, >= 0.
    """
    mean = np.maximum(np.asarray(mean, float), 1e-12)
    variance = np.log1p(np.square(np.asarray(sd, float) / mean))
    centre, spread = np.log(mean) - variance / 2, _Z * np.sqrt(variance)
    return np.exp(centre - spread), np.exp(centre + spread)


def counts_and_rates(
    times: np.ndarray,
    counts: np.ndarray,
    rates: np.ndarray,
    *,
    bin_s: float,
    labels: Sequence[str],
    heldout: np.ndarray,
    forward: np.ndarray,
    synthetic: bool = False,
) -> NumberedFigure:
    """Spike counts above, a model's rates below, a column a trial; held-in neurons below the line, held-out ones above it.

    Args:
        times: (time,) centres of bins, s.
        counts: (trial, time, neuron) of the trials shown, six at most.
        rates: Expected counts a bin, of the same shape.
        bin_s: Width of a bin, s.
        labels: One a trial.
        heldout: (neuron,) True for those that the model did not see.
        forward: (time,) True for bins that it did not see.
        synthetic: Stamp the figure.

    Raises:
        InputError: shapes that differ.
    """
    check_alike(counts=counts, rates=rates)
    order = np.argsort(np.asarray(heldout, bool), kind="stable")
    heldin = int((~np.asarray(heldout, bool)).sum())
    hz = to_hz(rates, bin_s)
    numbers = {
        "times_s": times,
        "trials": list(labels),
        "order_of_neurons": order,
        "counts": counts,
        "rates_hz": hz,
    }
    columns = len(counts)
    figure, axes = panels("counts and rates", 2, columns, (2.5 * columns + 1.3, 5.4), _plain(numbers),
                          sharex=True, sharey=True)  # fmt: skip
    most = max(2, int(np.quantile(counts, 0.999)))
    top = float(np.quantile(hz, 0.998))
    edges = (times[0] - bin_s / 2, times[-1] + bin_s / 2, -0.5, len(order) - 0.5)
    shown = (("counts", counts, most, "spikes in a bin"), ("rates", hz, top, "rate (Hz)"))
    for row, (what, values, limit, unit) in enumerate(shown):
        for column in range(columns):
            one = axes[row, column]
            image = one.imshow(values[column][:, order].T, aspect="auto", origin="lower", extent=edges, vmin=0, vmax=limit,
                               cmap="Greys" if row == 0 else "viridis", interpolation="nearest")  # fmt: skip
            one.axhline(heldin - 0.5, color="#D55E00", lw=1)
            if np.any(forward):
                one.axvline(times[np.asarray(forward, bool)][0] - bin_s / 2, color="#D55E00", lw=1, ls="--")
            said = f"trial {labels[column]}" if row == 0 else ""
            dressed(one, said, "time (s)" if row else "", f"neuron ({what})" if column == 0 else "")
        bar = figure.colorbar(image, ax=list(axes[row]), extend="max", pad=0.02, aspect=18)
        bar.set_label(unit, fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
        if what == "counts":
            bar.set_ticks(range(most + 1))
    if heldin < len(order):
        axes[0, -1].annotate(
            "held out", (1.0, (heldin + len(order)) / 2 / len(order)), xycoords="axes fraction", xytext=(2, 0),
            textcoords="offset points", rotation=90, va="center", fontsize=7, color="#B04A00",
        )  # fmt: skip
    return stamp(figure, synthetic)


def rates_against_truth(
    times: np.ndarray,
    rates: np.ndarray,
    *,
    bin_s: float,
    names: Sequence[str],
    labels: Sequence[str],
    forward: np.ndarray,
    truth: np.ndarray | None = None,
    band: tuple[np.ndarray, np.ndarray] | None = None,
    counts: np.ndarray | None = None,
    synthetic: bool = False,
) -> NumberedFigure:
    """A row a neuron, a column a trial: the model's rate with its 5–95 % band, the true rate, and bins with spikes.

    What is NaN is not drawn: a forecast has no rate in the bins that it was made from.

    Args:
        times: (time,) centres of bins, s.
        rates: (trial, time, neuron) of what is shown, expected counts a bin.
        bin_s: Width of a bin, s.
        names: One a neuron; say there which ones are held out.
        labels: One a trial.
        forward: (time,) True for bins that the model did not see.
        truth: True E[count], of the shape of the rates; None where nobody knows it.
        band: 5 and 95 % of what the model believes, each of the shape of the rates.
        counts: Spikes; each is a dot above, larger for more.
        synthetic: Stamp the figure.

    Raises:
        InputError: shapes that differ, or no trial.
    """
    low, high = (None, None) if band is None else (to_hz(edge, bin_s) for edge in band)
    given = {"rates": rates, "truth": truth, "low": low, "high": high, "counts": counts}
    check_alike(**{name: array for name, array in given.items() if array is not None})
    if rates.ndim != 3 or 0 in rates.shape:
        raise InputError(
            f"expected rates of (trial, time, neuron); got {rates.shape}. Choose a trial and a neuron."
        )
    trials, _, neurons = rates.shape
    hz = to_hz(rates, bin_s)
    true = None if truth is None else to_hz(truth, bin_s)
    numbers = {"times_s": times, "neurons": list(names), "trials": list(labels), "rates_hz": hz}
    numbers |= {} if low is None else {"band_5_hz": low, "band_95_hz": high}
    numbers |= {} if true is None else {"truth_hz": true}
    figure, axes = panels("rates against truth", neurons, trials, (2.6 * trials + 0.7, 1.35 * neurons + 0.9),
                          _plain(numbers), sharex=True, sharey="row")  # fmt: skip
    for i in range(neurons):
        for j in range(trials):
            one = axes[i, j]
            shade(one, times, np.asarray(forward, bool))
            if low is not None and high is not None:
                one.fill_between(times, low[j, :, i], high[j, :, i], color=MODEL, alpha=0.22, lw=0,
                                 label="its 5–95 % band")  # fmt: skip
            if true is not None:
                one.plot(times, true[j, :, i], color=TRUTH, lw=1.1, label="truth")
            one.plot(times, hz[j, :, i], color=MODEL, lw=1.4, label="model")
            if counts is not None:
                hit = np.nan_to_num(counts[j, :, i]) > 0
                one.scatter(times[hit], np.full(hit.sum(), 0.97), s=7 * counts[j, hit, i], color=TRUTH, alpha=0.5, lw=0,
                            transform=one.get_xaxis_transform(), clip_on=False, label="spikes in a bin")  # fmt: skip
            dressed(one, f"trial {labels[j]}" if i == 0 else "", "time (s)" if i == neurons - 1 else "",
                    f"{names[i]}\n(Hz)" if j == 0 else "")  # fmt: skip
    for row in axes:
        row[0].set_ylim(0, 1.1 * row[0].get_ylim()[1])
    legend_above(figure, axes[0, 0])
    return stamp(figure, synthetic)


def rates_by_truth(
    truth: np.ndarray,
    rates: np.ndarray,
    *,
    bin_s: float,
    least_hz: float = 0.2,
    title: str = "",
    synthetic: bool = False,
) -> NumberedFigure:
    """Density of (true rate, model's rate) over all trials, bins and neurons, both in Hz on a logarithmic scale.

    Args:
        truth: True E[count], any shape.
        rates: Predictions, of the same shape and unit.
        bin_s: Width of a bin, s.
        least_hz: Lower values are drawn as this one, Hz, > 0.
        title: Printed above.
        synthetic: Stamp the figure.

    Raises:
        InputError: shapes that differ.
    """
    check_alike(truth=truth, rates=rates)
    x, y = (np.log10(np.maximum(to_hz(values, bin_s).ravel(), least_hz)) for values in (truth, rates))
    top = float(max(x.max(), y.max())) + 0.05
    edges = np.linspace(np.log10(least_hz), top, 61)
    density, _, _ = np.histogram2d(x, y, edges)
    cell = np.digitize(x, edges)
    medians = [[float(np.median(x[cell == k])), *(float(q) for q in np.quantile(y[cell == k], [0.05, 0.5, 0.95]))]
               for k in range(1, len(edges), 3) if (cell == k).sum() >= 20]  # fmt: skip
    numbers = {
        "edges_hz": 10**edges,
        "bins": density,
        "points": x.size,
        "truth_hz_5_50_95": [[10**v for v in row] for row in medians],
    }
    figure, axes = panels("rates by truth", 1, 1, (4.9, 4.3), _plain(numbers))
    one = axes[0, 0]
    shown = np.where(density > 0, density, np.nan)
    mesh = one.pcolormesh(10**edges, 10**edges, shown.T, norm="log", cmap="cividis", rasterized=True)
    one.plot([least_hz, 10**top], [least_hz, 10**top], color="#D55E00", lw=1.2, label="equal")
    if medians:
        at, low, middle, high = (10**column for column in np.array(medians).T)
        one.errorbar(at, middle, [middle - low, high - middle], fmt="o", ms=3.5, color="black", lw=0.9, mec="white", mew=0.5,
                     label="median, 5–95 %")  # fmt: skip
    one.set(xscale="log", yscale="log", aspect="equal")
    bar = figure.colorbar(mesh, ax=one, shrink=0.85)
    bar.set_label("bins of trials and neurons", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    dressed(one, title, "true rate (Hz)", "model's rate (Hz)").legend(
        frameon=False, fontsize=8, loc="upper left"
    )
    return stamp(figure, synthetic)


def _plain(numbers: dict[str, object]) -> dict[str, object]:
    """Arrays as lists, so that the numbers are ready for JSON."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in numbers.items()
    }
