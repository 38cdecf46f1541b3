"""Latent dynamics of neural populations: every model beside every baseline, at equal CPU-seconds, in one run.

    OMP_NUM_THREADS=1 python benchmarks/latents.py [--quick] [--seconds 60] [--seeds 3] [--jobs 2] [--only SECTION ...]
        [--spikes FOLDER] [--json FILE]

Each network trains for the same CPU-seconds of its process (`latents_training.py`). A line is a model: mean over seeds of
training, in brackets the least and the largest.

selection    what beta and step sizes are chosen on: held-out conditions of other trajectories and neurons (`lfads_demo_2017`
             with another seed). Nothing is chosen on the sections below.
trials       `lfads_demo_2017`, the set that LangevinFlow, NDT and LFADS are compared on: 65 conditions of 24 trials, the
             published split (each fifth trial evaluates; conditions are in both parts), 22 neurons in, 7 out.
             R² is of E[count] over all 29; `r2_truth` of the rates, as published. co-bps is of the 7.
conditions   the same spikes, 13 whole conditions held out.
frequencies  spikes of a network of oscillators at 0.8, 1.6 and 2.9 Hz: largest relative error of the learned normal modes.
ca1          rat CA1 on a linear track, 1 s windows in which the animal runs, in each of as many draws as seeds other blocks
             of windows to evaluate and another quarter of the units held out; intervals by bootstrap over windows. Needs
             the recording (--spikes).
speed        a training step of the released model as a literal loop against ours (`latents_speed.py` has more shapes).
lorenz       the correct equations, 13 conditions held out, with ablations of the flow.
lfads        ten times the CPU-seconds for the auto-encoder, one seed.

`without_…` is the trained flow with its latents set to 0; `radiata_no_latents` is trained without (the encoder's features
are read out directly), `…_first_order` with overdamped latents, `…_independent` with latents new in every bin,
`…_uncoupled` without interaction. `gru` is the bidirectional smoother with coordinated dropout. `paper` is LangevinFlow as
released (decoder 256 wide).
"""

import argparse
import json
import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from latents_speed import SHAPES, median_and_interval, milliseconds, steps
from latents_training import Learned, Recipe, learned, rates_of
from radiata_core.seeds import generators_of, rng_of
from radiata_latents.data.lorenz import LorenzVariant, lorenz_population, split_conditions, split_trials
from radiata_latents.data.oscillator_network import oscillator_population
from radiata_latents.data.trials import heldin_first
from radiata_latents.experiment.cuts import cut
from radiata_latents.experiment.prepare import Prepare
from radiata_latents.model.behaviour_decoding import behaviour_r2
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.flow_dynamics import Dynamics
from radiata_latents.model.gpfa import fit_gpfa_rates
from radiata_latents.model.gru_smoother import GRUSmoother
from radiata_latents.model.intervals import Interval, trial_interval
from radiata_latents.model.langevin_flow import LangevinFlow
from radiata_latents.model.latent_path import LatentPath
from radiata_latents.model.lfads import LFADS
from radiata_latents.model.objective import TrialBound
from radiata_latents.model.paper_flow import PaperLangevinFlow
from radiata_latents.model.paper_objective import PaperBound
from radiata_latents.model.paper_switches import PaperSwitches
from radiata_latents.model.rate_scores import rate_r2
from radiata_latents.model.smoothing import fit_smoothed_rates

BETA = 0.01
"""Weight of the KL for rates, chosen on other simulated trajectories (docs/latents.md)."""
LORENZ_HELDIN = 22
OTHER_SEED = 2
"""Of the population that choices are made on."""
FREQUENCIES_HZ = (0.8, 1.6, 2.9)
SPIKES = Path(__file__).resolve().parents[2] / "shared" / "data" / "spikes" / "nelpy"


def flow(beta: float = BETA, rate: float = 1.6e-2, shown: float = 0.7, **options: Any) -> Recipe:
    """The latent flow."""
    return Recipe(
        lambda n, h, b, f: LangevinFlow(n, h, b, f, **options),
        lambda epoch: TrialBound(beta, ramp=200, shown=shown),
        rate,
    )


