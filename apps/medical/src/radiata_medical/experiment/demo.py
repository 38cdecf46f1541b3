"""`radiata-medical demo`: a real head restored three ways and segmented, with the shipped models, on one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from radiata_core.errors import InputError

__all__ = ["Demo", "DemoTask"]

DemoTask = Literal["kspace", "sr", "inpaint", "segment"]


@dataclass(frozen=True)
class Demo:
    """Restore a real head from a quarter of its k-space, from 4 mm slices and around a hole, and segment it: report.html.

    The head is Colin27, the mean of 27 scans of one man, which comes with the package and was in no training set. Its
    measurements are simulated, so that the truth is known. Under three minutes on two cores. Not for clinical use.

    Example: radiata-medical demo --out demo

    Example: radiata-medical demo --out demo --tasks kspace --mode mean --block 96
    """

    out: Path = Path("demo")
    """Folder to write to."""
    tasks: tuple[DemoTask, ...] = ("kspace", "sr", "inpaint", "segment")
    """What is done: kspace (4x under-sampled), sr (4 mm slices), inpaint (a ball of 12 mm radius is missing), segment."""
    block: float = 0.0
    """Edge of the cube of the head that is restored, mm; 0 is the whole head. A cube takes less time and is harder: no air
    around it. The head is segmented as a whole, unless the cube is smaller than 96."""
    noise: float = 1.0
    """Standard deviation of the noise of the measurements, percent of white."""
    mode: Literal["fast", "mean", "sample"] = "fast"
    """fast: the network of volumes, four evaluations. mean: the network of slices in two directions, better and seven times
    as long. sample: 4 draws and their spread, ten times as long."""
    prior: str | None = None
    """Prior of volumes (name, file or run); by default the shipped one, with its restorer."""
    restorer: str | None = None
    """Unrolled restorer (name, file or run), or none; by default the shipped one, if the prior is."""
    segmenter: str = "segmenter"
    """Segmenter (name, file or run)."""
    seed: int = 0
    """Of masks, noise and draws."""
    overwrite: bool = False
    """Replace an earlier demo."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: numbers out of range, a model that is not there, or a folder with content.
        """
        if not self.tasks or not 0 < self.noise < 100 or self.seed < 0:
            raise InputError(
                f"expected --tasks, --noise in (0, 100) and --seed >= 0; got {len(self.tasks)} tasks, {self.noise} and "
                f"{self.seed}. Leave the defaults."
            )
        if self.out.is_dir() and any(self.out.iterdir()) and not self.overwrite:
            raise InputError(
                f"expected an empty or new folder; got {self.out} with content. Choose another --out, or pass --overwrite."
            )
        from radiata_medical.experiment.demo_run import demonstrate

        demonstrate(self)
