"""`radiata-t1 demo`: four heads from the shipped weights, their mosaics, and the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from radiata_core.errors import InputError

__all__ = ["Demo"]


@dataclass(frozen=True)
class Demo:
    """Draw four synthetic heads from the shipped weights and show them: NIfTI files, heads.png and report.html.

    Under three minutes on two cores. Synthetic; not for clinical use.

    Example: radiata-t1 demo --out demo
    """

    out: Path = Path("demo")
    """Folder to write to."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """One head a seed."""
    resolution: Literal["1mm", "2mm", "4mm"] = "1mm"
    """Voxels of the heads."""
    steps: int | None = None
    """Solver steps of the base model; by default those of sample."""
    overwrite: bool = False
    """Replace the heads of an earlier demo."""

    def run(self) -> None:
        from radiata_imaging.nifti import read_volume
        from radiata_imaging.plots import grid, save
        from radiata_t1.experiment.report import Report
        from radiata_t1.experiment.sample import Sample, file_name

        if self.out.exists() and any(self.out.iterdir()) and not self.overwrite:
            raise InputError(
                f"expected an empty or new folder; got {self.out} with content. Choose another --out or pass --overwrite."
            )
        Sample(
            out=self.out,
            seeds=self.seeds,
            resolution=self.resolution,
            steps=self.steps,
            overwrite=self.overwrite,
        ).draw("radiata-t1 demo")
        heads = [read_volume(self.out / file_name(seed)) for seed in self.seeds]
        picture = grid(
            heads,
            [f"seed {seed}" for seed in self.seeds],
            title="radiata-t1 demo",
            synthetic=True,
            limits=(0.0, 1000.0),
        )
        save(picture, self.out / "heads.png")
        Report(folder=self.out, overwrite=True).run()
