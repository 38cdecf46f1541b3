"""`radiata-decode decode SUBJECT --model RUN --out FOLDER`: pictures, motion or categories of responses never trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_decode.data.decoded import Decoded
    from radiata_decode.data.subject import Subject
    from radiata_decode.experiment.trained_models import ModelCard

__all__ = ["Decode"]


@dataclass(frozen=True)
class Decode:
    """Decode trials of a subject with a trained decoder: decoded.h5 and its card.

    Each stimulus is decoded by itself: alone, in a batch or in another order, the result is the same. Reconstructions are
    outputs of a model, not photographs of thoughts; not for clinical use.

    Example: radiata-decode decode subj01 --model runs/image --out decoded

    Example: radiata-decode decode subj01 --model runs/image --generator none --sharpness 0.5 --out sharp

    Example: radiata-decode decode subj01 --model runs/clip --generator diffusers:models/unclip --draws 1 --out pictures

    Example: radiata-decode decode films01 --model runs/motion --out flow
    """

    subject: Annotated[Path, tyro.conf.Positional]
    """Subject folder."""
    model: Path
    """Run folder of train."""
    out: Path
    """Folder to write to."""
    split: Literal["test", "validation", "train"] = "test"
    """Whose trials; decoding train shows what the decoder remembers, not what it can."""
    stimuli: tuple[str, ...] = ()
    """Only these stimuli; by default all of the split."""
    repeats: int | None = None
    """Repeats of each stimulus that are averaged; by default all."""
    generator: str = "own"
    """own (the small flow-matching generator that ships), none (the decoder's own picture), retrieval (the nearest training
    picture), diffusers:FOLDER_OR_ID, or warp for motion."""
    draws: int = 8
    """Samples of the generator a stimulus."""
    show: Literal["mean", "first"] = "mean"
    """The reconstruction: mean of the draws, nearest in squared error, or the first draw, sharp."""
    posterior: bool = True
    """image: join the ridge with the posterior mean, if the model has one; --no-posterior is the ridge alone."""
    sharpness: float = 0.0
    """Of the decoder's own picture: 0 is the mean of what is likely, 1 has full variance."""
    strength: float = 0.75
    """diffusers: how far from the first guess, 0 to 1."""
    guidance: float | None = None
    """Weight of the condition; by default the generator's own (7.5 for Stable Diffusion, 2 for categories of our own)."""
    mix: float = 0.4
    """diffusers, two conditions: weight of the text."""
    control_scale: float = 1.0
    """surface, diffusers with control: weight of the control, 0 to 1."""
    steps: int | None = None
    """Evaluations a sample; by default the generator's own."""
    online: bool = False
    """Let diffusers fetch what is not on this disk."""
    pictures: bool = False
    """Also write each reconstruction as a PNG."""
    batch_size: int = 32
    """Stimuli at once; changes nothing but memory."""
    seed: int = 0
    """Of the draws; with the stimulus' name it fixes each one."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    overwrite: bool = False
    """Replace an earlier decoding."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a subject that the model was not trained with, no such stimulus, or a generator that cannot be used.
        """
        self._check()
        from radiata_core.runs import Run
        from radiata_decode.data.subject import read_subject
        from radiata_decode.experiment.trained_models import read_card

        subject, card = read_subject(self.subject), read_card(self.model)
        card.voxels_of(subject)
        data = {subject.folder.name: subject.sha256} | card.sha256
        with Run(
            self.out, "radiata-decode decode", self, seed=self.seed, data=data, overwrite=self.overwrite
        ) as run:
            decoded = self._decoded(subject, card)
            self._write(decoded, subject, card)
            run.note(route=card.route, stimuli=len(decoded.stimulus))
        print(f"{len(decoded.stimulus)} stimuli in {self.out}")

    def _check(self) -> None:
        if (
            self.draws < 1
            or self.batch_size < 1
            or self.seed < 0
            or (self.repeats is not None and self.repeats < 1)
        ):
            raise InputError(
                f"expected --draws, --batch-size and --repeats of at least 1 and --seed >= 0; got {self.draws}, "
                f"{self.batch_size}, {self.repeats} and {self.seed}."
            )
        if not 0 <= self.sharpness <= 1 or not 0 < self.strength <= 1 or not 0 <= self.mix <= 1:
            raise InputError(
                f"expected --sharpness and --mix in [0, 1] and --strength in (0, 1]; got {self.sharpness}, {self.mix} and "
                f"{self.strength}."
            )

    def _decoded(self, subject: "Subject", card: "ModelCard") -> "Decoded":
        if card.route == "image":
            from radiata_decode.experiment.image_decoding import decode_images

            return decode_images(subject, card, self)
        if card.route == "category":
            from radiata_decode.experiment.image_decoding import decode_categories

            return decode_categories(subject, card, self)
        if card.route == "motion":
            from radiata_decode.experiment.motion_runs import decode_motion_run

            return decode_motion_run(subject, card, self)
        from radiata_decode.experiment.surface_runs import decode_surface_run

        return decode_surface_run(subject, card, self)

    def _write(self, decoded: "Decoded", subject: "Subject", card: "ModelCard") -> None:
        from radiata_decode.data.decoded import write_decoded
        from radiata_decode.data.sidecar import write_sidecar

        path = write_decoded(self.out / "decoded.h5", decoded)
        sources = {subject.folder.name: subject.sha256} | {
            f"model/{name}": sha for name, sha in card.sha256.items()
        }
        about: dict[str, Any] = {
            "Description": f"decoded from fMRI by the {card.route} route; outputs of a model, not for clinical use",
            "SyntheticData": True,
            "SimulatedSubject": bool(card.facts.get("synthetic", False)),
            "Route": card.route,
            "Split": decoded.split,
            "Generator": self.generator,
            "Draws": self.draws,
            "Seed": self.seed,
        }
        write_sidecar(path, sources, **about)
        if self.pictures and "images" in decoded.arrays:
            from PIL import Image

            from radiata_core.files import atomic_path

            for number, array in enumerate(decoded.arrays["images"]):
                with atomic_path(self.out / "pictures" / f"{number:05d}.png") as part:
                    Image.fromarray(array).save(part, format="PNG")
