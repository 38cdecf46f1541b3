"""`radiata-medical segment`: labels, volumes and doubts of a scan, a folder of scans, or a BIDS tree."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError
from radiata_imaging.scale_out import Workers, device_of_worker, warm

if TYPE_CHECKING:
    from radiata_core.runs import Progress, Run
    from radiata_medical.data.scans import Case
    from radiata_medical.experiment.outputs import Facts
    from radiata_medical.experiment.segmenting_models import ScanSegmenter

__all__ = ["Segment"]


@dataclass(frozen=True)
class Segment:
    """Segment scans: a label map on the grid of each, volumes of all structures in one table, and what to look at.

    A stopped command goes on where it was: scans that were segmented with the same options are kept. A scan that cannot be
    used does not stop the others; it is named at the end. Not for clinical use.

    Example: radiata-medical segment head.nii.gz --out labels

    Example: radiata-medical segment bids/ --out derivatives/radiata --tta 2 --entropy

    Example: radiata-medical segment scans/ --method features --model runs/my-head --out labels
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Scan (.nii, .nii.gz, .mgz), folder of scans, BIDS tree, or DICOM folders."""
    out: Path
    """Folder to write to; a BIDS tree gives BIDS derivatives."""
    method: Literal["network", "features", "diffusion"] = "network"
    """network: 34 structures of a whole head, any contrast. features: a head trained from few labels (train head).
    diffusion: seven tissues by sampling, slice by slice."""
    model: tuple[str, ...] = ()
    """Names of shipped models, .safetensors files or run folders; several networks are an ensemble. By default segmenter,
    or joint-2d for diffusion."""
    prior: str | None = None
    """features: the prior that the head was trained on, where it has another name than then."""
    tta: int = 1
    """network: passes of each network, 1 to 6: as the scan is, mirrored, and with bent contrast."""
    draws: int = 8
    """diffusion: label maps drawn and averaged."""
    steps: int = 4
    """diffusion: evaluations of a draw; 1 is an ordinary segmenter."""
    entropy: bool = False
    """Also write maps of what is unsure, in nats: entropy, and the disagreement of heads or draws."""
    posteriors: bool = False
    """Also write the probability of every structure, one file each."""
    min_quality: float = 0.65
    """Quality (expected mean Dice of the structures) below which a scan is marked in qc.csv and named."""
    keep_largest: bool = True
    """Only the largest piece of the brain is kept; --no-keep-largest keeps stray ones."""
    window: int = 128
    """network: longest edge of a window in mm, a multiple of 16; where memory runs out, smaller ones are taken."""
    batch_size: int = 8
    """features, diffusion: slices at once."""
    assume_axcodes: str | None = None
    """Orientation of files that carry none, such as RAS or LPS."""
    seed: int = 0
    """Of the noise in features and draws."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where to compute; auto takes a GPU if there is one."""
    processes: int = 1
    """Scans at once, each in a process of its own with models of its own. One that is killed loses nothing."""
    scheduler: str | None = None
    """Address of a dask scheduler, as tcp://10.0.0.1:8786, or its file: its workers segment, over a shared file system."""
    overwrite: bool = False
    """Segment again what is already there."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: no scan, a model that does not fit, results of other options in the folder, or scans that failed.
        """
        self._check()
        from radiata_medical.data.scans import find_cases, read_scan

        cases = find_cases(self.source)
        if len(cases) == 1:  # a single scan is refused before anything is written
            read_scan(cases[0].path, assume_axcodes=self.assume_axcodes)
        segmenter = self.segmenter()
        todo = self._todo(cases, segmenter)
        from radiata_core.runs import Run

        with Run(
            self.out, "radiata-medical segment", self, seed=self.seed, data=segmenter.models, resume=True
        ) as run:
            failed = self._segment(run, cases, todo, segmenter)
            if failed:
                run.note(failed=failed)
        if failed:
            first = next(iter(failed))
            raise InputError(
                f"expected {len(cases)} scans that can be segmented; got {len(failed)} that failed, the first {first}: "
                f"{failed[first]} The others are in {self.out}; see failures in its run.json."
            )
        print(self.out)

    def _check(self) -> None:
        if self.batch_size < 1 or self.draws < 1 or self.steps < 1:
            raise InputError(
                f"expected --batch-size, --draws and --steps of at least 1; got {self.batch_size}, {self.draws} and "
                f"{self.steps}."
            )
        Workers(self.processes, self.scheduler)
        if not 0 <= self.min_quality <= 1:
            raise InputError(f"expected --min-quality in [0, 1]; got {self.min_quality}.")

    def segmenter(self) -> "ScanSegmenter":
        """What the options describe.

        Raises:
            InputError: no such model, or one of another kind.
        """
        from radiata_medical.experiment.segmenting_models import load_segmenter

        device = "cpu"
        if self.device == "auto":
            from accelerate import Accelerator

            device = device_of_worker(str(Accelerator().device))
        return load_segmenter(
            self.method, self.model, prior=self.prior, passes=self.tta, draws=self.draws, steps=self.steps,
            window=self.window, batch_size=self.batch_size, seed=self.seed, keep_largest=self.keep_largest,
            posteriors=self.posteriors, device=device,
        )  # fmt: skip

    def _facts(self, case: "Case", segmenter: "ScanSegmenter") -> "Facts":
        from radiata_medical.experiment.outputs import Facts, sources_of

        asked: dict[str, Any] = {"method": self.method, "keep_largest": self.keep_largest}
        asked |= {"entropy": self.entropy, "posteriors": self.posteriors}
        if self.method == "network":
            asked |= {"tta": self.tta, "window": self.window}
        else:
            asked |= {"seed": self.seed}
        if self.method == "diffusion":
            asked |= {"draws": self.draws, "steps": self.steps}
        return Facts(
            "radiata-medical segment",
            "segmentation",
            sources_of(case.path),
            segmenter.models,
            asked,
            generated=False,
        )

    def _todo(self, cases: "tuple[Case, ...]", segmenter: "ScanSegmenter") -> "list[tuple[Case, Facts]]":
        """Scans that are not finished.

        Raises:
            InputError: a result of other options is in the way.
        """
        from radiata_medical.experiment.outputs import free_path, is_finished
        from radiata_medical.experiment.segmenting_outputs import labels_path

        todo = []
        for case in cases:
            facts, path = self._facts(case, segmenter), labels_path(self.out, case)
            if self.overwrite or not is_finished(path, facts):
                todo.append((case, facts))
                free_path(path, self.overwrite, facts)
        return todo

    def _segment(
        self,
        run: "Run",
        cases: "tuple[Case, ...]",
        todo: "list[tuple[Case, Facts]]",
        segmenter: "ScanSegmenter",
    ) -> dict[str, str]:
        """Segment and write; returns what failed and why."""
        from radiata_core.runs import Progress
        from radiata_medical.experiment.outputs import write_description
        from radiata_medical.experiment.segmenting_outputs import write_tables

        failed: dict[str, str] = {}
        if cases[0].bids:
            write_description(self.out, "Segmentations")
        workers = Workers(self.processes, self.scheduler).at_most(len(todo))
        single = len(todo) == 1 and workers.here
        with Progress(None if single else len(cases), "segment", unit="part" if single else "scan") as bar:
            bar.update(0 if single else len(cases) - len(todo))
            for case, done, error in self._outcomes(workers, todo, segmenter, bar if single else None):
                name = (case.relative / case.name).as_posix()
                if error:
                    if len(cases) == 1:
                        raise InputError(error)
                    failed[name] = error
                    print(f"radiata-medical segment: {name} failed: {error}", file=sys.stderr)
                    run.log.write(case=name, error=error)
                else:
                    self._say(case, done)
                    run.log.write(case=name, quality=done.quality)
                    write_tables(self.out, cases, segmenter.table, self.min_quality)
                bar.update(0 if single else 1)
        write_tables(
            self.out, cases, segmenter.table, self.min_quality
        )  # scans finished by a run that was killed
        return failed

    def _outcomes(
        self,
        workers: Workers,
        todo: "list[tuple[Case, Facts]]",
        segmenter: "ScanSegmenter",
        bar: "Progress | None",
    ) -> "Iterator[tuple[Case, Done, str]]":
        """Case, what was found and why it failed, as they end; here with the segmenter at hand."""
        with workers.started() as crew:
            here = (partial(_segmented, segmenter=segmenter, bar=bar), (self,))
            work, given = here if workers.here else (_segmented, (self,))
            for ended in crew.outcomes(work, todo, given):
                yield ended.item[0], ended.value, ended.error

    def _say(self, case: "Case", done: "Done") -> None:
        """What a user wants to know of a scan."""
        for note in done.notes:
            print(f"radiata-medical segment: {case.name}: {note}", file=sys.stderr)
        if done.quality < self.min_quality:
            print(
                f"radiata-medical segment: warning: {case.name}: quality {done.quality:.2f} below {self.min_quality:g}; "
                "look at it before its volumes are used",
                file=sys.stderr,
            )
        size = done.intracranial_ml
        print(f"{case.name}: quality {done.quality:.2f}" + (f", intracranial {size:.0f} ml" if size else ""))


