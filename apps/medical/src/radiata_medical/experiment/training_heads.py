"""`train --task head` as a run: the slices are read and checked before anything is written, then heads learn in one go.

    RUN/run.json               options, checksums of scans, label maps and prior, classes, slices
    RUN/log.jsonl              step, share of the budget used, loss
    RUN/model.safetensors      the heads; `segment --method features --model RUN` takes them

Minutes are those of the processor, so that a busy machine does not give a poorer head; with steps alone the result repeats
to the bit.
"""

from typing import TYPE_CHECKING

from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_core.runs import Run
from radiata_medical.experiment.segmenting_heads import fitted_heads, labelled_slices, prior_of_slices

if TYPE_CHECKING:
    from radiata_medical.experiment.train import Train

__all__ = ["train_heads"]

_MINUTES = 5.0
_PRIOR = "prior-2d"


class _Told:
    """What a fit reports, on the screen in per cent and in the log every so many steps."""

    def __init__(self, run: Run, bar: Progress, every: int) -> None:
        self.run, self.bar, self.every = run, bar, max(1, every)
        self.step = 0

    def __call__(self, used: float, loss: float) -> None:
        self.step += 1
        self.bar.update(int(100 * used) - self.bar.done, loss=loss)
        if self.step == 1 or self.step % self.every == 0:
            self.run.log.write(step=self.step, used=round(used, 4), loss=loss)


def train_heads(task: "Train") -> None:
    """Train what the options of `train` ask for, and print where it is.

    Raises:
        InputError: no label maps, options of a run that can be resumed, numbers out of range; scans and label maps that do
            not fit, see `segmenting_heads.labelled_slices`; a model that is no prior of slices.
    """
    _check(task)
    assert task.labels is not None
    prior = task.start or _PRIOR
    minutes = _MINUTES if task.steps is None and task.max_minutes is None else task.max_minutes
    under = prior_of_slices(prior)
    data = labelled_slices(task.store, task.labels, classes=task.classes, slices=task.slices)
    names = data.table.labelling.names
    if task.dry_run:
        for name in ("store", "labels", "out", "classes", "members", "steps", "seed"):
            print(f"{name}: {getattr(task, name)}")
        print(f"{len(data.images)} slices of {len(names)} classes on {prior}, {minutes} minutes")
        return
    checksums = data.sources | {prior: under.sha256}
    options = {name: value for name, value in vars(task).items() if name != "resume"}  # trained in one go
    with Run(
        task.out, "radiata-medical train", options, seed=task.seed, data=checksums, overwrite=task.overwrite
    ) as run:
        run.note(slices=len(data.images), classes=list(names))
        with Progress(100, "heads", unit="%") as bar:
            path = fitted_heads(
                data, under, task.out / "model.safetensors", prior=prior, minutes=minutes, steps=task.steps,
                seed=task.seed, members=task.members, report=_Told(run, bar, task.log_every),
            )  # fmt: skip
    print(path)


def _check(task: "Train") -> None:
    if task.labels is None:
        raise InputError(
            "expected --labels with --task head; got none. Give the label map of the scan, or a folder of them."
        )
    if task.resume:
        raise InputError(
            "expected a head to be trained in one go; got --resume. Pass --overwrite to begin again."
        )
    if task.members < 1 or (task.steps is not None and task.steps < 1) or task.seed < 0:
        raise InputError(
            f"expected --members and --steps of at least 1 and a --seed of at least 0; got {task.members}, {task.steps} and "
            f"{task.seed}."
        )
    if task.max_minutes is not None and task.max_minutes <= 0:
        raise InputError(
            f"expected --max-minutes above 0; got {task.max_minutes:g}. Leave it out for {_MINUTES:g}."
        )
