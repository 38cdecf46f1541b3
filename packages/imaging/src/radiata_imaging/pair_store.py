r"""Pairs of noise and sample on disk: what a teacher made of which noise.

A folder of HDF5 files, each whole or absent, in any number; a file holds some seeds:

    seeds        int64 (N,)           the noise of a pair is a function of its seed: it costs no disk
    x0           float16 or float32 (N, *event),  v = scale · stored
    scale        float32 (N,)         a power of two above the largest |v| of the pair (1 for float32)
    noise        float32 (N, *event)  only where it was asked for
    conditions/  float32 (N, …)       one data set a condition, NaN = not given
    attributes   format, complete, spec

In float16 a value is off by at most $2^{-11}|v| + 2^{-25}$ scale. The specification says what the pairs are pairs of: path,
shape of a sample, fingerprint of the teacher, its prediction, solver, grid, steps and guidance, the law of the noise.
Files of different specifications are never mixed.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.foreign_files import check_declared, foreign
from radiata_core.kernels import GaussianKernel
from radiata_core.paths import Path as NoisePath
from radiata_core.runs import atomic_path
from radiata_core.seeds import generator_of
from radiata_core.specs import describe, rebuild
from radiata_imaging.hdf5 import new_hdf5, open_hdf5, whole_array
from radiata_imaging.volume import times

__all__ = [
    "NOISE_KEY",
    "PairDataset",
    "PairSpec",
    "PairStore",
    "join_pairs",
    "noise_law",
    "pair_files",
    "seed_noise",
    "write_pairs",
]

FORMAT = "radiata-pairs/1"
NOISE_KEY = 0
"""Key of a seed's initial noise, as `radiata-t1 sample` uses it: a pair's seed is a sample's seed."""
_CHUNK = 2**16  # bytes of a chunk where a sample is smaller than that


