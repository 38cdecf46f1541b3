"""A nested state of tensors and plain values as two files, without pickle.

    state.safetensors   every tensor
    state.json          the tree, with {"$tensor": key} where a tensor stood, and the tensors' SHA-256

The folder appears whole or not at all (`atomic_folder`), so a kill at any moment leaves the earlier ones valid. Floats
survive JSON exactly (shortest repr that reads back to the same double), hence a resumed run is the same to the bit.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from radiata_core.errors import InputError
from radiata_core.files import atomic_folder, read_json, sha256
from radiata_core.foreign_files import foreign
from radiata_core.weights import read_tensors, write_tensors

__all__ = ["load_state", "save_state"]

_FORMAT = "radiata-state/1"


def save_state(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Write a tree of mappings, lists, tensors, numbers, strings and None as the folder `folder`, atomically.

    Raises:
        TypeError: a leaf is none of these.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _taken_apart(state, "", tensors)
    with atomic_folder(folder) as part:
        weights = part / "state.safetensors"
        write_tensors(weights, tensors)
        content = {"format": _FORMAT, "sha256": sha256(weights), "tree": tree}
        (part / "state.json").write_text(json.dumps(content), encoding="utf-8")


def load_state(folder: str | Path) -> dict[str, Any]:
    """The tree that `save_state` wrote; tuples come back as lists, tensors on the CPU.

    Raises:
        InputError: a file is missing, cut short or changed.
    """
    folder = Path(folder)
    content = read_json(folder / "state.json")
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise InputError(
            f"expected a training state ({_FORMAT}) in {folder}; got another file. Use an earlier one."
        )
    weights = folder / "state.safetensors"
    if not weights.is_file():
        raise InputError(
            f"expected {weights} beside state.json; got nothing there. Use an earlier checkpoint."
        )
    if sha256(weights) != content.get("sha256"):
        raise InputError(
            f"expected the tensors state.json names; got a changed or truncated {weights}. Use an earlier one."
        )
    tensors = read_tensors(weights)
    with foreign(
        f"expected the tree of a training state in {folder}; got another one", "Use an earlier one."
    ):
        return dict(_put_together(content["tree"], tensors))


def _taken_apart(thing: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(thing, torch.Tensor):
        tensors[name] = thing
        return {"$tensor": name}
    if isinstance(thing, Mapping):
        items = [[key, _taken_apart(value, f"{name}/{key}", tensors)] for key, value in thing.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in thing):
            return dict(items)
        return {"$items": items}  # an optimiser counts its parameters: integer keys stay integers
    if isinstance(thing, list | tuple):
        return [_taken_apart(value, f"{name}/{index}", tensors) for index, value in enumerate(thing)]
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    raise TypeError(
        f"cannot store {type(thing).__name__} at {name or 'the top'}: give tensors and plain values"
    )


def _put_together(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(tree, Mapping):
        if set(tree) == {"$tensor"}:
            return tensors[tree["$tensor"]]
        if set(tree) == {"$items"}:
            return {key: _put_together(value, tensors) for key, value in tree["$items"]}
        return {key: _put_together(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_put_together(value, tensors) for value in tree]
    return tree
