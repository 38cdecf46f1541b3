"""Where the processes of a crew listen, and what they leave of the environment."""

import os

import pytest

from radiata_imaging import worker_processes


def test_nobody_outside_of_this_machine_can_reach_them() -> None:
    psutil = pytest.importorskip("psutil")
    with worker_processes.started(1, 1) as (client, replace):
        replace()
        pids = {os.getpid(), *client.run(os.getpid).values()}
        listening = [c for pid in pids for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]
    assert len(pids) == 2 and len(listening) >= 3
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    assert all(not psutil.pid_exists(pid) for pid in pids - {os.getpid()})


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with worker_processes._environment(2):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "2"
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ
