"""The figure of docs/latents.md: the shipped network on trajectories of a Lorenz system that it never saw.

python docs/scripts/latents.py
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import NullLocator

from radiata_latents.data.lorenz import lorenz_population, split_conditions
from radiata_latents.data.population import to_hz
from radiata_latents.data.splits import with_heldout
from radiata_latents.data.trials import heldin_first
from radiata_latents.experiment.models import load_network
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.rate_scores import rate_r2

DOCS = Path(__file__).resolve().parents[1]
NEURONS = (22, 25, 28)
"""Three of the seven that are held out."""


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    network: Any = load_network("lorenz").network
    data = with_heldout(split_conditions(lorenz_population(trials=4, seed=0)), 0.25)
    data = data.isel(trial=data["split"].values == "validation")
    order = heldin_first(data)
    counts = data["counts"].values[..., order].astype(np.float32)
    truth = data["rates"].values[..., order]
    seen = torch.from_numpy(counts[..., : network.heldin])
    path = network.path(network.encode(seen))
    rates = network.log_rates(path).exp().numpy()
    time, bin_s, trial = data["time"].values, float(data.attrs["bin_s"]), 0

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=(1.5, 1, 1))
    for row, i in enumerate(NEURONS):
        base = row * 130.0
        axes[0].plot(
            time,
            base + to_hz(truth[trial, :, i], bin_s),
            color="black",
            lw=1.6,
            label="true" if not row else None,
        )
        axes[0].plot(
            time,
            base + to_hz(rates[trial, :, i], bin_s),
            color="#0072B2",
            lw=1.6,
            label="inferred" if not row else None,
        )
        fired = counts[trial, :, i] > 0
        axes[0].plot(time[fired], np.full(fired.sum(), base - 12), "|", color="#777777", ms=6)
    axes[0].set(
        xlabel="time (s)", ylabel="rate (Hz), neurons 130 Hz apart", title="three held-out neurons, one trial"
    )
    axes[0].legend(frameon=False, loc="upper left", ncols=2)
    axes[0].set_ylim(-30, 420)

    logs, exact = np.log(rates), np.log(truth)
    centre = exact.mean((0, 1))
    plane = np.linalg.svd((exact - centre).reshape(-1, exact.shape[2]), full_matrices=False)[2][:2]
    for shown, colour, name in ((exact, "black", "true"), (logs, "#0072B2", "inferred")):
        for k in range(0, 16, 4):
            x, y = ((shown[k] - centre) @ plane.T).T
            axes[1].plot(x, y, color=colour, lw=1.0, alpha=0.8, label=name if k == 0 else None)
    axes[1].set(
        xlabel="first component", ylabel="second component", title="log-rates of all 29, 4 conditions"
    )
    axes[1].legend(frameon=False)

    modes = network.modes()
    axes[2].scatter(modes.frequency_hz, modes.decay_s, color="#D55E00", s=28)
    axes[2].set(xscale="log", yscale="log", xlabel="frequency (Hz)", ylabel="time to fall to 1/e (s)",
                title="normal modes learned")  # fmt: skip
    for axis, ticks in ((axes[2].xaxis, (0.3, 1, 3, 8)), (axes[2].yaxis, (0.1, 1, 10))):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    figure.suptitle(
        "Simulated spikes of a Lorenz system, held-out conditions; the shipped network.", fontsize=10
    )
    target = DOCS / "images" / "latents.png"
    figure.savefig(target, dpi=100)
    heldin = network.heldin
    bits = bits_per_spike(rates[..., heldin:], counts[..., heldin:])
    oracle = bits_per_spike(truth[..., heldin:], counts[..., heldin:])
    print(f"{len(counts)} trials of 13 held-out conditions: R2 of E[count] {rate_r2(truth, rates):.3f}, co-bps {bits:.3f} "
          f"(oracle {oracle:.3f})")  # fmt: skip
    print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
