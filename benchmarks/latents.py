"""Rates of a simulated population: the latent flow, its ablations and the baselines, at equal CPU-seconds.

    OMP_NUM_THREADS=1 python benchmarks/latents.py [--quick] [--seconds 60] [--seeds 3] [--only NAME ...] [--json FILE]

Data: `lorenz` (correct equations, Poisson), 65 conditions of 24 trials, 13 conditions held out for evaluation, 22 neurons
held in and 7 held out. R² is of expected counts, over neurons, on held-out conditions; `cobps` are bits a spike of the
held-out neurons. Each network trains for the same CPU-seconds of this process (AdamW, batches of 64, half cosine over
the time); its rates are those of the posterior mean (`radiata`: 16 draws, averaged). Neither number of steps nor anything
else is chosen on what is reported. One line a model: mean and, in brackets, least and largest over seeds of training.

`oracle` knows the rates. `r2_radiata_…` are ablations: first-order dynamics, latents that are new in every bin, no coupling.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from radiata_core.seeds import generators_of
from radiata_latents.data.lorenz import LorenzVariant, lorenz_population, split_conditions
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.flow_dynamics import Dynamics
from radiata_latents.model.gpfa import fit_gpfa_rates
from radiata_latents.model.gru_smoother import GRUSmoother
from radiata_latents.model.langevin_flow import LangevinFlow
from radiata_latents.model.objective import TrialBound
from radiata_latents.model.paper_flow import PaperLangevinFlow
from radiata_latents.model.paper_objective import PaperBound
from radiata_latents.model.rate_scores import rate_r2
from radiata_latents.model.smoothing import fit_smoothed_rates

HELDIN = 22
BATCH = 64
BETA = 0.1
SIZES = {"neurons": 29, "heldin": HELDIN, "bins": 50}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], object], float]] = {
    "radiata": (lambda: LangevinFlow(**SIZES), lambda n: TrialBound(BETA, ramp=200), 5.0),
    "radiata_first_order": (
        lambda: LangevinFlow(dynamics=Dynamics.FIRST_ORDER, **SIZES),
        lambda n: TrialBound(BETA, ramp=200),
        5.0,
    ),
    "radiata_independent": (
        lambda: LangevinFlow(dynamics=Dynamics.INDEPENDENT, **SIZES),
        lambda n: TrialBound(BETA, ramp=200),
        5.0,
    ),
    "radiata_uncoupled": (
        lambda: LangevinFlow(coupled=False, **SIZES),
        lambda n: TrialBound(BETA, ramp=200),
        5.0,
    ),
    "gru": (lambda: GRUSmoother(**SIZES), lambda n: TrialBound(), 5.0),
    # The release does not clip; where its kernel starts clipping would wipe out all other gradients.
    "paper": (lambda: PaperLangevinFlow(hidden=64, **SIZES), lambda n: PaperBound(n), math.inf),
}


def trained(name: str, counts: Tensor, seconds: float, seed: int) -> tuple[nn.Module, int]:
    """A network after so many CPU-seconds, and its updates."""
    make, objective_of, clip = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        model.set_mean_counts(counts.mean((0, 1)))
        objective = objective_of(math.ceil(len(counts) / BATCH))
        rate = 3e-3 if name == "paper" else 4e-3
        optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
        draws = torch.Generator().manual_seed(seed)
        began, step = time.process_time(), 0
        while (gone := (time.process_time() - began) / seconds) < 1:
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * gone))
            rows = torch.randint(len(counts), (BATCH,), generator=draws)
            seeds = generators_of(range(BATCH * step, BATCH * (step + 1)), seed)
            optimiser.zero_grad()
            objective.at(step)(model, counts[rows], seeds).value.backward()
            if math.isfinite(clip):
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimiser.step()
            step += 1
    return model.eval(), step


def rates_of(name: str, model: nn.Module, counts: Tensor) -> np.ndarray:
    with torch.no_grad():
        if name.startswith("radiata"):
            return model.rates(counts[..., :HELDIN], 16, generators_of(range(len(counts)), 1)).numpy()
        return model.rates(counts[..., :HELDIN]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="5 seconds, one seed")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU-seconds a training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), choices=list(NETWORKS), help="networks")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    seconds, seeds = (5.0, 1) if arguments.quick else (arguments.seconds, arguments.seeds)
    torch.set_num_threads(1)
    data = split_conditions(lorenz_population(LorenzVariant.LORENZ))
    parts = {word: data.isel(trial=data["split"].values == word) for word in ("train", "validation")}
    train, test = (torch.from_numpy(parts[w]["counts"].values.astype(np.float32)) for w in parts)
    truth, spikes = parts["validation"]["expected"].values, test.numpy()
    print(
        f"{len(train)} trials to learn from, {len(test)} of held-out conditions; {seconds:g} CPU-seconds, {seeds} seeds"
    )
    figures: dict[str, object] = {}

    def report(name: str, found: list[tuple[float, float]], what: str) -> None:
        r2, bits = np.array(found).T
        figures[f"r2_{name}"], figures[f"cobps_{name}"] = float(r2.mean()), float(bits.mean())
        figures[f"r2_{name}_range"] = [float(r2.min()), float(r2.max())]
        print(
            f"{name:22} R2 {r2.mean():.3f} [{r2.min():.3f}, {r2.max():.3f}]   co-bps {bits.mean():.3f} "
            f"[{bits.min():.3f}, {bits.max():.3f}]   {what}",
            flush=True,
        )

    def scores(rates: np.ndarray) -> tuple[float, float]:
        return rate_r2(truth, rates), bits_per_spike(rates[..., HELDIN:], spikes[..., HELDIN:])

    report("oracle", [scores(truth)], "")
    seen, hidden = train[..., :HELDIN].numpy(), train[..., HELDIN:].numpy()
    for name, fit in (
        ("smoothing", lambda: fit_smoothed_rates(seen, hidden, bin_s=0.02)),
        ("gpfa", lambda: fit_gpfa_rates(seen, hidden, latents=8, iterations=30)),
    ):
        began = time.process_time()
        model = fit()
        took = time.process_time() - began
        report(name, [scores(model.rates(spikes[..., :HELDIN]))], f"{took:.0f} CPU-s")
    for name in arguments.only:
        found, steps = [], []
        for seed in range(seeds):
            model, count = trained(name, train, seconds, seed)
            found.append(scores(rates_of(name, model, test)))
            steps.append(count)
        report(name, found, f"{min(steps)} to {max(steps)} updates")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
