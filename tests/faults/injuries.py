"""What else befalls a command: full disks, folders that cannot be written, second processes, signals, clocks, other inputs.

Each is done to a command in a trial's folder and answered by what was found wrong, in words; an empty list: it survived. The
command has to end with the exit code of docs/scale-out.md and one line, leave nothing half under a final name, and give the
undisturbed result when it is run again.
"""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kills import Ended, Moment, in_child, started
from trials import Trials

__all__ = ["INJURIES", "Skipped"]

_SAID = 512
"""Bytes that a command may say: its words go to a file too."""


class Skipped(Exception):
    """This machine cannot do that; the message says why."""


def _said(ended: Ended, code: int, *words: str) -> list[str]:
    """What is wrong with the end of a command: its code, and its one line, which has one of the words."""
    lines = [line for line in ended.said.splitlines() if "error: " in line or "interrupted" in line]
    if ended.code != code or "Traceback" in ended.said:
        return [f"ended with {ended.code}: {ended.said.strip()[:1500]!r}"]
    if len(lines) != 1 or not any(word in lines[0] for word in words):
        return [f"expected one line with {' or '.join(words)}; got {lines}"]
    return []


@contextmanager
def _mounted(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of its own as `out`."""
    out = folder / "out"
    out.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(out)]
    try:
        done = subprocess.run(call, capture_output=True, text=True)
    except FileNotFoundError:
        raise Skipped("there is no mount") from None
    if done.returncode:
        raise Skipped(f"no file system can be mounted: {done.stderr.strip()[:80]}")
    try:
        yield out
    finally:
        subprocess.run(["umount", str(out)], check=True, capture_output=True)


def _again(trials: Trials, folder: Path) -> list[str]:
    return trials.broken(folder) + trials.after(folder, in_child(trials.again, folder))


def _limited(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def file_limit(trials: Trials, folder: Path) -> list[str]:
    """No file may be larger than half of the largest one."""
    limit = trials.largest // 2
    if limit < _SAID:
        raise Skipped("its result is smaller than what it says")
    ended = in_child(trials.first, folder, prepare=lambda: _limited(limit))
    return _said(ended, 1, "too large", "no space") + _again(trials, folder)


def full_disk(trials: Trials, folder: Path) -> list[str]:
    """The output's file system has room for half of the result."""
    if len(trials.wanted) == 1 and trials.size <= resource.getpagesize():
        raise Skipped("the smallest file system has room for its result")
    with _mounted(folder, max(4, trials.size // 2048)) as out:
        ended = in_child(trials.first, folder)
        faults = _said(ended, 1, "no space left") + trials.broken(folder)
        subprocess.run(["mount", "-o", "remount,size=1g", str(out)], check=True, capture_output=True)
        return faults + _again(trials, folder)


def read_only(trials: Trials, folder: Path) -> list[str]:
    """The output's file system is mounted read-only."""
    with _mounted(folder, 1 << 20) as out:
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True, capture_output=True)
        faults = _said(in_child(trials.first, folder), 1, "read-only")
        subprocess.run(["mount", "-o", "remount,rw", str(out)], check=True, capture_output=True)
        return faults + _again(trials, folder)


def below_a_file(trials: Trials, folder: Path) -> list[str]:
    """Where the output's folder should be there is a file."""
    (folder / "out").write_text("not a folder")
    faults = _said(in_child(trials.first, folder), 1, "out")
    if (folder / "out").read_text() != "not a folder":
        faults.append("the file was changed")
    (folder / "out").unlink()
    return faults + _again(trials, folder)


def two_at_once(trials: Trials, folder: Path) -> list[str]:
    """A second process begins when the first is half-way; the first then ends as if nothing had been."""
    first = started(
        trials.first, folder, Moment(operation=trials.undisturbed.operations // 2, number=signal.SIGSTOP)
    )
    if not first.stopped():
        return ["it ended before it was stopped"]
    second = in_child(trials.again, folder)
    os.kill(first.process, signal.SIGCONT)
    faults = _said(second, 1, "in use by process", "exists")
    ended = first.ended()
    if ended.code:
        faults.append(f"the first ended with {ended.code}: {ended.said.strip()[-200:]!r}")
    return faults + trials.differences(folder)


def _backwards() -> None:
    """Every look at the clock shows a minute less."""
    looks = iter(range(10**9))
    now = time.time()
    time.time = lambda: now - 60.0 * next(looks)
    time.time_ns = lambda: int(1e9 * time.time())


def clock_backwards(trials: Trials, folder: Path) -> list[str]:
    """The wall clock runs backwards."""
    ended = in_child(trials.first, folder, prepare=_backwards)
    faults = [] if ended.code == 0 else [f"ended with {ended.code}: {ended.said.strip()[-200:]!r}"]
    return faults + trials.differences(folder)


def _signalled(number: signal.Signals) -> Callable[[Trials, Path], list[str]]:
    def injury(trials: Trials, folder: Path) -> list[str]:
        moment = Moment(operation=max(1, 2 * trials.undisturbed.operations // 3), number=number)
        ended = in_child(trials.first, folder, moment)
        if ended.code == 0:  # it came when all was done, or with the last step
            return trials.differences(folder)
        faults = _said(ended, 130, "interrupted")
        if number == signal.SIGTERM and "SIGTERM" not in ended.said and "--resume" not in ended.said:
            faults.append(f"neither SIGTERM nor --resume is said: {ended.said.strip()[-200:]!r}")
        return faults + _again(trials, folder)

    injury.__doc__ = f"{number.name} at two thirds of its operations."
    return injury


def _other(folder: Path, inputs: Path, name: str) -> None:
    """The inputs with one of them exchanged for `other-NAME`, in place of the link."""
    (folder / "in").unlink()
    shutil.copytree(inputs, folder / "in")
    source = inputs / f"other-{name.replace('/', '-')}"
    if source.is_dir():
        shutil.copytree(source, folder / "in" / name, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, folder / "in" / name)


def input_changed(trials: Trials, folder: Path) -> list[str]:
    """Killed at two thirds; an input is another when it is run again, which has to be said, or made anew."""
    command = trials.command
    if not command.changed:
        raise Skipped("its results are made in one piece")
    in_child(trials.first, folder, Moment(operation=2 * trials.undisturbed.operations // 3))
    _other(folder, trials.inputs, command.changed)
    second = in_child(trials.again, folder)
    if command.made_anew:
        fresh = trials.new()
        _other(fresh, trials.inputs, command.changed)
        in_child(trials.first, fresh)
        faults = trials.compared(folder, fresh)
        return (
            faults
            if second.code == 0
            else [*faults, f"ended with {second.code}: {second.said.strip()[-200:]!r}"]
        )
    return _said(second, 1, "changed", "differs", "made from another")


INJURIES: dict[str, Callable[[Trials, Path], list[str]]] = {
    "file larger than a limit": file_limit,
    "full disk": full_disk,
    "read-only file system": read_only,
    "a file where the folder should be": below_a_file,
    "two processes": two_at_once,
    "clock backwards": clock_backwards,
    "SIGTERM": _signalled(signal.SIGTERM),
    "Ctrl-C": _signalled(signal.SIGINT),
    "input changed": input_changed,
}
