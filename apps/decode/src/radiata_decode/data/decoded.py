"""What was decoded, in one file: pictures, flow, films or categories, one row a stimulus.

    decoded.h5    stimulus (n,) names; and, as the route has it,
                  images (n, y, x, 3) uint8        the reconstruction
                  low_level (n, y, x, 3) uint8     the decoder's own picture, before a generator
                  draws (n, draw, y, x, 3) uint8   single samples of the generator
                  sd (n, y, x) float32             their spread, standard deviation of grey values in [0, 1]
                  flow (n, step, 2, y, x) float32  pixels a frame step, x to the right and y downward
                  movies (n, frame, y, x, 3) uint8
                  probabilities (n, category) float32, attribute categories
                  attributes format "radiata-decoded/1", route, split, provides
    decoded.json  which program, model and subject

Reconstructions are outputs of a model, not photographs of thoughts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_core.foreign_files import foreign
from radiata_imaging.hdf5 import new_hdf5, open_hdf5

__all__ = ["DECODED", "Decoded", "read_decoded", "write_decoded"]

DECODED: dict[str, tuple[str, int]] = {
    "images": ("uint8", 4),
    "low_level": ("uint8", 4),
    "draws": ("uint8", 5),
    "sd": ("float32", 3),
    "flow": ("float32", 5),
    "movies": ("uint8", 5),
    "probabilities": ("float32", 2),
}
"""Arrays of a decoded file: type and number of axes."""
_FORMAT = "radiata-decoded/1"


@dataclass(frozen=True)
class Decoded:
    """Contents of a decoded file.

    Attributes:
        stimulus: Names, in the order of the rows.
        arrays: By the names of `DECODED`.
        route: image, surface, motion or category.
        split: Whose trials were decoded.
        categories: Names of the columns of `probabilities`.
    """

    stimulus: list[str]
    arrays: Mapping[str, np.ndarray]
    route: str
    split: str
    categories: tuple[str, ...] = ()

    @property
    def provides(self) -> str:
        """The most complete thing in it: video, image, flow or category."""
        for name, word in (("movies", "video"), ("images", "image"), ("flow", "flow")):
            if name in self.arrays:
                return word
        return "category"


def write_decoded(path: Path, decoded: Decoded) -> Path:
    """Write the file atomically.

    Raises:
        InputError: an array of another type or length, or none at all.
    """
    if not decoded.arrays:
        raise InputError("expected something decoded to write; got no array.")
    for name, array in decoded.arrays.items():
        _check(name, array, len(decoded.stimulus))
    with atomic_path(path) as part, new_hdf5(part) as opened:
        opened.attrs["format"] = _FORMAT
        opened.attrs["route"] = decoded.route
        opened.attrs["split"] = decoded.split
        opened.attrs["provides"] = decoded.provides
        opened.attrs["warning"] = "Reconstructions are outputs of a model; not for clinical use."
        opened.create_dataset("stimulus", data=np.array(decoded.stimulus, dtype=h5py.string_dtype("utf-8")))
        for name, array in decoded.arrays.items():
            stored = opened.create_dataset(
                name, data=array, compression="gzip", compression_opts=4, shuffle=True
            )
            if name == "probabilities":
                stored.attrs["categories"] = np.array(decoded.categories, dtype=h5py.string_dtype("utf-8"))
    return path


def read_decoded(path: Path) -> Decoded:
    """The contents of a decoded file, or of `decoded.h5` in a folder.

    Raises:
        InputError: no such file, a broken one, or one of another format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "decoded.h5"
    if not path.is_file():
        raise InputError(
            f"expected a decoded file; got no such file: {path}. Make it with `radiata-decode decode`."
        )
    with (
        foreign(f"expected an HDF5 file; got {path}, which cannot be read", "Decode again."),
        open_hdf5(path, whole=True) as opened,
    ):
        form = str(opened.attrs.get("format"))
        names = [word.decode() for word in opened["stimulus"][()]] if form == _FORMAT else []
        arrays = {name: opened[name][()] for name in DECODED if name in opened}
        route, split = str(opened.attrs.get("route", "")), str(opened.attrs.get("split", ""))
        words = _words(opened["probabilities"].attrs["categories"] if "probabilities" in opened else ())
    if form != _FORMAT:
        raise InputError(
            f"expected a file of format {_FORMAT}; got {form} in {path}. Make it with `radiata-decode decode`."
        )
    for name, array in arrays.items():
        _check(name, array, len(names))
    return Decoded(names, arrays, route, split, words)


def _words(words: Sequence[str | bytes] | np.ndarray) -> tuple[str, ...]:
    return tuple(word.decode() if isinstance(word, bytes) else str(word) for word in words)


def _check(name: str, array: np.ndarray, count: int) -> None:
    if name not in DECODED:
        raise InputError(f"expected one of {', '.join(DECODED)}; got {name}.")
    dtype, axes = DECODED[name]
    if array.dtype != np.dtype(dtype) or array.ndim != axes or len(array) != count:
        raise InputError(
            f"expected {name} of {dtype} with {axes} axes and {count} rows; got {array.dtype} {array.shape}."
        )
