"""What `benchmarks/latents.py` runs: its networks and how they learn, and one function a section.

A section's function takes a `Task`, one training or one fit in a process of its own, and returns its figures by name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from latents_speed import SHAPES, median_and_interval, milliseconds, recurrences, steps
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
"""Weight of the KL for rates; how it was settled stands in docs/latents.md."""
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
    "radiata_twelfth": flow(),
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
LONGER = {"lfads_long": 10.0, "radiata_twelfth": 1 / 12}
"""Times the CPU-seconds of the others."""


@dataclass(frozen=True)
class Task:
    """One training, or one fit, of one section."""

    section: str
    name: str
    seed: int
    seconds: float
    spikes: Path
    nwb: Path = Path()


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
    """Largest relative error of learned frequencies, beta = 1, six oscillators, of which three are to be left without a say.

    An oscillator has a say if its squared read-out weights are more than a twentieth of the largest; another number of
    them than three counts as an infinite error.
    """
    data = oscillator_population(frequencies_hz=FREQUENCIES_HZ, seed=task.seed)
    train, test = parts(data)
    recipe = Recipe(
        lambda n, h, b, f: LangevinFlow(n, h, b, f, latents=6, coupled=False, readout_units=0),
        lambda epoch: TrialBound(1.0, ramp=50),
        1e-2,
        decay=0.0,
    )
    made = learned(recipe, torch.from_numpy(train), train.shape[2], task.seconds, task.seed)
    model: Any = made.network
    weight = model.readout.linear.weight.detach().square().sum(0).unflatten(0, (2, -1)).sum(0)
    heard = weight > weight.max() / 20
    hz, damping = model.frequency_hz.detach()[heard], model.damping.detach()[heard]
    found = np.sort((hz * (1 - damping.square()).clamp_min(0).sqrt()).numpy())
    truth = np.array(FREQUENCIES_HZ) * np.sqrt(1 - np.atleast_1d(data.attrs["damping"]) ** 2)
    error = float(np.abs(found / truth - 1).max()) if len(found) == len(truth) else math.inf
    rates = rates_of(model, torch.from_numpy(test))
    named = {f"found{i}_hz": float(value) for i, value in enumerate(found[:3])}
    scores = {"error": error, "oscillators": float(len(found)), "damping": float(damping.mean())}
    return scores | named | {"r2": rate_r2(parts(data, "rates")[1], rates)} | cost(made)


def ca1_task(task: Task) -> dict[str, float]:
    """Rat CA1: see `recording_scores`."""
    names = ("linear-track_spikes.mat", "linear-track_trajectory.videoPositionTracking")
    source, positions = (task.spikes / name for name in names)
    asked = Prepare(
        out=Path("ca1.h5"), source=(source,), positions=positions, parked=True, complete=True,
        least_spikes=100, holdout=("0.25",), seed=task.seed,
    )  # fmt: skip
    return recording_scores(task, cut(asked)[0])


def heading_task(task: Task) -> dict[str, float]:
    """Head direction: see `recording_scores`; the angle is a point on the circle."""
    asked = Prepare(
        out=Path("heading.h5"), source=(task.nwb,), behaviour=("CompassDirection/ry",), angle=True, complete=True,
        least_spikes=100, holdout=("0.25",), seed=task.seed,
    )  # fmt: skip
    return recording_scores(task, cut(asked)[0])


def recording_scores(task: Task, data: xr.Dataset) -> dict[str, float]:
    """co-bps with its interval over windows, and R² of behaviour from log-rates, and from rates."""
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


@torch.no_grad()
def forecast_task(task: Task) -> dict[str, float]:
    """fp-bps and R² of E[count] in ten bins after forty."""
    ahead, (train, test) = 10, parts(lorenz("lorenz"))
    truth = parts(lorenz("lorenz"), "rates")[1]

    def scores(rates: np.ndarray, prefix: str = "") -> dict[str, float]:
        bits = bits_per_spike(rates, test[:, -ahead:])
        return {f"{prefix}fpbps": bits, f"{prefix}r2": rate_r2(truth[:, -ahead:], rates)}

    if task.name == "mean":
        return scores(np.tile(train[:, -ahead:].mean((0, 1)), (len(test), ahead, 1)))
    if task.name == "oracle":
        return scores(truth[:, -ahead:])
    with torch.enable_grad():
        made = learned(
            (RECIPES | TRIED)[task.name],
            torch.from_numpy(train),
            LORENZ_HELDIN,
            task.seconds,
            task.seed,
            ahead,
        )
    model: Any = made.network
    seen = torch.from_numpy(test[:, :-ahead, :LORENZ_HELDIN])
    rates = model.rates(seen, 16, generators_of(range(len(seen)))).numpy()
    held = np.repeat(rates[:, -ahead - 1 : -ahead], ahead, 1)
    return scores(rates[:, -ahead:]) | scores(held, "held_") | cost(made)


def speed_task(task: Task) -> dict[str, float]:
    """Ratios of the literal loop to ours: force and recurrence, the whole step, and the whole step to the flow's."""
    torch.set_num_threads(1)
    literal, ours = steps(SHAPES[""], PaperSwitches(kernel_spread=1.0))
    literal_force, force = recurrences(SHAPES[""], PaperSwitches(kernel_spread=1.0))
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

    runs = {"literal": literal, "ours": ours, "flow": flowing, "literal_force": literal_force, "force": force}
    for run in runs.values():
        run()
    times = {name: np.array([]) for name in runs}
    for _ in range(15):
        times = {name: np.append(times[name], milliseconds(run)) for name, run in runs.items()}
    found: dict[str, float] = {}
    pairs = (("equal_function", "force"), ("equal_function_whole", "ours"), ("equal_accuracy", "flow"))
    for name, mine in pairs:
        theirs = times["literal_force" if mine == "force" else "literal"]
        value, (low, high) = median_and_interval(theirs / times[mine], np.random.default_rng(0))
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return found | {f"{name}_ms": float(np.median(taken)) for name, taken in times.items()}


COMMON = ("radiata", "gru", "paper", "lfads", "radiata_no_latents", "radiata_twelfth")
ABLATIONS = ("first_order", "independent", "uncoupled", "linear_readout", "attention", "beta_1")
SECTIONS: dict[str, tuple[Callable[[Task], dict[str, float]], tuple[str, ...]]] = {
    "selection": (lorenz_task, ("radiata", "gru", *TRIED)),
    "trials": (lorenz_task, ("oracle", "smoothing", "gpfa", *COMMON)),
    "conditions": (lorenz_task, ("oracle", "smoothing", "gpfa", *COMMON)),
    "frequencies": (frequency_task, ("radiata",)),
    "ca1": (ca1_task, ("smoothing", "gpfa", "gru", "radiata", "radiata_no_latents")),
    "heading": (heading_task, ("smoothing", "gpfa", "gru", "radiata", "radiata_no_latents")),
    "forecast": (
        forecast_task,
        ("oracle", "mean", "gru", "radiata", "radiata_beta_0.1", "radiata_beta_1", "lfads"),
    ),
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
