"""Heads on their way into a store, one by one, from many threads, through interruptions.

Writing is resumable and survives SIGKILL: every item is its own small file under `NAME.parts/`, put there by a rename.
`finish` copies the compressed chunks as they are into one file and renames it to its name; only then the parts go. A
store under its final name is therefore always whole.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import read_json, remove_folder
from radiata_core.foreign_files import foreign
from radiata_core.runs import atomic_path
from radiata_core.specs import describe
from radiata_imaging.hdf5 import new_hdf5, open_hdf5, whole_array
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.store_format import FORMAT, OFFSET, SCALE, SPLITS, TEXT, create_images, encode
from radiata_imaging.volume import times

__all__ = ["Item", "StoreWriter", "check_subjects"]


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
            known = read_json(description)
            if not isinstance(known, dict):
                raise InputError(
                    f"expected a description of a store in {description}; got another file. Delete {self.parts}."
                )
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
        with _damaged(path), open_hdf5(path) as part:
            same = part.attrs["split"] == item.split and (
                measured
                or all(
                    np.array_equal(whole_array(part[name]), _row(values, names), equal_nan=True)
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
        path = self._part(self.key(item))
        with _damaged(path), open_hdf5(path) as part:
            return dict(json.loads(part.attrs["records"]))

    def __len__(self) -> int:
        return sum(1 for _ in self.parts.glob("*.part.h5"))

    def tidy(self) -> None:
        """Remove the folder of parts where it holds no item: a start that failed altogether leaves nothing."""
        if self.parts.is_dir() and len(self) == 0:
            shutil.rmtree(self.parts, ignore_errors=True)

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
        with atomic_path(self._part(self.key(item))) as temporary, new_hdf5(temporary) as file:
            create_images(file, 1, self.shape, self.compression)[0] = stored
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
            file.attrs.update(dict(zip(TEXT, texts, strict=True)))
            file.attrs["order"] = len(self) if order is None else order
        self._seen.add(self._part(self.key(item)).name)

    def finish(self, *, seen_only: bool = False, card: Mapping[str, Any] | None = None) -> Path:
        """Make the store from its items, atomically, and remove the parts.

        Args:
            card: Content of the .json beside it, which is there before the store is.
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
        told = None if card is None else (self.path.with_suffix(".json"), lambda part: card)
        with atomic_path(self.path, told) as temporary, new_hdf5(temporary) as file:
            file.attrs["complete"] = False
            images = create_images(file, len(rows), self.shape, self.compression)
            affines = np.empty((len(rows), 4, 4))
            covariates = np.empty((len(rows), len(self.covariates)), np.float32)
            volumes = np.empty((len(rows), len(self.regions)), np.float32)
            for index, (_, _, path, _) in enumerate(facts):
                with _damaged(path), open_hdf5(path) as part:
                    stored = part["images"]
                    if (
                        stored.shape != (1, *self.shape)
                        or stored.dtype != np.uint16
                        or stored.chunks != stored.shape
                    ):
                        raise ValueError(f"an image of {stored.shape}, {stored.dtype}")
                    mask, data = stored.id.read_direct_chunk((0, 0, 0, 0))
                    images.id.write_direct_chunk((index, 0, 0, 0), data, mask)
                    affines[index], covariates[index] = part["affine"][()], part["covariates"][()]
                    volumes[index] = part["volumes"][()]
            file["affines"], file["covariates"], file["volumes"] = affines, covariates, volumes
            for name in TEXT:
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
        remove_folder(self.parts)
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


def _row(values: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    chosen = [values.get(name) for name in names]
    return np.array([np.nan if value is None else float(value) for value in chosen], dtype=np.float32)


def _damaged(path: Path) -> foreign:
    """What a part that cannot be gone on with is refused by."""
    return foreign(
        f"expected a part of an unfinished store; got {path}, which cannot be read",
        "Delete it and run again.",
    )


def _facts(path: Path) -> tuple[int, str, Path, dict[str, str]]:
    with _damaged(path), open_hdf5(path) as part:
        texts = {name: str(part.attrs[name]) for name in TEXT}
        for text in texts.values():
            text.encode()  # half a surrogate could be read and not be written
        return int(part.attrs["order"]), path.name, path, texts


def _identity(rows: Sequence[Mapping[str, str]], description: Mapping[str, Any]) -> str:
    """Checksum over what is in the store and how it was made; the same items give the same identity."""
    text = json.dumps([description, [[row[name] for name in TEXT] for row in rows]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
