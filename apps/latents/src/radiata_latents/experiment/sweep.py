"""`radiata-latents sweep POPULATION --out FOLDER`: random search over the options of train, chosen on validation trials."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from radiata_core.errors import InputError
from radiata_latents.experiment.presets import read_toml, set_options
from radiata_latents.experiment.search_space import Law, drawn, read_space
from radiata_latents.experiment.train import FOLDERS, Train

__all__ = ["Sweep"]

_OWN = (*FOLDERS, "seed", "members", "max_minutes")


@dataclass(frozen=True)
class Sweep:
    """Search the options of train at random, and keep the best by its score on validation trials.

    Trial k is a function of the seed and k, so more trials may be asked for later: --resume skips those that are finished
    and goes on with those that are not. Writes trials.csv, sweep.json and best.toml, a preset for train.

    Example: radiata-latents sweep lorenz.h5 --out sweeps/lorenz --trials 27 --halving

    Example: radiata-latents train lorenz.h5 --out runs/best --preset sweeps/lorenz/best.toml
    """

    population: Annotated[Path, tyro.conf.Positional]
    """Population written by prepare; it needs validation trials."""
    out: Path
    """Folder of the search; every trial is a run inside it."""
    trials: int = 20
    """How many to draw."""
    network: Literal["radiata", "gru", "lfads", "paper"] = "radiata"
    """Which network; see train."""
    preset: Path | None = None
    """TOML file of train's options that are the same in all trials."""
    space: Path | None = None
    """TOML file that replaces laws of single options: { low, high, log }, { choices = [...] }, or a value to fix one."""
    steps: int = 600
    """Optimiser steps of a whole trial."""
    batch_size: int = 64
    """Trials of one step."""
    halving: bool = False
    """Successive halving: a ninth of the steps for all, a third for the better third, the whole for the best ninth."""
    jobs: int = 1
    """Processes, each with one thread."""
    seed: int = 0
    """Seed of the draws, and of every training."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    resume: bool = False
    """Go on with an earlier search of the same space."""
    overwrite: bool = False
    """Replace an earlier search in the folder."""

    def run(self) -> None:
        if self.resume and self.overwrite:
            raise InputError("expected --resume or --overwrite; got both. Take one.")
        if min(self.trials, self.jobs, self.steps) < 1:
            raise InputError(
                f"expected one trial, job and step or more; got {self.trials}, {self.jobs} and {self.steps}. Give more."
            )
        space = read_space(self.space, self.network)
        for k in range(self.trials):
            self.trial(
                space, k, self.out
            ).check()  # what a space may draw is refused before anything is trained
        from radiata_latents.experiment import search

        search.run(self, space)

    def trial(self, space: dict[str, Law], number: int, folder: Path) -> Train:
        """The training of a trial, in a folder of its own.

        Raises:
            InputError: the preset or the space names what train does not have, or does not take.
        """
        task = Train(self.population, folder, tensorboard=False, validate_every=10**9, retries=1)
        if self.preset is not None:
            task = set_options(task, read_toml(self.preset), str(self.preset), _OWN)
        mine = {name: getattr(self, name) for name in ("network", "steps", "batch_size", "seed", "device")}
        task = dataclasses.replace(task, **mine)
        return set_options(task, drawn(space, self.seed, number), str(self.space or "the space"), _OWN)