@dataclass(frozen=True)
class PairSpec:
    """What pairs are pairs of, in plain JSON.

    Attributes:
        path: Description of the path (`specs.describe`).
        event: Shape of one sample.
        teacher: Fingerprint of the teacher's weights.
        prediction: What the teacher predicts.
        solver: Name of the solver.
        grid: Description of its grid.
        steps: Steps of the solver.
        guidance: Weight of classifier-free guidance.
        noise: Description of the law of the noise.
        stored_noise: The noise is in the file too.
        dtype: float16 or float32.
        conditions: Shape of a row of each condition.
    """

    path: dict[str, Any]
    event: tuple[int, ...]
    teacher: str
    prediction: str
    solver: str
    grid: Any
    steps: int
    guidance: float
    noise: dict[str, Any]
    stored_noise: bool
    dtype: str
    conditions: dict[str, list[int]]

    @property
    def text(self) -> str:
        """JSON, with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def of_text(text: str) -> "PairSpec":
        values = json.loads(text)
        return PairSpec(**values | {"event": tuple(values["event"])})

    def check(self, wanted: "PairSpec", where: Path) -> None:
        """Nothing, if pairs of `wanted` may stand beside these.

        Raises:
            InputError: they may not; the first difference is named.
        """
        mine, theirs = json.loads(self.text), json.loads(wanted.text)
        for name in mine:
            if mine[name] != theirs[name]:
                raise InputError(
                    f"expected pairs of {name} {_shown(theirs[name])}; got {_shown(mine[name])} in {where}. "
                    "Choose another folder, or draw with the same options."
                )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"


def noise_law(kernel: Any) -> dict[str, Any]:
    """The law of a seed's noise, for a specification: a kernel and the key of the seed's generator."""
    return {"kernel": describe(kernel), "key": NOISE_KEY}


def seed_noise(seed: int, spec: PairSpec) -> Tensor:
    """The noise of a seed, float32 (*event), by the law that the specification names."""
    kernel: GaussianKernel = rebuild(spec.noise["kernel"])
    return kernel.sample(spec.event, generator_of(seed, int(spec.noise["key"])), torch.float32)


def _encode(x0: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    x0 = np.asarray(x0, dtype=np.float32)
    if dtype == "float32":
        return x0, np.ones(len(x0), np.float32)
    largest = np.abs(x0).reshape(len(x0), -1).max(1)
    scale = np.ldexp(1.0, np.frexp(np.maximum(largest, 2.0**-100))[1]).astype(np.float32)
    return (x0 / scale.reshape(-1, *[1] * (x0.ndim - 1))).astype(np.float16), scale


def write_pairs(
    path: Path,
    spec: PairSpec,
    seeds: Sequence[int],
    x0: np.ndarray,
    conditions: Mapping[str, np.ndarray],
    noise: np.ndarray | None = None,
    compression: str | None = "lzf",
) -> None:
    """Write one file of pairs, atomically.

    Args:
        path: Its name.
        spec: What they are pairs of.
        seeds: One a pair.
        x0: Samples, (N, *event).
        conditions: Rows of each condition of the specification, (N, …).
        noise: (N, *event), where the specification stores it.
        compression: Of the samples: lzf, gzip or None.
    """
    stored, scale = _encode(x0, spec.dtype)
    columns = {"seeds": np.asarray(seeds, np.int64), "scale": scale, "x0": stored}
    if noise is not None:
        columns["noise"] = np.asarray(noise, np.float32)
    rows = {name: np.asarray(conditions[name], np.float32) for name in spec.conditions}
    _write(path, spec, columns, rows, compression)


def join_pairs(path: Path, stores: Sequence["PairStore"], compression: str | None = "lzf") -> None:
    """Write the pairs of several files of one specification into one, bit by bit the same, atomically."""
    spec = stores[0].spec
    names = ["seeds", "scale", "x0", *(["noise"] if spec.stored_noise else [])]
    columns = {name: np.concatenate([store.file[name][()] for store in stores]) for name in names}
    rows = {name: np.concatenate([store.conditions[name] for store in stores]) for name in spec.conditions}
    _write(path, spec, columns, rows, compression)


def _write(
    path: Path,
    spec: PairSpec,
    columns: Mapping[str, np.ndarray],
    conditions: Mapping[str, np.ndarray],
    compression: str | None,
) -> None:
    with atomic_path(path) as temporary, new_hdf5(temporary) as file:
        file.attrs["complete"] = False
        for name, values in columns.items():
            _create(file, name, values, compression if name == "x0" else None)
        group = file.create_group("conditions")
        for name, values in conditions.items():
            group[name] = values
        file.attrs.update({"format": FORMAT, "spec": spec.text, "complete": True})


def _create(file: h5py.File, name: str, values: np.ndarray, compression: str | None) -> None:
    if values.ndim == 1:
        file[name] = values
        return
    rows = max(1, min(len(values), _CHUNK // max(1, values[0].nbytes)))
    file.create_dataset(
        name,
        data=values,
        chunks=(rows, *values.shape[1:]),
        compression=compression,
        shuffle=compression is not None,
    )


class PairStore:
    """One file of pairs, opened lazily, once per process.

    Args:
        path: The `.h5` file.

    Raises:
        InputError: missing, not a file of pairs, incomplete or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._process = -1
        try:
            with open_hdf5(self.path) as file:
                self._read(file)
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(
                f"expected a file of pairs; got no such file: {self.path}. Check the path, or draw the pairs."
            ) from None
        except InputError:
            raise
        except Exception as error:  # HDF5 and JSON raise what their bytes happen to mean
            reason = " ".join(str(error).split())[:100]
            raise InputError(
                f"expected a {FORMAT} file; got {self.path}, which is not one or is damaged ({reason}). Delete it and draw "
                "again: only its seeds are drawn anew."
            ) from None

    def _read(self, file: h5py.File) -> None:
        if file.attrs.get("format") != FORMAT or not file.attrs.get("complete"):
            raise InputError(
                f"expected a complete {FORMAT} file; got another HDF5 file {self.path}. Give a folder of draw_pairs."
            )
        self.spec = PairSpec.of_text(str(file.attrs["spec"]))
        self.seeds: np.ndarray = whole_array(file["seeds"])
        self.scale: np.ndarray = whole_array(file["scale"])
        self.conditions: dict[str, np.ndarray] = {
            name: whole_array(file["conditions"][name]) for name in self.spec.conditions
        }
        if file["x0"].shape != (len(self.seeds), *self.spec.event):
            raise InputError(
                f"expected samples of {times(self.spec.event)}; got {file['x0'].shape} in {self.path}. Draw them again."
            )
        rows = len(self.seeds)
        columns = [self.scale, *self.conditions.values()]
        if self.seeds.dtype.kind not in "iu" or any(len(c) != rows or c.dtype.kind != "f" for c in columns):
            raise InputError(
                f"expected a seed, a scale and conditions of each of {rows} pairs; got others in {self.path}. Draw again."
            )
        check_declared(4 * int(np.prod(self.spec.event, dtype=object)), self.path, "one sample")

    @property
    def file(self) -> h5py.File:
        """The open file of this process."""
        if self._file is None or self._process != os.getpid():
            self._file = h5py.File(self.path, "r")
            self._process = os.getpid()
        return self._file

    def __len__(self) -> int:
        return len(self.seeds)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_process": -1}

    def x0(self, row: int) -> Tensor:
        """The sample of a row, float32 (*event)."""
        with foreign(
            f"expected sample {row} in {self.path}; got what cannot be read", "Draw the pairs again."
        ):
            return torch.from_numpy(self.file["x0"][row].astype(np.float32)) * float(self.scale[row])

    def noise(self, row: int) -> Tensor:
        """The noise it was made from, float32 (*event), read or drawn again from the seed."""
        with foreign(
            f"expected noise {row} in {self.path}; got what cannot be read", "Draw the pairs again."
        ):
            if self.spec.stored_noise:
                return torch.from_numpy(self.file["noise"][row])
            return seed_noise(int(self.seeds[row]), self.spec)

    def close(self) -> None:
        """Close the file of this process."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None


def pair_files(paths: Path | str | Sequence[Path | str]) -> list[Path]:
    """The files of pairs among files and folders, by name."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files: list[Path] = []
    for path in map(Path, given):
        files += sorted(path.glob("*.pairs.h5")) if path.is_dir() else [path]
    return files


