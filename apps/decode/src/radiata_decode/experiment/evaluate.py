"""`radiata-decode evaluate DECODED --subject SUBJECT --out FOLDER`: scores beside everything that knows less."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_decode.experiment.comparison import Comparison
    from radiata_decode.experiment.evaluation import Evaluation

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Score what was decoded against what was seen, with every control in the same table.

    Pictures: PixCorr, SSIM in both conventions, two-way identification; beside the mean training image, the permuted brain,
    and the training picture with the most similar response. Motion: endpoint error, its skill over zero flow, cosine,
    correlation, two-way; beside zero, mean and random training motion, the permuted brain, retrieval and the first frame
    alone. Categories: accuracy, chance, confusion. Simulated subjects add the ceiling without noise. Intervals are over
    stimuli, p from pairings permuted within runs. Not for clinical use.

    Example: radiata-decode evaluate decoded --subject subj01 --model runs/image --out scores

    Example: radiata-decode evaluate decoded --subject subj01 --preset mindeye --extractors gabor efficientnet --out scores
    """

    decoded: Annotated[Path, tyro.conf.Positional]
    """Folder that decode wrote, or its decoded.h5."""
    subject: Path
    """Subject folder it was decoded from, with its stimuli."""
    out: Path
    """Folder to write to."""
    model: Path | None = None
    """Run that decoded: its voxels and standardisation for retrieval, its ceiling for simulated subjects; by default all
    voxels and no ceiling."""
    preset: Literal["radiata", "brain-diffuser", "mindeye"] = "radiata"
    """pictures: sizes at which a paper measured; radiata measures at the size of what was seen."""
    extractors: tuple[str, ...] = ("gabor",)
    """pictures: features for identification beside pixels: gabor, pca, efficientnet, the file of torchvision's AlexNet, a
    folder of transformers (CLIP, DINO), or NAME=FILE.pt2."""
    threshold: float = 0.25
    """motion: least speed of a moving cell, cells a frame step."""
    permutations: int = 1000
    """Permutations of the pairing; twice as many bootstrap draws."""
    seed: int = 0
    """Of permutations, intervals, controls and the random rows of galleries."""
    overwrite: bool = False
    """Replace an earlier evaluation in the folder."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a file of another subject, nothing to compare with, an extractor that cannot be used.
        """
        self._check()
        from radiata_core.runs import Run
        from radiata_decode.data.decoded import read_decoded
        from radiata_decode.data.subject import read_subject
        from radiata_decode.experiment.comparison import compared
        from radiata_decode.experiment.evaluation import SCORES, printed
        from radiata_decode.experiment.evaluation_features import check_words
        from radiata_decode.experiment.stimulus_overlap import overlap_note
        from radiata_decode.experiment.trained_models import read_card

        read_decoded(self.decoded)
        check_words(self.extractors)
        subject = read_subject(self.subject)
        card = None if self.model is None else read_card(self.model)
        comparison = compared(self.decoded, subject, card)
        self._check_kind(comparison)
        data = self._sources(comparison)
        with Run(
            self.out, "radiata-decode evaluate", self, seed=self.seed, data=data, overwrite=self.overwrite
        ) as run:
            found = self._evaluated(comparison)
            about = {
                "route": comparison.decoded.route,
                "split": comparison.decoded.split,
                "synthetic": comparison.synthetic,
                "preset": self.preset,
                "permuted": comparison.within,
            }
            found.write(self.out, comparison.names, data, **about)
            run.note(kind=found.kind, stimuli=len(comparison.names))
        print(printed(found.rows, found.notes))
        if note := overlap_note(found.overlap):
            print(note)
        print(self.out / SCORES)

    def _check(self) -> None:
        if self.permutations < 19 or self.seed < 0 or not self.threshold >= 0:
            raise InputError(
                f"expected --permutations of 19 or more (p of .05), --seed and --threshold >= 0; got {self.permutations}, "
                f"{self.seed} and {self.threshold}."
            )

    def _check_kind(self, comparison: "Comparison") -> None:
        """Refuse, before anything is written, what there is nothing to compare with."""
        arrays = comparison.decoded.arrays
        if "probabilities" in arrays:
            return
        wanted, shapes = ("flow" if "flow" in arrays else "images"), comparison.stimuli().shapes
        if wanted not in arrays:
            raise InputError(
                f"expected pictures, flow or categories in {self.decoded}; got {', '.join(arrays)}. Decode with another "
                "generator."
            )
        if wanted not in shapes and not (wanted == "flow" and "movies" in shapes):
            raise InputError(
                f"expected {wanted} among the stimuli of {self.subject}, to compare with; got {', '.join(shapes)}. "
                "Prepare the subject with what was shown."
            )

    def _sources(self, comparison: "Comparison") -> dict[str, str]:
        from radiata_core.files import sha256

        file = self.decoded / "decoded.h5" if self.decoded.is_dir() else self.decoded
        found = {"decoded.h5": sha256(file), comparison.subject.folder.name: comparison.subject.sha256}
        if comparison.card is not None:
            found |= {f"model/{name}": value for name, value in comparison.card.sha256.items()}
        return found

    def _evaluated(self, comparison: "Comparison") -> "Evaluation":
        arrays = comparison.decoded.arrays
        if "probabilities" in arrays:
            from radiata_decode.experiment.evaluating_categories import evaluate_categories

            return evaluate_categories(comparison, self)
        if "flow" in arrays:
            from radiata_decode.experiment.evaluating_motion import evaluate_motion

            return evaluate_motion(comparison, self)
        from radiata_decode.experiment.evaluating_images import evaluate_images

        return evaluate_images(comparison, self)
