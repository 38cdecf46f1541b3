"""Heads and volumes from one process and from two, of one thread each: how much of the second is gained.

    python benchmarks/t1_throughput.py [--model rflow-4mm] [--steps 4] [--heads 16] [--repeats 3] [--volumes 200]

    heads     `radiata-t1 sample`'s batches: heads drawn by the model and written as NIfTI
    volumes   `radiata-t1 cohort`'s heads, drawn from a made-up label map and appended to a store; `--volumes 0`: not

An arm is a fresh program with one process (it does the work itself) or with two beside it (it hands the work out).
A repeat runs both arms, in turns the one or the other first. Every process has done one item before the clock starts: the
first loads the model and chooses kernels. The time from the start of the program to then is reported beside.
efficiency = (rate of two) / (2 × rate of one), the median of the repeats, with the smallest and the largest. Everything is
synthetic. On a machine whose cores are busy the figures say nothing; `busy` is the load before the start.

Keys: `two_process_efficiency` (bar >= 0.9), `…_low`, `…_high`, `two_process_efficiency_with_start`, `heads_per_second_one`,
`heads_per_second_two`, `heads_start_seconds_one`, `…_two`; `two_worker_volume_efficiency` (bar >= 0.9) and its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BARS = {"two_process_efficiency": 0.9, "two_worker_volume_efficiency": 0.9}


@dataclass(frozen=True)
class Job:
    """Work over items, all of the same size.

    Attributes:
        work: Function of a module.
        items: Counted.
        first: Items for the processes to warm up with, one each.
        arguments: The same for all.
        each: Heads of an item.
    """

    work: Callable[..., Any]
    items: Sequence[Any]
    first: Sequence[Any]
    arguments: tuple[Any, ...]
    each: int


@dataclass(frozen=True)
class Timed:
    """Seconds of a crew: to its first results, and for the items."""

    start: float
    work: float


def timed(processes: int, job: Job, began: float) -> Timed:
    """The seconds of so many processes; `began` is when the program was started, `time.time()`."""
    from radiata_imaging.scale_out import Workers

    with Workers(processes, threads=1).started() as crew:
        through(crew, job, list(job.first) * processes)  # both are there: each takes one
        start = time.time() - began
        clock = time.perf_counter()
        through(crew, job, job.items)
        return Timed(start, time.perf_counter() - clock)


def through(crew: Any, job: Job, items: Sequence[Any]) -> None:
    """Do the work for the items.

    Raises:
        RuntimeError: an item failed.
    """
    for outcome in crew.outcomes(job.work, items, job.arguments):
        if outcome.error:
            raise RuntimeError(outcome.error)


def heads(folder: Path, model: str, steps: int | None, count: int, rows: int) -> Job:
    """Batches of seeds."""
    from radiata_t1.experiment.draw_many import Ready, drawn
    from radiata_t1.experiment.sample import Sample

    verb = Sample(out=folder, model=model, steps=steps)
    settings = Ready.of(verb).settings
    seeds = [tuple(range(start, start + rows)) for start in range(0, count, rows)]
    first = [tuple(range(10**6, 10**6 + rows))]
    return Job(drawn, seeds, first, (verb, rows, settings), rows)


def volumes(folder: Path, count: int) -> Job:
    """Heads of a cohort at 4 mm, of one made-up person."""
    import numpy as np

    from radiata_imaging.cohort import COVARIATES, REGIONS, CohortSpec
    from radiata_imaging.nifti import write_volume
    from radiata_imaging.preprocess import PreprocessSpec
    from radiata_imaging.store import StoreWriter
    from radiata_imaging.volume import Volume, centred_affine
    from radiata_t1.experiment.cohort_heads import draw_head, tasks_of

    axes = [np.arange(n) - (n - 1) / 2 for n in (192, 224, 192)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    radius = np.sqrt((x / 66) ** 2 + (y / 80) ** 2 + (z / 66) ** 2)
    labels = np.zeros(radius.shape, np.float32)
    for edge, code in ((1.3, 511), (1.1, 24), (1.0, 3), (0.8, 2)):
        labels[radius < edge] = code
    labels[(np.abs(x) < 10) & (radius < 0.4)] = 4
    folder.mkdir(parents=True)
    path = folder / "seg_01.nii.gz"
    write_volume(path, Volume(labels, centred_affine(labels.shape, 1.0, "LPS")), dtype="int16")
    spec = CohortSpec.of_spacing(4.0)
    writer = StoreWriter(
        folder / "c.h5",
        spec.shape,
        PreprocessSpec(spacing=4.0, shape=spec.shape),
        COVARIATES,
        regions=tuple(REGIONS),
    )
    tasks = tasks_of([(path, "01", "train", count + 1)], 0, spec)
    return Job(draw_head, tasks[1:], tasks[:1], (writer, spec, 0), 1)


def arm(section: str, processes: int, given: argparse.Namespace) -> Timed:
    """One arm in a fresh interpreter."""
    words = [
        sys.executable,
        __file__,
        "--arm",
        section,
        "--processes",
        str(processes),
        "--began",
        str(time.time()),
    ]
    for name in ("model", "steps", "heads", "batch_size", "volumes"):
        words += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return Timed(**json.loads(done.stdout.splitlines()[-1]))


def in_this_process(section: str, given: argparse.Namespace) -> Timed:
    """What an arm does."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        if section == "heads":
            job = heads(out, given.model, given.steps, given.heads, given.batch_size)
        else:
            job = volumes(out, given.volumes)
        return timed(given.processes, job, given.began)


