"""A command in a child of a process that has imported everything, and the moment at which it is killed.

A fork costs milliseconds where a start costs seconds, so a command can be killed hundreds of times. Two laws of moments:

    seconds       SIGKILL from outside when the child has used so much processor time: inside arithmetic, inside C libraries
    operations    SIGKILL just before the k-th thing it does to the output's file system (open for writing, rename, remove,
                  mkdir, chmod, fsync), which an audit hook sees: between two renames, where most faults live
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Child", "Ended", "Moment", "imported", "in_child", "started"]

_NAMED = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "os.link",
    "os.symlink",
)
_PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED of Linux: the processor time of a process."""


@dataclass(frozen=True)
class Moment:
    """When to send a signal: after so many seconds of the processor, or before operation number `operation` (from 1)."""

    seconds: float | None = None
    operation: int | None = None
    number: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Exit code; minus the signal's number where one ended it.
        said: Standard output and error.
        seconds: Processor time.
        operations: Operations on the file system below its folder; 0 if it was killed.
        renamed: Final names it gave, relative to the folder.
        modules: What it had imported at the end.
    """

    code: int
    said: str
    seconds: float
    operations: int
    renamed: tuple[str, ...]
    modules: tuple[str, ...]


class _Watch:
    """Counts operations below a folder and, if asked to, ends the process before one of them."""

    def __init__(self, folder: Path, moment: Moment) -> None:
        self.folder, self.moment = folder, moment
        self.count, self.renamed, self.on = 0, [], True

    def below(self, path: Any) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        full = Path.cwd() / os.fsdecode(path)
        return full.relative_to(self.folder).as_posix() if full.is_relative_to(self.folder) else None

    def seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not (event == "open" or event in _NAMED):
            return
        if event == "open" and not (
            any(letter in (arguments[1] or "") for letter in "wax+")
            or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            return
        if (name := self.below(arguments[0])) is None:
            return
        self.happens()
        if event == "os.rename":
            self.renamed.append(self.below(arguments[1]) or name)

    def happens(self) -> None:
        self.count += 1
        if self.count == self.moment.operation:
            os.kill(os.getpid(), self.moment.number)


@dataclass(frozen=True)
class Child:
    """A command that runs in a child process."""

    process: int
    told: Path
    moment: Moment

    def stopped(self) -> bool:
        """Wait until it is stopped (by SIGSTOP) or ends; whether it was stopped."""
        return os.WIFSTOPPED(os.waitpid(self.process, os.WUNTRACED)[1])

    def ended(self) -> Ended:
        """Wait for its end."""
        code, seconds = _waited(self.process, self.moment)
        said = ""
        with contextlib.suppress(FileNotFoundError):  # killed before its first line
            said = self.told.with_suffix(".said").read_text(errors="replace")
        facts: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            facts = json.loads(self.told.with_suffix(".json").read_text())
        for suffix in (".said", ".json"):
            self.told.with_suffix(suffix).unlink(missing_ok=True)
        return Ended(
            code,
            said,
            facts.get("seconds", seconds),
            facts.get("count", 0),
            tuple(facts.get("renamed", ())),
            tuple(facts.get("modules", ())),
        )


def started(
    work: Callable[[], int],
    folder: Path,
    moment: Moment = Moment(),
    prepare: Callable[[], object] | None = None,
) -> Child:
    """`work()`, begun in a child process inside `folder`.

    Args:
        work: Returns an exit code.
        folder: Where it works; operations below it are counted.
        moment: When a signal is sent.
        prepare: Called in the child before the work: limits, clocks, ...
    """
    handle, name = tempfile.mkstemp(prefix="told-", dir=folder.parent)
    os.close(handle)
    Path(name).unlink()
    told = Path(name)
    child = os.fork()
    if child == 0:
        _be_child(work, folder, told, moment, prepare)
    return Child(child, told, moment)


def in_child(
    work: Callable[[], int],
    folder: Path,
    moment: Moment = Moment(),
    prepare: Callable[[], object] | None = None,
) -> Ended:
    """What became of `work()` in a child process; arguments as `started`."""
    return started(work, folder, moment, prepare).ended()


def _be_child(
    work: Callable[[], int], folder: Path, told: Path, moment: Moment, prepare: Callable[[], object] | None
) -> None:
    """Never returns."""
    code = 70
    try:
        os.chdir(folder)
        stream = os.open(told.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        os.environ["PATH"] = (
            ""  # no git, whose commit would change the pages of a run while somebody works here
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        before = set(sys.modules)
        watch = _Watch(folder, moment)
        flush = os.fsync

        def flushed(handle: int) -> None:
            watch.happens()
            flush(handle)

        os.fsync = flushed
        sys.addaudithook(watch.seen)
        if prepare is not None:
            prepare()
        began = time.process_time()
        code = work()
        seconds = time.process_time() - began
        watch.on = False
        sys.stdout.flush()
        facts = {"count": watch.count, "renamed": watch.renamed, "seconds": seconds}
        facts["modules"] = sorted(set(sys.modules) - before)
        told.with_suffix(".json").write_text(json.dumps(facts))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _waited(child: int, moment: Moment) -> tuple[int, float]:
    """Exit code of a child, which is sent a signal when it has used so many seconds; and what it used."""
    used, due = 0.0, moment.seconds
    try:
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), used
            if due is not None:
                used = time.clock_gettime((~child << 3) | _PROCESS_CLOCK)
                if used >= due:
                    os.kill(child, moment.number)
                    due = None
            time.sleep(0.002)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def imported(names: tuple[str, ...]) -> None:
    """Import what a child imported, so that the next child need not; what does not import by itself is left out."""
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
