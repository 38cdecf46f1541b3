"""`radiata-latents train POPULATION --out RUN`: one network, or an ensemble of seeds, with its validation scores.

The options of networks and of training in one frozen dataclass. What they mean for a network is here, since it needs no
library; the work is in `training_run`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError
from radiata_latents.experiment.presets import with_preset

__all__ = ["FOLDERS", "Train"]

FOLDERS = ("population", "out", "preset", "resume", "overwrite", "dry_run")
"""Options that say where and whether, not what: no preset sets them."""

_OF: dict[str, tuple[str, ...]] = {
    "latents": ("radiata", "lfads"),
    "hidden": ("radiata", "gru", "lfads", "paper"),
    "band_hz": ("radiata",),
    "dynamics": ("radiata",),
    "coupled": ("radiata",),
    "attention": ("radiata",),
    "readout_units": ("radiata", "gru"),
    "factors": ("gru", "lfads"),
    "generator": ("lfads",),
    "inputs": ("lfads",),
    "controller": ("lfads",),
    "inner": ("paper",),
    "dropout": ("radiata", "gru", "lfads"),
    "corrected": ("paper",),
    "beta": ("radiata", "lfads"),
    "ramp": ("radiata", "lfads"),
    "shown": ("radiata", "gru", "lfads"),
}
"""Which networks have an option."""

_OBJECTIVE = ("beta", "ramp", "shown")
_RATE = {"radiata": 1.6e-2, "gru": 8e-3, "lfads": 4e-3, "paper": 3e-3}


@dataclass(frozen=True)
class Train:
    """Train a network on the training trials of a population, and score it on the validation trials.

    A run that was stopped and continued with --resume ends in the same weights. Ctrl-C and SIGTERM save first. The run's
    scores.json says co-smoothing bits a spike on validation trials and whether the latents carry anything.

    Example: radiata-latents train lorenz.h5 --out runs/lorenz

    Example: radiata-latents train lorenz.h5 --out runs/gru --network gru --members 3 --steps 1500
    """

    population: Annotated[Path, tyro.conf.Positional]
    """Population written by prepare."""
    out: Path
    """The run's folder."""
    preset: Path | None = None
    """TOML file of options; options given on the command line go first where they differ from the default."""
    network: Literal["radiata", "gru", "lfads", "paper"] = "radiata"
    """radiata: Langevin flow of oscillators; gru: bidirectional smoother; lfads: sequential auto-encoder; paper:
    LangevinFlow as released."""
    latents: int | None = None
    """radiata: oscillators, 16 by default; lfads: numbers of the initial condition, 32 by default."""
    hidden: int | None = None
    """Units of the encoder, each way (paper: of everything, a multiple of four); 64 by default."""
    band_hz: tuple[float, float] | None = None
    """radiata: least and largest frequency that can be learned, Hz; 0.3 to 8 by default, or what the bins can hold."""
    dynamics: Literal["oscillators", "first-order", "independent", "none"] = "oscillators"
    """radiata, ablations: overdamped, latents that are new in every bin, or no latents."""
    coupled: bool = True
    """radiata: oscillators act on their neighbours; --no-coupled (ablation) leaves each in a quadratic well of its own."""
    attention: bool = False
    """radiata: one layer of attention over time in the read-out."""
    readout_units: int | None = None
    """radiata, gru: bounded units of the read-out, 0 for a linear one; 64 by default, none for gru."""
    factors: int | None = None
    """gru, lfads: width of the read-out, 16 by default."""
    generator: int | None = None
    """lfads: units of the generator, 100 by default."""
    inputs: int | None = None
    """lfads: inferred inputs a bin; none by default."""
    controller: int | None = None
    """lfads: units of the controller, 32 by default."""
    inner: int | None = None
    """paper: width of the decoder's feed-forward part, 512 by default."""
    corrected: bool = False
    """paper: without the traps of the release (see PaperSwitches)."""
    dropout: float | None = None
    """Of hidden units, in [0, 1); 0.1 by default, 0.05 for lfads."""
    beta: float | None = None
    """radiata, lfads: weight of the KL, in [0, 1]; 0.01 by default, 0.1 for lfads. Small for rates; 1, the bound itself,
    for frequencies and for a prior to sample from."""
    ramp: int | None = None
    """radiata, lfads: steps over which beta rises; 200 by default."""
    shown: float | None = None
    """Share of held-in counts that the encoder is shown in a step, the others are scored, in (0, 1); 0.7 by default."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 32
    """Trials of one step."""
    accumulate: int = 1
    """Pieces a batch is cut into, to save memory."""
    learning_rate: float | None = None
    """Step size after the warm-up; 0.016 by default, 0.008 for gru, 0.004 for lfads, 0.003 for paper."""
    warmup: int = 50
    """Steps of linear warm-up."""
    cosine: bool = True
    """The step size falls along a half cosine to the last step; --no-cosine keeps it constant after the warm-up."""
    weight_decay: float = 1e-4
    """AdamW's decoupled weight decay."""
    clip: float | None = None
    """Largest norm of the gradient, 0 for no limit; 5 by default, no limit for paper, whose first gradient is 1e12."""
    ema: tuple[float, ...] = (0.05,)
    """Relative widths of the averages of the weights; the first becomes model.safetensors."""
    seed: int = 0
    """Seed of initial weights, order, masks, noise and dropout."""
    members: int = 1
    """Trainings that differ in their seed (seed, seed + 1, ...): an ensemble in member-0, member-1, ...; those that are
    finished are skipped by --resume."""
    retries: int = 1
    """When a loss is not finite, how often to go back to the last checkpoint with half the learning rate."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; bf16 is slow on most CPUs."""
    validation_trials: int = 32
    """Validation trials behind the learning curve; scores.json takes all."""
    log_every: int = 25
    """Steps between two log lines."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    validate_every: int = 250
    """Steps between two validations."""
    tensorboard: bool = True
    """TensorBoard curves are written; --no-tensorboard leaves them out."""
    max_minutes: float | None = None
    """Stop with a checkpoint after this time (of each member)."""
    resume: bool = False
    """Go on from the newest valid checkpoint."""
    overwrite: bool = False
    """Replace an earlier run in the folder."""
    dry_run: bool = False
    """Print options and sizes, and stop."""

    def run(self) -> None:
        if self.preset is not None:
            dataclasses.replace(with_preset(self, self.preset, FOLDERS), preset=None).run()
            return
        self.check()
        from radiata_core.files import sha256
        from radiata_latents.data.population import load_population
        from radiata_latents.experiment import training_run

        population = load_population(self.population)
        if self.dry_run:
            print(training_run.described(self, population))
            return
        training_run.train_all(self, population, {self.population.name: sha256(self.population)})

    def check(self) -> None:
        """Nothing, if the options fit one another.

        Raises:
            InputError: an option of another network, or numbers out of range.
        """
        if self.resume and self.overwrite:
            raise InputError("expected --resume or --overwrite; got both. Take one.")
        if self.members < 1 or self.retries < 0 or self.validation_trials < 1:
            raise InputError(
                f"expected one member and one validation trial or more, and no fewer than 0 retries; got {self.members}, "
                f"{self.validation_trials} and {self.retries}. Leave the defaults."
            )
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"expected a dropout in [0, 1); got {self.dropout}. 0.1 is usual.")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, networks in _OF.items():
            if getattr(self, name) != defaults[name] and self.network not in networks:
                raise InputError(
                    f"expected options of the network {self.network}; got --{name.replace('_', '-')}, which belongs to "
                    f"{' and '.join(networks)}. Leave it out or choose another --network."
                )

    def network_options(self) -> dict[str, Any]:
        """Arguments of the network that are not the population's: widths and ablations."""
        names = [
            n for n, owners in _OF.items() if self.network in owners and n not in (*_OBJECTIVE, "corrected")
        ]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def objective_options(self) -> dict[str, Any]:
        """Arguments of the bound."""
        usual = {"beta": 0.01 if self.network == "radiata" else 0.1, "ramp": 200, "shown": 0.7}
        given = {name: getattr(self, name) for name in usual}
        return {name: usual[name] if value is None else value for name, value in given.items()}

    def trainer_options(self) -> dict[str, Any]:
        """Arguments of `radiata_core.train_options.TrainOptions`, what was left open filled in."""
        rate = _RATE[self.network] if self.learning_rate is None else self.learning_rate
        clip = (0.0 if self.network == "paper" else 5.0) if self.clip is None else self.clip
        return self.__dict__ | {"learning_rate": rate, "clip": clip}
