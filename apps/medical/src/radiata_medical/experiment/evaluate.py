"""`radiata-medical evaluate`: results against references, with intervals over people, and against other results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from radiata_core.errors import InputError

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Score restored images or segmentations against references, with intervals over people.

    Files are matched by name or BIDS entities. Images get PSNR, SSIM, HFEN, NRMSE and errors; label maps Dice, surface Dice,
    HD95, ASSD and volumes, by structure and tissue. Where an sd, an entropy or probabilities lie beside a result, it is told
    whether they are right. Writes cases.csv, summary.csv, evaluation.json; radiata-medical report makes a page of them.

    Example: radiata-medical evaluate restored/ --reference scans/ --out evaluation

    Example: radiata-medical evaluate ours/ --reference manual/ --compare theirs/ --tolerance 2 --out evaluation
    """

    results: Annotated[Path, tyro.conf.Positional]
    """Folder (or one file) of radiata-medical restore or segment, or of any other program."""
    reference: Path
    """Folder (or one file) of what they should be."""
    out: Path
    """Folder to write to."""
    kind: Literal["auto", "image", "labels"] = "auto"
    """What is compared; auto goes by the names of the results, then by the first file."""
    compare: Path | None = None
    """Other results of the same scans: differences within people, their intervals and p-values."""
    mask: str | None = None
    """Voxels of images that count: a mask file, a folder of masks matched by name, or head (found in the reference); by
    default all, and air lifts PSNR and SSIM."""
    data_range: float | None = None
    """Span of intensities in PSNR and SSIM, units of the files; by default the white of each reference: the 99th percentile
    of the voxels brighter than its mean."""
    encoder: str = "none"
    """Features of the perceptual distance: random (an untrained 3-D network), or a 2-D prior, such as prior-2d or a file."""
    names: Path | None = None
    """Table (index, name) of the labels, where they are not FreeSurfer's or SynthSeg's."""
    tolerance: float = 1.0
    """Surface Dice counts surfaces within this distance, mm."""
    bins: int = 15
    """Of confidence, for the calibration error."""
    level: float = 0.95
    """Of the intervals over people."""
    draws: int = 2000
    """Bootstrap samples and sign flips."""
    seed: int = 0
    """Of the draws."""
    assume_axcodes: str | None = None
    """Orientation (such as RAS) of files whose header carries none."""
    overwrite: bool = False
    """Replace an earlier evaluation in the folder."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: results and references that cannot be compared, or a folder that has content.
        """
        if not (self.tolerance >= 0 and self.bins >= 1 and 0 < self.level < 1 and self.draws >= 100):
            raise InputError(
                f"expected --tolerance >= 0, --bins >= 1, --level in (0, 1) and --draws >= 100; got {self.tolerance}, "
                f"{self.bins}, {self.level} and {self.draws}. Leave the defaults."
            )
        if self.data_range is not None and not self.data_range > 0:
            raise InputError(f"expected --data-range > 0; got {self.data_range}. Leave it out for the white.")
        from radiata_medical.experiment.evaluating import evaluate

        evaluate(self)
