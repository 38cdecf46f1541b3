"""A TensorFlow.js layers model as layers and float32 arrays: `model.json` beside raw weight files, and no TensorFlow.

A converted Keras model is a folder. `model.json` holds the layers in order (`modelTopology`) and a manifest of weights
(`weightsManifest`): groups of files whose bytes, joined in the order given, are the group's tensors one after another,
little-endian, C order, no header and no padding. So the file's length is known before it is read, and a file that was cut
short, or is not the model's, is refused. Nothing in the format can run code.

References:
    TensorFlow.js, tfjs-core/src/io/types.ts (ModelJSON, WeightsManifestConfig).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared

__all__ = ["LayersModel", "read_layers_model"]


@dataclass(frozen=True)
class LayersModel:
    """A converted Keras model as it is on disk.

    Attributes:
        layers: `(class name, configuration)` of each layer, in order.
        inputs: Names of the layers that feed each layer, in the same order.
        weights: float32 arrays by name, `layer/kernel` in TensorFlow's channels-last order.
        comment: Free text of the exporter, which may say how to normalise; empty without one.
    """

    layers: tuple[tuple[str, Mapping[str, Any]], ...]
    inputs: tuple[tuple[str, ...], ...]
    weights: dict[str, np.ndarray]
    comment: str


def read_layers_model(folder: Path) -> LayersModel:
    """The layers model in `folder/model.json` and the weight files it names.

    Raises:
        InputError: no such file, not a layers model, weights other than float32, or weight files of another length.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(
            f"expected a TensorFlow.js model: model.json and its .bin file; {folder} holds no model.json. "
            "Give the folder of one brainchop model."
        )
    try:
        check_declared(path.stat().st_size, path, "text")
        described = json.loads(path.read_text(encoding="utf-8"))
        topology = described["modelTopology"]
        topology = topology.get("model_config", topology)
        rows = topology["config"]["layers"]
        layers = tuple((str(row["class_name"]), dict(row["config"])) for row in rows)
        inputs = tuple(tuple(str(node[0]) for node in (row.get("inbound_nodes") or [[]])[0]) for row in rows)
        groups = [
            (
                [_inside(folder, name) for name in group["paths"]],
                [_entry(entry) for entry in group["weights"]],
            )
            for group in described["weightsManifest"]
        ]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise InputError(
            f"expected a TensorFlow.js layers model in {path}; it cannot be read ({type(error).__name__}: {error}). "
            "Fetch the file again."
        ) from None
    weights: dict[str, np.ndarray] = {}
    for files, entries in groups:
        weights |= _group(files, entries)
    return LayersModel(layers, inputs, weights, str(described.get("_comment", "")))


def _inside(folder: Path, name: object) -> Path:
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"weight file {name!r} is not a plain file name")
    return folder / name


def _entry(entry: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    if entry["dtype"] != "float32" or entry.get("quantization"):
        raise ValueError(f"weight {entry['name']} is {entry['dtype']} or quantized; float32 is read")
    shape = tuple(int(n) for n in entry["shape"])
    if any(n < 1 for n in shape) or len(shape) > 8:
        raise ValueError(f"weight {entry['name']} has shape {shape}")
    return str(entry["name"]), shape


def _group(files: list[Path], entries: list[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    wanted = 4 * sum(prod(shape) for _, shape in entries)
    check_declared(wanted, files[0].parent if files else "model.json", "weights")
    found = sum(file.stat().st_size for file in files if file.is_file())
    names = ", ".join(file.name for file in files)
    if found != wanted or not all(file.is_file() for file in files):
        raise InputError(
            f"expected {wanted} bytes of weights in {names}; got {found}. The file is cut short, missing or of another "
            "model: fetch it again."
        )
    values = np.frombuffer(b"".join(file.read_bytes() for file in files), dtype="<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(
            f"expected finite weights in {names}; got NaN or Inf. The file is damaged: fetch it again."
        )
    weights, start = {}, 0
    for name, shape in entries:
        weights[name] = values[start : start + prod(shape)].reshape(shape)
        start += prod(shape)
    return weights
