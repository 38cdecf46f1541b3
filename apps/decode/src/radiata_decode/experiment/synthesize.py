"""`radiata-decode synthesize --model RUN --rois V1 ... --out FOLDER`: what a region would show if it alone were active."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from radiata_core.errors import InputError

__all__ = ["Synthesize"]


@dataclass(frozen=True)
class Synthesize:
    """Make a picture for each region of the brain: its voxels active, all others at their mean, decoded.

    The picture of a region does not depend on which other regions are asked for. It is what the decoder's weights say of the
    region, not what the region sees. Not for clinical use.

    Example: radiata-decode synthesize subj01 --model runs/image --rois V1 V4 faces --out regions
    """

    subject: Annotated[Path, tyro.conf.Positional]
    """Subject folder, for its regions."""
    model: Path
    """Run folder of train --route image."""
    out: Path
    """Folder to write to."""
    rois: tuple[str, ...] = ()
    """Regions; by default all of the subject."""
    gain: float = 1.0
    """Distance from the mean picture, in units of that of training pictures; negative is not allowed, see --silence."""
    silence: bool = False
    """Show what silences the region instead of what drives it."""
    generator: str = "own"
    """own, none (the decoder's own picture) or diffusers:FOLDER_OR_ID."""
    draws: int = 4
    """Samples of the generator a region."""
    show: Literal["mean", "first"] = "first"
    """The picture shown: the first draw or the mean of all."""
    steps: int | None = None
    """Evaluations a sample; by default the generator's own."""
    online: bool = False
    """Let diffusers fetch what is not on this disk."""
    seed: int = 0
    """Of the draws."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    overwrite: bool = False
    """Replace earlier pictures."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a model of another route, a region without voxels in the model, or options out of range.
        """
        if not 0 < self.gain <= 10 or self.draws < 1 or self.seed < 0:
            raise InputError(
                f"expected --gain in (0, 10], --draws >= 1 and --seed >= 0; got {self.gain}, {self.draws} and {self.seed}."
            )
        from radiata_core.runs import Run
        from radiata_decode.data.decoded import write_decoded
        from radiata_decode.data.sidecar import write_sidecar
        from radiata_decode.data.subject import read_subject
        from radiata_decode.experiment.region_pictures import region_pictures
        from radiata_decode.experiment.trained_models import read_card

        subject, card = read_subject(self.subject), read_card(self.model)
        if card.route != "image":
            raise InputError(
                f"expected a model of the image route; got {card.route} in {self.model}. Train one with --route image."
            )
        data = {subject.folder.name: subject.sha256} | card.sha256
        with Run(
            self.out, "radiata-decode synthesize", self, seed=self.seed, data=data, overwrite=self.overwrite
        ):
            made = region_pictures(subject, card, self)
            path = write_decoded(self.out / "decoded.h5", made)
            write_sidecar(
                path, data, SyntheticData=True, SimulatedSubject=bool(card.facts.get("synthetic", False)),
                Regions=made.stimulus, Generator=self.generator, Seed=self.seed,
                Description="pictures of regions made by a decoder's weights; outputs of a model, not for clinical use",
            )  # fmt: skip
        print(f"{len(made.stimulus)} regions in {self.out}")
