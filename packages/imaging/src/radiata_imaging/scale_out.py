"""One function over many items: in this process, in several, or on the machines of a cluster.

    with Workers(processes=2).started() as crew:
        for outcome in crew.outcomes(work, items, arguments):     # in the order in which they end
            ...                                                   # outcome.value, or outcome.error: one line

`work(item, *arguments)` is a function of a module and its arguments are plain values, since both are pickled and sent to
processes that share nothing but the file system; what is large (a head, a store's part) is written there, not returned.
Relative paths are those of the folder in which the command was called.
With one process and no scheduler it is called here; with several, in processes of this machine that end with the `with`
(`worker_processes`); else by the workers of a `dask.distributed` scheduler that is there already (Slurm, SSH, Kubernetes:
docs/scale-out.md).

What is promised:

- **An item fails alone.** Its error becomes one line of its outcome; the others go on. `completed` says all lines at the end
  and raises, so a command ends with exit code 1. A full disk is not an item's own: it ends all with an `OSError`.
- **A killed worker loses nothing.** Its items are run again on the others and on the process that takes its place, so `work`
  has to be repeatable: files written atomically, randomness from the item alone. An item that kills four workers in a row
  is given up, with a line that says so.
- **One thread a worker**, or an equal share of the cores: two processes of all threads each are slower than one.
- **Warm state**: `warm(make, *key)` keeps what is slow to make (a model) in each process between its items.
- **Ctrl-C and SIGTERM** cancel what has not begun and end the local processes; a remote worker finishes its item.

References:
    Rocklin, 2015, Dask: Parallel Computation with Blocked algorithms and Task Scheduling, Proc. of SciPy.
"""

import contextlib
import errno
import logging
import os
import queue
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_imaging import worker_processes

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Crew",
    "Outcome",
    "Workers",
    "completed",
    "device_of_worker",
    "warm",
    "worker_number",
]

Made = TypeVar("Made")
_WARM: "OrderedDict[Any, Any]" = OrderedDict()
_WARM_MOST = 4
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ADDRESS = re.compile(r"[a-z]+://\S+:\d+")
_PATIENCE = 30.0  # seconds in which a scheduler has to answer
_TICK = 1.0  # seconds between two looks after the scheduler


@dataclass(frozen=True)
class Outcome:
    """How an item ended.

    Attributes:
        place: Index of the item.
        item: The item itself.
        value: What the work returned.
        error: Why it failed, in one line; empty: it did not.
    """

    place: int
    item: Any
    value: Any = None
    error: str = ""


class Crew(Protocol):
    """Those who work: this process, or several."""

    def outcomes(
        self, work: Callable[..., Any], items: Sequence[Any], arguments: Sequence[Any] = ()
    ) -> Iterator[Outcome]:
        """The outcome of every item, in the order in which they end.

        Args:
            work: Function of a module; called with an item and the arguments.
            items: What can be pickled.
            arguments: Likewise, the same for all items.

        Raises:
            OSError: no space, or no larger file, for the result of an item; nor would there be for the others.
        """
        ...


