"""`radiata-decode encode SUBJECT --features ... --out FOLDER`: which features of what was shown explain which voxel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from radiata_core.errors import InputError

__all__ = ["Encode"]


@dataclass(frozen=True)
class Encode:
    """Fit encoding models: from features of what was shown to the response of every voxel, scored on test stimuli.

    Each space of features is fitted by ridge on training stimuli alone, and judged by r and R² on test stimuli, beside the
    noise ceiling. p is of r, corrected over all voxels by the maximum statistic. With --partition, two or three spaces are
    also fitted together, for what each explains that the others do not. Not for clinical use.

    Example: radiata-decode encode subj01 --features gabor pixels --out encoding

    Example: radiata-decode encode subj01 --features gabor dino.npy --partition --out unique

    Example: radiata-decode encode films01 --features motion-energy flow gabor --out motion-encoding
    """

    subject: Annotated[Path, tyro.conf.Positional]
    """Subject folder, with its stimuli."""
    out: Path
    """Folder to write to."""
    features: tuple[str, ...] = ("gabor", "pixels")
    """Spaces: pixels, luminance-pcs, gabor, motion-energy, flow; a file (.npy, .h5) with a row for each row of stimuli.tsv;
    or a folder of transformers."""
    partition: bool = False
    """Fit all subsets of two or three spaces: unique and shared parts."""
    penalty: Literal["voxel", "region", "all"] = "voxel"
    """Which voxels share a ridge penalty."""
    zscore: Literal["none", "train", "session"] = "train"
    """Standardisation of voxels; never with test trials."""
    repeats: int | None = None
    """Repeats of each stimulus that are averaged; by default all."""
    permutations: int = 1000
    """Of test stimuli, for p; 0: none."""
    seed: int = 0
    """Of permutations and intervals."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there; for folders of transformers."""
    overwrite: bool = False
    """Replace earlier results."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a subject without stimuli or test trials, features that are not there, or options out of range.
        """
        self._check()
        from radiata_core.runs import Run
        from radiata_decode.data.subject import read_subject
        from radiata_decode.experiment.encoding_runs import checked_sources, write_encoding

        subject = read_subject(self.subject)
        sources = checked_sources(subject, self.features)
        with Run(
            self.out, "radiata-decode encode", self, seed=self.seed, data=sources, overwrite=self.overwrite
        ) as run:
            run.note(**write_encoding(subject, self, sources))
        print(f"{len(subject.voxels)} voxels in {self.out}")

    def _check(self) -> None:
        if self.permutations < 0 or self.seed < 0 or (self.repeats is not None and self.repeats < 1):
            raise InputError(
                f"expected --permutations and --seed of 0 or more and --repeats of at least 1; got {self.permutations}, "
                f"{self.seed} and {self.repeats}."
            )
        words = [Path(name).stem for name in self.features]
        if not words or len(set(words)) != len(words):
            raise InputError(
                f"expected spaces of features of different names; got {', '.join(self.features) or 'none'}. Rename a file."
            )
        if self.partition and len(words) not in (2, 3):
            raise InputError(
                f"expected two or three --features to partition; got {len(words)}. Leave out --partition, or some of them."
            )
