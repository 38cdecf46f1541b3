"""The figure of docs/routing.md: which channels a noise level reads.

python docs/scripts/routing.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from radiata_core.routing import channel_window, random_channels

DOCS = Path(__file__).resolve().parents[1]


def main() -> None:
    level = torch.linspace(0, 1, 300)
    masks = {
        "α = 4 (the default)": channel_window(level, 64),
        "α = 1": channel_window(level, 64, power=1.0),
        "random channels (the control)": random_channels(bins=50)(level, 64),
    }
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained", sharey=True)
    for axis, (name, mask) in zip(axes, masks.items(), strict=True):
        axis.imshow(
            mask.T, origin="lower", aspect="auto", cmap="gray", extent=(0, 1, 0, 64), interpolation="nearest"
        )
        axis.set(title=name, xlabel="noise level (1 is noise)")
        shared = float((mask[0] * mask[-1]).sum() / mask[0].sum())
        print(f"{name}: {int(mask[0].sum())} of 64 channels a level, {len(mask.unique(dim=0))} masks, "
              f"{shared:.0%} of them shared by data and noise")  # fmt: skip
    axes[0].set_ylabel("channel, read where white")
    figure.savefig(DOCS / "images" / "routing.png", dpi=80)


if __name__ == "__main__":
    main()
