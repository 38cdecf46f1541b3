"""The figure of docs/backbones.md: places, what windows save, and why large patches should say x_0.

python docs/scripts/backbones.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from radiata_core.nets.patches import fold
from radiata_core.nets.rotary import rotated, rotation_at
from radiata_core.nets.transformer import Transformer
from radiata_core.nets.transformer_cost import cost_of

DOCS = Path(__file__).resolve().parents[1]
GRID = (192, 224, 192)
WIDTH = 384


def logit_of_distance(axis: plt.Axes) -> None:
    """The logit of two tokens alike, by their distance along one axis of three (heads of 64), for two ranges."""
    distance = torch.linspace(0, 40, 401, dtype=torch.float64)
    q = torch.ones(1, 1, 1, 64, dtype=torch.float64)
    for theta, style in ((100.0, "-"), (10_000.0, "--")):
        places = torch.zeros(1, 401, 3, dtype=torch.float64)
        places[..., 2] = distance
        k = rotated(q.expand(1, 1, 401, 64), rotation_at(places, 64, theta, torch.float64))
        axis.plot(distance, (q * k).mean(-1)[0, 0], style, lw=1.2, label=f"θ = {theta:g}")
    axis.set(xlabel="distance along one axis (units: patches of training)", ylabel="logit / logit at 0")
    axis.set_title("one token sees its like")
    axis.legend(fontsize=8, frameon=False)


def cost_of_heads(axis: plt.Axes) -> None:
    """Operations of one evaluation of a head of 1 mm, by patch, for global attention and windows."""
    print(f"one evaluation at {'x'.join(map(str, GRID))}, width {WIDTH}, depth 12, 6 heads of 64")
    print("patch  option                tokens  million weights     GFLOP  of which attention")
    options: dict[str, dict[str, object]] = {
        "global, no long skips": {"skips": False},
        "global": {},
        "global, adaLN-single": {"shared_modulation": True},
        "WWWG, 6 x 7 x 6": {"windows": "WWWG", "window": (6, 7, 6)},
        "W, 6 x 7 x 6": {"windows": "W", "window": (6, 7, 6)},
    }
    lines: dict[str, list[float]] = {name: [] for name in options}
    patches = (16, 8, 4)
    for patch in patches:
        for name, chosen in options.items():
            with torch.device("meta"):
                network = Transformer(dims=3, patch=patch, depth=12, heads=6, head=64, **chosen)
                cost = cost_of(network, GRID)
            lines[name].append(cost.flops / 1e9)
            print(
                f"{patch:5d}  {name:21s} {cost.tokens:6d} {cost.parameters / 1e6:16.1f} {cost.flops / 1e9:9.0f}"
                f" {cost.attention_flops / 1e9:9.0f}"
            )
    for name, style in (("global", "o-"), ("WWWG, 6 x 7 x 6", "s--"), ("W, 6 x 7 x 6", "^:")):
        axis.plot(patches, lines[name], style, lw=1.2, ms=4, label=name.replace(" x ", "×"))
    axis.set(
        xscale="log", yscale="log", xlabel="edge of a patch (voxels of 1 mm)", ylabel="GFLOP an evaluation"
    )
    axis.set_xticks(patches, [f"{p}\n{np.prod([n // p for n in GRID])} tokens" for p in patches])
    axis.minorticks_off()
    axis.invert_xaxis()
    axis.set_title("a head of 192×224×192, width 384, depth 12")
    axis.legend(fontsize=8, frameon=False)


def what_fits(axis: plt.Axes) -> None:
    """Share of the variance of 8^3 patches that the best c channels hold: of the image, and of the noise."""
    from nilearn.datasets import load_mni152_template

    image = torch.from_numpy(load_mni152_template(resolution=1).get_fdata().astype(np.float32))[None, None]
    x, y, z = (n // 8 * 8 for n in image.shape[2:])
    patches = fold(image[..., :x, :y, :z], (8, 8, 8))[0]
    patches = patches[patches.std(1) > 1e-3]
    centred = (patches - patches.mean(0)) / patches.std()
    spectrum = torch.linalg.eigvalsh(centred.T @ centred / len(centred)).flip(0).double()
    left = 1 - spectrum.cumsum(0) / spectrum.sum()
    channels = torch.arange(1, 513)
    axis.plot(channels, left.clamp(min=1e-7), lw=1.2, label="ICBM 152 average T1, 1 mm")
    axis.plot(channels, (1 - channels / 512).clamp(min=1e-7), "--", lw=1.2, label="white noise")
    axis.axvline(WIDTH, color="0.6", lw=0.8)
    axis.set(yscale="log", xlabel="channels", ylabel="variance of 8³ patches left over", ylim=(1e-6, 1.3))
    axis.set_title("what fits through a token")
    axis.legend(fontsize=8, frameon=False)
    for count in (24, 96, WIDTH):
        print(
            f"8^3 patches through {count} channels: {float(left[count - 1]):.1e} of the image's variance is left, "
            f"{1 - count / 512:.2f} of the noise's ({len(patches)} patches)"
        )


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    logit_of_distance(axes[0])
    cost_of_heads(axes[1])
    what_fits(axes[2])
    figure.savefig(DOCS / "images" / "backbones.png", dpi=110)


if __name__ == "__main__":
    main()
