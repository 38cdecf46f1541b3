"""`radiata-medical segment`: labels, volumes and doubts of a scan, a folder of scans, or a BIDS tree."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_core.runs import Progress, Run
    from radiata_imaging.volume import Volume
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
        segmenter = self._segmenter()
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
        if not 0 <= self.min_quality <= 1:
            raise InputError(f"expected --min-quality in [0, 1]; got {self.min_quality}.")

    def _segmenter(self) -> "ScanSegmenter":
        from radiata_medical.experiment.segmenting_models import load_segmenter

        device = "cpu"
        if self.device == "auto":
            from accelerate import Accelerator

            device = str(Accelerator().device)
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
                free_path(path, self.overwrite)
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
        from radiata_medical.data.scans import read_scan
        from radiata_medical.experiment.segmenting_outputs import write_description, write_tables

        failed: dict[str, str] = {}
        if cases[0].bids:
            write_description(self.out)
        single = len(todo) == 1
        with Progress(None if single else len(cases), "segment", unit="part" if single else "scan") as bar:
            bar.update(0 if single else len(cases) - len(todo))
            for case, facts in todo:
                name = (case.relative / case.name).as_posix()
                try:
                    scan = read_scan(case.path, assume_axcodes=self.assume_axcodes)
                    quality = self._one(case, scan, facts, segmenter, bar if single else None)
                except (InputError, MemoryError) as error:
                    if len(cases) == 1:
                        raise
                    failed[name] = " ".join(str(error).split()) or "out of memory."
                    print(f"radiata-medical segment: {name} failed: {failed[name]}", file=sys.stderr)
                    run.log.write(case=name, error=failed[name])
                else:
                    run.log.write(case=name, quality=quality)
                    write_tables(self.out, cases, segmenter.table, self.min_quality)
                bar.update(0 if single else 1)
        return failed

    def _one(
        self,
        case: "Case",
        scan: "Volume",
        facts: "Facts",
        segmenter: "ScanSegmenter",
        bar: "Progress | None",
    ) -> float:
        """Segment one scan and write its files; returns its quality. A single scan counts its parts on the bar."""
        import time

        from radiata_medical.experiment.segmenting_outputs import write_segmented

        began = time.monotonic()

        def counted(done: int, total: int) -> None:
            if bar is not None:
                bar.total = total
                bar.update(done - bar.done)

        found = segmenter.segment(scan, counted)
        write_segmented(
            self.out,
            case,
            scan,
            found,
            segmenter.table,
            facts,
            began,
            entropy=self.entropy,
            posteriors=self.posteriors,
        )
        quality = found.segmentation.quality
        for note in found.notes:
            print(f"radiata-medical segment: {case.name}: {note}", file=sys.stderr)
        if quality < self.min_quality:
            print(
                f"radiata-medical segment: warning: {case.name}: quality {quality:.2f} below {self.min_quality:g}; "
                "look at it before its volumes are used",
                file=sys.stderr,
            )
        size = found.segmentation.intracranial_ml
        print(f"{case.name}: quality {quality:.2f}" + (f", intracranial {size:.0f} ml" if size else ""))
        return quality
