"""Prepared heads in one file: an HDF5 store that is complete or absent.

    images      uint16 (N, x, y, z), one chunk a volume, lzf;  v = scale · stored + offset
    affines     float64 (N, 4, 4), where each head lies in its input's world
    covariates  float32 (N, K), NaN = not given
    volumes     float32 (N, R) in ml, NaN = not measured
    text (N,)   subjects, sessions, sources, sha256, split, records
    attributes  format, complete, shape, spec, affine, scale, offset, covariate_names, regions, store_id

stored = round((v + 1)/2 · 65535): the step is 2/65535, so a value in [−1, 1] is off by at most 1/65535.

Writing is resumable and survives SIGKILL: every item is its own small file under `NAME.parts/`, put there by a rename.
`finish` copies the compressed chunks as they are into one file and renames it to its name; only then the parts go. A
store under its final name is therefore always whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from radiata_core.errors import InputError
from radiata_core.runs import atomic_path
from radiata_core.specs import describe, rebuild
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.volume import times

__all__ = ["SPLITS", "Item", "Store", "StoreDataset", "StoreWriter", "decode", "encode"]

FORMAT = "radiata-store/1"
SPLITS = ("train", "validation", "test")
SCALE, OFFSET = 2 / 65535, -1.0
_TEXT = ("subjects", "sessions", "sources", "sha256", "split", "records")


def encode(values: np.ndarray) -> np.ndarray:
    """Values in [−1, 1] as uint16: round((v + 1)/2 · 65535)."""
    stored = np.rint((np.asarray(values, dtype=np.float64) + 1) * (65535 / 2))
    return np.clip(stored, 0, 65535).astype(np.uint16)


def decode(stored: np.ndarray) -> np.ndarray:
    """Stored uint16 as float32 values in [−1, 1]."""
    values = stored.astype(np.float32)
    values *= np.float32(SCALE)
    values += np.float32(OFFSET)
    return values


@dataclass(frozen=True, eq=False)
class Item:
    """One head on its way into a store.

    Attributes:
        array: float32 (x, y, z) in [−1, 1]; None where only the identity is asked about (`StoreWriter.has`).
        subject: The person. Items of one subject are in one split.
        split: `train`, `validation` or `test`.
        session: Visit, empty where there is one.
        source: Where it came from.
        sha256: Checksum of the source; of the array where there is no file.
        affine: Of the prepared grid in the input's world; None takes the specification's centred one.
        covariates: Name to number; missing names and None become NaN.
        volumes: Region to millilitres.
        record: `Record.to_dict()` of the preparation.
    """

    array: np.ndarray | None
    subject: str
    split: str = "train"
    session: str = ""
    source: str = ""
    sha256: str = ""
    affine: np.ndarray | None = None
    covariates: Mapping[str, Any] = field(default_factory=dict)
    volumes: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


class StoreWriter:
    """Appends items in any order, from any number of threads; nothing written is lost when it is stopped.

    Example:
        writer = StoreWriter("heads.h5", spec.shape, spec, covariates=("age",))
        writer.append(Item(array, subject="01", covariates={"age": 34.0}))
        writer.finish()

    Args:
        path: Name of the store, ending in `.h5`.
        shape: Voxels along each axis of every item.
        spec: How the items were prepared.
        covariates: Names of the covariates, in the order of their columns.
        regions: Names of the regions whose volumes are given.
        compression: `lzf` (fast), `gzip` (smaller) or None.
        overwrite: Replace a finished store; unfinished parts of a store of another kind are dropped.

    Raises:
        InputError: the store exists, or unfinished parts of a store of another kind do.
    """

    def __init__(
        self,
        path: Path | str,
        shape: Sequence[int],
        spec: PreprocessSpec,
        covariates: Sequence[str] = (),
        *,
        regions: Sequence[str] = (),
        compression: str | None = "lzf",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.shape = tuple(int(n) for n in shape)
        self.spec, self.covariates, self.regions = spec, tuple(covariates), tuple(regions)
        self.compression = compression
        self.parts = self.path.with_name(self.path.name + ".parts")
        if self.path.is_dir():
            raise InputError(
                f"expected a file name for the store; got the folder {self.path}. Name a file in it (.h5)."
            )
        if self.path.exists() and not overwrite:
            raise InputError(
                f"expected a new store; {self.path} exists. Choose another --out, or pass --overwrite."
            )
        self._seen: set[str] = set()
        self._check_parts(restart=overwrite)

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "shape": list(self.shape),
            "spec": describe(self.spec),
            "covariates": list(self.covariates),
            "regions": list(self.regions),
            "compression": self.compression,
        }

    def _check_parts(self, restart: bool) -> None:
        self.parts.mkdir(parents=True, exist_ok=True)
        description = self.parts / "store.json"
        if description.exists():
            known = json.loads(description.read_text(encoding="utf-8"))
            changed = [key for key, value in self._description().items() if known.get(key) != value]
            if changed and restart:
                shutil.rmtree(self.parts)
                return self._check_parts(restart=False)
            if changed:
                raise InputError(
                    f"expected to go on with the unfinished store {self.parts}; its {', '.join(changed)} "
                    "differ(s): "
                    f"{known.get(changed[0])} there, {self._description()[changed[0]]} now. Use the same "
                    "options, or delete it."
                )
            return None
        with atomic_path(description) as temporary:
            temporary.write_text(json.dumps(self._description()), encoding="utf-8")
        return None

    def _part(self, key: str) -> Path:
        return self.parts / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.part.h5"

    @staticmethod
    def key(item: Item) -> str:
        """What makes an item the same item when a stopped writer starts again."""
        return "\0".join([item.subject, item.session, item.source, item.sha256])

    def has(self, item: Item, *, measured: bool = False) -> bool:
        """Whether this item is there, with the same split, covariates and volumes; its array is not looked at.

        Args:
            item: What is looked for.
            measured: Its covariates and volumes come out of the making (a drawn head): do not compare them.
        """
        path = self._part(self.key(item))
        if not path.exists():
            return False
        with h5py.File(path, "r") as part:
            same = part.attrs["split"] == item.split and (
                measured
                or all(
                    np.array_equal(part[name][()], _row(values, names), equal_nan=True)
                    for name, values, names in (
                        ("covariates", item.covariates, self.covariates),
                        ("volumes", item.volumes, self.regions),
                    )
                )
            )
        if same:
            self._seen.add(path.name)
        return same

    def record(self, item: Item) -> dict[str, Any]:
        """The record kept with an item that is there."""
        with h5py.File(self._part(self.key(item)), "r") as part:
            return json.loads(part.attrs["records"])

    def __len__(self) -> int:
        return sum(1 for _ in self.parts.glob("*.part.h5"))

    def append(self, item: Item, order: int | None = None) -> None:
        """Keep one item for good. An item that is there already is replaced.

        Args:
            item: Shape as the store's.
            order: Its place in the finished store; by default after those appended so far.

        Raises:
            InputError: wrong shape, values outside [−1, 1] or not finite, an unknown split, covariate or
                region.
        """
        array = np.asarray(item.array)
        if array.shape != self.shape:
            raise InputError(
                f"expected volumes of {times(self.shape)}; got {times(array.shape)} for subject "
                f"{item.subject}. "
                "Prepare it with the store's specification."
            )
        if not (np.isfinite(array).all() and array.min() >= -1.001 and array.max() <= 1.001):
            raise InputError(
                f"expected values in [-1, 1]; got {array.min():g}..{array.max():g} for subject "
                f"{item.subject}. "
                "Prepare it with the store's specification."
            )
        if item.split not in SPLITS:
            raise InputError(
                f"expected a split out of {', '.join(SPLITS)}; got {item.split!r} for {item.subject}."
            )
        unknown = (set(item.covariates) - set(self.covariates)) | (set(item.volumes) - set(self.regions))
        if unknown:
            raise InputError(
                f"expected covariates {self.covariates} and regions {self.regions}; got {sorted(unknown)}."
            )
        stored = encode(array)
        digest = item.sha256 or hashlib.sha256(stored.tobytes()).hexdigest()
        affine = (
            canonical_affine(self.spec) if item.affine is None else np.asarray(item.affine, dtype=np.float64)
        )
        with atomic_path(self._part(self.key(item))) as temporary, h5py.File(temporary, "w") as file:
            _create_images(file, 1, self.shape, self.compression)[0] = stored
            file["affine"] = affine
            file["covariates"] = _row(item.covariates, self.covariates)
            file["volumes"] = _row(item.volumes, self.regions)
            texts = (
                item.subject,
                item.session,
                item.source,
                digest,
                item.split,
                json.dumps(dict(item.record)),
            )
            file.attrs.update(dict(zip(_TEXT, texts, strict=True)))
            file.attrs["order"] = len(self) if order is None else order
        self._seen.add(self._part(self.key(item)).name)

    def finish(self, *, seen_only: bool = False) -> Path:
        """Make the store from its items, atomically, and remove the parts.

        Args:
            seen_only: Leave out items of an earlier start that this writer neither appended nor was asked about (`has`).

        Raises:
            InputError: no items; a subject in two splits; one image under two subjects.
        """
        facts = sorted(
            _facts(path) for path in self.parts.glob("*.part.h5") if not seen_only or path.name in self._seen
        )
        if not facts:
            raise InputError(f"expected at least one head for {self.path}; got none. See the messages above.")
        rows = [row for *_, row in facts]
        check_subjects(rows)
        with atomic_path(self.path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["complete"] = False
            images = _create_images(file, len(rows), self.shape, self.compression)
            affines = np.empty((len(rows), 4, 4))
            covariates = np.empty((len(rows), len(self.covariates)), np.float32)
            volumes = np.empty((len(rows), len(self.regions)), np.float32)
            for index, (_, _, path, _) in enumerate(facts):
                with h5py.File(path, "r") as part:
                    mask, data = part["images"].id.read_direct_chunk((0, 0, 0, 0))
                    images.id.write_direct_chunk((index, 0, 0, 0), data, mask)
                    affines[index], covariates[index] = part["affine"][()], part["covariates"][()]
                    volumes[index] = part["volumes"][()]
            file["affines"], file["covariates"], file["volumes"] = affines, covariates, volumes
            for name in _TEXT:
                file.create_dataset(name, data=[row[name] for row in rows], dtype=h5py.string_dtype())
            file.attrs.update(
                {
                    "format": FORMAT,
                    "shape": self.shape,
                    "spec": json.dumps(describe(self.spec)),
                    "affine": canonical_affine(self.spec),
                    "scale": SCALE,
                    "offset": OFFSET,
                    "covariate_names": json.dumps(self.covariates),
                    "regions": json.dumps(self.regions),
                    "store_id": _identity(rows, self._description()),
                    "complete": True,
                }
            )
        shutil.rmtree(self.parts, ignore_errors=True)
        return self.path


def check_subjects(rows: Sequence[Mapping[str, str]]) -> None:
    """Nothing, when every subject is in one split and every image belongs to one subject.

    Raises:
        InputError: otherwise; the first offender is named.
    """
    splits: dict[str, str] = {}
    owners: dict[str, str] = {}
    for row in rows:
        subject, split, digest = row["subjects"], row["split"], row["sha256"]
        if splits.setdefault(subject, split) != split:
            raise InputError(
                f"expected each subject in one split; got {subject} in {splits[subject]} and {split}. "
                "Split by subject, not by scan."
            )
        if digest and owners.setdefault(digest, subject) != subject:
            raise InputError(
                f"expected each image under one subject; got the same file (sha256 {digest[:12]}…) under "
                f"{owners[digest]} and {subject}. Remove the duplicate."
            )


def _create_images(
    file: h5py.File, count: int, shape: Sequence[int], compression: str | None
) -> h5py.Dataset:
    return file.create_dataset(
        "images",
        shape=(count, *shape),
        dtype=np.uint16,
        chunks=(1, *shape),
        compression=compression,
        shuffle=compression is not None,
    )


def _row(values: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    chosen = [values.get(name) for name in names]
    return np.array([np.nan if value is None else float(value) for value in chosen], dtype=np.float32)


def _facts(path: Path) -> tuple[int, str, Path, dict[str, str]]:
    with h5py.File(path, "r") as part:
        return int(part.attrs["order"]), path.name, path, {name: str(part.attrs[name]) for name in _TEXT}


def _identity(rows: Sequence[Mapping[str, str]], description: Mapping[str, Any]) -> str:
    """Checksum over what is in the store and how it was made; the same items give the same identity."""
    text = json.dumps([description, [[row[name] for name in _TEXT] for row in rows]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
        try:
            with h5py.File(self.path, "r") as file:
                self._read_attributes(file)
        except (OSError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split())[:100]
            raise InputError(
                f"expected a {FORMAT} file; got {self.path}, which is not one or is damaged ({reason}). Make "
                "it with prepare."
            ) from None
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
        self.affine = np.asarray(attributes["affine"], dtype=np.float64)
        self.scale, self.offset = float(attributes["scale"]), float(attributes["offset"])
        self.covariate_names: tuple[str, ...] = tuple(json.loads(attributes["covariate_names"]))
        self.regions: tuple[str, ...] = tuple(json.loads(attributes["regions"]))
        self.store_id = str(attributes["store_id"])
        self.covariates: np.ndarray = file["covariates"][()]
        self.affines: np.ndarray = file["affines"][()]
        self._volumes: np.ndarray = file["volumes"][()]
        texts = {
            name: np.array([str(v) for v in file[name].asstr()[()]], dtype=object) for name in _TEXT[:-1]
        }
        self.subjects, self.sessions, self.sources = texts["subjects"], texts["sessions"], texts["sources"]
        self.sha256, self.split = texts["sha256"], texts["split"]
        if file["images"].shape != (len(self.subjects), *self.shape):
            raise InputError(
                f"expected images of {times(self.shape)}; got {file['images'].shape} in {self.path}. Prepare "
                "it again."
            )

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
        return decode(self.images[int(index)])

    def record(self, index: int) -> dict[str, Any]:
        """How head `index` was prepared (`Record.from_dict` reads it); empty where it came from no file."""
        return json.loads(self.file["records"].asstr()[int(index)])

    def close(self) -> None:
        """Close the file of this process."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