@dataclass(frozen=True)
class Workers:
    """Where to work.

    Attributes:
        processes: Processes on this machine; 1: this one.
        scheduler: Address of a scheduler that is there, such as tcp://10.0.0.1:8786, or its scheduler file (.json);
            `processes` is then its own affair.
        threads: Of each local process; 0: the cores of this machine over the processes, at least 1.
    """

    processes: int = 1
    scheduler: str | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if self.processes < 1 or self.threads < 0:
            raise InputError(
                f"expected at least 1 process and no negative number of threads; got {self.processes} and "
                f"{self.threads}. Use --processes 1."
            )
        at = self.scheduler
        if at is not None and not (_ADDRESS.fullmatch(at) or (at.endswith(".json") and Path(at).is_file())):
            raise InputError(
                f"expected a scheduler's address such as tcp://10.0.0.1:8786, or its scheduler file; got {at!r}. "
                "Start one with: dask scheduler"
            )

    def at_most(self, items: int) -> "Workers":
        """No more local processes than items."""
        return Workers(min(self.processes, max(1, items)), self.scheduler, self.threads)

    @property
    def here(self) -> bool:
        """Whether the work is done in this process."""
        return self.processes == 1 and self.scheduler is None

    @contextlib.contextmanager
    def started(self) -> Iterator[Crew]:
        """The crew, which is gone at the end of the `with`.

        Raises:
            InputError: the scheduler does not answer.
        """
        if self.here:
            yield _Here()
        elif self.scheduler is not None:
            with _reached(self.scheduler) as client:
                yield _Team(client)
        else:
            threads = self.threads or max(1, worker_processes.cores() // self.processes)
            with worker_processes.started(self.processes, threads) as processes:
                yield _Beside(processes)


def completed(
    work: Callable[..., Any],
    items: Sequence[Any],
    arguments: Sequence[Any] = (),
    *,
    workers: Workers,
    bar: Progress,
    size: Callable[[Any], int] = lambda item: 1,
    name: Callable[[Any], str] = str,
    each: Callable[[Outcome], object] = lambda outcome: None,
) -> None:
    """Do the work for all items, count them on a bar, and say at the end which failed.

    Args:
        work: As `Crew.outcomes`.
        items: Likewise.
        arguments: Likewise.
        workers: Where.
        bar: Counts what has ended.
        size: By how much an item counts.
        name: What an item is called in messages.
        each: Called in this process with every outcome, as they come.

    Raises:
        InputError: that of the only item, or the number of those that failed, each of which was said on standard error.
    """
    failed: list[Outcome] = []
    if items:
        with workers.at_most(len(items)).started() as crew:
            for outcome in crew.outcomes(work, items, arguments):
                each(outcome)
                if outcome.error:
                    failed.append(outcome)
                bar.update(size(outcome.item))
    if len(items) == 1 and failed:
        raise InputError(failed[0].error)
    failed.sort(key=lambda outcome: outcome.place)
    for outcome in failed:
        print(f"{name(outcome.item)}: {outcome.error}", file=sys.stderr)
    if failed:
        raise InputError(
            f"expected {len(items)} items without error; got {len(failed)} that failed, named above, and the others are "
            f"done. The first, {name(failed[0].item)}: {failed[0].error}"
        )


# Inside a worker ---------------------------------------------------------------------------------------------------------


def warm(make: Callable[..., Made], *key: Any) -> Made:
    """`make(*key)`, kept in this process for the items to come; of several the four used last.

    Args:
        make: Function of a module.
        key: Its arguments, hashable; put a file's checksum among them where the file may change.
    """
    told = (make, key)
    if told not in _WARM:
        _WARM[told] = make(*key)
        while len(_WARM) > _WARM_MOST:
            _WARM.popitem(last=False)
    _WARM.move_to_end(told)
    return _WARM[told]


def worker_number() -> int:
    """Number of this worker among its fellows, from 0; 0 outside of a worker."""
    beside = worker_processes.number_here()
    if beside is not None:
        return beside
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return 0
    try:
        name = str(distributed.get_worker().name)
    except ValueError:
        return 0
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else 0


def device_of_worker(device: str) -> str:
    """The device a worker takes: of cuda, number i modulo how many there are; any other as it is told.

    Args:
        device: As given by the user: cpu, cuda, cuda:1.
    """
    if device != "cuda":
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{worker_number() % count}" if count > 1 else device


Found = tuple[Any, str, int]
"""What the work returned, why it failed, and the number of the system's error if the disk is full; else 0."""


def _attempt(item: Any, work: Callable[..., Any], arguments: Sequence[Any], folder: str = "") -> Found:
    """What became of an item; relative paths are those of the folder where the command was called."""
    try:
        if folder and Path.cwd() != Path(folder):
            os.chdir(folder)
        return work(item, *arguments), "", 0
    except Exception as error:
        text = (
            "" if isinstance(error, InputError) else str(error)
        )  # libraries wrap the system's words in their own
        full = next((number for number in _FULL if os.strerror(number) in text), 0)
        return None, "" if full else _line(error), full


def _outcome(place: int, item: Any, found: Found) -> Outcome:
    value, error, full = found
    if full:
        raise OSError(full, os.strerror(full))
    return Outcome(place, item, value, error)


def _line(error: Exception) -> str:
    """An error in one line; of one that no user is meant to meet, its kind and place, and all of it on standard error."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate" in text
    ):
        return "ran out of memory; use fewer --processes, a smaller --batch-size, or a machine with more."
    if isinstance(error, OSError):
        return text
    traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"this is a bug ({type(error).__name__}: {text}; {Path(last.filename).name}, line {last.lineno})"


# Crews -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Here:
    """This process."""

    def outcomes(
        self, work: Callable[..., Any], items: Sequence[Any], arguments: Sequence[Any] = ()
    ) -> Iterator[Outcome]:
        for place, item in enumerate(items):
            yield _outcome(place, item, _attempt(item, work, arguments))


@dataclass(frozen=True, eq=False)
class _Beside:
    """Processes of this machine."""

    processes: worker_processes.Processes

    def outcomes(
        self, work: Callable[..., Any], items: Sequence[Any], arguments: Sequence[Any] = ()
    ) -> Iterator[Outcome]:
        items, given = list(items), (work, tuple(arguments), str(Path.cwd()))
        for place, found, lost in self.processes.results(_attempt, items, given):
            yield _outcome(place, items[place], found or (None, lost, 0))


@dataclass(frozen=True, eq=False)
class _Team:
    """The workers of a scheduler."""

    client: "Client"

    def outcomes(
        self, work: Callable[..., Any], items: Sequence[Any], arguments: Sequence[Any] = ()
    ) -> Iterator[Outcome]:
        given: dict[str, Any] = {"work": work, "arguments": tuple(arguments), "folder": str(Path.cwd())}
        futures = self.client.map(_attempt, list(items), **given, pure=False)
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place, future in enumerate(futures):
            future.add_done_callback(lambda _, place=place: ended.put(place))
        try:
            for _ in futures:
                place = self._next(ended)
                yield _outcome(place, items[place], self._found(futures[place]))
        finally:
            with contextlib.suppress(Exception):
                self.client.cancel(futures, force=True)

    def _next(self, ended: "queue.SimpleQueue[int]") -> int:
        """The item that ended."""
        began = said = time.monotonic()
        while True:
            try:
                return ended.get(timeout=_TICK)
            except queue.Empty:
                now = time.monotonic()
            self._still_there()
            if said == began and now - began > _PATIENCE and not self.client.nthreads():
                said = now
                print("no worker has come to the scheduler yet; waiting for the first", file=sys.stderr)

    def _found(self, future: Any) -> Found:
        """The value of an item and why it failed, or why dask could not run it.

        A result whose worker was killed before it was fetched is made again, which needs a scheduler: hence the ticks.
        """
        from distributed import KilledWorker

        while True:
            try:
                found: Found = future.result(timeout=_TICK)
                return found
            except TimeoutError:
                self._still_there()
            except KilledWorker:
                return None, worker_processes.GIVEN_UP, 0
            except Exception as error:  # workers of another version, a result that cannot be sent
                text = " ".join(str(error).split())
                return None, f"expected workers with the same programs; got {type(error).__name__}: {text}", 0

    def _still_there(self) -> None:
        if self.client.status not in ("running", "connecting"):
            raise InputError(
                "expected a scheduler that stays; it went away. What is finished is kept: start again."
            )


@contextlib.contextmanager
def _reached(scheduler: str) -> "Iterator[Client]":
    from distributed import Client

    logging.getLogger("distributed").setLevel(
        logging.CRITICAL
    )  # a user hears how each item ended, which is enough
    file = scheduler.endswith(".json")
    try:
        client = Client(
            **({"scheduler_file": scheduler} if file else {"address": scheduler}), timeout=_PATIENCE
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected a scheduler that answers within {_PATIENCE:.0f} s; got none at {scheduler} "
            f"({' '.join(str(error).split())}). Start it with: dask scheduler"
        ) from None
    with client:
        yield client
