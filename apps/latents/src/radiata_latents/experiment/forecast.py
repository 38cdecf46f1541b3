"""`radiata-latents forecast`: the dynamics beyond the observed window, for any horizon."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from radiata_core.errors import InputError

__all__ = ["Forecast"]


@dataclass(frozen=True)
class Forecast:
    """Run a model's dynamics on from the last observed bin, and score it where counts are known.

    Each draw takes a path of the posterior, its last observed state, and the prior's noise from there. The file has the mean
    over draws as `rates` and their 5 % and 95 % quantiles as `rates_low` and `rates_high`, of the bins after the observed
    window. Bits a spike stand beside those of each neuron's mean in training and of the last observed rate held on.

    Example: radiata-latents forecast maze.h5 --model runs/maze --bins 20 --draws 100 --out forecast.h5
    """

    population: Annotated[Path, tyro.conf.Positional]
    """Population written by prepare."""
    model: str
    """A shipped model's name, a .safetensors file, or a run's folder; it has to have dynamics (radiata)."""
    out: Path
    """Rates to write, ending in .h5; the card, with the scores, ends in .json."""
    bins: int = 10
    """Horizon: bins after the observed window."""
    split: Literal["all", "train", "validation", "test"] = "validation"
    """Which trials."""
    draws: int = 100
    """Draws, at least 2; 0 runs the mean of the posterior on without noise, and has no quantiles."""
    batch_size: int = 64
    """Trials at once."""
    seed: int = 0
    """Of the draws and of the bootstrap."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where to compute; auto takes a GPU if there is one."""
    overwrite: bool = False
    """Replace a file that exists."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a population or model that cannot be used, a model without dynamics, or a file that exists.
        """
        from radiata_core.runs import sole_writer
        from radiata_latents.data.population import load_population
        from radiata_latents.data.rates_file import save_rates
        from radiata_latents.data.sidecar import free_path

        free_path(self.out, self.overwrite, source=self.population)
        cells = load_population(self.population)
        from radiata_latents.experiment.devices import device_of
        from radiata_latents.experiment.forecasts import forecast, forecast_scores
        from radiata_latents.experiment.predictions import load_ensemble, splits_of

        if self.bins < 1 or self.draws < 0 or self.draws == 1 or self.batch_size < 1:
            raise InputError(
                f"expected --bins >= 1, --draws of 0 or at least 2, and --batch-size >= 1; got {self.bins}, {self.draws} "
                f"and {self.batch_size}."
            )
        model = load_ensemble(self.model, cells)
        made = forecast(
            model, cells, self.bins, self.draws, self.seed, self.batch_size,
            splits=splits_of(self.split), device=device_of(self.device),
        )  # fmt: skip
        scores = forecast_scores(cells, made, self.seed)
        with sole_writer(self.out):
            free_path(
                self.out, self.overwrite, source=self.population
            )  # another process may have been faster
            save_rates(made, self.out, Description="Rates beyond the observed window.", Draws=self.draws,
                       Horizon=self.bins, Split=self.split, Scores=scores,
                       SyntheticData=bool(cells.attrs.get("synthetic", 0)))  # fmt: skip
        for line in _lines(scores, self.split):
            print(line)
        print(f"{made.sizes['trial']} trials, {self.bins} bins ahead in {self.out}")


def _lines(scores: dict[str, object], split: str) -> list[str]:
    if not scores.get("bins"):
        return ["no counts beyond the observed window: nothing to score (prepare --forward)"]
    lines = [f"fp-bps of {scores['bins']} bins, {scores['trials']} trials ({split}), 95 % over trials"]
    for name, value in scores["fp_bps"].items():  # type: ignore[attr-defined]
        lines.append(f"  {name:34} {value['value']:7.3f} [{value['low']:.3f}, {value['high']:.3f}]")
    if split == "test":
        lines.append("these are test trials: a last number, not one to choose by")
    return lines
