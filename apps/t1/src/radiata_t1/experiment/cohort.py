"""`radiata-t1 cohort LABELS --out STORE`: T1-like heads with exact ground truth, drawn from label maps."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from radiata_core.errors import InputError
from radiata_imaging.scale_out import Workers

__all__ = ["Cohort"]


@dataclass(frozen=True)
class Cohort:
    """Draw synthetic T1-like heads from whole-head label maps, split by person.

    Every head is synthetic: a label map is warped, given T1-like intensities, partial volume, a bias field and Rician
    noise. Covariates and regional volumes are recorded. Warped copies of a person are not new people.

    Example: radiata-t1 cohort labels/ --out cohort.h5 --train 180 --heldout 60 --validation 07 14 --test 06 13
    """

    labels: Annotated[Path, tyro.conf.Positional]
    """Folder of label maps (.nii, .nii.gz, .mgz) with FreeSurfer / SynthSeg codes, one file a person."""
    out: Path
    """The store to write, .h5."""
    train: int = 180
    """Heads drawn of each training person."""
    heldout: int = 60
    """Heads drawn of each validation and each test person."""
    validation: tuple[str, ...] = field(default=())
    """People of the validation split: the digits or name at the end of the file name."""
    test: tuple[str, ...] = field(default=())
    """People of the test split."""
    spacing: float = 4.0
    """Voxel edge, mm; the field of view stays 192 x 224 x 192 mm."""
    seed: int = 2026
    """Seed of the cohort; head k of person i depends on (seed, i, k) only."""
    processes: int = 1
    """Heads at once, each in a process of its own. The store is the same."""
    scheduler: str | None = None
    """Address of a dask scheduler, as tcp://10.0.0.1:8786, or its file: its workers draw, over a shared file system."""
    overwrite: bool = False
    """Replace an existing store."""
    dry_run: bool = False
    """Say what would be drawn and stop."""

    def run(self) -> None:
        people = self._people()
        counts = [
            (path, name, split, self.train if split == "train" else self.heldout)
            for path, name, split in people
        ]
        total = sum(count for *_, count in counts)
        if self.out.exists() and not self.overwrite:
            raise InputError(
                f"expected a new file; got {self.out}, which exists. Choose another --out or pass --overwrite."
            )
        Workers(self.processes, self.scheduler)
        if self.dry_run:
            for path, name, split, count in counts:
                print(f"{name}\t{split}\t{count} heads\t{path.name}")
            print(f"would draw {total} heads of {len(people)} people at {self.spacing:g} mm into {self.out}")
            return
        from radiata_core.runs import sole_writer

        with sole_writer(self.out):
            self._draw(counts, total)
        print(self.out)

    def _people(self) -> list[tuple[Path, str, str]]:
        from radiata_imaging.nifti import is_volume_path

        if not self.labels.is_dir():
            raise InputError(f"expected a folder of label maps; got {self.labels}. Check the path.")
        files = sorted(path for path in self.labels.iterdir() if is_volume_path(path))
        if not files:
            raise InputError(f"expected label maps (.nii, .nii.gz, .mgz) in {self.labels}; got none.")
        names = [path.name.split(".")[0].split("_")[-1] for path in files]
        if len(set(names)) < len(names):
            names = [path.name.split(".")[0] for path in files]
        for wanted in (*self.validation, *self.test):
            if wanted not in names:
                raise InputError(f"expected people out of {', '.join(names)}; got {wanted!r}.")
        both = set(self.validation) & set(self.test)
        if both:
            raise InputError(f"expected each person in one split; got {sorted(both)} in validation and test.")
        split = dict.fromkeys(self.validation, "validation") | dict.fromkeys(self.test, "test")
        return [(path, name, split.get(name, "train")) for path, name in zip(files, names, strict=True)]

    def _draw(self, people: list[tuple[Path, str, str, int]], total: int) -> None:
        from radiata_core.runs import Progress, provenance
        from radiata_imaging.cohort import COVARIATES, REGIONS, CohortSpec
        from radiata_imaging.preprocess import PreprocessSpec
        from radiata_imaging.scale_out import completed
        from radiata_imaging.store import StoreWriter
        from radiata_t1.experiment.cohort_heads import draw_head, tasks_of

        spec = CohortSpec.of_spacing(self.spacing)
        target = PreprocessSpec(spacing=self.spacing, shape=spec.shape)
        writer = StoreWriter(
            self.out, spec.shape, target, COVARIATES, regions=tuple(REGIONS), overwrite=self.overwrite
        )
        try:
            tasks = tasks_of(people, self.seed, spec)
            missing = [task for task in tasks if not writer.has(task.item, measured=True)]
            workers = Workers(self.processes, self.scheduler)
            with Progress(total, "draw", unit="head", start=total - len(missing)) as bar:
                if workers.at_most(len(missing)).here:
                    for task in missing:
                        draw_head(task, writer, spec, self.seed)
                        bar.update(1)
                else:
                    given = (writer, spec, self.seed)
                    completed(
                        draw_head, missing, given, workers=workers, bar=bar, name=lambda task: task.name
                    )
        finally:
            writer.tidy()
        # Parts of an earlier start may be of another seed, or of a label map that has changed since: they are left out.
        for task in tasks:
            writer.has(task.item, measured=True)
        writer.finish(
            seen_only=True,
            card={
                "SyntheticImage": True,
                "Description": "T1-like renderings of label maps; warped copies of a person are not new people",
                "people": [{"name": n, "split": s, "heads": c, "file": p.name} for p, n, s, c in people],
                "spec": spec,
                "seed": self.seed,
                "provenance": provenance(),
            },
        )
