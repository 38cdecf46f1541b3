"""Every command that writes, killed at random moments and run again: how many ended in the undisturbed result.

    python tests/faults/run.py --kills 50 --seed 0
    python tests/faults/run.py --injuries                                      a full disk, two processes, signals, ...
    python tests/faults/run.py --only "t1 sample" --kills 5 --keep folder      one command; the folders of trials that failed

A command is run once undisturbed. Then, for each kill, in a new folder: SIGKILL at a moment of `kills.Moment` (by turns of
processor time and of operations on files), a look at what is there, the command again as a user would, another look.
Survived means:

    whole       every file under a final name can be read to its end, and names the weights beside it
    same        the second run ends with the files of the undisturbed one, all bits but `snapshots.VOLATILE`, and no litter
    kept        no item that was finished was written again

A second run that says that the output exists survives if everything is there. Exit 1 if any failed.
"""

import argparse
import importlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from commands import Command
from injuries import INJURIES, Skipped
from kills import Moment
from trials import Trials

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")

APPLICATIONS = ("t1", "medical", "latents", "decode")


@dataclass
class Row:
    """What became of a command's kills."""

    title: str
    kills: int = 0
    ended: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument(
        "--injuries", action="store_true", help="instead of kills, each of the other faults once"
    )
    parser.add_argument(
        "--injury", action="append", help="only those whose name contains this; again for more"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", action="append", help="only commands whose name contains this; again for more"
    )
    parser.add_argument("--quick", action="store_true", help="only the commands of the default suite")
    parser.add_argument("--keep", type=Path, help="folder for the trials that failed")
    options = parser.parse_args()
    if options.kills is None:
        options.kills = 0 if options.injuries else 50
    return options


def _wanted(options: argparse.Namespace) -> list[Command]:
    found: list[Command] = []
    for name in APPLICATIONS:
        if not options.only or any(part.split()[0] == name for part in options.only):
            for module in sorted(Path(__file__).parent.glob(f"commands_{name}*.py")):
                found += importlib.import_module(module.stem).COMMANDS
    chosen = [c for c in found if not options.only or any(part in c.title for part in options.only)]
    return [c for c in chosen if c.quick or not options.quick]


def _killed(trials: Trials, options: argparse.Namespace, row: Row) -> None:
    """One command, as often as asked."""
    whole = trials.undisturbed
    for number in range(options.kills):
        rng = random.Random(f"{options.seed}/{row.title}/{number}")
        moment = Moment(operation=rng.randint(1, whole.operations))
        if number % 2 == 0:
            moment = Moment(seconds=rng.uniform(0, whole.seconds))
        folder = trials.new()
        first, faults, finished = trials.killed(folder, moment)
        row.kills, row.ended, row.kept = row.kills + 1, row.ended + (first.code >= 0), row.kept + finished
        if faults:
            row.failures.append(f"kill {number}, {moment}: {'; '.join(faults)}")
        _cleared(folder, options.keep if faults else None, f"{row.title}-{number}")


def _injured(
    trials: Trials, options: argparse.Namespace, counts: dict[str, Counter[str]], title: str
) -> None:
    """One command, once by everything."""
    for name, injury in INJURIES.items():
        if options.injury and not any(part in name for part in options.injury):
            continue
        folder = trials.new()
        try:
            faults = injury(trials, folder)
        except Skipped as why:
            counts[name]["skipped"] += 1
            print(f"{title}, {name}: skipped, {why}", file=sys.stderr)
            faults = []
        else:
            counts[name]["failed" if faults else "survived"] += 1
        for fault in faults:
            print(f"FAILED {title}, {name}: {fault}", flush=True)
        _cleared(folder, options.keep if faults else None, f"{title}-{name}")


def _cleared(folder: Path, keep: Path | None, name: str) -> None:
    if keep is not None:
        shutil.rmtree(keep / name.replace(" ", "-"), ignore_errors=True)
        shutil.copytree(folder, keep / name.replace(" ", "-"), symlinks=True)
    shutil.rmtree(folder)


def _table(rows: list[Row]) -> str:
    lines = [
        "| command | kills | ended before | items found finished | failed |",
        "|---|---:|---:|---:|---:|",
    ]
    numbers = [(row.kills, row.ended, row.kept, len(row.failures)) for row in rows]
    titles = [*(row.title for row in rows), "**all**"]
    for title, row in zip(titles, [*numbers, tuple(map(sum, zip(*numbers, strict=True)))], strict=True):
        lines.append(f"| {title} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def _table_of_injuries(counts: dict[str, Counter[str]]) -> str:
    lines = ["| fault | commands | survived | failed | skipped |", "|---|---:|---:|---:|---:|"]
    for name, row in [*counts.items(), ("**all**", sum(counts.values(), Counter()))]:
        lines.append(f"| {name} | {row.total()} | {row['survived']} | {row['failed']} | {row['skipped']} |")
    return "\n".join(lines)


def main() -> int:
    options = _arguments()
    began, used = time.time(), os.times()
    rows: list[Row] = []
    counts = {name: Counter[str]() for name in INJURIES}
    top = Path(tempfile.mkdtemp(prefix="faults-")).resolve()
    try:
        for command in _wanted(options):
            trials = Trials(command, top)
            row = Row(command.title)
            _killed(trials, options, row)
            if options.injuries and (command.injured or not options.quick):
                _injured(trials, options, counts, row.title)
            rows.append(row)
            whole = trials.undisturbed
            print(
                f"{row.title}: {whole.seconds:.2f} s, {whole.operations} operations, {len(row.failures)} failed",
                file=sys.stderr,
                flush=True,
            )
            for failure in row.failures:
                print(f"FAILED {row.title}, {failure}", flush=True)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    tables = [_table(rows)] if options.kills else []
    print("\n\n".join([*tables, *([_table_of_injuries(counts)] if options.injuries else [])]))
    seconds = sum(os.times()[:4]) - sum(used[:4])
    kills, injuries = sum(row.kills for row in rows), sum(row.total() for row in counts.values())
    print(
        f"{kills} kills, seed {options.seed}, {injuries} injuries, {seconds:.0f} s of processor time, "
        f"{time.time() - began:.0f} s",
        file=sys.stderr,
    )
    return int(any(row.failures for row in rows) or any(row["failed"] for row in counts.values()))


if __name__ == "__main__":
    raise SystemExit(main())
