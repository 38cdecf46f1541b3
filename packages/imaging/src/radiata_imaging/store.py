"""Prepared heads in one file: an HDF5 store that is complete or absent.

    images      uint16 (N, x, y, z), one chunk a volume, lzf;  v = scale · stored + offset
    affines     float64 (N, 4, 4), where each head lies in its input's world
    covariates  float32 (N, K), NaN = not given
    volumes     float32 (N, R) in ml, NaN = not measured
    text (N,)   subjects, sessions, sources, sha256, split, records
    attributes  format, complete, shape, spec, affine, scale, offset, covariate_names, regions, store_id

stored = round((v + 1)/2 · 65535): the step is 2/65535, so a value in [−1, 1] is off by at most 1/65535.

A store under its final name is always whole: `store_writer` puts it there by a rename. `Item` and `StoreWriter` are
imported from here too.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_core.specs import rebuild
from radiata_imaging.hdf5 import declared_bytes, open_hdf5, whole_array
from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.store_format import FORMAT, SPLITS, TEXT, decode, encode
from radiata_imaging.store_writer import Item, StoreWriter
from radiata_imaging.volume import times

__all__ = ["SPLITS", "Item", "Store", "StoreDataset", "StoreWriter", "decode", "encode"]


class Store:
    """A finished store, opened lazily, once per process (HDF5 handles must not cross a fork).

    Args:
        path: The `.h5` file.
        shape: Shape that is needed, where something depends on it.

    Raises:
        InputError: missing, not a store, incomplete, or of another shape.
    """

    def __init__(self, path: Path | str, shape: Sequence[int] | None = None) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._process = -1
        if self.path.is_dir() or not self.path.exists():
            parts = self.path.with_name(self.path.name + ".parts")
            hint = (
                "it is unfinished: run prepare again to complete it"
                if parts.exists()
                else "make it with prepare"
            )
            raise InputError(f"expected a store; got no such file: {self.path}. Check the path, or {hint}.")
        with (
            foreign(
                f"expected a {FORMAT} file; got {self.path}, which is not one or is damaged",
                "Make it with prepare.",
            ),
            open_hdf5(self.path) as file,
        ):
            self._read_attributes(file)
        if shape is not None and tuple(shape) != self.shape:
            raise InputError(
                f"expected a store of {times(tuple(shape))} volumes; got {times(self.shape)} in {self.path}. "
                "Prepare the data with the model's --spacing and --shape."
            )

    def _read_attributes(self, file: h5py.File) -> None:
        attributes = file.attrs
        if attributes.get("format") != FORMAT and "complete" not in attributes:
            raise InputError(
                f"expected a {FORMAT} file; got another HDF5 file {self.path}. Make a store with radiata-t1 "
                "prepare."
            )
        if not attributes["complete"]:
            raise InputError(f"expected a complete store; {self.path} was never finished. Run prepare again.")
        if attributes["format"] != FORMAT:
            raise InputError(
                f"expected {FORMAT}; got {attributes['format']!r} in {self.path}. Prepare it again."
            )
        self.shape: tuple[int, ...] = tuple(int(n) for n in attributes["shape"])
        self.spec: PreprocessSpec = rebuild(json.loads(attributes["spec"]))
        if not isinstance(self.spec, PreprocessSpec):
            raise TypeError(f"a specification of {type(self.spec).__name__}")
        self.affine = np.asarray(attributes["affine"], dtype=np.float64)
        self.scale, self.offset = float(attributes["scale"]), float(attributes["offset"])
        self.covariate_names: tuple[str, ...] = tuple(json.loads(attributes["covariate_names"]))
        self.regions: tuple[str, ...] = tuple(json.loads(attributes["regions"]))
        self.store_id = str(attributes["store_id"])
        self.covariates: np.ndarray = whole_array(file["covariates"])
        self.affines: np.ndarray = whole_array(file["affines"])
        self._volumes: np.ndarray = whole_array(file["volumes"])
        texts = {name: np.array(_words(file[name]), dtype=object) for name in TEXT[:-1]}
        self.subjects, self.sessions, self.sources = texts["subjects"], texts["sessions"], texts["sources"]
        self.sha256, self.split = texts["sha256"], texts["split"]
        if file["images"].shape != (len(self.subjects), *self.shape):
            raise InputError(
                f"expected images of {times(self.shape)}; got {file['images'].shape} in {self.path}. Prepare "
                "it again."
            )
        rows = len(self.subjects)
        wanted = {
            "covariates": (rows, len(self.covariate_names)),
            "affines": (rows, 4, 4),
            "volumes": (rows, len(self.regions)),
        }
        for name, size in wanted.items():
            if file[name].shape != size or file[name].dtype.kind != "f":
                raise InputError(
                    f"expected {name} of {size} numbers; got {file[name]} in {self.path}. Prepare it again."
                )
        if any(len(text) != rows for text in texts.values()) or len(file["records"]) != rows:
            raise InputError(
                f"expected {rows} rows of each column in {self.path}; got others. Prepare it again."
            )
        images = file["images"]
        if images.dtype != np.uint16:
            raise InputError(
                f"expected images of uint16; got {images.dtype} in {self.path}. Prepare it again."
            )
        check_declared(2 * int(np.prod(self.shape, dtype=object)), self.path, "one head")

    @property
    def volumes(self) -> np.ndarray | None:
        """Regional volumes in ml, float32 (N, R) in the order of `regions`; None where none was given."""
        return self._volumes if self.regions else None

    @property
    def file(self) -> h5py.File:
        """The open file of this process."""
        if self._file is None or self._process != os.getpid():
            self._file = h5py.File(self.path, "r")
            self._process = os.getpid()
        return self._file

    @property
    def images(self) -> h5py.Dataset:
        """Stored heads, uint16 (N, x, y, z); `decode` makes them [−1, 1]."""
        return self.file["images"]

    def __len__(self) -> int:
        return len(self.subjects)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_process": -1}

    def indices(self, split: str | None = None) -> np.ndarray:
        """Positions of the items of a split (of all, for None), ascending.

        Raises:
            InputError: no such split.
        """
        if split is None:
            return np.arange(len(self))
        if split not in SPLITS:
            raise InputError(f"expected a split out of {', '.join(SPLITS)}; got {split!r}.")
        return np.flatnonzero(self.split == split)

    def array(self, index: int) -> np.ndarray:
        """Head `index`, float32 (x, y, z) in [−1, 1]."""
        with foreign(f"expected head {index} in {self.path}; got what cannot be read", "Prepare it again."):
            return decode(self.images[int(index)])

    def record(self, index: int) -> dict[str, Any]:
        """How head `index` was prepared (`Record.from_dict` reads it); empty where it came from no file."""
        with foreign(
            f"expected a record of head {index} in {self.path}; got something else", "Prepare it again."
        ):
            return dict(json.loads(self.file["records"].asstr()[int(index)]))

    def close(self) -> None:
        """Close the file of this process."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _words(column: Any) -> list[str]:
    """The words of a column."""
    check_declared(declared_bytes(column), column.file.filename, column.name)
    return [str(word) for word in column.asstr()[()]]


