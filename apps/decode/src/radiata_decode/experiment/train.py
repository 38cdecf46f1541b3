"""`radiata-decode train SUBJECT ... --route ... --out RUN`: a decoder of pictures, of motion or of categories."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_decode.data.subject import Subject

__all__ = ["Train"]

Route = Literal["image", "surface", "motion", "category"]


@dataclass(frozen=True)
class Train:
    """Train a decoder on the training trials of a subject folder.

    image: latents and embeddings by one shared ridge (Brain-Diffuser); seconds to minutes. surface: a transformer on the
    flattened cortex that steers a frozen generator (NeuroPictor); several subjects train one encoder. motion: optical flow
    (BrainNRDS). category: a classifier, judged by leaving each run out, test runs too; else no test trial is looked at.

    Example: radiata-decode train subj01 --route image --out runs/image

    Example: radiata-decode train subj01 --route image --embeddings clip=clip.npy text=captions.npy --out runs/clip

    Example: radiata-decode train subj01 subj02 --route surface --out runs/surface

    Example: radiata-decode train films01 --route motion --out runs/motion
    """

    subjects: tyro.conf.Positional[tuple[Path, ...]]
    """Subject folders written by prepare; one, or several for the surface route."""
    out: Path
    """The run's folder."""
    route: Route = "image"
    """What is decoded, and how."""
    size: int = 32
    """image, surface: side of the pictures, pixels."""
    components: int = 300
    """image: latents of the codec."""
    basis: str = "shipped"
    """image: shipped (components of natural photographs), training (of the training pictures), or the folder of
    an autoencoder of diffusers."""
    embeddings: tuple[str, ...] = ()
    """image: NAME=FILE, with a row for each row of stimuli.tsv (.npy or .h5), such as CLIP's tokens."""
    zscore: str = "train"
    """Standardisation of voxels: none, train or session; never with test trials."""
    rois: tuple[str, ...] = ()
    """Regions to decode from; by default all voxels."""
    repeats: int | None = None
    """Repeats of each stimulus that are averaged; by default all."""
    weighted: bool = True
    """Voxels count with their noise ceiling and trials with their repeats; --no-weighted counts all alike."""
    posterior: bool = False
    """image: also learn the posterior mean from simulated responses (two minutes; nearer to the pictures than the ridge)."""
    steps: int | None = None
    """surface, motion, posterior: optimiser steps (of each stage); by default those of the route."""
    method: Literal["continuous", "codebook", "both"] = "continuous"
    """motion: ridge on components of the flow, cross-entropy over a codebook of flow vectors, or the mean of both."""
    resume: bool = False
    """surface, motion: go on from the newest checkpoint."""
    seed: int = 0
    """Of initial weights and orders."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    overwrite: bool = False
    """Replace an earlier run in the folder."""
    dry_run: bool = False
    """Print what would be trained on, and stop."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: subjects or options that do not fit, or a folder with content.
        """
        self._check()
        from radiata_core.runs import Run
        from radiata_decode.data.subject import read_subject

        subjects = [read_subject(path) for path in self.subjects]
        if self.dry_run:
            for subject in subjects:
                print(_described(subject))
            return
        data = {subject.folder.name: subject.sha256 for subject in subjects}
        with Run(
            self.out, "radiata-decode train", self, seed=self.seed, data=data, overwrite=self.overwrite,
            resume=self.resume,
        ) as run:  # fmt: skip
            run.note(measured=self._train(subjects))
        print(self.out)

    def _check(self) -> None:
        if not self.subjects:
            raise InputError("expected a subject folder; got none. Name one that prepare wrote.")
        if len(self.subjects) > 1 and self.route != "surface":
            raise InputError(
                f"expected one subject for the route {self.route}; got {len(self.subjects)}. Only surface trains on several."
            )
        if self.resume and self.overwrite:
            raise InputError("expected --resume or --overwrite; got both. Take one.")
        if self.size < 8 or self.components < 1 or (self.repeats is not None and self.repeats < 1):
            raise InputError(
                f"expected --size of 8 or more, --components and --repeats of 1 or more; got {self.size}, {self.components} "
                f"and {self.repeats}."
            )

    def _train(self, subjects: "list[Subject]") -> object:
        subject = subjects[0]
        if self.route == "image":
            from radiata_decode.experiment.image_training import ImageOptions, train_images

            options = ImageOptions(
                self.size, self.components, self.basis, self.embeddings, self.zscore, self.rois, self.repeats,
                self.weighted, self.seed, self.posterior, self.steps,
            )  # fmt: skip
            return train_images(subject, options, self.out)
        if self.route == "category":
            from radiata_decode.experiment.category_training import train_categories

            return train_categories(subject, self.rois, self.zscore, self.seed, self.out)
        if self.route == "motion":
            from radiata_decode.experiment.motion_runs import train_motion_run

            return train_motion_run(subject, self)
        from radiata_decode.experiment.surface_runs import train_surface_run

        return train_surface_run(subjects, self)


def _described(subject: "Subject") -> str:
    trials = subject.trials
    counts = {split: int((trials["split"] == split).sum()) for split in ("train", "validation", "test")}
    stimuli = trials.loc[trials["split"] == "train", "stimulus"].nunique()
    told = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    return (
        f"{subject.folder}: {len(trials)} trials ({told}), {stimuli} training stimuli, {len(subject.voxels)} voxels, "
        f"regions {', '.join(subject.rois) or 'none'}"
    )
