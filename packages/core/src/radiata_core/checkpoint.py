"""A model as two files: `model.safetensors`, the numbers, and `model.json`, what they are the numbers of.

    {"format": "radiata-model/1",
     "denoiser": {"kind": …},        rebuilds network, path and prediction from the closed list of `specs`
     "metadata": {…},                whatever the application wants to find again: spacing, covariate names, licence
     "storage": "float32" | "float16",
     "sha256": "…"}                  of the numbers

Nothing in a file is ever executed. Weights shipped in float16 are half as large and come back in the network's own dtype;
the rounding, 2⁻¹¹ relative, is far below what averaging over training steps leaves uncertain.

The state of a training run (optimiser, averages, position) is `radiata_core.training_state`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from radiata_core.bounded_building import BoundedBuilding
from radiata_core.errors import InputError
from radiata_core.files import atomic_path, read_json, sha256
from radiata_core.foreign_files import foreign
from radiata_core.specs import describe, rebuild
from radiata_core.training_state import load_state, save_state
from radiata_core.weights import read_tensors, write_tensors

__all__ = ["LoadedModel", "load_model", "load_state", "save_model", "save_state"]

_FORMAT = "radiata-model/1"


@dataclass(frozen=True)
class LoadedModel:
    """A model from a file.

    Attributes:
        denoiser: The rebuilt module, in evaluation mode, on the CPU.
        metadata: What was stored with it.
        sha256: Checksum of the weights, for the sidecars of what it makes.
    """

    denoiser: torch.nn.Module
    metadata: dict[str, Any]
    sha256: str


def save_model(
    path: str | Path,
    denoiser: torch.nn.Module,
    *,
    metadata: Mapping[str, Any],
    dtype: Literal["float16"] | None = None,
) -> None:
    """Write `path` (.safetensors) and its .json.

    Args:
        path: Ends in .safetensors.
        denoiser: Registered with `specs.buildable`, so that it can be described.
        metadata: Plain values (what JSON can hold).
        dtype: "float16" stores floating tensors in half precision; None keeps them as they are.

    Raises:
        InputError: another suffix; or a value that is not finite, or beyond float16.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"expected a name that ends in .safetensors; got {path.name}. Rename the output.")
    description = describe(denoiser)
    stored = {name: _stored(name, tensor, dtype) for name, tensor in denoiser.state_dict().items()}
    about = {
        "format": _FORMAT,
        "denoiser": description,
        "metadata": dict(metadata),
        "storage": dtype or "float32",
    }
    card = path.with_suffix(".json"), lambda part: about | {"sha256": sha256(part)}
    with atomic_path(path, card) as part:
        write_tensors(part, stored)


def _stored(name: str, tensor: torch.Tensor, dtype: str | None) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    kept = tensor.to(torch.float16) if dtype == "float16" else tensor
    if not torch.isfinite(kept).all():
        where = "not finite in float16" if torch.isfinite(tensor).all() else "not finite"
        raise InputError(
            f"expected finite weights; got a value of {name} that is {where}. Keep the last checkpoint."
        )
    return kept


def load_model(path: str | Path) -> LoadedModel:
    """The model in `path`, or in `path/model.safetensors` where `path` is a folder.

    Raises:
        InputError: no file, a pickle, a truncated or changed file, a kind this version does not know, or weights of
            another architecture (the first key that differs is named).
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    tensors = read_tensors(path)
    sidecar = path.with_suffix(".json")
    card = read_json(sidecar)
    if not isinstance(card, dict) or card.get("format") != _FORMAT:
        raise InputError(
            f"expected a model card ({_FORMAT}) in {sidecar}; got another file. Copy it beside the weights."
        )
    checksum = sha256(path)
    if checksum != card.get("sha256"):
        raise InputError(
            f"expected the weights {sidecar.name} was written for (sha256 {str(card.get('sha256'))[:12]}…); "
            f"got {path} with {checksum[:12]}…. Copy both files again."
        )
    with (
        foreign(f"expected {sidecar} to describe a network; it does not", "Copy it beside the weights."),
        torch.random.fork_rng(devices=[]),  # building a network draws its initial weights
        BoundedBuilding(tensors, sidecar),
    ):
        denoiser = rebuild(card.get("denoiser"))
    if not isinstance(denoiser, torch.nn.Module):
        raise InputError(
            f"expected {sidecar} to describe a network; got {type(denoiser).__name__}. Use another file."
        )
    _fill(denoiser, tensors, path)
    metadata = card.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(
            f"expected metadata by name in {sidecar}; got {type(metadata).__name__}. Copy it beside the weights."
        )
    return LoadedModel(denoiser.eval(), metadata, checksum)


def _fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors into the module; every key must fit, floating ones are cast to the module's dtype."""
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors:
            got = "a file without it"
        elif name not in own:
            raise InputError(
                f"expected only tensors of the described network; got {name} too in {path}. "
                "It is of another architecture: use its own .json."
            )
        elif own[name].shape != tensors[name].shape:
            got = f"{tuple(tensors[name].shape)}"
        elif own[name].is_floating_point() != tensors[name].is_floating_point():
            got = f"{tensors[name].dtype}"
        else:
            continue
        raise InputError(
            f"expected {name} of shape {tuple(own[name].shape)} in {path}; got {got}. "
            "It is of another architecture: use its own .json."
        )
    module.load_state_dict({name: tensors[name].to(own[name].dtype) for name in own})