def gru(rate: float = 8e-3, shown: float = 0.7, **options: Any) -> Recipe:
    """The smoother."""
    return Recipe(
        lambda n, h, b, f: GRUSmoother(n, h, b, f, **options), lambda epoch: TrialBound(shown=shown), rate
    )


def paper(epoch: int) -> PaperBound:
    """The released objective, which counts epochs."""
    return PaperBound(epoch)


RECIPES: dict[str, Recipe] = {
    "radiata": flow(),
    "radiata_no_latents": flow(dynamics=Dynamics.NONE),
    "radiata_first_order": flow(dynamics=Dynamics.FIRST_ORDER),
    "radiata_independent": flow(dynamics=Dynamics.INDEPENDENT),
    "radiata_uncoupled": flow(coupled=False),
    "radiata_linear_readout": flow(readout_units=0),
    "radiata_attention": flow(attention=True),
    "radiata_beta_1": flow(1.0),
    "gru": gru(),
    "lfads": Recipe(lambda n, h, b, f: LFADS(n, h, b, f), lambda epoch: TrialBound(0.1, ramp=1000)),
    "lfads_long": Recipe(lambda n, h, b, f: LFADS(n, h, b, f), lambda epoch: TrialBound(0.1, ramp=1000)),
    "paper": Recipe(
        lambda n, h, b, f: PaperLangevinFlow(n, h, b, f, hidden=64, inner=256), paper, 3e-3, math.inf, 2e-5
    ),
}
TRIED: dict[str, Recipe] = {
    **{f"radiata_beta_{beta:g}": flow(beta) for beta in (0.003, 0.03, 0.1)},
    **{f"radiata_rate_{rate:g}": flow(rate=rate) for rate in (4e-3, 8e-3)},
    **{f"radiata_shown_{shown:g}": flow(shown=shown) for shown in (0.5, 0.85)},
    **{f"radiata_latents_{latents}": flow(latents=latents) for latents in (8, 32)},
    **{f"radiata_dropout_{dropout:g}": flow(dropout=dropout) for dropout in (0.0, 0.25)},
    **{f"gru_rate_{rate:g}": gru(rate) for rate in (4e-3, 1.6e-2)},
    **{f"gru_shown_{shown:g}": gru(shown=shown) for shown in (0.5, 0.85)},
    **{f"gru_factors_{factors}": gru(factors=factors) for factors in (8, 32)},
    **{f"gru_dropout_{dropout:g}": gru(dropout=dropout) for dropout in (0.0, 0.25)},
}
"""What the section `selection` tries beside the two as they are."""
LONGER = {"lfads_long": 10.0}
"""Times the CPU-seconds of the others."""


@dataclass(frozen=True)
class Task:
    """One training, or one fit, of one section."""

    section: str
    name: str
    seed: int
    seconds: float
    spikes: Path


def lorenz(section: str) -> xr.Dataset:
    """The population of a section, neurons held out last."""
    if section == "selection":
        return split_conditions(
            lorenz_population(LorenzVariant.LFADS_DEMO_2017, seed=OTHER_SEED), seed=OTHER_SEED
        )
    if section in ("trials", "lfads"):
        return split_trials(lorenz_population(LorenzVariant.LFADS_DEMO_2017))
    variant = LorenzVariant.LFADS_DEMO_2017 if section == "conditions" else LorenzVariant.LORENZ
    return split_conditions(lorenz_population(variant))


def parts(data: xr.Dataset, name: str = "counts") -> tuple[np.ndarray, np.ndarray]:
    """(train, evaluated) of a variable, held-in neurons first."""
    values = data[name].values[..., heldin_first(data)].astype(np.float32)
    train = data["split"].values == "train"
    return values[train], values[~train]


