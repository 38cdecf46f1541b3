"""What is scored, decoded and drawn: the rates of models, or of files that were inferred before.

    model (file, run, ensemble, shipped name) → checked against the population → `inference` → `Prediction`
    file of rates                             → checked against the population               → `Prediction`

Everything is loaded and checked before the first network runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import SPLITS
from radiata_latents.data.rates_file import check_belongs, load_rates
from radiata_latents.experiment.inference import infer_rates
from radiata_latents.experiment.models import check_fits, load_network, members_of
from radiata_latents.model.population_model import PopulationModel

__all__ = ["COORDINATED", "LoadedModel", "Prediction", "Sources", "load_ensemble", "sources_of", "splits_of"]

COORDINATED = ("radiata", "gru", "lfads")
"""Kinds that are trained on counts hidden from them. The released LangevinFlow is not: a quarter leaks."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network, or the members of an ensemble, and where they are from.

    Attributes:
        name: Of the file or folder, for tables.
        networks: In evaluation mode.
        metadata: Of the first; all fit the same population.
        sha256: Of the weights; of an ensemble, of its members' checksums.
    """

    name: str
    networks: tuple[PopulationModel, ...]
    metadata: dict[str, Any]
    sha256: str

    @property
    def kind(self) -> str:
        return str(self.metadata.get("kind", "unknown"))

    @property
    def about(self) -> dict[str, Any]:
        """Attributes of what it infers."""
        return {
            "model": self.name,
            "model_sha256": self.sha256,
            "kind": self.kind,
            "members": len(self.networks),
        }


@dataclass(frozen=True, eq=False)
class Prediction:
    """Rates of one model.

    Attributes:
        name: Of the row.
        rates: (trial, time, neuron) of all trials in the population's order, NaN for those that were not inferred.
        inferred: The data set of `data.rates_file`.
    """

    name: str
    rates: np.ndarray
    inferred: xr.Dataset

    @property
    def coordinated(self) -> bool:
        """Whether bits of held-in neurons mean anything."""
        return str(self.inferred.attrs["kind"]) in COORDINATED

    def variable(self, name: str) -> np.ndarray | None:
        """Another variable of all trials, NaN for those that were not inferred; None where there is none."""
        if name not in self.inferred:
            return None
        return _spread(self.inferred[name].values, self.inferred["trial"].values, len(self.rates))


def splits_of(split: str) -> tuple[str, ...]:
    """ "all", or one of the population's words.

    Raises:
        InputError: another word.
    """
    if split == "all":
        return SPLITS
    if split not in SPLITS:
        raise InputError(f"expected --split {', '.join(SPLITS)} or all; got {split!r}. Choose one of them.")
    return (split,)


def load_ensemble(name: str | Path, population: xr.Dataset | None = None) -> LoadedModel:
    """The network or networks that a name, file, run or ensemble's folder means.

    Args:
        name: Of shipped weights, or a path.
        population: If given, what they have to fit.

    Raises:
        InputError: no such model, a broken one, members that differ, or one that does not fit.
    """
    import hashlib

    loaded = [load_network(path) for path in members_of(name)]
    first = loaded[0]
    for one in loaded:
        if population is not None:
            check_fits(one.metadata, population)
        if one.metadata["neurons"] != first.metadata["neurons"]:
            raise InputError(
                f"expected members of one population in {name}; got others. Train them on the same one."
            )
    checksum = first.sha256
    if len(loaded) > 1:
        checksum = hashlib.sha256("".join(one.sha256 for one in loaded).encode()).hexdigest()
    path = Path(name)
    label = path.parent.name or path.stem if path.name == "model.safetensors" else path.stem
    return LoadedModel(label or "model", tuple(one.network for one in loaded), first.metadata, checksum)


@dataclass(frozen=True, eq=False)
class Sources:
    """Models and files of rates that belong to a population, read and checked, and not run yet.

    Attributes:
        population: Theirs.
        models: Networks and ensembles.
        rates: Name → rates of a file.
    """

    population: xr.Dataset
    models: tuple[LoadedModel, ...]
    rates: tuple[tuple[str, xr.Dataset], ...]

    @property
    def checksums(self) -> dict[str, str]:
        """Name → SHA-256 of weights or, of a file of rates, of the weights that made it."""
        found = {model.name: model.sha256 for model in self.models}
        return found | {name: str(rates.attrs["model_sha256"]) for name, rates in self.rates}

    def predictions(
        self,
        splits: Sequence[str] = SPLITS,
        passes: int = 0,
        seed: int = 0,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> list[Prediction]:
        """Predictions of models, then of files, with different names.

        Args:
            splits: Which trials models are run on.
            passes: Draws of the posterior, 0 for its mean.
            seed: Of the draws.
            batch_size: Trials at once.
            device: Where to compute.
        """
        inferred = [
            infer_rates(
                model.networks, self.population, passes, seed, batch_size, True,
                splits=splits, device=device, **model.about,
            )
            for model in self.models
        ]  # fmt: skip
        inferred += [rates for _, rates in self.rates]
        names = _different([*(model.name for model in self.models), *(name for name, _ in self.rates)])
        count = self.population.sizes["trial"]
        return [
            Prediction(name, _spread(one["rates"].values.astype(float), one["trial"].values, count), one)
            for name, one in zip(names, inferred, strict=True)
        ]


def sources_of(population: xr.Dataset, models: Sequence[str] = (), files: Sequence[Path] = ()) -> Sources:
    """Models and files, read and checked.

    Args:
        population: Checked.
        models: As `load_ensemble` takes them.
        files: Of rates.

    Raises:
        InputError: a model or a file that cannot be read or is of another population.
    """
    loaded = tuple(load_ensemble(name, population) for name in models)
    read = tuple((path.stem, load_rates(path)) for path in files)
    for _, rates in read:
        check_belongs(rates, population)
    return Sources(population, loaded, read)


def _spread(values: np.ndarray, trials: np.ndarray, count: int) -> np.ndarray:
    """Values of some trials in the place of all, NaN elsewhere."""
    found = np.full((count, *values.shape[1:]), np.nan)
    found[trials] = values
    return found


def _different(names: Iterable[str]) -> list[str]:
    """The names, with a number where one comes again."""
    found: list[str] = []
    for name in names:
        same = sum(other == name or other.startswith(f"{name} (") for other in found)
        found.append(f"{name} ({same + 1})" if same else name)
    return found
