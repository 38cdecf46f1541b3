"""`radiata-latents infer`: rates of all neurons and bins, latents and drive, from the spikes of held-in neurons."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from radiata_core.errors import InputError

__all__ = ["Infer"]


@dataclass(frozen=True)
class Infer:
    """Infer rates of all neurons in all bins, the latents behind them, and what drives these.

    The file has rates as expected counts a bin in the population's order of neurons; with --passes also their standard
    deviation over draws of the posterior. A trial's rates are the same in any batch. An ensemble's rates are the mean.

    Example: radiata-latents infer lorenz.h5 --model lorenz --out rates.h5

    Example: radiata-latents infer maze.h5 --model runs/maze --out rates.h5 --submission sub.h5 --preset nlb:mc_maze_small
    """

    population: Annotated[Path, tyro.conf.Positional]
    """Population written by prepare."""
    model: str
    """A shipped model's name, a .safetensors file, a run's folder, or a folder of an ensemble's members."""
    out: Path
    """Rates to write, ending in .h5; their card ends in .json."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """Which trials."""
    passes: int = 0
    """Draws of the posterior that rates are averaged over; 0 is one pass along its mean."""
    submission: Path | None = None
    """Also write the Neural Latents Benchmark's file of predictions, ending in .h5; needs --split all. Its
    evaluated trials are those of the split test, or validation where there are none; the training trials are the others."""
    preset: str | None = None
    """The benchmark's data set, such as nlb:mc_maze_small; by default that of the population. At 20 ms its name in the file
    ends in _20."""
    batch_size: int = 64
    """Trials at once."""
    seed: int = 0
    """Of the draws; each trial has its own."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where to compute; auto takes a GPU if there is one."""
    overwrite: bool = False
    """Replace files that exist."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a population, a model or options that cannot be used, or a file that exists.
        """
        from radiata_core.runs import sole_writer
        from radiata_latents.data.population import load_population
        from radiata_latents.data.rates_file import save_rates
        from radiata_latents.data.sidecar import free_path

        free_path(self.out, self.overwrite, source=self.population)
        cells = load_population(self.population)
        from radiata_latents.experiment.devices import device_of
        from radiata_latents.experiment.inference import infer_rates
        from radiata_latents.experiment.predictions import load_ensemble, splits_of

        model = load_ensemble(self.model, cells)
        parts = None
        if self.submission is not None:
            from radiata_latents.experiment.submissions import parts_of

            if self.split != "all" or self.submission == self.out:
                raise InputError(
                    f"expected --split all and another name than --out for --submission; got {self.split} and "
                    f"{self.submission}. Change them."
                )
            if not self.submission.is_file() or self.out.exists():  # else perhaps of a run that was killed
                free_path(self.submission, self.overwrite, (".h5",), self.population)
            parts = parts_of(cells, self.preset)
        elif self.preset is not None:
            raise InputError(
                "expected --submission with --preset; got none. Name the file, or leave --preset out."
            )
        made = infer_rates(
            model.networks, cells, self.passes, self.seed, self.batch_size, True,
            splits=splits_of(self.split), device=device_of(self.device), **model.about,
        )  # fmt: skip
        if parts is not None and self.submission is not None:
            from radiata_latents.experiment.submissions import is_submission_of, write_submission

            if not is_submission_of(self.submission, parts, cells, made):
                free_path(self.submission, self.overwrite, (".h5",), self.population)
                write_submission(self.submission, parts, cells, made)
            print(f"submission of {parts.group} in {self.submission}")
        with sole_writer(self.out):
            free_path(
                self.out, self.overwrite, source=self.population
            )  # another process may have been faster
            save_rates(made, self.out, SyntheticData=bool(cells.attrs.get("synthetic", 0)), Split=self.split)
        print(f"{made.sizes['trial']} trials, {made.sizes['neuron']} neurons in {self.out}")
