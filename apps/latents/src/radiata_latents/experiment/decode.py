"""`radiata-latents decode`: behaviour read from rates, log-rates and latents, beside smoothed spikes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from radiata_latents.experiment.decoding import Decoding

__all__ = ["Decode"]


@dataclass(frozen=True)
class Decode:
    """Decode behaviour from what models infer, beside decoding from smoothed spikes.

    A ridge regression of each bin, its penalty cross-validated within the training trials, is scored on trials of --split by
    R² with 95 % intervals over trials. Writes decode.json, scores.csv and predictions.h5.

    Example: radiata-latents decode maze.h5 --model runs/maze --model runs/gru --out decoded
    """

    population: Annotated[Path, tyro.conf.Positional]
    """Population with behaviour, written by prepare."""
    out: Path
    """Folder to write to."""
    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A shipped model's name, a .safetensors file, a run's or an ensemble's folder; again for each further one."""
    rates: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """A file of rates written by infer, in place of a model; again for each further one."""
    split: Literal["validation", "test"] = "validation"
    """Which trials are scored; the decoder is fitted on the training trials."""
    passes: int = 0
    """Draws of the posterior that rates are averaged over; 0 is one pass along its mean."""
    batch_size: int = 64
    """Trials at once."""
    seed: int = 0
    """Of the draws and of the bootstrap."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where to compute; auto takes a GPU if there is one."""
    overwrite: bool = False
    """Replace an earlier result in the folder."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: no behaviour, files that cannot be used or do not belong together, or a folder that has content.
        """
        from radiata_core.runs import Run, sha256
        from radiata_latents.data.population import load_population
        from radiata_latents.experiment.decoding import decode_all
        from radiata_latents.experiment.devices import device_of
        from radiata_latents.experiment.predictions import sources_of
        from radiata_latents.experiment.score_table import scored_trials

        cells = load_population(self.population)
        if "behaviour" not in cells:
            raise InputError(
                f"expected a population with behaviour; got none in {self.population}. Prepare it with --behaviour."
            )
        if self.passes < 0 or self.batch_size < 1:
            raise InputError(
                f"expected --passes >= 0 and --batch-size >= 1; got {self.passes} and {self.batch_size}."
            )
        scored_trials(cells, self.split)
        sources = sources_of(cells, self.model, self.rates)
        data = {self.population.name: sha256(self.population)} | sources.checksums
        with Run(
            self.out, "radiata-latents decode", self, seed=self.seed, data=data, overwrite=self.overwrite
        ):
            predictions = sources.predictions(
                ("train", self.split), self.passes, self.seed, self.batch_size, device_of(self.device)
            )
            found = decode_all(cells, predictions, self.split, self.seed)
            _write(self.out, cells, found, self.split, data)
        for line in _lines(found, self.split):
            print(line)
        print(self.out)


def _write(
    folder: Path, population: "xr.Dataset", found: "list[Decoding]", split: str, data: dict[str, str]
) -> None:
    import numpy as np

    from radiata_core.runs import atomic_path, write_json
    from radiata_imaging.hdf5 import unfailing
    from radiata_latents.data.sidecar import write_sidecar
    from radiata_latents.experiment.decoding import predictions_dataset
    from radiata_latents.experiment.tables import write_csv

    rows = [_row(one) for one in found]
    write_csv(folder / "scores.csv", rows)
    made = predictions_dataset(population, found, split)
    with atomic_path(folder / "predictions.h5") as part, unfailing(part) as stream:
        packed = {name: {"zlib": True, "complevel": 1} for name in made.data_vars}
        made.to_netcdf(stream, engine="h5netcdf", encoding=packed)
    write_sidecar(
        folder / "predictions.h5",
        data,
        Description="Behaviour, and what decoders fitted on training trials say of it; NaN where nothing is known.",
        SyntheticData=bool(population.attrs.get("synthetic", 0)),
        Split=split,
    )
    channels = [str(name) for name in population["channel"].values]
    write_json(
        folder / "decode.json",
        {
            "format": "radiata-latents-decoding/1",
            "split": split,
            "trials": int(np.sum(population["split"].values == split)),
            "channels": channels,
            "rows": rows,
        },
    )


def _row(one: "Decoding") -> dict[str, Any]:
    row = {"name": one.name, "features": one.features, "penalty": one.penalty}
    row |= {"r2": one.r2.value, "r2_low": one.r2.low, "r2_high": one.r2.high}
    return row | {f"r2_{channel}": value for channel, value in one.channels.items()}


def _lines(found: "list[Decoding]", split: str) -> list[str]:
    width = max(len(one.name) for one in found)
    lines = [f"R² of behaviour, {split} trials, with 95 % intervals over trials"]
    lines += [
        f"  {one.name:{width}}  {one.features:16} {one.r2.value:7.3f} [{one.r2.low:.3f}, {one.r2.high:.3f}]"
        for one in found
    ]
    if split == "test":
        lines.append("these are test trials: a last number, not one to choose by")
    return lines