class StoreDataset(torch.utils.data.Dataset):
    """Items of one split as training wants them: {"image": float32 (1, x, y, z), "covariates": float32 (K,)}.

    `covariates` is left out where the store has none.

    Args:
        store: A store or its path.
        split: `train`, `validation`, `test`, or None for all.
        in_memory: Keep the split's uint16 in memory: 2 bytes a voxel, no disk in the loop.

    Raises:
        InputError: the store cannot be used or the split is empty.
    """

    def __init__(
        self, store: Store | Path | str, split: str | None = "train", *, in_memory: bool = False
    ) -> None:
        self.store = store if isinstance(store, Store) else Store(store)
        self.indices = self.store.indices(split)
        if len(self.indices) == 0:
            raise InputError(
                f"expected items in split {split!r} of {self.store.path}; got none. Prepare with other "
                "--fractions."
            )
        self._memory = np.stack([self.store.images[int(i)] for i in self.indices]) if in_memory else None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        index = int(self.indices[position])
        stored = self._memory[position] if self._memory is not None else self.store.images[index]
        item = {"image": torch.from_numpy(decode(stored))[None]}
        if self.store.covariate_names:
            item["covariates"] = torch.from_numpy(self.store.covariates[index].copy())
        return item

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[position] for position in range(len(self)))
