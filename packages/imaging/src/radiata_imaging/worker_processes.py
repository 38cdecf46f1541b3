"""Worker processes of this machine and the scheduler they work for: what `scale_out.Workers(processes=2)` starts.

The scheduler (dask.distributed's) lives in this process; the workers are spawned, of one item at a time and a share of the
cores. dask's own nannies are not used: a worker that is killed while its nanny starts it stays dead, and they leave
environment variables in the parent. Here a process that died is replaced at the next look, which the caller takes about
every second.

Everything listens on the loopback interface. Other users of the machine reach that too, so where `cryptography` is
installed the connections are encrypted with certificates made for this run; without it, do not run several processes on a
machine whose users you do not trust.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["cores", "quiet", "started"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LOOPBACK = "127.0.0.1"
_PATIENCE = 2.0  # seconds for a process to end
_DEATHS = 8  # for each process, before all is given up


@contextlib.contextmanager
def started(processes: int, threads: int) -> "Iterator[tuple[Client, Callable[[], None]]]":
    """The client of so many processes, and what replaces those that died.

    Args:
        processes: How many.
        threads: Of each.

    Raises:
        InputError: they die as often as they are started.
    """
    import dask
    from distributed import Client, LocalCluster

    quiet()
    settings = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 3}
    with (
        dask.config.set(settings),  # an item waits for whoever is free; one that kills is tried four times
        tempfile.TemporaryDirectory(prefix="radiata-") as folder,
        LocalCluster(
            n_workers=0, host=_LOOPBACK, dashboard_address=None, security=(keys := _security()),
            silence_logs=logging.CRITICAL, scheduler_kwargs={"dashboard_address": f"{_LOOPBACK}:0"},
        ) as cluster,
        Client(cluster) as client,
        _Processes(processes, threads, cluster.scheduler_address, folder, keys) as crew,
    ):  # fmt: skip
        while len(client.nthreads()) < processes:  # else the first to come would be given all of a few items
            crew.replace()
            time.sleep(0.02)
        yield client, crew.replace


class _Processes:
    """Processes that work for a scheduler; one that was killed is replaced."""

    def __init__(self, count: int, threads: int, scheduler: str, folder: str, keys: Any) -> None:
        self.given = (scheduler, threads, folder, keys)
        self.running: list[Any] = [None] * count
        self.deaths = 0

    def replace(self) -> None:
        """Start those that are not there.

        Raises:
            InputError: they die as often as they are started.
        """
        for number, process in enumerate(self.running):
            if process is not None and process.is_alive():
                continue
            self.deaths += process is not None
            if self.deaths > _DEATHS * len(self.running):
                raise InputError(
                    f"expected processes that stay; got {self.deaths} that were killed. Use fewer --processes, or a machine "
                    "with more memory; what is finished is kept."
                )
            spawn = multiprocessing.get_context("spawn")
            self.running[number] = spawn.Process(target=_serve, args=(number, *self.given), daemon=True)
            with _environment(self.given[1]):
                self.running[number].start()

    def __enter__(self) -> "_Processes":
        self.replace()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _serve(number: int, scheduler: str, threads: int, folder: str, keys: Any) -> None:
    """The life of a process: it works for the scheduler, and ends with the process that started it."""
    import asyncio

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to all processes; the first one ends the others
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if "torch" in sys.modules:  # by the program's own module: the environment came too late
        sys.modules["torch"].set_num_threads(threads)
    from distributed import Worker

    async def work() -> None:
        async with Worker(
            scheduler, name=number, host=_LOOPBACK, nthreads=1, memory_limit=0, dashboard=False,
            dashboard_address=f"{_LOOPBACK}:0", local_directory=folder, security=keys,
        ) as worker:  # fmt: skip
            await worker.finished()

    quiet()
    asyncio.run(work())


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


def quiet() -> None:
    """What dask says of workers that come and go is no concern of a user, who hears how each item ended."""
    import distributed  # noqa: F401  # sets the level itself when it is first imported

    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def _security() -> Any:
    """Certificates of this run alone, where `cryptography` is installed: loopback is open to all users of a machine."""
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError:
        return None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
