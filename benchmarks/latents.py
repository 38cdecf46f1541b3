"""Latent dynamics of neural populations: every model beside every baseline, at equal CPU-seconds, in one run.

    OMP_NUM_THREADS=1 python benchmarks/latents.py [--quick] [--seconds 60] [--seeds 3] [--jobs 2] [--only SECTION ...]
        [--spikes FOLDER] [--json FILE]

Each network trains for the same CPU-seconds of its process (`latents_training.py`). A line is a model: mean over seeds of
training, in brackets the least and the largest.

selection    what beta and step sizes are chosen on: held-out conditions of other trajectories and neurons (`lfads_demo_2017`
             with another seed). Read-out, beta = 0.01, batches of 32 and the recipe of `frequencies` were settled
             earlier, on sets that are reported below.
trials       `lfads_demo_2017`, the set that LangevinFlow, NDT and LFADS are compared on: 65 conditions of 24 trials, the
             published split (each fifth trial evaluates; conditions are in both parts), 22 neurons in, 7 out.
             R² is of E[count] over all 29; `r2_truth` of the rates, as published. co-bps is of the 7.
conditions   the same spikes, 13 whole conditions held out.
frequencies  spikes of a network of oscillators at 0.8, 1.6 and 2.9 Hz: largest relative error of those of six learned
             oscillators that the read-out listens to.
ca1          rat CA1 on a linear track, 1 s windows in which the animal runs, in each of as many draws as seeds other blocks
             of windows to evaluate and another quarter of the units held out; intervals by bootstrap over windows. Needs
             the recording (--spikes).
heading      units of thalamus and CA1 with head direction (the NWB file in pynapple's sources), the same; needs --nwb FILE.
forecast     the correct Lorenz equations, held-out conditions: 40 bins observed, the next 10 predicted (the flow: mean of 16
             draws); bits a spike of all neurons there, beside the mean rate and the last observed rate held on.
speed        the released model as a literal loop against ours, same function: force and recurrence, and the whole training
             step; and against the flow's step, whose rates are better (`latents_speed.py` has more shapes).
lorenz       the correct equations, 13 conditions held out, with ablations of the flow.
lfads        ten times the CPU-seconds for the auto-encoder, one seed.

`without_…` is the trained flow with its latents set to 0; `radiata_no_latents` is trained without (the encoder's features
are read out directly), `…_first_order` with overdamped latents, `…_independent` with latents new in every bin,
`…_uncoupled` without interaction. `radiata_twelfth` trains a twelfth of the time. `gru` is the bidirectional smoother
with coordinated dropout. `paper` is LangevinFlow as released (decoder 256 wide).
"""

import argparse
import json
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from latents_sections import SECTIONS, SPIKES, Task, done


def tasks_of(section: str, arguments: argparse.Namespace) -> list[Task]:
    """Seeds outside, models inside: what changes on the machine meets them alike."""
    fitted_once = ("oracle", "mean", "smoothing", "gpfa", "ratios", "lfads_long")
    longest = {"ca1": 1 / 3, "heading": 1 / 3}.get(section, 1.0) * arguments.seconds
    found = []
    for seed in range(arguments.seeds):
        for name in SECTIONS[section][1]:
            wanted = arguments.models is None or name in arguments.models
            again = section != "selection" and (name not in fitted_once or section in ("ca1", "heading"))
            if wanted and (seed == 0 or again):
                found.append(Task(section, name, seed, longest, arguments.spikes, arguments.nwb or Path()))
    return found


def report(section: str, results: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Print a line a model; the figures, keyed by section and model."""
    figures: dict[str, Any] = {}
    for name, rows in results.items():
        print(f"{section:12} {name:24}", end="")
        for key in rows[0]:
            values = np.array([row.get(key, math.nan) for row in rows])
            spread = f" [{values.min():.3f}, {values.max():.3f}]" if len(values) > 1 else ""
            print(f" {key} {values.mean():.3f}{spread}", end="")
            figures[f"{section}/{name}/{key}"] = values.tolist()
        print(flush=True)
    return figures


def keyed(figures: dict[str, Any]) -> dict[str, float]:
    """The issue's keys: means over seeds."""

    def mean(key: str) -> float | None:
        return float(np.mean(figures[key])) if key in figures else None

    names = ("radiata", "paper", "gru", "lfads", "gpfa", "smoothing")
    keys = {f"r2_{name}": f"trials/{name}/r2" for name in names}
    keys |= {f"r2_heldout_conditions_{name}": f"conditions/{name}/r2" for name in names}
    keys |= {
        "r2_radiata_without_latents": "trials/radiata/without_r2",
        "r2_radiata_trained_without_latents": "trials/radiata_no_latents/r2",
        "r2_lfads_long": "lfads/lfads_long/r2",
        "frequency_error": "frequencies/radiata/error",
        "cobps_radiata_ca1": "ca1/radiata/cobps",
        "cobps_glm_ca1": "ca1/smoothing/cobps",
        "position_r2_radiata_ca1": "ca1/radiata/position_r2",
        "position_r2_gru_ca1": "ca1/gru/position_r2",
        "step_ratio_equal_function": "speed/ratios/equal_function",
        "step_ratio_equal_function_whole": "speed/ratios/equal_function_whole",
        "r2_radiata_in_a_twelfth_of_the_time": "trials/radiata_twelfth/r2",
        "step_ratio_equal_accuracy": "speed/ratios/equal_accuracy",
    }
    return {short: value for short, key in keys.items() if (value := mean(key)) is not None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="4 CPU-seconds a training, one seed")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU-seconds a training (CA1: a third)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS), help="sections")
    parser.add_argument("--models", nargs="*", help="models; by default all of a section")
    parser.add_argument("--spikes", type=Path, default=SPIKES, help="folder of the rat CA1 recording")
    parser.add_argument("--nwb", type=Path, help="A2929-200711.nwb of pynapple's sources")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.seeds = 4.0, 1
    figures: dict[str, Any] = {"seconds": arguments.seconds, "seeds": arguments.seeds}
    spawn = multiprocessing.get_context("spawn")
    for section in arguments.only:
        if section == "ca1" and not arguments.spikes.is_dir():
            print("ca1: no recording beside the checkout; name its folder with --spikes")
            continue
        if section == "heading" and arguments.nwb is None:
            print("heading: no recording; name it with --nwb")
            continue
        tasks = tasks_of(section, arguments)
        jobs = 1 if section == "speed" else arguments.jobs
        results: dict[str, list[dict[str, float]]] = {task.name: [] for task in tasks}
        with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
            for task, found in zip(tasks, pool.map(done, tasks), strict=True):
                results[task.name].append(found)
        figures |= report(section, results)
        if arguments.json:
            arguments.json.write_text(json.dumps(figures | keyed(figures), indent=2) + "\n")
    print(json.dumps(keyed(figures), indent=2))


if __name__ == "__main__":
    main()
