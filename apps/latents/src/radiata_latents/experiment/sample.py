"""`radiata-latents sample`: latents, rates and spikes of the prior, as a population of simulated trials."""

from dataclasses import dataclass
from pathlib import Path

from radiata_core.errors import InputError

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample:
    """Simulate trials from a model's prior: latents, rates and Poisson spikes, as a population.

    Trial i is drawn from seed + i: it is the same alone and among others. The file and its card say that nothing in it was
    recorded. A smoother has no prior to draw from.

    Example: radiata-latents sample --model lorenz --trials 100 --bins 50 --out samples.h5
    """

    model: str
    """A shipped model's name, a .safetensors file, or a run's folder."""
    out: Path
    """Population to write, ending in .h5; its card ends in .json."""
    trials: int = 100
    """How many, at least two."""
    bins: int | None = None
    """Bins a trial, of the model's width; by default those it was trained on. A longer one lets the dynamics run on."""
    batch_size: int = 64
    """Trials at once."""
    seed: int = 0
    """Of the first trial; the next have the next ones."""
    overwrite: bool = False
    """Replace a file that exists."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a model without a prior, sizes that cannot be, neurons that never fire in the sample, or a file that
                exists.
        """
        from radiata_core.runs import sole_writer
        from radiata_latents.data.population import save_population
        from radiata_latents.data.sidecar import card_of, free_path

        free_path(self.out, self.overwrite)
        from radiata_latents.experiment.predictions import load_ensemble
        from radiata_latents.experiment.simulation import simulated

        if (
            self.trials < 2
            or (self.bins is not None and self.bins < 2)
            or self.batch_size < 1
            or self.seed < 0
        ):
            raise InputError(
                f"expected --trials and --bins of 2 or more, --batch-size >= 1 and --seed >= 0; got {self.trials}, "
                f"{self.bins}, {self.batch_size} and {self.seed}."
            )
        model = load_ensemble(self.model)
        made = simulated(model, self.trials, self.bins, self.seed, self.batch_size)
        card = card_of(
            self.out,
            {model.name: model.sha256},
            Description="Trials simulated from the prior of a model; nothing was recorded.",
            SyntheticData=True,
            Units="spikes a bin; rates are expected counts a bin",
            BinWidth=made.attrs["bin_s"],
            Seeds=[self.seed, self.seed + self.trials - 1],
            Trials=self.trials,
            Bins=made.sizes["time"],
        )
        with sole_writer(self.out):
            free_path(self.out, self.overwrite)  # another process may have been faster
            save_population(made, self.out, card)
        print(f"{self.trials} simulated trials of {made.sizes['time']} bins in {self.out}")
