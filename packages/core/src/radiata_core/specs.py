"""Objects as plain JSON and back, from a closed list.

A checkpoint must rebuild its network, path and prediction without executing anything from the file. So a class that may
be named in a file registers itself under a short word, and its constructor arguments are the specification:

    {"kind": "linear-path"}      {"kind": "unet", "channels": [32, 64], ...}

Frozen dataclasses are described by their fields; other classes (networks) by the attribute `options`, the dictionary of
arguments they were made with. Nested registered objects are described recursively.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from radiata_core.errors import InputError

__all__ = ["buildable", "describe", "rebuild"]

_PROVIDERS = (
    "radiata_core.aggregated_denoisers",
    "radiata_core.anchors",
    "radiata_core.conversion",
    "radiata_core.denoisers",
    "radiata_core.discrete_path",
    "radiata_core.energy",
    "radiata_core.flowmaps",
    "radiata_core.interpolants",
    "radiata_core.joint_denoisers",
    "radiata_core.kernels",
    "radiata_core.low_rank",
    "radiata_core.modality_laws",
    "radiata_core.nets.medforj",
    "radiata_core.nets.mmdit",
    "radiata_core.nets.spiking",
    "radiata_core.nets.transformer",
    "radiata_core.nets.unet",
    "radiata_core.noise_experts",
    "radiata_core.optimal_transport",
    "radiata_core.overlapping_windows",
    "radiata_core.paths",
    "radiata_core.refinement",
    "radiata_core.routing",
    "radiata_core.shared_modalities",
    "radiata_core.spiking_networks",
    "radiata_core.time_weights",
    "radiata_core.times",
    "radiata_core.unrolled",
)
_KINDS: dict[str, type] = {}
_NAMES: dict[type, str] = {}


def buildable(name: str) -> Callable[[type], type]:
    """Class decorator: allow the class to be named `name` in a specification."""

    def register(cls: type) -> type:
        if _KINDS.get(name, cls).__qualname__ != cls.__qualname__:
            raise ValueError(f"two classes ask for the name {name!r}: {_KINDS[name]} and {cls}")
        _KINDS[name] = cls
        _NAMES[cls] = name
        return cls

    return register


def describe(thing: Any) -> Any:
    """JSON-able description of a registered object (or of plain numbers, strings, lists and dictionaries)."""
    if isinstance(thing, Enum):
        return thing.value
    if type(thing) in _NAMES:
        if dataclasses.is_dataclass(thing):
            arguments = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
        else:
            arguments = dict(thing.options)
        return {"kind": _NAMES[type(thing)]} | {key: describe(value) for key, value in arguments.items()}
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    raise TypeError(
        f"cannot describe {type(thing).__name__}: register it with @buildable or give a plain value"
    )


def rebuild(spec: Any) -> Any:
    """Make the object that `describe` described.

    Raises:
        InputError: the kind is unknown, or its arguments do not fit this version.
    """
    if isinstance(spec, Mapping):
        arguments = {key: rebuild(value) for key, value in spec.items() if key != "kind"}
        if "kind" not in spec:
            return arguments
        kind = spec["kind"]
        if not isinstance(kind, str) or kind not in _KINDS:
            # A file may be the first to name a class: the core's own modules register theirs on import.
            for module in _PROVIDERS:
                importlib.import_module(module)
        if not isinstance(kind, str) or kind not in _KINDS:
            known = ", ".join(sorted(_KINDS))
            raise InputError(
                f"expected one of the kinds {known}; got {kind!r}. Update radiata or use another file."
            )
        try:
            return _KINDS[kind](**arguments)
        except InputError:
            raise
        except Exception as error:  # a constructor raises what values of another kind happen to mean
            raise InputError(
                f"{kind!r} cannot be made from {sorted(arguments)}: {' '.join(str(error).split())[:200]}. The file is from "
                "another version."
            ) from None
    if isinstance(spec, list | tuple):
        return tuple(rebuild(value) for value in spec)
    return spec
