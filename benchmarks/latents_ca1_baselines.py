"""Baselines on rat CA1: co-smoothing and position of smoothing + GLM and GPFA, three choices of held-out units.

    OMP_NUM_THREADS=1 python benchmarks/latents_ca1_baselines.py [FOLDER]

FOLDER holds `linear-track_spikes.mat` and its tracking; by default `../shared/data/spikes/nelpy` beside the checkout.
20 ms bins, windows of 1 s end to end, every fifth evaluated. The tracker stands still at (522, 8) from 985 s on, half the
time: no position there, and the animal has left the track, so those windows are left out. Units with fewer than 100
spikes on the track are left out as well; a quarter of the others is held out. Intervals: bootstrap over windows.
"""

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np

from radiata_core.seeds import rng_of
from radiata_latents.data.matlab import read_matlab, read_positions
from radiata_latents.data.recordings import consecutive_events, windows
from radiata_latents.model.behaviour_decoding import behaviour_r2
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.gpfa import fit_gpfa_rates
from radiata_latents.model.intervals import trial_interval
from radiata_latents.model.smoothing import fit_smoothed_rates

PARKED = (522, 8)
LEAST_SPIKES = 100


def on_track(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Counts (trial, time, neuron) and positions (trial, time, 2), pixels, while the rat is on the track."""
    recording = read_matlab(folder / "linear-track_spikes.mat")
    track = read_positions(folder / "linear-track_trajectory.videoPositionTracking")
    recording = dataclasses.replace(recording, traces={"position": track})
    starts = consecutive_events(recording, 1.0)
    made = windows(recording, starts, (0.0, 1.0), 0.02, behaviour="position")
    counts, position = made["counts"].values.astype(float), made["behaviour"].values.astype(float)
    known = np.isfinite(position).all((1, 2)) & ~(position == PARKED).all(2).any(1)
    counts = counts[known]
    return counts[..., counts.sum((0, 1)) >= LEAST_SPIKES], position[known]


def main(folder: Path) -> None:
    """Print a line a model and choice of units."""
    counts, position = on_track(folder)
    scored = np.arange(len(counts)) % 5 == 4
    print(f"{len(counts)} windows, {counts.shape[2]} units, {int(counts.sum())} spikes")
    for seed in range(3):
        order = rng_of(seed).permutation(counts.shape[2])
        heldout, heldin = np.sort(order[: counts.shape[2] // 4]), np.sort(order[counts.shape[2] // 4 :])
        seen, hidden = counts[..., heldin], counts[..., heldout]
        for name, fit in (
            ("smoothing+GLM", lambda a, b: fit_smoothed_rates(a, b, bin_s=0.02)),
            ("GPFA 8", lambda a, b: fit_gpfa_rates(a, b, latents=8, iterations=30)),
        ):
            began = time.process_time()
            model = fit(seen[~scored], hidden[~scored])
            took = time.process_time() - began
            train, rates = model.rates(seen[~scored]), model.rates(seen[scored])
            bits = trial_interval(
                bits_per_spike, rates[..., len(heldin) :], hidden[scored], rng=rng_of(seed, 1)
            )
            plain = behaviour_r2(train, position[~scored], rates, position[scored])
            logs = behaviour_r2(np.log(train), position[~scored], np.log(rates), position[scored])
            print(
                f"seed {seed} {name:14} co-bps {bits.value:.3f} [{bits.low:.3f}, {bits.high:.3f}], position R2 {plain:.3f} "
                f"from rates, {logs:.3f} from log-rates, {took:.1f} CPU-s"
            )


if __name__ == "__main__":
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "spikes" / "nelpy"
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else beside
    if given.is_dir():
        main(given)
    else:
        print(f"no recording in {given.name}: nothing to measure")
