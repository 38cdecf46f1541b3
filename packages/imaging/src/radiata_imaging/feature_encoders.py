"""Encoders of files, as targets of alignment (`radiata_core.alignment`): MeshNet, exported programs, models of transformers.

    MeshNetFeatures(read_meshnet(folder))            hidden maps of a segmenter of T1 heads, 0.4 MB, dense: a good target
    program_features(path, example, trusted=True)    a TorchScript (.ts, .pt) or torch.export (.pt2) archive, deepbet's say
    transformers_features(folder)                    a model of transformers from a folder on disk, DINOv2 say
    Slicewise(...), tapped_features(...)             `radiata_core.feature_targets`: slice by slice; any layer of any module

What may run code. Nothing here unpickles a Python object, downloads, or imports code from a folder of weights: transformers
models are read from safetensors, by the classes of the installed package. An archive of TorchScript or torch.export is a
*program*: loading it runs no Python of the file, but calling it runs what operations it holds, and those can read and write
files. There is no way to make it safe by looking at it, so it wants `trusted=True`: you know who made it.
"""

import inspect
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from radiata_core.errors import InputError
from radiata_core.feature_targets import TappedFeatures, tapped_features
from radiata_core.files import read_json, sha256
from radiata_core.handles import on_cells
from radiata_imaging.meshnet import MeshNet

__all__ = ["MeshNetFeatures", "PretrainedFeatures", "program_features", "transformers_features"]


