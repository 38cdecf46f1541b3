"""`radiata-medical train STORE --task ... --out RUN`: priors, restorers, segmenters, joint models, heads of few labels."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_core.train import TrainOptions
    from radiata_medical.experiment.synthetic_training import Heads
    from radiata_medical.experiment.training_tasks import Numbers

__all__ = ["Train"]


@dataclass(frozen=True)
class Train:
    """Train a prior, a restorer, a segmenter or a joint model on a store of label maps, from scans rendered on the way.

    Resumable to the bit. Ctrl-C and SIGTERM save first. Several GPUs: accelerate launch $(which radiata-medical) train ...
    --device auto. The shipped models are priors first, then restorers started from them.

    A head needs no store: from some labelled slices of scans it learns, in minutes and in one go, to read labels off the
    features of a prior of slices. It is what segment --method features takes.

    Example: radiata-medical train labels.h5 --task prior --dims 2 --out runs/prior-2d --steps 20000 --device auto

    Example: radiata-medical train labels.h5 --task restorer --dims 2 --start runs/prior-2d --out runs/restorer-2d

    Example: radiata-medical train scans/ --task head --labels labels/ --out runs/my-head --max-minutes 5
    """

    store: Annotated[Path, tyro.conf.Positional]
    """Store of label maps written by prepare; of a head, the scan or folder of scans that --labels are of."""
    out: Path
    """The run's folder."""
    task: Literal["prior", "restorer", "segmenter", "joint", "head"] = "prior"
    """What is trained: the prior of scans, a restorer of anything linear, a whole-head segmenter, image and tissues
    together, or a head that reads a few labels off a prior."""
    dims: Literal[2, 3] = 3
    """Slices or volumes."""
    start: str | None = None
    """Model (name, file or run) to start from; a restorer starts from a prior, a head reads prior-2d by default."""
    labels: Path | None = None
    """head: label map, or folder of label maps of the same names; slices without any label are not used."""
    classes: Literal["as-is", "tissues"] = "as-is"
    """head: the codes of the label maps as they are, or FreeSurfer's codes gathered into seven tissues."""
    slices: int = 8
    """head: slices taken of each scan, at most."""
    members: int = 5
    """head: heads of the ensemble, whose disagreement tells what is unsure."""
    images: bool = False
    """Train on the store's own scans instead of rendered ones."""
    channels: tuple[int, ...] | None = None
    """Channels a level, finest first; by default those of the shipped models."""
    window: int | None = None
    """Voxels an axis of a training window, a multiple of 16; by default 128 (slices), 64 (blocks), 128 (segmenter)."""
    steps: int | None = None
    """Optimiser steps, by default 10000; of a head as many as fit into --max-minutes."""
    batch_size: int | None = None
    """Rows of one step, over all processes; by default 32 slices or 8 blocks, 2 for the segmenter."""
    together: int | None = None
    """Rows taken from one rendering; more is faster where rendering is what waits, and less diverse."""
    accumulate: int = 1
    """Pieces a process cuts its batch into, to save memory."""
    learning_rate: float | None = None
    """Step size after the warm-up; 1e-3 by default, 2e-4 for a restorer."""
    warmup: int = 200
    """Steps of linear warm-up."""
    cosine: bool = True
    """The step size falls along a half cosine to the last step; --no-cosine keeps it constant after the warm-up."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: tuple[float, ...] = (0.05,)
    """Relative widths of the averages of the weights; the first becomes model.safetensors."""
    seed: int = 0
    """Seed of initial weights, people, scans, times and noise."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; bf16 is slow on most CPUs."""
    validation_scans: int = 4
    """Rendered windows of each validation head in every validation."""
    calibration_windows: int = 8
    """prior: held-out windows on which its errors and the spread of its draws are measured at the end; 0 for none."""
    log_every: int = 50
    """Steps between two log lines."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    validate_every: int = 1000
    """Steps between two validations."""
    tensorboard: bool = True
    """TensorBoard curves are written; --no-tensorboard leaves them out."""
    max_minutes: float | None = None
    """Stop with a checkpoint after this time; of a head, minutes of the processor, 5 unless --steps are given."""
    resume: bool = False
    """Go on from the newest valid checkpoint."""
    overwrite: bool = False
    """Replace an earlier run in the folder."""
    dry_run: bool = False
    """Print options and sizes, and stop."""

    def run(self) -> None:
        self._check()
        if self.task == "head":
            from radiata_medical.experiment.training_heads import train_heads

            train_heads(self)
            return
        from radiata_core.files import sha256
        from radiata_core.runs import Run
        from radiata_core.train import train
        from radiata_medical.data.label_maps import LabelMaps
        from radiata_medical.experiment.synthetic_training import People, load_heads
        from radiata_medical.experiment.training_tasks import metadata_of, network_of, objective_of

        with LabelMaps(self.store) as store:
            if not store.of_split("train"):
                raise InputError(
                    f"expected training cases in {self.store}; got none. Prepare it with a split by person."
                )
            if self.dry_run:
                self._describe(len(store.of_split("train")), len(store.of_split("validation")))
                return
            heads = load_heads(store, self._device(), self.images)
            self._check_images(heads)
            numbers = self._numbers()
            network = network_of(self.task, self.dims, self.channels, self.start, self.seed)
            with Run(
                self.out,
                "radiata-medical train",
                self,
                seed=self.seed,
                data={self.store.name: sha256(self.store)},
                overwrite=self.overwrite,
                resume=self.resume,
            ) as run:
                people = heads.people[: heads.training]
                run.note(
                    parameters=sum(p.numel() for p in network.parameters()),
                    heads=heads.training,
                    people=len(set(people)),
                )
                objective = objective_of(
                    self.task, self.dims, heads, numbers.window, numbers.together, rendered=not self.images
                )
                held_out = People(heads, "validation", self.validation_scans)
                trained = train(
                    network,
                    objective,
                    People(heads, "train"),
                    self.out,
                    self._options(numbers),
                    validation=held_out if len(held_out) else None,
                    metadata=metadata_of(
                        self.task, self.dims, numbers.window, len(set(people)), self.store.name
                    ),
                    groups=people,
                )
                if self.task == "prior" and self.calibration_windows and trained.finished:
                    from radiata_medical.experiment.calibrating import calibrate

                    windows = store, self.dims, numbers.window, self.calibration_windows
                    calibrate(trained.models, *windows, rendered=not self.images, device=self._device())
        if not trained.finished:
            print(f"stopped at step {trained.step} of {numbers.steps}; go on with --resume")
        print(trained.models[0])

    def _check(self) -> None:
        if self.resume and self.overwrite:
            raise InputError("expected --resume or --overwrite; got both. Take one.")
        if self.window is not None and (self.window < 16 or self.window % 16):
            raise InputError(
                f"expected a window of a multiple of 16 voxels; got {self.window}. Try {max(16, self.window // 16 * 16)}."
            )
        if self.calibration_windows < 0:
            raise InputError(
                f"expected --calibration-windows of at least 0; got {self.calibration_windows}. 0 leaves it out."
            )
        if self.labels is not None and self.task != "head":
            raise InputError(
                f"expected --labels with --task head; got --task {self.task}. Label maps for it go through prepare."
            )

    def _numbers(self) -> "Numbers":
        """Window, batch size, rows together, learning rate and steps: those asked for, else the task's."""
        from radiata_medical.experiment.training_tasks import numbers_of

        usual = numbers_of(self.task, self.dims)
        batch = self.batch_size or usual.batch_size
        return dataclasses.replace(
            usual,
            window=self.window or usual.window,
            batch_size=batch,
            together=self.together or min(usual.together, batch),
            learning_rate=self.learning_rate or usual.learning_rate,
            steps=usual.steps if self.steps is None else self.steps,
        )

    def _device(self) -> str:
        if self.device == "cpu":
            return "cpu"
        from accelerate import Accelerator

        return str(
            Accelerator(mixed_precision=self.precision).device
        )  # the state of the process is made once

    def _check_images(self, heads: "Heads") -> None:
        if self.images and any(head.image is None for head in heads.heads):
            raise InputError(
                f"expected a scan with every label map of {self.store} for --images; got maps alone. "
                "Prepare it with its images."
            )

    def _options(self, numbers: "Numbers") -> "TrainOptions":
        from radiata_core.train import TrainOptions

        names = {field.name for field in dataclasses.fields(TrainOptions)}
        given: dict[str, Any] = {name: value for name, value in self.__dict__.items() if name in names}
        given |= {name: getattr(numbers, name) for name in ("batch_size", "learning_rate", "steps")}
        return TrainOptions(**given | {"condition_dropout": 0.0, "validation_draws": 1})

    def _describe(self, training: int, validation: int) -> None:
        numbers = self._numbers()
        for name, value in self.__dict__.items():
            print(f"{name}: {value}")
        print(f"{training} training and {validation} validation cases")
        print(
            f"window {numbers.window}, {numbers.batch_size} rows a step, {numbers.together} of one rendering, learning rate "
            f"{numbers.learning_rate:g}, {numbers.steps} steps"
        )