def lorenz_task(task: Task) -> dict[str, float]:
    """R² of E[count] and of rates, co-bps."""
    data = lorenz(task.section)
    train, test = parts(data)
    expected, truth = parts(data, "expected" if "expected" in data else "rates")[1], parts(data, "rates")[1]
    h = LORENZ_HELDIN

    def scores(rates: np.ndarray) -> dict[str, float]:
        return {
            "r2": rate_r2(expected, rates),
            "r2_truth": rate_r2(truth, rates),
            "cobps": bits_per_spike(rates[..., h:], test[..., h:]),
        }

    if task.name == "oracle":
        return scores(expected)
    if task.name in ("smoothing", "gpfa"):
        seen, hidden = train[..., :h], train[..., h:]
        if task.name == "gpfa":
            return scores(fit_gpfa_rates(seen, hidden, latents=8, iterations=30).rates(test[..., :h]))
        return scores(fit_smoothed_rates(seen, hidden, bin_s=0.02).rates(test[..., :h]))
    made = trained(task, train, h)
    found = scores(rates_of(made.network, torch.from_numpy(test))) | cost(made)
    if task.name == "radiata":
        found |= {f"without_{key}": value for key, value in scores(emptied(made, test)).items()}
        posterior = made.network.encode(torch.from_numpy(test[..., :h]))
        found["informed_start"], found["informed_noise"] = posterior.informed()
    return found


def trained(task: Task, train: np.ndarray, heldin: int) -> Learned:
    """The network of a task."""
    seconds = task.seconds * LONGER.get(task.name, 1.0)
    return learned((RECIPES | TRIED)[task.name], torch.from_numpy(train), heldin, seconds, task.seed)


def cost(made: Learned) -> dict[str, float]:
    """What a training did in its time."""
    return {"updates": float(made.updates), "ms": made.milliseconds}


@torch.no_grad()
def emptied(made: Learned, test: np.ndarray) -> np.ndarray:
    """Rates of the same weights with all latents at 0."""
    model: Any = made.network
    path = model.path(model.encode(torch.from_numpy(test[..., : model.heldin])))
    nothing = torch.zeros_like(path.position)
    return model.log_rates(LatentPath(nothing, nothing)).exp().numpy()


def frequency_task(task: Task) -> dict[str, float]:
    """Largest relative error of the normal modes of a flow of three oscillators, learned at beta = 1."""
    data = oscillator_population(frequencies_hz=FREQUENCIES_HZ, seed=task.seed)
    train, test = parts(data)
    recipe = Recipe(
        lambda n, h, b, f: LangevinFlow(n, h, b, f, latents=3, band_hz=(0.3, 5.0), readout_units=0),
        lambda epoch: TrialBound(1.0, ramp=50),
        1e-2,
        decay=0.0,
    )
    made = learned(recipe, torch.from_numpy(train), train.shape[2], task.seconds, task.seed)
    truth = np.array(FREQUENCIES_HZ) * np.sqrt(1 - np.atleast_1d(data.attrs["damping"]) ** 2)
    modes = made.network.modes().frequency_hz.numpy()
    error = float(np.abs(modes / truth - 1).max()) if len(modes) == len(truth) else math.inf
    rates = rates_of(made.network, torch.from_numpy(test))
    named = {f"mode{i}_hz": float(hz) for i, hz in enumerate(modes)}
    return {"error": error, "r2": rate_r2(parts(data, "rates")[1], rates), **named, **cost(made)}


def ca1_task(task: Task) -> dict[str, float]:
    """co-bps with its interval over windows, and R² of position from log-rates, and from rates."""
    names = ("linear-track_spikes.mat", "linear-track_trajectory.videoPositionTracking")
    source, positions = (task.spikes / name for name in names)
    data, _ = cut(
        Prepare(
            out=Path("ca1.h5"), source=(source,), positions=positions, parked=True, complete=True,
            least_spikes=100, holdout=("0.25",), seed=task.seed,
        )
    )  # fmt: skip
    (train, test), h = parts(data), int((~data["heldout"].values).sum())
    of_train = data["split"].values == "train"
    known = data["behaviour"].values[of_train], data["behaviour"].values[~of_train]
    more: dict[str, float] = {}
    if task.name in ("smoothing", "gpfa"):
        seen, hidden = train[..., :h], train[..., h:]
        made: Any = (
            fit_smoothed_rates(seen, hidden, bin_s=0.02)
            if task.name == "smoothing"
            else fit_gpfa_rates(seen, hidden, latents=8, iterations=30)
        )
        rates = made.rates(train[..., :h]), made.rates(test[..., :h])
    else:
        network = trained(task, train, h)
        rates = tuple(rates_of(network.network, torch.from_numpy(part)) for part in (train, test))
        more = cost(network)
    bits: Interval = trial_interval(
        bits_per_spike, rates[1][..., h:], test[..., h:], rng=rng_of(task.seed, 1)
    )
    logs = [np.log(np.maximum(part, 1e-4)) for part in rates]
    return {
        "cobps": bits.value, "cobps_low": bits.low, "cobps_high": bits.high,
        "position_r2": behaviour_r2(logs[0], known[0], logs[1], known[1]),
        "position_r2_of_rates": behaviour_r2(rates[0], known[0], rates[1], known[1]), **more,
    }  # fmt: skip


