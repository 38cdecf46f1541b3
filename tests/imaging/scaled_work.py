"""What the workers of `test_scale_out` do: functions of a module, so that other processes find them."""

import errno
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from radiata_core.commands import main
from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_imaging.scale_out import Workers, completed, warm, worker_number

MADE = []


def square(item: int, offset: int = 0) -> int:
    return item * item + offset


def where(item: int) -> tuple[int, int, str]:
    """Process, number of the worker, threads; slow enough that both take part."""
    time.sleep(0.05)
    return os.getpid(), worker_number(), os.environ["OMP_NUM_THREADS"]


def slept(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def particular(item: int) -> int:
    """3 cannot be used, 4 is a bug, 5 has no memory."""
    if item == 3:
        raise InputError("expected\nanother number; got 3.")
    if item == 4:
        raise KeyError("four")
    if item == 5:
        raise MemoryError
    return item


def full(item: int, folder: Path) -> int:
    """Says that it began; item 2 finds the disk full, as h5py says it."""
    (folder / str(item)).touch()
    if item == 2:
        raise RuntimeError("Unable to flush (errno = 28, error message = 'No space left on device')")
    return item


def refused(item: int) -> int:
    """Says of an input what the system says of a disk."""
    raise InputError(f"expected 2 MiB at most; got {item}: {os.strerror(errno.EFBIG)}")


def make(name: str) -> str:
    MADE.append(name)
    return f"{name} of {os.getpid()}"


def warmed(item: int) -> tuple[int, str, int]:
    """Process, what it keeps, how often it made something."""
    time.sleep(0.02)
    return os.getpid(), warm(make, "model"), len(MADE)


def killed_once(item: int, folder: Path) -> int:
    """Writes that it began; item 2 then kills its process, when it does so for the first time."""
    with (folder / f"{item}.txt").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    if item == 2 and len((folder / "2.txt").read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def unsendable(item: int) -> object:
    """Item 1 returns what cannot be pickled."""
    return (lambda: item) if item == 1 else item


def killed_always(item: int) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def written(item: int, folder: Path) -> int:
    """A file every tenth of a second, for a minute."""
    for k in range(600):
        (folder / f"{item}-{os.getpid()}").write_text(str(k))
        time.sleep(0.1)
    return item


@dataclass(frozen=True)
class Write:
    """Write."""

    folder: Path

    def run(self) -> None:
        with Progress(4, "write") as bar:
            completed(written, range(4), (self.folder,), workers=Workers(2, threads=1), bar=bar)


if __name__ == "__main__":
    sys.exit(main("scaled", "Work in several processes.", {"write": Write}))
