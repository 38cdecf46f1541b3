"""Heads of a folder or a store as one stream of arrays in [-1, 1], with who they are of.

A file that `radiata-t1 sample` wrote carries the map of its intensities, which is undone exactly; any other file is
prepared by the reference store's specification, whose percentiles are the file's own: then shifts of contrast between
files are lost, and the evaluation says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radiata_core.errors import InputError
from radiata_core.runs import read_json
from radiata_imaging.cohort import REGIONS
from radiata_imaging.nifti import Intensity, is_volume_path, read_volume, sidecar_path
from radiata_imaging.orientation import reorient
from radiata_imaging.preprocess import PreprocessSpec, prepare_volume
from radiata_imaging.region_tables import RegionTable
from radiata_imaging.regions import label_volumes
from radiata_imaging.store import Store
from radiata_imaging.volume import times

__all__ = ["Heads", "evenly", "heads_of", "labels_table", "of_store", "store_table"]

_LABEL_WORDS = ("_dseg", "_probseg", "_seg.", "_labels", "_mask")


@dataclass(frozen=True)
class Heads:
    """A set of volumes that is read one at a time, as often as needed.

    Attributes:
        name: What the set is called in tables.
        names: One a volume.
        people: Who each is of; None where each stands for itself.
        read: Volume by position, float32 `(x, y, z)` in [-1, 1].
        shape: Voxels of each.
        indices: Rows in the store, where it is one.
        notes: What a reader of the result must know.
    """

    name: str
    names: tuple[str, ...]
    people: list[str] | None
    read: Callable[[int], np.ndarray]
    shape: tuple[int, int, int]
    indices: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read(position) for position in range(len(self)))

    def near_copies(
        self, rng: np.random.Generator, number: int = 24, noise: float = 0.02
    ) -> list[np.ndarray]:
        """Positive control: evenly spaced volumes of the set with white noise of sd `noise` (range 2) added."""
        chosen = evenly(len(self), number)
        copies = [self.read(int(i)) for i in chosen]
        return [
            np.clip(copy + noise * rng.standard_normal(copy.shape, dtype=np.float32), -1, 1).astype(
                np.float32
            )
            for copy in copies
        ]


def evenly(n: int, limit: int) -> np.ndarray:
    """Positions of at most `limit` out of `n`, evenly spaced, both ends among them."""
    return np.unique(np.rint(np.linspace(0, n - 1, min(n, limit))).astype(int))


def of_store(store: Store, splits: Sequence[str] | None, limit: int, name: str) -> Heads:
    """Heads of some splits of a store (all for None), at most `limit`, with their subjects."""
    rows = (
        store.indices(None) if splits is None else np.concatenate([store.indices(split) for split in splits])
    )
    rows = rows[evenly(len(rows), limit)] if len(rows) else rows
    x, y, z = store.shape
    return Heads(
        name,
        tuple(f"{store.subjects[i]}#{i}" for i in rows),
        [str(store.subjects[i]) for i in rows],
        lambda position: store.array(int(rows[position])),
        (x, y, z),
        rows,
    )


def heads_of(source: Path, spec: PreprocessSpec, limit: int) -> Heads:
    """Synthetic heads of a folder of volumes or of a store on the grid of `spec`; each stands for itself.

    Raises:
        InputError: nothing to read there, or another grid.
    """
    if source.is_file() and source.suffix == ".h5":
        heads = of_store(Store(source, spec.shape), None, limit, "synthetic")
        return Heads(heads.name, heads.names, None, heads.read, heads.shape, heads.indices)
    if not source.exists():
        raise InputError(f"expected a folder of volumes or a store; got no such path: {source}. Check it.")
    found = [source] if source.is_file() else sorted(source.rglob("*"))
    paths = [
        p for p in found if p.is_file() and is_volume_path(p) and not any(w in p.name for w in _LABEL_WORDS)
    ]
    if not paths:
        raise InputError(
            f"expected volumes (.nii, .nii.gz) in {source}; got none. Draw some with radiata-t1 sample."
        )
    paths = [paths[i] for i in evenly(len(paths), limit)]
    scaled = sum("IntensityMap" not in _sidecar(path) for path in paths)
    notes = (
        (
            f"{scaled} of {len(paths)} files carry no intensity map and were scaled by their own percentiles: shifts of "
            "brightness and contrast between files cannot be seen in them.",
        )
        if scaled
        else ()
    )
    x, y, z = spec.shape
    names = tuple(path.name for path in paths)
    return Heads(
        "synthetic", names, None, lambda i: _read(paths[i], spec), (x, y, z), np.arange(len(paths)), notes
    )  # fmt: skip


def _sidecar(path: Path) -> dict:
    sidecar = sidecar_path(path)
    return read_json(sidecar) if sidecar.is_file() else {}


def _read(path: Path, spec: PreprocessSpec) -> np.ndarray:
    volume = read_volume(path)
    scale = _sidecar(path).get("IntensityMap")
    if scale is None:
        return prepare_volume(volume, spec).array
    turned = reorient(volume, spec.axcodes)
    if turned.shape != tuple(spec.shape) or not np.allclose(turned.spacing, spec.spacing, rtol=1e-3):
        raise InputError(
            f"expected heads of {times(spec.shape)} at {spec.spacing:g} mm as in the reference; got "
            f"{times(turned.shape)} at {times(np.round(turned.spacing, 3))} mm in {path}. "
            "Give a reference store on the model's grid."
        )
    intensity = Intensity(*(float(scale[key]) for key in ("low", "high", "top")))
    return np.clip(intensity.from_file(turned.array), -1.0, 1.0)


def labels_table(folder: Path) -> RegionTable:
    """Regional volumes (ml) of the label maps in a folder, by the regions of the cohort.

    Raises:
        InputError: no label map there.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and is_volume_path(path))
    if not paths:
        raise InputError(
            f"expected label maps (.nii, .nii.gz, .mgz) in {folder}; got none. Check the folder."
        )

    def row(path: Path) -> tuple[str, dict[str, float]]:
        volume = read_volume(path)
        return path.name, label_volumes(volume.array, volume.affine, REGIONS)

    return RegionTable.of(row(path) for path in paths)


def store_table(store: Store, rows: np.ndarray) -> RegionTable:
    """Regional volumes (ml) that the store holds of some rows; rows without a measurement are left out.

    Raises:
        InputError: the store holds none.
    """
    volumes = store.volumes
    whole = np.array([], int) if volumes is None else rows[np.isfinite(volumes[rows]).all(1)]
    if volumes is None or len(whole) < 2:
        raise InputError(
            f"expected regional volumes of real heads; {store.path.name} holds none of its held-out people. "
            "Give --reference-regions or --reference-labels."
        )
    return RegionTable(
        tuple(str(store.subjects[i]) for i in whole), store.regions, volumes[whole].astype(np.float64)
    )