def compared(section: str, count: int, key: str, given: argparse.Namespace) -> dict[str, float]:
    """Rates of one process and of two, in turn, and what comes of them."""
    runs: dict[int, list[Timed]] = {1: [], 2: []}
    for repeat in range(given.repeats):
        for processes in (1, 2) if repeat % 2 == 0 else (2, 1):
            runs[processes].append(arm(section, processes, given))
    pairs = list(zip(runs[1], runs[2], strict=True))
    gained = [one.work / (2 * two.work) for one, two in pairs]
    with_start = [(one.start + one.work) / (2 * (two.start + two.work)) for one, two in pairs]
    names = {1: "one", 2: "two"}
    return (
        {key: statistics.median(gained), f"{key}_low": min(gained), f"{key}_high": max(gained)}
        | {f"{key}_with_start": statistics.median(with_start)}
        | {
            f"{section}_per_second_{names[n]}": count / statistics.median(t.work for t in runs[n])
            for n in (1, 2)
        }
        | {f"{section}_start_seconds_{names[n]}": statistics.median(t.start for t in runs[n]) for n in (1, 2)}
    )


def table(found: dict[str, float]) -> str:
    """Figures and bars, one a line."""
    lines = []
    for key, value in found.items():
        bar = BARS.get(key)
        met = "" if bar is None else f">= {bar:g}  {'met' if value >= bar else 'NOT MET'}"
        lines.append(f"{key:44} {value:10.4g}  {met}".rstrip())
    return "\n".join(lines)


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line.

    Args:
        words: Those of the program, where there are none.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="rflow-4mm", help="whose heads are drawn")
    parser.add_argument("--steps", type=int, default=4, help="solver steps of a head")
    parser.add_argument(
        "--heads", type=int, default=16, help="drawn and timed in a run, a multiple of twice the batch"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--volumes", type=int, default=200, help="heads of the cohort; 0 leaves it out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--arm", choices=("heads", "volumes"), help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=0.0, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.heads % (2 * given.batch_size):
        parser.error("--heads must be a multiple of twice --batch-size, so that both processes have as many")
    return given


def measured(given: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Figures of the heads, then of the volumes."""
    busy = {"busy": os.getloadavg()[0]}
    yield busy | compared("heads", given.heads, "two_process_efficiency", given)
    if given.volumes:
        yield compared("volumes", given.volumes, "two_worker_volume_efficiency", given)


def main() -> None:
    """Command line."""
    given = parsed()
    if given.arm:
        print(json.dumps(asdict(in_this_process(given.arm, given))))
        return
    found: dict[str, float] = {}
    for part in measured(given):
        print(table(part), flush=True)
        found |= part
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
