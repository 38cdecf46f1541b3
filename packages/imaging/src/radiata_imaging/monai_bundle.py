"""A model as a MONAI bundle: a folder that `monai.bundle` loads, checks and runs.

    configs/metadata.json     what the network takes and gives, what it is for
    configs/inference.json    network, data, inferer and evaluator, as MONAI's configuration language spells them
    models/model.pt           the weights, tensors alone (`torch.load(weights_only=True)` reads them)

    monai.bundle.load("NAME", bundle_dir="FOLDER", workflow_type="inference")     the network with its weights
    monai.bundle.run(config_file="…/inference.json", bundle_root="…")             what the evaluator does

The network is rebuilt by `radiata_core.specs.rebuild` from the description in the configuration, so the program that made
the bundle must be installed where it runs; the metadata says which version. MONAI runs what a configuration names, whoever
wrote it (it warns of that): run a bundle only from someone whose programs you would run. We write bundles and read none.

References:
    MONAI Bundle Specification. https://docs.monai.io/en/latest/mb_specification.html
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from radiata_core.files import atomic_folder, atomic_path, plain, write_json
from radiata_core.specs import describe, rebuild

__all__ = ["built", "filled", "write_bundle"]


def write_bundle(
    folder: Path,
    model: torch.nn.Module,
    metadata: Mapping[str, Any],
    *,
    dataset: Mapping[str, Any],
    inferer: Mapping[str, Any],
    evaluator: Mapping[str, Any],
    imports: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder; where it is.

    Args:
        folder: A new one is whole or absent; in one that is there the files of the bundle are replaced, one by one.
        model: Registered with `radiata_core.specs.buildable`.
        metadata: Content of `configs/metadata.json`.
        dataset: MONAI's description of the data to work on, with `_target_`.
        inferer: Of what applies the network.
        evaluator: Of an object whose `run()` does the work; may refer to @network, @dataset, @inferer, @output_dir, @device.
        imports: Modules that make the model's parts known to `radiata_core.specs`.
        more: Further entries of the configuration, which others refer to.
    """
    configuration = {
        "imports": [f"$import {name}" for name in ("torch", *imports)],
        "bundle_root": ".",
        "dataset_dir": "@bundle_root",
        "output_dir": "$@bundle_root + '/eval'",
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{__name__}.built", "spec": describe(model)},
        "network": {
            "_target_": f"{__name__}.filled",
            "network": "@network_def",
            "checkpoint": "@checkpoint",
            "device": "@device",
        },
        **(more or {}),
        "dataset": dict(dataset),
        "inferer": dict(inferer),
        "evaluator": dict(evaluator),
        "run": ["$@evaluator.run()"],
    }
    stream = io.BytesIO()  # torch writes the file's name into a file, and two errors where a disk is full
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, stream)
    there = folder.is_dir() and any(folder.iterdir())
    with contextlib.nullcontext(folder) if there else atomic_folder(folder) as place:
        with atomic_path(place / "models" / "model.pt") as part:
            part.write_bytes(stream.getbuffer())
        write_json(place / "configs" / "metadata.json", dict(metadata))
        write_json(place / "configs" / "inference.json", plain(configuration))
    return folder


def built(spec: Mapping[str, Any]) -> torch.nn.Module:
    """The network of a description, with weights that mean nothing yet; the global random state is as it was."""
    with torch.random.fork_rng(devices=[]):
        network: torch.nn.Module = rebuild(dict(spec))
    return network


def filled(network: torch.nn.Module, checkpoint: str, device: str | torch.device) -> torch.nn.Module:
    """The network with the weights of a file, in evaluation mode on its device; the file may hold nothing but tensors."""
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return network.eval().to(device)