def speed_task(task: Task) -> dict[str, float]:
    """Ratios of a training step: the literal loop over ours of the same function, and over the flow's."""
    torch.set_num_threads(1)
    literal, ours = steps(SHAPES[""], PaperSwitches(kernel_spread=1.0))
    shape = SHAPES[""]
    model = LangevinFlow(shape.neurons, shape.heldin, shape.bins)
    counts = torch.poisson(
        torch.full((shape.rows, shape.bins, shape.neurons), 0.26), generator=torch.Generator().manual_seed(1)
    )
    generators = generators_of(range(shape.rows))

    def flowing() -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        loss = TrialBound(BETA)(model, counts, generators).value
        loss.backward()
        return [loss.detach()]

    for run in (literal, ours, flowing):
        run()
    times = np.array([[milliseconds(run) for run in (literal, ours, flowing)] for _ in range(15)])
    found: dict[str, float] = {}
    for name, at in (("equal_function", 1), ("equal_accuracy", 2)):
        value, (low, high) = median_and_interval(times[:, 0] / times[:, at], np.random.default_rng(0))
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return found | dict(zip(("literal_ms", "ours_ms", "flow_ms"), np.median(times, 0).tolist(), strict=True))


COMMON = ("radiata", "gru", "paper", "lfads", "radiata_no_latents")
ABLATIONS = ("first_order", "independent", "uncoupled", "linear_readout", "attention", "beta_1")
SECTIONS: dict[str, tuple[Callable[[Task], dict[str, float]], tuple[str, ...]]] = {
    "selection": (lorenz_task, ("radiata", "gru", *TRIED)),
    "trials": (lorenz_task, ("oracle", "smoothing", "gpfa", *COMMON)),
    "conditions": (lorenz_task, ("oracle", "smoothing", "gpfa", *COMMON)),
    "frequencies": (frequency_task, ("radiata",)),
    "ca1": (ca1_task, ("smoothing", "gpfa", "gru", "radiata", "radiata_no_latents")),
    "speed": (speed_task, ("ratios",)),
    "lorenz": (
        lorenz_task,
        (
            "oracle",
            "smoothing",
            "gpfa",
            "radiata",
            "gru",
            "radiata_no_latents",
            *(f"radiata_{a}" for a in ABLATIONS),
        ),
    ),
    "lfads": (lorenz_task, ("lfads_long",)),
}


def done(task: Task) -> dict[str, float]:
    """One task in a process of its own."""
    torch.set_num_threads(1)
    return SECTIONS[task.section][0](task)


def tasks_of(section: str, arguments: argparse.Namespace) -> list[Task]:
    """Seeds outside, models inside: what changes on the machine meets them alike."""
    fitted_once = ("oracle", "smoothing", "gpfa", "ratios", "lfads_long")
    longest = {"frequencies": 1.5, "ca1": 1 / 3}.get(section, 1.0) * arguments.seconds
    found = []
    for seed in range(arguments.seeds):
        for name in SECTIONS[section][1]:
            wanted = arguments.models is None or name in arguments.models
            again = section != "selection" and (name not in fitted_once or section == "ca1")
            if wanted and (seed == 0 or again):
                found.append(Task(section, name, seed, longest, arguments.spikes))
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
