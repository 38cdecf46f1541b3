"""The figure of docs/search.md: rewards against evaluations. Problems and searches are those of benchmarks/search.py.

python docs/scripts/search.py
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

DOCS = Path(__file__).resolve().parents[1]
NAMES = {
    "best_of_n": "best of n",
    "search_over_paths": "search over paths",
    "svdd": "SVDD",
    "code": "CoDe",
    "smc": "SMC",
    "rbf": "rollover",
}
COLOURS = dict(zip(NAMES, plt.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
PANELS = [("", 8, "near, 8-D"), ("", 32, "near, 32-D"), ("_linear", 8, "linear, 8-D")]
SEEDS = range(24)


def benchmark() -> ModuleType:
    """benchmarks/search.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark", DOCS.parent / "benchmarks" / "search.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    torch.set_num_threads(1)
    searched = benchmark().searched
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained")
    for axis, (setting, size, title) in zip(axes, PANELS, strict=True):
        print(title)
        for name, label in NAMES.items():
            found = searched(name, setting, size, 0, SEEDS)
            trace = found.trace
            # Draws and proposals come one by one: the record so far. Elsewhere the best of each step.
            curve = (trace.best if name in ("best_of_n", "rbf") else trace.reward).mean(1)
            mean, half = found.reward.mean(), 1.96 * found.reward.std() / len(SEEDS) ** 0.5
            axis.plot(trace.evaluations, curve, color=COLOURS[name], lw=1.4, label=label)
            axis.errorbar(510, mean, half, color=COLOURS[name], marker="o", ms=4, capsize=2, clip_on=False)
            print(f"{label:>18} {mean:7.3f} ± {half:.3f}  ({found.evaluations} evaluations)")
            if name == "rbf":
                arrived = (trace.step == trace.step.max()).int().argmax(0)
                print(f"{'':>18} at the last choice after {trace.evaluations[arrived].double().mean():.0f}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("evaluations of the denoiser, per result")
        axis.set_xlim(0, 520)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("reward of E[x₀ | x_t], mean of 24 seeds\n(units of the data)")
    axes[0].legend(fontsize=7, frameon=False, loc="lower right")
    path = DOCS / "images" / "search.png"
    figure.savefig(path, dpi=110)
    print(f"written to {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
