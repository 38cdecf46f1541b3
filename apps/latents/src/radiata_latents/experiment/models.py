"""Networks by name: built for a population, found in a run, a file or the package, and checked against what they are given.

    network_for(kind, population, options)    before training
    metadata_of(population, kind)             what is stored with the weights
    load_network(name or path)                after it: a network that knows what it was trained on
    check_fits(metadata, population)          the same neurons and bins, or one line that says which are not

Importing this module registers every network of the application with `radiata_core.specs`, so a file can be rebuilt in a
fresh process. An *ensemble* is a folder of runs, `member-0/`, `member-1/`, …, which differ in their seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_core.seeds import seed_of
from radiata_core.shipped_weights import find_weights, shipped_weights
from radiata_latents.data.trials import heldin_first
from radiata_latents.model.gru_smoother import GRUSmoother
from radiata_latents.model.langevin_flow import LangevinFlow
from radiata_latents.model.lfads import LFADS
from radiata_latents.model.paper_flow import PaperLangevinFlow
from radiata_latents.model.paper_switches import PaperSwitches
from radiata_latents.model.population_model import PopulationModel

__all__ = [
    "LoadedNetwork",
    "ModelKind",
    "check_fits",
    "find_model",
    "load_network",
    "members_of",
    "metadata_of",
    "network_for",
    "shipped",
]

APPLICATION = "radiata-latents"
_WEIGHTS = 1


class ModelKind(StrEnum):
    """The networks: the latent flow, the smoother, the auto-encoder, and the released LangevinFlow."""

    RADIATA = "radiata"
    GRU = "gru"
    LFADS = "lfads"
    PAPER = "paper"


_NETWORKS: dict[ModelKind, type[PopulationModel]] = {
    ModelKind.RADIATA: LangevinFlow,
    ModelKind.GRU: GRUSmoother,
    ModelKind.LFADS: LFADS,
    ModelKind.PAPER: PaperLangevinFlow,
}


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network from a file.

    Attributes:
        network: In evaluation mode, on the CPU.
        metadata: What `metadata_of` said when it was trained.
        sha256: Checksum of the weights, for the sidecars of what it makes.
    """

    network: PopulationModel
    metadata: dict[str, Any]
    sha256: str


def network_for(
    kind: ModelKind | str, population: xr.Dataset, options: Mapping[str, Any] | None = None, *, seed: int = 0
) -> PopulationModel:
    """A network of the population's sizes that begins at the mean counts of its training trials.

    Args:
        kind: One of `ModelKind`, or its word.
        population: Checked; has training trials.
        options: Further arguments of the network: widths, ablations. `switches` of the released one may be a mapping.
        seed: Of the initial weights.

    Raises:
        InputError: an unknown kind, options that the network does not know or refuses, no training trials.
    """
    if kind not in set(ModelKind):
        raise InputError(
            f"expected a network out of {', '.join(ModelKind)}; got {kind!r}. Choose one of them."
        )
    kind = ModelKind(kind)
    arguments = _sizes(population) | dict(options or {})
    if kind is ModelKind.RADIATA:
        bin_s = float(population.attrs["bin_s"])
        arguments = {"bin_s": bin_s, "band_hz": _band(bin_s)} | arguments
    if isinstance(arguments.get("switches"), Mapping):
        arguments["switches"] = _switches(arguments["switches"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, _WEIGHTS))
        try:
            network: Any = _NETWORKS[kind](**arguments)
        except InputError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:  # torch's own, of widths and probabilities
            raise InputError(
                f"expected options that the network {kind} takes; got {dict(options or {})}: {error}. Change them."
            ) from None
    network.set_mean_counts(torch.from_numpy(_mean_counts(population)))
    return network


def _sizes(population: xr.Dataset) -> dict[str, int]:
    forward = int(population["forward"].sum())
    return {
        "neurons": population.sizes["neuron"],
        "heldin": int((~population["heldout"]).sum()),
        "bins": population.sizes["time"] - forward,
        "forward": forward,
    }


def _band(bin_s: float) -> tuple[float, float]:
    """What the network takes by default, within what bins of this width can hold."""
    highest = min(8.0, 0.5 / bin_s)
    return min(0.3, highest / 4), highest


def _switches(values: Mapping[str, Any]) -> PaperSwitches:
    try:
        return PaperSwitches(**values)
    except TypeError as error:
        raise InputError(f"expected switches of the released model; {error}. See PaperSwitches.") from None


