"""The figure of docs/spiking.md: a potential, a quantised activation and its spikes, and the break-even.

OMP_NUM_THREADS=1 python docs/scripts/spiking.py      (seconds)
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import nn

from radiata_core.spiking import IntegrateFire
from radiata_core.spiking_conversion import QuantisedReLU, convert

DOCS = Path(__file__).resolve().parents[1]


def potentials(axis: plt.Axes) -> None:
    """One current, both resets."""
    generator = torch.Generator().manual_seed(4)
    current = (0.2 + 0.5 * torch.rand(24, 1, 1, generator=generator)).double()
    for reset, colour in (("zero", "C0"), ("subtract", "C1")):
        spikes = IntegrateFire(reset=reset)(current).flatten()
        value, trace = 0.0, []
        for i, s in zip(current.flatten().tolist(), spikes.tolist(), strict=True):
            trace.append(value + i)
            value = 0.0 if reset == "zero" and s else value + i - s
        axis.plot(trace, ".-", color=colour, lw=1, label=f"reset {reset}: {int(spikes.sum())} spikes")
    axis.axhline(1.0, color="k", lw=0.8, ls=":")
    axis.set(
        xlabel="step n", ylabel="potential U[n] (units of the current)", title="threshold 1, one current"
    )
    axis.legend(fontsize=7, frameon=False)


def staircase(axis: plt.Axes) -> None:
    """The quantised ReLU and its conversion, on a steady current."""
    x = torch.linspace(-0.5, 1.5, 1001, dtype=torch.float64)[:, None]
    for bits, colour in ((1, "C2"), (2, "C0"), (3, "C1")):
        network = nn.Sequential(QuantisedReLU(bits, 1.0)).double()
        with torch.no_grad():
            axis.plot(x, network(x), color=colour, lw=1, label=f"b = {bits}, T = {2**bits - 1}")
            axis.plot(x[::20], convert(network)(x[::20]), ".", color=colour, ms=4)
    axis.set(xlabel="current x", ylabel="mean output", title="quantised ReLU (lines), spikes (dots)")
    axis.legend(fontsize=7, frameon=False)


def break_even(axis: plt.Axes) -> None:
    """Energy over the twin's, of a layer that reads spikes."""
    rate = torch.linspace(0, 1, 101)
    for steps in (1, 2, 4, 8):
        axis.plot(rate, 0.9 / 4.6 * steps * rate, lw=1.2, label=f"T = {steps}")
    axis.axhline(1.0, color="k", lw=0.8, ls=":")
    axis.set(
        xlabel="firing rate",
        ylabel="energy over its twin's (0.9, 4.6 pJ)",
        title="a layer that reads spikes",
    )
    axis.legend(fontsize=7, frameon=False)


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    potentials(axes[0])
    staircase(axes[1])
    break_even(axes[2])
    figure.savefig(DOCS / "images" / "spiking.png", dpi=100)


if __name__ == "__main__":
    main()
