"""Heads of a cohort, one by one, here or by other processes: what `cohort` does for each that is missing.

Head k of person i depends on (seed, i, k) alone, and becomes a part of the store under its own name: it does not matter
who draws it, in which order, or how often. A process reads the label map of a person once.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radiata_core.runs import sha256
from radiata_imaging import cohort
from radiata_imaging.cohort import Anatomy, CohortSpec
from radiata_imaging.interpolation import Interpolation
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient, resample
from radiata_imaging.scale_out import warm
from radiata_imaging.store import Item, StoreWriter

__all__ = ["HeadTask", "anatomy_of", "draw_head", "tasks_of"]


@dataclass(frozen=True, eq=False)
class HeadTask:
    """One head.

    Attributes:
        path: Label map of its person.
        checksum: Of that file.
        number: Of the person, from 1.
        k: Of the head among the person's.
        item: What it is in the store, without voxels.
        order: Its place there.
    """

    path: Path
    checksum: str
    number: int
    k: int
    item: Item
    order: int

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.path.name}, head {self.k}"


def tasks_of(people: list[tuple[Path, str, str, int]], seed: int, spec: CohortSpec) -> list[HeadTask]:
    """All heads of a cohort, person by person.

    Args:
        people: Label map, name, split and number of heads of each.
        seed: Of the cohort.
        spec: Of its heads.
    """
    tasks: list[HeadTask] = []
    for number, (path, name, split, count) in enumerate(people, start=1):
        checksum = sha256(path)
        for k in range(count):
            item = Item(
                np.empty(0), f"sub-{name}", split, session=f"{k:04d}", source=path.name,
                sha256=_digest(f"{checksum} {seed} {number} {spec} {k}"),
            )  # fmt: skip
            tasks.append(HeadTask(path, checksum, number, k, item, len(tasks)))
    return tasks


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def anatomy_of(path: Path, checksum: str) -> Anatomy:
    """The label map of a person at 1 mm, towards L, P, S; the checksum tells a file that has changed from the one before."""
    volume = reorient(read_volume(path), "LPS")
    if np.abs(np.array(volume.spacing) - 1.0).max() > 1e-3:
        volume = resample(volume, 1.0, interpolation=Interpolation.NEAREST)
    return Anatomy(np.rint(volume.array).astype(np.int16), 1.0, path.name)


def draw_head(task: HeadTask, writer: StoreWriter, spec: CohortSpec, seed: int) -> None:
    """Draw a head and append it.

    Args:
        task: Which.
        writer: Of the store.
        spec: Of the heads.
        seed: Of the cohort.
    """
    anatomy = warm(anatomy_of, task.path, task.checksum)
    head = cohort.render_head(anatomy, spec, np.random.default_rng([seed, task.number, task.k]))
    item = dataclasses.replace(
        task.item,
        array=head.image,
        covariates=head.covariates,
        volumes=head.volumes,
        record={"synthetic": True, "jacobian_min": head.smallest_jacobian},
    )
    writer.append(item, order=task.order)
