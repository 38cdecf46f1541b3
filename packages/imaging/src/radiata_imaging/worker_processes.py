"""Worker processes of this machine: what `scale_out.Workers(processes=2)` starts.

    with started(processes=2, threads=1) as crew:
        for place, value, error in crew.results(function, items, given):     # function(item, *given)
            ...

Each process has a pipe to this one and one item at a time; the next is sent when the answer has come. Nothing listens on a
network. A process that was killed is replaced at once and its item begun again: first of those that wait.

Why not a library's pool: that of the standard library ends with the first process that is killed, and `distributed`, whose
workers run an item beside an event loop in the same interpreter, kept 0.84 of two processors on items of an eighth of a
second (benchmarks/t1_throughput.py). It does the work where there is a scheduler.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from radiata_core.errors import InputError

__all__ = ["GIVEN_UP", "Processes", "cores", "number_here", "started"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PATIENCE = 2.0  # seconds for a process to end
_KILLED = 4  # processes in a row, before an item is given up
_DEATHS = 8  # for each process, before all is given up
GIVEN_UP = (
    "expected an item that lets its process live; every process that began it was killed, perhaps for want of memory. Use "
    "fewer --processes or a machine with more."
)
"""Why an item has no value that killed four processes in a row."""
_NUMBER: int | None = None


@contextlib.contextmanager
def started(processes: int, threads: int) -> "Iterator[Processes]":
    """So many processes, which end with the `with`.

    Args:
        processes: How many.
        threads: Of each.
    """
    crew = Processes(processes, threads)
    try:
        yield crew
    finally:
        crew.end()


def number_here() -> int | None:
    """The number of this process among its fellows, from 0; None: it is not one of them."""
    return _NUMBER


@dataclass(eq=False)
class _Hand:
    """One process: its pipe, the run whose work it knows, and the run and place of the item that it has."""

    process: Any
    pipe: Any
    knows: int = 0
    holds: tuple[int, int] | None = None


class Processes:
    """Processes that call functions; see the module.

    Args:
        count: How many.
        threads: Of each.
    """

    def __init__(self, count: int, threads: int) -> None:
        self._threads, self._deaths, self._run = threads, 0, 0
        self._hands = [self._new(number) for number in range(count)]

    def results(
        self, function: Callable[..., Any], items: Sequence[Any], given: Sequence[Any] = ()
    ) -> Iterator[tuple[int, Any, str]]:
        """Of each item, as they end: its place, `function(item, *given)`, and why there is no such value, or "".

        Args:
            function: Of a module; its own errors are taken for those of the connection, so let it catch them.
            items: What can be pickled.
            given: Likewise, the same for all items.

        Raises:
            InputError: processes are killed as often as they are started.
        """
        self._run += 1
        work = bytes(ForkingPickler.dumps((function, tuple(given))))
        waiting, killed, left = deque(range(len(items))), [0] * len(items), len(items)
        while left:
            for hand in self._hands:
                if waiting and hand.holds is None:
                    place = waiting.popleft()
                    self._give(hand, place, bytes(ForkingPickler.dumps(items[place])), work)
            for number in self._heard():
                hand, answer = self._hands[number], _answer(self._hands[number])
                held, hand.holds = hand.holds, None
                if answer is None:
                    self._replace(number)
                if held is None or held[0] != self._run:  # of results that nobody waits for any more
                    continue
                place = held[1]
                if answer is None:
                    killed[place] += 1
                    if killed[place] < _KILLED:
                        waiting.appendleft(place)
                        continue
                    answer = None, GIVEN_UP
                left -= 1
                yield place, *answer

    def _give(self, hand: _Hand, place: int, item: bytes, work: bytes) -> None:
        hand.holds = (self._run, place)
        with contextlib.suppress(OSError):  # it has just been killed, which is heard of next
            hand.pipe.send((item, work if hand.knows != self._run else None))
        hand.knows = self._run

    def _heard(self) -> list[int]:
        """Wait for answers or deaths: the numbers of those who are concerned."""
        of = {hand.pipe: number for number, hand in enumerate(self._hands)}
        of |= {hand.process.sentinel: number for number, hand in enumerate(self._hands)}
        return sorted({of[found] for found in connection.wait(list(of))})

    def _new(self, number: int) -> _Hand:
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(number, there, self._threads), daemon=True)
        with _environment(self._threads), there:
            process.start()
        return _Hand(process, here)

    def _replace(self, number: int) -> None:
        self._deaths += 1
        _end(self._hands[number], 0.0)
        if self._deaths > _DEATHS * len(self._hands):
            raise InputError(
                f"expected processes that stay; got {self._deaths} that were killed. Use fewer --processes, or a machine "
                "with more memory; what is finished is kept."
            )
        self._hands[number] = self._new(number)

    def end(self) -> None:
        """End them, whatever they do."""
        for hand in self._hands:
            hand.process.terminate()
        for hand in self._hands:
            _end(hand, _PATIENCE)


def _end(hand: _Hand, patience: float) -> None:
    hand.process.join(patience)
    if hand.process.is_alive():
        hand.process.kill()
        hand.process.join()
    hand.pipe.close()


def _answer(hand: _Hand) -> tuple[Any, str] | None:
    """What a process says: a value, or why there is none; None: it died."""
    try:
        return hand.pipe.recv() if hand.pipe.poll() else None
    except (EOFError, OSError):
        return None


# In the process ----------------------------------------------------------------------------------------------------------


def _serve(number: int, pipe: Any, threads: int) -> None:
    """The life of a process: it does what it is sent, and ends with the process that started it."""
    global _NUMBER
    _NUMBER = number
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first process ends the others
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if "torch" in sys.modules:  # by the program's own module: the environment came too late
        sys.modules["torch"].set_num_threads(threads)
    work: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
    with contextlib.suppress(EOFError, OSError):  # nobody is there any more
        while True:
            item, new = pipe.recv()
            try:
                if new is not None:
                    work = None
                    work = ForkingPickler.loads(new)
                if work is None:
                    raise ImportError("the work cannot be imported")
                function, given = work
                answer = bytes(ForkingPickler.dumps((function(ForkingPickler.loads(item), *given), "")))
            except Exception as error:
                text = " ".join(str(error).split())
                answer = bytes(ForkingPickler.dumps(
                    (None, "expected work that other processes can import, and results that can be sent; got "
                     f"{type(error).__name__}: {text}")
                ))  # fmt: skip
            pipe.send_bytes(answer)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """A process that starts now has so many threads; afterwards the environment is as it was."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