class PairDataset(torch.utils.data.Dataset):
    """Pairs of many files as training wants them: {"image": x0, "noise": its noise, and the conditions}, float32 tensors.

    Items are ordered by seed, however they were sharded; a seed that stands in two files counts once.

    Args:
        stores: Opened files of one specification.
        seeds: The seeds wanted, in this order; None for all, ascending.
        in_memory: Keep the stored samples in memory: no disk in the loop.

    Raises:
        InputError: files of different specifications, no pairs, or seeds that are missing.
    """

    def __init__(
        self, stores: Sequence[PairStore], seeds: Sequence[int] | None = None, *, in_memory: bool = False
    ) -> None:
        self.stores = list(stores)
        if not self.stores:
            raise InputError("expected at least one file of pairs; got none. Draw them with draw_pairs.")
        self.spec = self.stores[0].spec
        for store in self.stores[1:]:
            store.spec.check(self.spec, store.path)
        place = {
            int(seed): (index, row)
            for index, store in reversed(list(enumerate(self.stores)))
            for row, seed in enumerate(store.seeds)
        }
        self.seeds = sorted(place) if seeds is None else [int(seed) for seed in seeds]
        missing = [seed for seed in self.seeds if seed not in place]
        if missing:
            raise InputError(
                f"expected pairs of {len(self.seeds)} seeds; {len(missing)} are missing, the first {missing[0]}. Run "
                "draw_pairs with these seeds: it goes on where it stopped."
            )
        self.places = [place[seed] for seed in self.seeds]
        self._memory = (
            [torch.from_numpy(self.stores[i].file["x0"][row]) for i, row in self.places]
            if in_memory
            else None
        )

    @property
    def path(self) -> NoisePath:
        """The path of the teacher."""
        return rebuild(self.spec.path)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number, row = self.places[index]
        store = self.stores[number]
        kept = self._memory
        x0 = store.x0(row) if kept is None else kept[index].float() * float(store.scale[row])
        item = {"image": x0, "noise": store.noise(row)}
        return item | {
            name: torch.from_numpy(values[row].copy()) for name, values in store.conditions.items()
        }