@dataclass(frozen=True)
class Done:
    """What is told of a scan that was segmented.

    Attributes:
        quality: Expected mean Dice of its structures.
        intracranial_ml: Total intracranial volume; 0 if it is not known.
        notes: What was done in another way than asked.
    """

    quality: float
    intracranial_ml: float
    notes: tuple[str, ...]


def _segmented(
    task: "tuple[Case, Facts]",
    verb: Segment,
    segmenter: "ScanSegmenter | None" = None,
    bar: "Progress | None" = None,
) -> Done:
    """Read a scan, segment it and write its files.

    Raises:
        InputError: the scan cannot be used, or this machine has other models.
    """
    import time

    from radiata_medical.data.scans import read_scan
    from radiata_medical.experiment.segmenting_outputs import write_segmented

    case, facts = task
    scan = read_scan(case.path, assume_axcodes=verb.assume_axcodes)
    began = time.monotonic()
    if segmenter is None:
        segmenter = warm(_loaded, verb, tuple(facts.models.items()))

    def counted(done: int, total: int) -> None:
        if bar is not None:
            bar.total = total
            bar.update(done - bar.done)

    found = segmenter.segment(scan, counted)
    write_segmented(
        verb.out, case, scan, found, segmenter.table, facts, began, entropy=verb.entropy, posteriors=verb.posteriors
    )  # fmt: skip
    whole = found.segmentation
    return Done(whole.quality, whole.intracranial_ml or 0.0, found.notes)


def _loaded(verb: Segment, models: tuple[tuple[str, str], ...]) -> "ScanSegmenter":
    """The verb's segmenter in a worker.

    Raises:
        InputError: its models are not those of the process that asked.
    """
    segmenter = verb.segmenter()
    if tuple(segmenter.models.items()) != models:
        raise InputError(
            f"expected the same models on all machines; got others for {', '.join(dict(models))}. Install one version."
        )
    return segmenter
