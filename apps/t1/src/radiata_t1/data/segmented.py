"""Regional volumes of a set of heads by a segmenter of the user's, kept head by head so that a stopped run goes on.

The kept table is a plain wide CSV that `--regions` reads; each row follows a comment with the checksum of the head it was
measured on, and the first line names the weights. A row is used again only where both agree.
"""

import csv
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radiata_core.runs import Progress, atomic_path, sha256
from radiata_imaging.meshnet import MeshNet, meshnet_volumes, read_meshnet, segment
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.region_tables import RegionTable
from radiata_imaging.volume import Volume
from radiata_t1.data.heads import Heads

__all__ = ["COARSE", "Segmenter", "coarse_note", "segmented_table"]

COARSE = 2.0
"""Voxel edge in mm above which MeshNet, trained at 1 mm, says little."""
_MARGIN = 8


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A MeshNet and the checksum of its files.

    Attributes:
        model: The network.
        identity: Of weights and description, and of how it is applied.
    """

    model: MeshNet
    identity: str

    @classmethod
    def of(cls, folder: Path) -> "Segmenter":
        """From a brainchop model folder.

        Raises:
            InputError: not such a folder.
        """
        model = read_meshnet(folder)
        files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".bin"))
        joined = " ".join(sha256(path) for path in files)
        return cls(model, f"{model.name} {hashlib.sha256(joined.encode()).hexdigest()[:16]} margin {_MARGIN}")

    def volumes(self, head: np.ndarray, spec: PreprocessSpec) -> dict[str, float]:
        """Millilitres of each class in one head, float32 `(x, y, z)` in [-1, 1] on the grid of `spec`."""
        labels = segment(Volume(head, canonical_affine(spec)), self.model, margin=_MARGIN)
        return meshnet_volumes(labels, self.model)


def coarse_note(spec: PreprocessSpec) -> str | None:
    """What to tell the reader where heads are coarser than `COARSE`; None where they are not."""
    if spec.spacing <= COARSE:
        return None
    return (
        f"The heads have voxels of {spec.spacing:g} mm and MeshNet was trained at 1 mm: its regional volumes say little "
        f"above {COARSE:g} mm, on the synthetic and on the real side alike."
    )


def segmented_table(
    heads: Heads, rows: Sequence[int], spec: PreprocessSpec, segmenter: Segmenter, kept: Path
) -> RegionTable:
    """Regional volumes (ml) of some heads of a set, one network pass a head that is not in `kept` yet.

    Args:
        heads: The set; rows are named by person where it has people.
        rows: Positions in it.
        spec: Grid of the heads.
        segmenter: The network.
        kept: CSV that is read, and written after each head.
    """
    known = _read(kept, segmenter)
    names = heads.people if heads.people is not None else list(heads.names)
    table: list[tuple[str, str, dict[str, float]]] = []
    with Progress(len(rows), f"segment {heads.name}", unit="head") as bar:
        for row in rows:
            head = heads.read(int(row))
            identity = hashlib.sha256(np.ascontiguousarray(head).tobytes()).hexdigest()
            volumes = known.get(identity)
            if volumes is None:
                volumes = segmenter.volumes(head, spec)
                known[identity] = volumes
                table.append((identity, names[row], volumes))
                _write(kept, segmenter, table)
            else:
                table.append((identity, names[row], volumes))
            bar.update()
    _write(kept, segmenter, table)
    empty = sum(sum(volumes.values()) == 0 for _, _, volumes in table)
    if empty:
        print(
            f"warning: MeshNet found no brain in {empty} of {len(table)} {heads.name} heads", file=sys.stderr
        )
    return RegionTable.of((name, volumes) for _, name, volumes in table)


def _read(kept: Path, segmenter: Segmenter) -> dict[str, dict[str, float]]:
    """Volumes by checksum of the head; nothing where the file is of other weights or cannot be read."""
    try:
        lines = kept.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    classes = segmenter.model.classes[1:]
    if not lines or lines[0] != f"# {segmenter.identity}":
        return {}
    known = {}
    for comment, line in zip(lines[2::2], lines[3::2], strict=False):
        cells = next(csv.reader([line]))
        try:
            values = [float(cell) for cell in cells[1:]]
        except ValueError:
            continue
        if comment.startswith("# sha256 ") and len(values) == len(classes):
            known[comment.removeprefix("# sha256 ")] = dict(zip(classes, values, strict=True))
    return known


def _write(kept: Path, segmenter: Segmenter, table: Sequence[tuple[str, str, dict[str, float]]]) -> None:
    with atomic_path(kept) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {segmenter.identity}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["subject", *(f"{name}_ml" for name in segmenter.model.classes[1:])])
        for identity, name, volumes in table:
            file.write(f"# sha256 {identity}\n")
            writer.writerow([name, *(repr(value) for value in volumes.values())])
