"""Features kept on disk: an encoder looks at each volume once, and training reads what it saw.

    store = FeatureStore(folder, encoder)
    features = store("sub-01", volume)                     (channels, *cells), float16: computed once, then read
    target = cropped(features, encoder.stride, start, size, flips=(0,))

A file is named by the id of the volume, in a folder named by the encoder's fingerprint, a hash of its kind and of all its
weights: another encoder never answers for this one. Files are safetensors, written whole or not at all.

What of the whole volume may be reused for a crop: the crop must see what the denoiser sees, so it starts and ends at the
edges of cells, and a flip of the image is a flip of the grid. Neither is exact for an encoder: at a crop's border it saw
more than the crop (which is no harm), and few encoders are mirror-symmetric. Rotations and other scales need the encoder
again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.feature_targets import Features
from radiata_core.files import atomic_path
from radiata_core.weights import read_tensors, write_tensors

__all__ = ["FeatureStore", "cropped", "fingerprint_of"]


def fingerprint_of(encoder: Any) -> str:
    """Sixteen hexadecimal digits that change with the encoder's kind, its fields and any of its weights.

    An attribute `fingerprint` of the encoder is taken instead: for one that holds what cannot be hashed.
    """
    own = getattr(encoder, "fingerprint", None)
    if isinstance(own, str):
        return own
    digest = hashlib.sha256()
    _hash(encoder, digest)
    return digest.hexdigest()[:16]


def _hash(thing: Any, digest: Any) -> None:
    digest.update(f"<{type(thing).__module__}.{type(thing).__qualname__}>".encode())
    if isinstance(thing, nn.Module):
        digest.update(repr(thing).encode())
        for name, tensor in thing.state_dict().items():
            digest.update(name.encode())
            _hash(tensor, digest)
        for name, value in sorted(vars(thing).items()):
            if isinstance(value, bool | int | float | str | tuple) and name != "training":
                digest.update(f"{name}={value!r}".encode())
    elif isinstance(thing, Tensor):
        digest.update(f"{thing.dtype}{tuple(thing.shape)}".encode())
        digest.update(thing.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            digest.update(field.name.encode())
            _hash(getattr(thing, field.name), digest)
    elif isinstance(thing, Sequence) and not isinstance(thing, str | bytes):
        for item in thing:
            _hash(item, digest)
    elif callable(thing):
        digest.update(getattr(thing, "__qualname__", type(thing).__qualname__).encode())
    else:
        digest.update(repr(thing).encode())


class FeatureStore:
    """The features of volumes by their id, from a folder where they are there, else from the encoder.

    Args:
        folder: Where files are kept; made when the first is written.
        encoder: Its fingerprint names a folder of its own inside.
    """

    def __init__(self, folder: str | Path, encoder: Features) -> None:
        self.encoder = encoder
        self.folder = Path(folder) / fingerprint_of(encoder)

    def path(self, volume_id: str) -> Path:
        """The file of a volume.

        Raises:
            InputError: an id that is no file name.
        """
        if not volume_id or volume_id != Path(volume_id).name or volume_id.startswith("."):
            raise InputError(
                f"expected an id that can name a file; got {volume_id!r}. Use sub-01_ses-1, say."
            )
        return self.folder / f"{volume_id}.safetensors"

    def __call__(self, volume_id: str, volume: Tensor | None = None) -> Tensor:
        """Features `(channels, *cells)`, float16, on the CPU.

        Args:
            volume_id: Of this volume and no other.
            volume: `(channel, *grid)`; needed the first time.

        Raises:
            InputError: features not there yet and no volume, or features out of float16's range.
        """
        path = self.path(volume_id)
        if path.is_file():
            return read_tensors(path)["features"]
        if volume is None:
            raise InputError(
                f"expected features of {volume_id} in {self.folder}; there are none. Give volume=."
            )
        made = self.encoder(volume[None])[0].cpu()
        features = made.half()
        if not bool(torch.isfinite(features).all()):
            raise InputError(
                f"expected features within float16, below 65504; got {float(made.abs().max()):g} for {volume_id}. "
                "Scale what the encoder answers."
            )
        with atomic_path(path) as part:
            write_tensors(part, {"features": features})
        return features


def cropped(
    features: Tensor,
    stride: Sequence[int],
    start: Sequence[int],
    size: Sequence[int],
    flips: Sequence[int] = (),
) -> Tensor:
    """Features `(channels, *cells)` of the crop [start, start + size) of their volume, then flipped along axes.

    Args:
        features: Of the whole volume.
        stride: Voxels of a cell along each axis.
        start: First voxel of the crop along each axis.
        size: Voxels of the crop along each axis.
        flips: Axes of the grid, 0 … dims - 1, along which the crop is flipped.

    Raises:
        InputError: a crop that is not made of whole cells, or reaches out of the volume.
    """
    cells = features.shape[1:]
    slices = [slice(None)]
    for axis, (step, begin, length) in enumerate(zip(stride, start, size, strict=True)):
        if begin % step or length % step or not 0 <= begin < begin + length <= cells[axis] * step:
            raise InputError(
                f"expected a crop of whole cells of {step} voxels within {cells[axis]} cells along axis {axis}; got voxels "
                f"{begin} to {begin + length}. Draw starts as multiples of the stride."
            )
        slices.append(slice(begin // step, (begin + length) // step))
    return features[tuple(slices)].flip([1 + axis for axis in flips])
