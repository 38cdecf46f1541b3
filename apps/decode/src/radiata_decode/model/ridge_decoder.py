r"""What is kept of a trained ridge: enough to predict from new responses, in two files.

$\hat Y = \bar Y + ((X_* - \bar x)\,q)\,W$ where weights W (v, t) are kept, or
$\bar Y + ((X_* - \bar x)\,q)\,((X - \bar x)\,q)^\top C$ where the training responses X (n, v) and the dual coefficients
C (n, t) are: 91 168 latents of 15 724 voxels would be 5.7 GB of weights. The one that is smaller is kept.

`decoder.safetensors` holds the numbers, `decoder.json` the format, the sizes, what the caller adds, and the checksum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, read_json, sha256, write_json
from radiata_core.weights import read_tensors, write_tensors
from radiata_decode.model.response_scale import ResponseScale

__all__ = ["RidgeDecoder"]

_FORMAT = "radiata-ridge/1"


@dataclass(frozen=True)
class RidgeDecoder:
    """Responses (m, v) to targets (m, t).

    Attributes:
        scale: Centre and weight of each voxel.
        target_mean: (t,).
        weights: (v, t), or None where the next two are kept.
        trained: Training responses, (n, v).
        dual: Coefficients with the roots of the trial weights in them, (n, t).
        metadata: What was stored with it; plain values.
    """

    scale: ResponseScale
    target_mean: Tensor
    weights: Tensor | None = None
    trained: Tensor | None = None
    dual: Tensor | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def voxels(self) -> int:
        """v, the number of voxels it was trained with."""
        return len(self.scale.mean)

    @property
    def targets(self) -> int:
        """t."""
        return len(self.target_mean)

    def predict(self, responses: np.ndarray | Tensor) -> Tensor:
        """Predicted targets, (m, t), each from its own row alone.

        Raises:
            InputError: another number of voxels, or a value that is not finite.
        """
        self.scale.check(responses)
        return self.target_mean + self._linear(responses, self.scale)

    def towards(self, directions: np.ndarray | Tensor) -> Tensor:
        """Change of the targets for a change of the centred, weighted responses, (m, t): `directions @ W`.

        Args:
            directions: (m, v), in units of the weighted responses; nothing is subtracted or multiplied.

        Raises:
            InputError: another number of voxels, or a value that is not finite.
        """
        self.scale.check(directions, "directions")
        ones = torch.ones_like(self.scale.mean)
        plain = ResponseScale(0 * ones, ones)
        return self._linear(directions, plain)

    def _linear(self, responses: np.ndarray | Tensor, scale: ResponseScale) -> Tensor:
        dtype = self.target_mean.dtype
        if self.weights is not None:
            result = torch.zeros(responses.shape[0], self.targets, dtype=dtype)
            for part, block in scale.blocks(responses, dtype=dtype):
                result.addmm_(block, self.weights[part])
            return result
        if self.trained is None or self.dual is None:
            raise InputError("expected a decoder with weights, or with training responses; got neither.")
        kernel = torch.zeros(responses.shape[0], len(self.trained), dtype=dtype)
        ours = self.scale.blocks(self.trained, dtype=dtype)
        for (_, new), (_, old) in zip(scale.blocks(responses, dtype=dtype), ours, strict=True):
            kernel.addmm_(new, old.T)
        return kernel @ self.dual

    def save(self, path: str | Path, *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write `path` (.safetensors) and its .json.

        Raises:
            InputError: another suffix.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(
                f"expected a name that ends in .safetensors; got {path.name}. Rename the output."
            )
        named = {
            "mean": self.scale.mean,
            "weight": self.scale.weight,
            "target_mean": self.target_mean,
            "weights": self.weights,
            "trained": self.trained,
            "dual": self.dual,
        }
        with atomic_path(path) as part:
            write_tensors(part, {name: tensor for name, tensor in named.items() if tensor is not None})
            checksum = sha256(part)
        card = {"format": _FORMAT, "voxels": self.voxels, "targets": self.targets}
        card |= {"metadata": self.metadata | dict(metadata or {}), "sha256": checksum}
        write_json(path.with_suffix(".json"), card)

    @classmethod
    def load(cls, path: str | Path) -> "RidgeDecoder":
        """The decoder in `path`.

        Raises:
            InputError: no such file, a pickle, a truncated or changed file, or one of another kind.
        """
        path = Path(path)
        tensors, card = read_tensors(path), read_json(path.with_suffix(".json"))
        if not isinstance(card, dict) or card.get("format") != _FORMAT:
            raise InputError(
                f"expected a decoder's card ({_FORMAT}) in {path.with_suffix('.json')}; got another file. "
                "Copy it beside the numbers."
            )
        if card.get("sha256") != sha256(path) or not {"mean", "weight", "target_mean"} <= tensors.keys():
            raise InputError(
                f"expected the numbers that {path.stem}.json was written for; got others in {path}. Copy both again."
            )
        scale = ResponseScale(tensors.pop("mean"), tensors.pop("weight"))
        return cls(scale, tensors.pop("target_mean"), **tensors, metadata=dict(card.get("metadata") or {}))
