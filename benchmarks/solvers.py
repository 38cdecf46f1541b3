"""Time a step of a solver costs beside the network: the table loop against diffusers' schedulers, in one run.

    python benchmarks/solvers.py [--quick] [--json FILE]

The network is a constant that costs nothing. Repetitions of all solvers take turns, so a busy machine hurts them alike;
a figure is the median over repetitions and its interval the 2.5–97.5 percentiles of a bootstrap of that median.
Tables and time steps are made before the clock starts.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radiata_core.paths import DiscreteVPPath
from radiata_core.solvers import MultistepTable, dpmpp_2m, integrate, unipc_2
from radiata_core.times import LogSNRGrid

STEPS = 20
SHAPES = {"": (1, 1, 8, 8), "_latent": (1, 4, 64, 64), "_volume": (1, 1, 64, 64, 64)}


def ours(
    make: Callable[[Tensor, DiscreteVPPath], MultistepTable], x: Tensor, answer: Tensor
) -> Callable[[], Tensor]:
    path = DiscreteVPPath()
    table = make(LogSNRGrid()(STEPS, path), path)
    return lambda: integrate(lambda x, t: answer, x, table)


def theirs(name: str, x: Tensor, answer: Tensor) -> Callable[[], Tensor]:
    import diffusers

    def run() -> Tensor:
        state = x
        for step in times:
            state = scheduler.step(answer, step, state, return_dict=False)[0]
        return state

    scheduler = getattr(diffusers, name)(prediction_type="sample")
    scheduler.set_timesteps(STEPS)
    times = list(scheduler.timesteps)

    def fresh() -> Tensor:
        scheduler.set_timesteps(STEPS)
        begun = time.perf_counter()
        result = run()
        fresh.seconds = time.perf_counter() - begun  # type: ignore[attr-defined]
        return result

    return fresh


def seconds(run: Callable[[], Tensor]) -> float:
    begun = time.perf_counter()
    run()
    elapsed = time.perf_counter() - begun
    return getattr(run, "seconds", elapsed)


def median_and_interval(values: list[float], rng: np.random.Generator) -> tuple[float, list[float]]:
    array = np.asarray(values)
    resampled = np.median(rng.choice(array, (2000, len(array))), axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(np.median(array)), [float(low), float(high)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Solver overhead per step against diffusers, in microseconds."
    )
    parser.add_argument("--quick", action="store_true", help="tiny tensors only, fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat JSON object")
    options = parser.parse_args()

    torch.set_num_threads(1)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    figures: dict[str, float | list[float]] = {}
    shapes = {"": SHAPES[""]} if options.quick else SHAPES
    print(f"{'tensor':>16} {'solver':>8} {'table us':>10} {'diffusers us':>13} {'ratio':>7}")
    for suffix, shape in shapes.items():
        x, answer = (torch.randn(shape, generator=generator) for _ in range(2))
        runs = {
            f"dpmpp2m{suffix}_us": ours(dpmpp_2m, x, answer),
            f"diffusers_dpmpp2m{suffix}_us": theirs("DPMSolverMultistepScheduler", x, answer),
            f"unipc{suffix}_us": ours(unipc_2, x, answer),
            f"diffusers_unipc{suffix}_us": theirs("UniPCMultistepScheduler", x, answer),
        }
        for run in runs.values():
            run()
        measured: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(15 if options.quick or suffix == "_volume" else 60):
            for name, run in runs.items():
                measured[name].append(seconds(run) / STEPS * 1e6)
        for name, values in measured.items():
            figures[name], figures[f"{name}_ci"] = median_and_interval(values, rng)
        for solver in ("dpmpp2m", "unipc"):
            mine, other = (
                float(np.median(measured[f"{who}{solver}{suffix}_us"])) for who in ("", "diffusers_")
            )
            size = "x".join(map(str, shape))
            print(f"{size:>16} {solver:>8} {mine:10.1f} {other:13.1f} {other / mine:7.1f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()
