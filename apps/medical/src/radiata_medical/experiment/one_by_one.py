"""Many scans, one after the other: a scan that cannot be used does not keep the others from being done.

With one scan its error is the command's. With several, errors are said at once on standard error, collected in
`failures.json` below the output folder, and the command ends with exit code 1 after the last scan.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from radiata_core.errors import InputError
from radiata_core.files import write_json
from radiata_core.logs import progress
from radiata_core.runs import sole_writer
from radiata_medical.data.scans import Case
from radiata_medical.experiment.outputs import write_description

__all__ = ["each_case"]


def each_case(cases: Sequence[Case], work: Callable[[Case], object], out: Path, verb: str) -> None:
    """Do the work for every case.

    Args:
        cases: The scans.
        work: What is done with one.
        out: Where `failures.json` goes.
        verb: For the progress bar.

    Raises:
        InputError: that of the only scan, or the number of those that failed; another process writes to the folder.
    """
    with sole_writer(out):
        _each(cases, work, out, verb)
        if cases[0].bids:
            write_description(out, f"Results of {verb}")


def _each(cases: Sequence[Case], work: Callable[[Case], object], out: Path, verb: str) -> None:
    if len(cases) == 1:
        work(cases[0])
        return
    failures: list[dict[str, str]] = []
    for case in progress(cases, verb, unit="scan"):
        try:
            work(case)
        except InputError as error:
            failures.append({"scan": str(case.path), "error": " ".join(str(error).split())})
            print(f"{verb}: {case.path}: {failures[-1]['error']}", file=sys.stderr)
    log = out / "failures.json"
    if failures:
        write_json(log, failures)
        raise InputError(
            f"expected {len(cases)} scans that can be used; got {len(failures)} that cannot, the others are done. "
            f"See {log}; the first, {failures[0]['scan']}: {failures[0]['error']}"
        )
    log.unlink(missing_ok=True)
