"""What a reader did with a file: read it, refused it in one line, or failed – and how.

A failure is an exception of another type than `InputError`, more memory than a process may have (`limited`), more than
`SECONDS` of work, a pickle that was executed, a program started, a connection opened, or a file opened for writing outside
the folder that the reader was given.
"""

import contextlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mutations_binary import CANARY

from radiata_core.errors import InputError

__all__ = ["Outcome", "limited", "outcome", "watching"]

SECONDS = 5.0
"""Of processor time that one input may take."""
PATIENCE = 300
"""Seconds by the clock after which it is stopped; others use the machine too."""

_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "socket.bind",
    "pickle.find_class",
)
_CHANGING = (
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
    "shutil.move",
)


class _Stopped(BaseException):
    """Time is up; not an `Exception`, so that no reader takes it for a broken file."""


@dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Attributes:
        kind: read, refused or failed.
        what: The line of the refusal, or the type of the failure.
        where: Place in the code where a failure left it.
        trace: Its traceback.
    """

    kind: str
    what: str = ""
    where: str = ""
    trace: str = ""


class _Events:
    """Events of the interpreter that no reader should cause."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and (flags or 0) & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            ):
                self._written(os.fsdecode(path), "open for writing")
        elif event in ("os.remove", "os.rmdir") and arguments[-1] != -1:
            return  # below a folder that `shutil.rmtree` has named before
        elif event in _CHANGING and isinstance(arguments[0], str | bytes | os.PathLike):
            self._written(os.fsdecode(arguments[0]), event)

    def _written(self, path: str, event: str) -> None:
        if (
            self.folder is not None
            and path != os.devnull
            and not Path(path).resolve().is_relative_to(self.folder)
        ):
            self.seen.append(f"{event} {path!r}"[:200])


_EVENTS: list[_Events] = []


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """The forbidden events while a reader works on `folder`."""
    if not _EVENTS:
        _EVENTS.append(_Events())
    events = _EVENTS[0]
    events.seen = []
    events.folder = folder.resolve()
    try:
        yield events.seen
    finally:
        events.folder = None


def limited(more: int) -> None:
    """Refuse this process more than `more` bytes of address space beyond what it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _Stopped


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]


def _without_memory(error: BaseException) -> bool:
    """Whether numpy, torch or Python was refused memory; libhdf5 asks before it looks, and touches nothing."""
    return any(isinstance(one, MemoryError) or "allocate memory" in str(one) for one in _chain(error))


def _place(error: BaseException) -> str:
    """The last line of our own code, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if "radiata_" in f.filename]
    return f"{Path(mine[-1].filename).name}:{mine[-1].lineno}" if mine else "?"


def outcome(read: Callable[[Path], object], folder: Path) -> Outcome:
    """What came of reading the files in `folder`."""
    os.environ.pop(CANARY, None)
    signal.signal(signal.SIGALRM, _stop)
    signal.signal(signal.SIGPROF, _stop)
    began = time.process_time()
    signal.alarm(PATIENCE)
    signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS)
    try:
        with watching(folder) as seen:
            found = _tried(read, folder)
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    if os.environ.pop(CANARY, None) is not None:
        return Outcome("failed", "executed a pickle", "?")
    if seen:
        return Outcome("failed", f"forbidden: {seen[0]}", found.where or "?", found.trace)
    if found.kind != "failed" and time.process_time() - began > SECONDS:
        return Outcome("failed", f"took more than {SECONDS:g} s", "?", found.what)
    return found


def _tried(read: Callable[[Path], object], folder: Path) -> Outcome:
    try:
        read(folder)
    except _Stopped as error:
        return Outcome("failed", "did not end", _place(error), traceback.format_exc())
    except InputError as error:
        if _without_memory(error):
            return Outcome("failed", "asked for too much memory", _place(error), traceback.format_exc())
        if "\n" in str(error) or "\x1b" in str(error) or not str(error).strip():
            return Outcome("failed", "said more than one line", _place(error), repr(str(error))[:2000])
        return Outcome("refused", str(error))
    except (Exception, SystemExit) as error:
        what = "asked for too much memory" if _without_memory(error) else type(error).__name__
        return Outcome("failed", what, _place(error), traceback.format_exc())
    return Outcome("read")