class MeshNetFeatures(nn.Module):
    """Hidden maps of a MeshNet, averaged over cells.

    Args:
        model: From `meshnet.read_meshnet`.
        layers: How many of its layers are run, 1 … all; None for all but the last, which names classes.
        stride: Edge of a cell in voxels, >= 1.
        window: Intensities that the model's 0 and 1 are, in units of the image; None for the model's own quantiles of each
            image, which want whole heads.

    The grid should be the model's, 1 mm, axes towards L, I, A (`meshnet.conform`): a crop of it is as good, near its border
    less.

    Raises:
        InputError: a number of layers or an edge out of range.
    """

    def __init__(
        self,
        model: MeshNet,
        *,
        layers: int | None = None,
        stride: int = 4,
        window: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        number = len(model.layers) - 1 if layers is None else layers
        if (
            not 1 <= number <= len(model.layers)
            or stride < 1
            or (window is not None and window[0] >= window[1])
        ):
            raise InputError(
                f"expected 1 to {len(model.layers)} layers, a stride >= 1 and a window low < high; got {number}, {stride} "
                f"and {window}. All but the last layer is usual."
            )
        self.model, self.number, self.window = model, number, window
        self.channels = model.layers[number - 1].kernel.shape[0]
        self.stride = (stride,) * 3
        for index, layer in enumerate(model.layers[:number]):
            self.register_buffer(f"kernel_{index}", layer.kernel.clone())
            self.register_buffer(f"bias_{index}", None if layer.bias is None else layer.bias.clone())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, *cells)`, float32, of volumes `(batch, 1, x, y, z)`."""
        return torch.cat([self._of(volume) for volume in x.float().split(1)])

    def _of(self, volume: Tensor) -> Tensor:
        values = self._scaled(volume).contiguous(
            memory_format=torch.channels_last_3d
        )  # four times faster on CPU
        for index, layer in enumerate(self.model.layers[: self.number]):
            kernel, bias = getattr(self, f"kernel_{index}"), getattr(self, f"bias_{index}")
            values = functional.conv3d(values, kernel, bias, 1, layer.reach, layer.dilation)
            values = layer.finish(functional.instance_norm(values) if layer.normalised else values)
        return functional.avg_pool3d(values, self.stride) if self.stride[0] > 1 else values

    def _scaled(self, volume: Tensor) -> Tensor:
        if self.window is not None:
            return (volume - self.window[0]) / (self.window[1] - self.window[0])
        scaled = self.model.scale(volume[0, 0].cpu().numpy())
        return torch.from_numpy(scaled)[None, None].to(volume.device)


def program_features(
    path: str | Path,
    example: Tensor,
    *,
    trusted: bool = False,
    layer: str = "",
    stride: tuple[int, ...] | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> TappedFeatures:
    """What a program from a file answers: TorchScript, or `torch.export` (.pt2).

    Args:
        path: The archive.
        example: An image `(1, channel, *grid)`, as `feature_targets.tapped_features`.
        trusted: That you know who made it. A program can read and write files when it is called.
        layer: Name of a module inside a TorchScript program; "" for its output.
        stride: As `tapped_features`.
        prepare: As `tapped_features`.

    Raises:
        InputError: not trusted, no such file, not such an archive, or an output that is no map.
    """
    path = Path(path)
    if not trusted:
        raise InputError(
            f"expected trusted=True for {path.name}: it is a program, which can read and write files when it is called. "
            "Say so if you know who made it."
        )
    if not path.is_file():
        raise InputError(f"expected a program (.pt2, .pt, .ts) at {path}; got nothing there. Check the path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # torch would rather not see TorchScript again
            if path.suffix == ".pt2":
                module = torch.export.load(path).module()
            else:
                module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"expected a TorchScript or torch.export archive; got {path}, which cannot be read ({reason}). Export it again."
        ) from None
    held = _Program(module)
    tapped = tapped_features(held, f"module.{layer}".rstrip("."), example, stride=stride, prepare=prepare)
    return replace(tapped, name=f"program {sha256(path)[:16]} {layer}")


class _Program(nn.Module):
    """A program around which there is a module: an exported one has no modes."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)

    def train(self, mode: bool = True) -> "_Program":
        return self


@dataclass(frozen=True, eq=False)
class PretrainedFeatures:
    """Last hidden state of a model of transformers on pictures, as maps.

    Attributes:
        model: From `transformers_features`.
        channels: Features of a cell.
        stride: Voxels of a cell along each axis.
        mean: Mean of each colour that the model wants taken off, of intensities 0 … 1.
        spread: Standard deviation likewise.
    """

    model: nn.Module
    channels: int
    stride: tuple[int, int]
    mean: tuple[float, ...]
    spread: tuple[float, ...]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, *cells)` of pictures `(batch, 1 or colours, row, column)` within [-1, 1]."""
        mean, spread = (x.new_tensor(v)[:, None, None] for v in (self.mean, self.spread))
        pictures = ((x + 1) / 2 - mean) / spread
        options = {"interpolate_pos_encoding": True} if _interpolates(self.model) else {}
        values: Tensor = self.model(pixel_values=pictures, **options).last_hidden_state
        if values.ndim == 4:
            return values
        cells = tuple(n // s for n, s in zip(x.shape[2:], self.stride, strict=True))
        return on_cells(values[:, values.shape[1] - cells[0] * cells[1] :], cells)


def _interpolates(model: nn.Module) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def transformers_features(folder: str | Path, *, edge: int = 64) -> PretrainedFeatures:
    """A model of transformers from a folder on disk: `config.json` and safetensors, nothing else is read as weights.

    For volumes put it into `radiata_core.feature_targets.Slicewise`. Nothing is downloaded and no code of the folder runs.

    Args:
        folder: As `save_pretrained` writes it; `preprocessor_config.json` may give mean and spread of the colours.
        edge: Of the picture that is tried once, for channels and stride; one that the model divides evenly.

    Raises:
        InputError: the package is not installed, no such folder, no safetensors in it, or not a model of pictures.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise InputError(
            f"expected a folder with config.json and weights in safetensors; got {folder}. Save the model by "
            "save_pretrained."
        )
    try:
        from transformers import AutoModel
    except ImportError:
        raise InputError(
            'expected the package transformers; it is not installed. pip install "radiata-imaging[transformers]"'
        ) from None
    try:
        model = AutoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"expected a model that the installed transformers knows; got {folder} ({str(error).strip().splitlines()[0]})."
        ) from None
    if "pixel_values" not in inspect.signature(model.forward).parameters:
        raise InputError(
            f"expected a model of pictures; got {type(model).__name__}. Choose one that takes pixel_values."
        )
    said = folder / "preprocessor_config.json"
    colours = read_json(said) if said.is_file() else {}
    mean = tuple(map(float, colours.get("image_mean", (0.5, 0.5, 0.5))))
    spread = tuple(map(float, colours.get("image_std", (0.5, 0.5, 0.5))))
    patch = getattr(model.config, "patch_size", None)
    known = (patch, patch) if isinstance(patch, int) else None
    model.eval().requires_grad_(False)
    if known is None:  # a convolutional one says by its answer
        with torch.no_grad():
            values = model(pixel_values=torch.zeros(1, len(mean), edge, edge)).last_hidden_state
        if values.ndim != 4:
            raise InputError(
                f"expected maps or a patch_size; got {type(model).__name__} without. Use tapped_features."
            )
        known = (edge // values.shape[2], edge // values.shape[3])
        return PretrainedFeatures(model, values.shape[1], known, mean, spread)
    return PretrainedFeatures(model, int(model.config.hidden_size), known, mean, spread)