def _mean_counts(population: xr.Dataset) -> np.ndarray:
    """Mean count a bin of each neuron, held-in ones first, over observed bins of training trials, float32.

    Raises:
        InputError: there are none.
    """
    train = population["split"].values == "train"
    observed = population["observed"].values[train]
    if not observed.any():
        raise InputError("expected training trials with observed bins; got none. Prepare with a split.")
    counts = population["counts"].values[train][..., heldin_first(population)]
    return counts[observed].mean(0, dtype=np.float64).astype(np.float32)


def metadata_of(population: xr.Dataset, kind: ModelKind | str) -> dict[str, Any]:
    """What is stored with weights, in plain values: which neurons (held-in ones first), bins and source."""
    sizes, bin_s = _sizes(population), float(population.attrs["bin_s"])
    return {
        "application": APPLICATION,
        "kind": ModelKind(kind).value,
        "neurons": population["neuron"].values[heldin_first(population)].tolist(),
        "heldin": sizes["heldin"],
        "bins": sizes["bins"],
        "forward_bins": sizes["forward"],
        "bin_s": bin_s,
        "start_s": round(float(population["time"].values[0]) - bin_s / 2, 9),
        "source": str(population.attrs.get("source", "")),
    }


def shipped() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    return shipped_weights("radiata_latents")


def find_model(name_or_path: str | Path) -> Path:
    """The `.safetensors` file meant by a NAME of shipped weights, a FILE or a RUN folder.

    Raises:
        InputError: there is no such model, the run is not finished, or it is an ensemble.
    """
    path = Path(name_or_path)
    if path.is_dir() and str(name_or_path) not in shipped() and not (path / "model.safetensors").is_file():
        if members := _member_folders(path):
            raise InputError(
                f"expected one model in {path}; got an ensemble of {len(members)}. Name a member, as {members[0]}."
            )
        raise InputError(
            f"expected model.safetensors in {path}; got a folder without it. Finish its training (train --resume)."
        )
    return find_weights("radiata_latents", name_or_path)


def members_of(name_or_path: str | Path) -> list[Path]:
    """Weights of every member of an ensemble, in order; of one model that one alone.

    Raises:
        InputError: as `find_model`; a member that is not finished.
    """
    folders = _member_folders(Path(name_or_path))
    if not folders or str(name_or_path) in shipped() or (Path(name_or_path) / "model.safetensors").is_file():
        return [find_model(name_or_path)]
    return [find_model(folder) for folder in folders]


def _member_folders(path: Path) -> list[Path]:
    found = [entry for entry in path.glob("member-*") if entry.is_dir() and entry.name[7:].isdecimal()]
    return sorted(found, key=lambda entry: int(entry.name[7:]))


def load_network(name_or_path: str | Path) -> LoadedNetwork:
    """A trained network.

    Raises:
        InputError: as `find_model` and `radiata_core.checkpoint.load_model`; a model of another application.
    """
    path = find_model(name_or_path)
    loaded = load_model(path)
    if loaded.metadata.get("application") != APPLICATION or not isinstance(loaded.denoiser, PopulationModel):
        raise InputError(
            f"expected a model of {APPLICATION} in {path}; got one of "
            f"{loaded.metadata.get('application', 'something else')}. Use another file."
        )
    return LoadedNetwork(loaded.denoiser, loaded.metadata, loaded.sha256)


def check_fits(metadata: Mapping[str, Any], population: xr.Dataset) -> None:
    """Nothing, if a network with this metadata can be given this population.

    Raises:
        InputError: other neurons, bins, forward bins or width of a bin.
    """
    own = metadata_of(population, metadata["kind"])
    for key, what in (
        ("bin_s", "bins of width"),
        ("bins", "observed bins"),
        ("forward_bins", "forward bins"),
    ):
        if not np.isclose(own[key], metadata[key], rtol=1e-6):
            raise InputError(
                f"expected {what} {metadata[key]:g}, as the model was trained on; got {own[key]:g}. "
                "Prepare the recording with the same window and bins, or use another model."
            )
    wanted, got = metadata["neurons"], own["neurons"]
    if len(wanted) != len(got) or own["heldin"] != metadata["heldin"]:
        raise InputError(
            f"expected {metadata['heldin']} neurons held in and {len(wanted) - metadata['heldin']} held out, as the model "
            f"was trained on; got {own['heldin']} and {len(got) - own['heldin']}. Prepare with the same neurons."
        )
    other = [(a, b) for a, b in zip(wanted, got, strict=True) if a != b]
    if other:
        raise InputError(
            f"expected the neurons that the model was trained on; got {other[0][1]!r} for {other[0][0]!r} and "
            f"{len(other) - 1} more that differ. Prepare with the same neurons in the same order."
        )
