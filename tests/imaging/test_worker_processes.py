"""Processes beside this one: their pipes, what kills them, and what they leave of the environment."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_imaging import worker_processes
from radiata_imaging.worker_processes import Processes, started

sys.path.append(str(Path(__file__).parent))  # processes that start from here look there too
import scaled_work

sys.path.pop()


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """Two of one thread."""
    sys.path.append(str(Path(__file__).parent))
    with started(2, 1) as processes:
        yield processes
    sys.path.pop()


def test_nobody_listens_and_nobody_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    psutil = pytest.importorskip("psutil")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with started(2, 1) as processes:
        pids = {os.getpid(), *(value[0] for _, value, _ in processes.results(scaled_work.where, range(2)))}
        listening = [c for pid in pids for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]
    assert len(pids) == 3 and not listening
    assert not any(psutil.pid_exists(pid) for pid in pids - {os.getpid()})


def test_values_larger_than_a_pipe_arrive_whole(processes: Processes) -> None:
    """A pipe holds 64 KiB: items and values of two million bytes go through in pieces, the other way round too."""
    items = [bytes([k]) * 2_000_000 for k in range(6)]
    found = {place: value for place, value, error in processes.results(bytes, items) if not error}
    assert found == dict(enumerate(items))


def test_what_cannot_be_sent_is_the_error_of_its_item(processes: Processes) -> None:
    found = {place: error for place, _, error in processes.results(scaled_work.unsendable, range(4))}
    assert [place for place in range(4) if not found[place]] == [0, 2, 3]
    assert found[1].startswith("expected work that other processes can import") and "\n" not in found[1]


def test_results_that_nobody_waited_for_are_forgotten(processes: Processes) -> None:
    """A caller that stops in the middle leaves items in the hands of the processes: the next call gets its own alone."""
    for place, _, _ in processes.results(scaled_work.slept, [0.0, 0.3, 0.3, 0.3]):
        if place == 0:
            break
    items = [0.2, 0.21, 0.22, 0.23, 0.24]  # the answer of before comes while these are worked on
    found = [(place, value) for place, value, _ in processes.results(scaled_work.slept, items)]
    assert sorted(found) == list(enumerate(items))


def test_one_that_was_killed_between_two_items_is_replaced(processes: Processes) -> None:
    before = {value[0] for _, value, _ in processes.results(scaled_work.where, range(8))}
    os.kill(min(before), signal.SIGKILL)
    time.sleep(0.1)
    after = {value[0] for _, value, _ in processes.results(scaled_work.where, range(60))}
    assert len(before) == len(after) == 2 and before & after == {max(before)}


def test_processes_that_die_as_often_as_they_start_are_given_up() -> None:
    with (
        started(1, 1) as processes,
        pytest.raises(InputError, match="expected processes that stay; got 3 that were killed"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(worker_processes, "_DEATHS", 2)
        list(processes.results(os._exit, [1]))


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with worker_processes._environment(2):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "2"
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ
