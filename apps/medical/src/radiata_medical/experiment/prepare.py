"""`radiata-medical prepare`: label maps, scans, or pairs of both, in one store; every person in one split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from radiata_core.errors import InputError

__all__ = ["Prepare"]


@dataclass(frozen=True)
class Prepare:
    """Make a training store from label maps, from scans, or from scans with their label maps.

    Everything comes to 1 mm, axes towards left, posterior, superior, cropped to the head. One case is in memory at a time.
    Each finished case is kept at once (OUT.parts), so a stopped command goes on where it was.

    Example: radiata-medical prepare labels/ --out labels.h5

    Example: radiata-medical prepare labels/ --images scans/ --out pairs.h5 --split people.csv

    Example: radiata-medical prepare scans/ --kind images --out scans.h5
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Folder, BIDS tree or file of label maps (FreeSurfer or SynthSeg codes), or of scans."""
    out: Path
    """The store to write, ending in .h5; its manifest ends in .json."""
    kind: Literal["auto", "labels", "images"] = "auto"
    """What the source holds; auto looks at the first file. Scans alone train a prior, with --images."""
    images: Path | None = None
    """Scans on the grids of the label maps, matched by name."""
    split: Path | None = None
    """Table (.csv, .tsv) with the columns person and split (train, validation, test); people it does not name are split by
    --fractions."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of the people for train, validation and test."""
    seed: int = 0
    """Chooses who is in which split."""
    margin: int = 8
    """Voxels (mm) around the head."""
    assume_axcodes: str | None = None
    """Orientation (such as RAS) of scans whose header carries none."""
    skip_bad: bool = False
    """Finish the store without the files that cannot be used."""
    overwrite: bool = False
    """Replace an existing store."""
    dry_run: bool = False
    """Print people, splits and sizes; write nothing."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: the source or a file cannot be used, or the store exists.
        """
        if self.out.suffix != ".h5":
            raise InputError(f"expected a store name ending in .h5; got {self.out}. Rename --out.")
        if self.margin < 0:
            raise InputError(f"expected a margin >= 0 voxels; got {self.margin}. 8 is usual.")
        if self.out.exists() and not self.overwrite:
            raise InputError(
                f"expected a new store; got {self.out}, which exists. Choose another --out, or pass --overwrite."
            )
        from radiata_medical.experiment.preparing import listed, prepare_store

        cases = listed(self)
        for split in ("train", "validation", "test"):
            people = {case.person for case in cases if case.split == split}
            print(f"{split}: {len(people)} people, {sum(case.split == split for case in cases)} cases")
        if self.dry_run:
            print(
                f"dry run: {self.out} would hold {len(cases)} cases of {cases[0].kind}; nothing was written"
            )
            return
        count, skipped = prepare_store(self, cases)
        print(f"{count} cases ({skipped} skipped) in {self.out}")
