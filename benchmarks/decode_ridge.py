"""The shared ridge beside scikit-learn's, called once a token as the published decoder does it.

    OMP_NUM_THREADS=1 python benchmarks/decode_ridge.py [--quick] [--json FILE]

Synthetic responses and embedding targets of tokens × 768, float32 files, read a token at a time by both. Both get the same
penalty and predict the same new trials; both are timed in turns in one process, from the files to the last prediction.

loop       `Ridge(alpha).fit` and `predict` for each token, in float64 as published, and in float32.
shared     `SharedRidge` and `StreamedRidge`, float32; also with penalties chosen by leave-one-out error, which the loop
           does not do.
memory     peak of a fresh process for each at 24 tokens, less what it has after imports; the loop keeps its weights in
           float32, as published, or drops them.
operations counted for the size of the Natural Scenes Dataset.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from radiata_decode.model.ridge import SharedRidge
from radiata_decode.model.streamed_ridge import StreamedRidge, ridge_flops

DIMENSIONS = 768


def write_problem(folder: Path, trials: int, voxels: int, new: int, tokens: int, seed: int = 0) -> float:
    """Responses, new responses and targets in `folder`; gives the penalty, the mean eigenvalue of the Gram matrix."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((trials + new, 40), dtype=np.float32)
    x = hidden @ rng.standard_normal((40, voxels), dtype=np.float32) / 6
    x += rng.standard_normal(x.shape, dtype=np.float32)
    np.save(folder / "x.npy", x[:trials])
    np.save(folder / "new.npy", x[trials:])
    for token in range(tokens):
        signal = hidden[:trials] @ rng.standard_normal((40, DIMENSIONS), dtype=np.float32) / 9
        noise = 0.7 * rng.standard_normal(signal.shape, dtype=np.float32)
        np.save(folder / f"token-{token:03}.npy", signal + noise + 0.5)
    return float((x[:trials] ** 2).sum() / trials)


def loop(folder: Path, alpha: float, dtype: type, keep: bool = False) -> np.ndarray:
    """Predictions (new, token, dimension) of scikit-learn, one fit a token."""
    x, new = (np.load(folder / name).astype(dtype) for name in ("x.npy", "new.npy"))
    paths = sorted(folder.glob("token-*.npy"))
    predicted = np.empty((len(new), len(paths), DIMENSIONS), dtype)
    weights = np.zeros((len(paths), DIMENSIONS, x.shape[1]), np.float32) if keep else None
    for token, path in enumerate(paths):
        model = Ridge(alpha=alpha).fit(x, np.load(path).astype(dtype))
        predicted[:, token] = model.predict(new)
        if weights is not None:
            weights[token] = model.coef_
    return predicted


def shared(folder: Path, alpha: float | None) -> np.ndarray:
    """The same of the shared ridge; None chooses the penalty of each token."""
    x, new = np.load(folder / "x.npy"), np.load(folder / "new.npy")
    stream = StreamedRidge(SharedRidge(x), new)
    paths = sorted(folder.glob("token-*.npy"))
    predicted = np.empty((len(new), len(paths), DIMENSIONS), np.float32)
    for token, block in enumerate(stream.predict((np.load(path) for path in paths), alpha)):
        predicted[:, token] = block.values.numpy()
    return predicted


