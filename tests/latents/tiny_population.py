"""A population small enough to train on within a second: spikes of a Lorenz attractor, every fourth neuron held out."""

from pathlib import Path

import numpy as np
import xarray as xr

from radiata_core import commands
from radiata_latents.data.lorenz import lorenz_population, split_conditions
from radiata_latents.data.population import save_population
from radiata_latents.experiment.sweep import Sweep
from radiata_latents.experiment.train import Train

__all__ = ["command", "tiny_options", "tiny_population", "written"]

VERBS = {"train": Train, "sweep": Sweep}


def tiny_population(*, heldout: bool = True, forward: int = 0) -> xr.Dataset:
    """Six trajectories of 8 trials, 9 neurons, 50 bins; the last `forward` of them are the forward window."""
    data = split_conditions(lorenz_population(conditions=6, trials=8, neurons=9, seed=3))
    hidden = (np.arange(9) % 4 == 1) & heldout
    ahead = np.arange(50) >= 50 - forward
    return data.assign_coords(heldout=("neuron", hidden), forward=("time", ahead))


def written(folder: Path, **options) -> Path:
    """The file of a tiny population."""
    path = folder / "tiny.h5"
    save_population(tiny_population(**options), path)
    return path


def command(*words: object) -> int:
    """Exit code of `radiata-latents words…`."""
    return commands.main("radiata-latents", "Latents.", VERBS, [str(word) for word in words])


def tiny_options(steps: int = 8) -> list[str]:
    """Options of `train` for a second."""
    text = f"--network gru --hidden 8 --factors 4 --steps {steps} --batch-size 8 --checkpoint-every 4 --validate-every 4"
    return [*text.split(), "--validation-trials", "2", "--log-every", "2", "--no-tensorboard"]
