"""Pairs of noise and sample a second: `draw_pairs` beside a plain loop over the same teacher, in one run.

    python benchmarks/pairs.py [--quick] [--json FILE]

The plain loop is what one writes first: for each seed draw the noise, run the same solver on that one sample, save noise and
sample as float32 with `torch.save`. The teacher is a small U-Net of this house on volumes of 16×24×16 (random
weights: only time is measured), 10 steps of UniPC-2, one thread. Repetitions of all programs take turns, so a busy machine
hurts them alike; a figure is the median over repetitions and its interval the 2.5–97.5 percentiles of a bootstrap of it.

- `pairs_per_s`, `naive_pairs_per_s`, `naive_batched_pairs_per_s` (the loop over batches, one file a pair) and their ratios;
- `beside_teacher_ratio`: `draw_pairs` over the teacher alone on the same batches, no disk: what storing costs;
- `read_pairs_per_s`, `naive_read_pairs_per_s`: items of the data set (noise drawn again from its seed) beside `torch.load`;
- `bytes_a_pair`, `naive_bytes_a_pair`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import unipc_2
from radiata_core.times import LogSNRGrid
from radiata_imaging.pairs import draw_pairs, open_pairs

EVENT, STEPS, BATCH = (1, 16, 24, 16), 10, 16


def per_second(work: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def median_and_interval(values: list[float], rng: np.random.Generator) -> tuple[float, list[float]]:
    array = np.asarray(values)
    resampled = np.median(rng.choice(array, (2000, len(array))), axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(np.median(array)), [float(low), float(high)]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer pairs, fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat JSON object")
    options = parser.parse_args()
    count, repetitions = (32, 2) if options.quick else (48, 5)
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(channels=(8, 16, 16), embedding=32)
    teacher = NetworkDenoiser(network, LinearPath(), "velocity").eval().requires_grad_(False)
    table = unipc_2(LogSNRGrid()(STEPS, teacher.path), teacher.path)
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)

        def solved(seeds: range) -> tuple[torch.Tensor, torch.Tensor]:
            noise = noise_of(generators_of(seeds, 0), EVENT)
            return integrate(teacher, noise, table), noise

        def naive(folder: Path, batch: int) -> None:
            folder.mkdir()
            for first in range(0, count, batch):
                x0, noise = solved(range(first, min(first + batch, count)))
                for row in range(len(x0)):
                    pair = {"image": x0[row].clone(), "noise": noise[row].clone()}
                    torch.save(pair, folder / f"{first + row:06d}.pt")

        def teacher_alone() -> None:
            for first in range(0, count, BATCH):
                solved(range(first, min(first + BATCH, count)))

        def drawn(folder: Path) -> None:
            draw_pairs(teacher, range(count), folder, event=EVENT, steps=STEPS, batch=BATCH, progress=False)

        def read(folder: Path) -> None:
            data = open_pairs(folder)
            for index in range(len(data)):
                data[index]

        def naive_read(folder: Path) -> None:
            for file in sorted(folder.iterdir()):
                torch.load(file)

        teacher_alone()  # first calls choose kernels
        for turn in range(repetitions):
            ours, loop, batched = (root / f"{kind}-{turn}" for kind in ("ours", "loop", "batched"))
            runs: dict[str, Callable[[], object]] = {
                "pairs": partial(drawn, ours),
                "naive_pairs": partial(naive, loop, 1),
                "naive_batched_pairs": partial(naive, batched, BATCH),
                "teacher_alone": teacher_alone,
                "read_pairs": partial(read, ours),
                "naive_read_pairs": partial(naive_read, loop),
            }
            for kind, run in runs.items():
                measured.setdefault(kind, []).append(per_second(run, count))
        sizes = {"bytes_a_pair": size_of(ours) / count, "naive_bytes_a_pair": size_of(loop) / count}
    rng = np.random.default_rng(0)
    figures: dict[str, float | list[float]] = {}
    for kind, values in measured.items():
        figures[f"{kind}_per_s"], figures[f"{kind}_per_s_ci"] = median_and_interval(values, rng)
    ratios = {
        "naive_ratio": ("pairs", "naive_pairs"),
        "naive_batched_ratio": ("pairs", "naive_batched_pairs"),
        "beside_teacher_ratio": ("pairs", "teacher_alone"),
        "read_ratio": ("read_pairs", "naive_read_pairs"),
    }
    for ratio, (mine, other) in ratios.items():
        each = [a / b for a, b in zip(measured[mine], measured[other], strict=True)]
        figures[ratio], figures[f"{ratio}_ci"] = median_and_interval(each, rng)
    figures |= sizes
    print(
        f"{count} pairs of {'×'.join(map(str, EVENT))}, {STEPS} steps, batch {BATCH}, {repetitions} repetitions"
    )
    for key, value in figures.items():
        if not isinstance(value, list):
            interval = figures.get(f"{key}_ci")
            shown = f"  [{interval[0]:.3g}, {interval[1]:.3g}]" if isinstance(interval, list) else ""
            print(f"{key}={value:.4g}{shown}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()