def peak_memory(folder: Path, which: str, alpha: float) -> float:
    """MiB that a fresh process needs beyond its imports."""
    command = [sys.executable, __file__, "--measure", which, "--folder", str(folder), "--alpha", str(alpha)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def measure(folder: Path, which: str, alpha: float) -> float:
    """In that process: the peak of one run, less what is there after imports."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if which == "shared":
        shared(folder, alpha)
    else:
        loop(folder, alpha, np.float64 if "64" in which else np.float32, keep="keep" in which)
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """A number of MiB from this process's own page of Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _seconds(call: Any) -> tuple[float, np.ndarray]:
    """CPU-seconds, which other work on the machine does not change; of one thread they are the clock's."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def operations() -> dict[str, float]:
    """TFLOP at the size of subject 1 of NSD: 257 vision tokens, then with captions and latents too."""
    found = {}
    for name, targets, blocks in (("vision", 257 * 768, 257), ("all", 334 * 768 + 91_168, 335)):
        flops = ridge_flops(8859, 15_724, 982, targets, blocks)
        for way in ("loop", "shared"):
            found[f"{way}_{name}"] = sum(v for k, v in flops.items() if k.startswith(way)) / 1e12
    return found


def ridge_section(
    *,
    trials: int = 1000,
    voxels: int = 2000,
    new: int = 200,
    tokens: int = 48,
    repeats: int = 3,
    quick: bool = False,
) -> dict[str, Any]:
    """All figures of this page.

    Args:
        trials: Training trials.
        voxels: Twice as many, as in NSD.
        new: Trials to predict.
        tokens: Fits of the loop.
        repeats: Timings of each, in turns; medians are told.
        quick: A tenth of the work, to see that it runs.
    """
    if quick:
        trials, voxels, new, tokens, repeats = 300, 600, 50, 6, 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alpha = write_problem(folder, trials, voxels, new, tokens)
        times: dict[str, list[float]] = {"loop64": [], "loop32": [], "shared": [], "shared_loo": []}
        difference = difference32 = 0.0
        for repeat in range(repeats):
            took, expected = _seconds(lambda: loop(folder, alpha, np.float64))
            times["loop64"].append(took)
            if repeat == 0:  # once: the comparison that is published is the other
                took, theirs = _seconds(lambda: loop(folder, alpha, np.float32))
                times["loop32"].append(took)
                difference32 = float(np.abs(theirs - expected).max())
            took, ours = _seconds(lambda: shared(folder, alpha))
            times["shared"].append(took)
            times["shared_loo"].append(_seconds(lambda: shared(folder, None))[0])
            difference = max(difference, float(np.abs(ours - expected).max()))
        median = {key: float(np.median(values)) for key, values in times.items()}
        for path in sorted(folder.glob("token-*.npy"))[24:]:
            path.unlink()  # memory is told of 24 tokens: what a loop drops does not add up
        kinds = ("shared", "loop32", "loop64", "loop64-keep")
        memory = {kind: peak_memory(folder, kind, alpha) for kind in kinds}
    figures = {
        "ridge_speed_ratio": median["loop64"] / median["shared"],
        "ridge_speed_ratio_float32": median["loop32"] / median["shared"],
        "ridge_speed_ratio_loo": median["loop64"] / median["shared_loo"],
        "ridge_max_abs_diff": difference,
        "ridge_max_abs_diff_sklearn_float32": difference32,
        "ridge_memory_ratio": memory["loop64-keep"] / memory["shared"],
        "ridge_memory_ratio_without_weights": memory["loop64"] / memory["shared"],
        "ridge_memory_ratio_float32": memory["loop32"] / memory["shared"],
        "seconds": times,
        "peak_mib": memory,
        "tflop_at_nsd": operations(),
        "size": {"trials": trials, "voxels": voxels, "new": new, "tokens": tokens, "dimensions": DIMENSIONS},
    }
    report(figures)
    return figures


def report(figures: dict[str, Any]) -> None:
    size, flop, memory = figures["size"], figures["tflop_at_nsd"], figures["peak_mib"]
    print(
        f"ridge, {size['trials']} trials × {size['voxels']} voxels, {size['tokens']} tokens of {size['dimensions']}: "
        f"{figures['ridge_speed_ratio']:.1f}× a float64 loop, {figures['ridge_speed_ratio_float32']:.1f}× a float32 loop, "
        f"{figures['ridge_speed_ratio_loo']:.1f}× with penalties chosen; "
        f"max |difference| {figures['ridge_max_abs_diff']:.1e} "
        f"(scikit-learn's own float32: {figures['ridge_max_abs_diff_sklearn_float32']:.1e})"
    )
    print(
        "peak memory at 24 tokens: " + ", ".join(f"{kind} {value:.0f} MiB" for kind, value in memory.items())
    )
    print(
        "TFLOP at NSD's size: " + ", ".join(f"{kind} {value:.1f}" for kind, value in flop.items()), flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--alpha", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(arguments.folder, arguments.measure, arguments.alpha))
        return
    figures = ridge_section(quick=arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
