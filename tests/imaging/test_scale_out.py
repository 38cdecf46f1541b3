"""Many items over processes: every one once, in whatever order they end, through errors, kills and Ctrl-C."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_core.logs import Progress
from radiata_imaging import scale_out
from radiata_imaging.scale_out import Crew, Workers, completed, device_of_worker, warm, worker_number

sys.path.append(str(Path(__file__).parent))  # processes that start from here look there too
import scaled_work

sys.path.pop()


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    """Two processes of one thread."""
    sys.path.append(str(Path(__file__).parent))
    with Workers(2, threads=1).started() as crew:
        yield crew
    sys.path.pop()


@pytest.fixture
def bar() -> Progress:
    return Progress(None, "test")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_machine_alone_needs_no_dask(processes: int) -> None:
    """One process is this one; several are there as fast as an interpreter starts."""
    code = (
        "import sys, operator; from radiata_imaging.scale_out import Workers\n"
        f"with Workers({processes}).started() as crew:\n"
        "    print(sorted((o.place, o.value) for o in crew.outcomes(operator.mul, [3, 1, 2], (2,))))\n"
        "print({'dask', 'distributed', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[(0, 6), (1, 2), (2, 4)]", "set()"]


def test_two_processes_return_what_one_returns(crew: Crew) -> None:
    with Workers().started() as here:
        one = list(here.outcomes(scaled_work.square, range(20), (7,)))
    two = list(crew.outcomes(scaled_work.square, range(20), (7,)))
    assert sorted(two, key=lambda outcome: outcome.place) == one
    assert [outcome.value for outcome in one] == [item * item + 7 for item in range(20)]


def test_results_come_as_they_end(crew: Crew) -> None:
    ended = [outcome.item for outcome in crew.outcomes(scaled_work.slept, [2.0, *[0.0] * 9])]
    assert ended == [*[0.0] * 9, 2.0]


def test_both_processes_work_with_one_thread_and_a_number_each(crew: Crew) -> None:
    found = {outcome.value for outcome in crew.outcomes(scaled_work.where, range(12))}
    assert len({process for process, _, _ in found}) == 2 and os.getpid() not in {p for p, _, _ in found}
    assert {(number, threads) for _, number, threads in found} == {(0, "1"), (1, "1")}
    assert worker_number() == 0  # here


def test_warm_state_is_made_once_a_process(crew: Crew) -> None:
    values = [outcome.value for outcome in crew.outcomes(scaled_work.warmed, range(12))]
    assert {(kept, made) for _, kept, made in values} == {(f"model of {p}", 1) for p, _, _ in values}


def test_warm_state_is_that_of_its_key_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaled_work, "MADE", [])
    monkeypatch.setattr(scale_out, "_WARM", type(scale_out._WARM)())
    for name in ("a", "b", "a", "c", "d", "e", "a", "b"):
        assert warm(scaled_work.make, name).startswith(name)
    assert scaled_work.MADE == ["a", "b", "c", "d", "e", "b"]


@pytest.mark.parametrize("many", [False, True], ids=["here", "two processes"])
def test_an_item_fails_alone_in_one_line(many: bool, crew: Crew, bar: Progress, capsys) -> None:
    """The same lines from one process and from two, sorted by place; all others are done."""
    done = []
    workers = Workers(2 if many else 1)

    class Known(Workers):
        def at_most(self, items: int) -> Workers:
            return self

        def started(self):
            import contextlib

            return contextlib.nullcontext(crew) if many else Workers().started()

    with pytest.raises(InputError) as caught:
        completed(
            scaled_work.particular, range(8), workers=Known(workers.processes), bar=bar, name=lambda item: f"item {item}",
            each=lambda outcome: done.append(outcome.value),
        )  # fmt: skip
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("item")]
    assert lines[0] == "item 3: expected another number; got 3."
    assert lines[1].startswith("item 4: this is a bug (KeyError: 'four'; scaled_work.py, line ")
    assert lines[2].startswith("item 5: ran out of memory")
    assert len(lines) == 3 and {0, 1, 2, 6, 7} <= set(done) and bar.done == 8
    assert str(caught.value).startswith("expected 8 items without error; got 3 that failed")


@pytest.mark.parametrize("many", [False, True], ids=["here", "two processes"])
def test_a_full_disk_ends_all(many: bool, crew: Crew, tmp_path: Path) -> None:
    """In a library's own words as well: of forty items few are begun after the one that met it."""
    with Workers().started() as here, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        list((crew if many else here).outcomes(scaled_work.full, range(40), (tmp_path,)))
    assert caught.value.errno == errno.ENOSPC and len(list(tmp_path.iterdir())) < 10


def test_an_input_that_is_refused_in_the_words_of_a_full_disk_fails_alone() -> None:
    with Workers().started() as here:
        found = list(here.outcomes(scaled_work.refused, [3, 4]))
    assert [outcome.error[:31] for outcome in found] == [
        "expected 2 MiB at most; got 3: ",
        "expected 2 MiB at most; got 4: ",
    ]


def test_the_error_of_a_single_item_is_the_commands(bar: Progress) -> None:
    with pytest.raises(InputError, match=r"^expected another number; got 3\.$"):
        completed(scaled_work.particular, [3], workers=Workers(4), bar=bar)
    completed(scaled_work.particular, [], workers=Workers(4), bar=bar)


def test_a_killed_worker_loses_nothing(crew: Crew, tmp_path: Path) -> None:
    """SIGKILL in the middle of an item: it is begun twice, in two processes; every item comes once."""
    ended = [outcome.value for outcome in crew.outcomes(scaled_work.killed_once, range(9), (tmp_path,))]
    assert sorted(ended) == list(range(9))
    began = (tmp_path / "2.txt").read_text().split()
    assert len(began) == 2 and len(set(began)) == 2


def test_an_item_that_always_kills_is_given_up_and_named(crew: Crew) -> None:
    outcomes = {o.item: o for o in crew.outcomes(scaled_work.killed_always, range(4))}
    assert {item for item, outcome in outcomes.items() if not outcome.error} == {0, 2, 3}
    assert "every process that began it was killed" in outcomes[1].error and "\n" not in outcomes[1].error


def test_a_scheduler_that_is_there_is_used(tmp_path: Path) -> None:
    """By its address and by its file; it stays when the work is done."""
    import logging

    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None,
        silence_logs=logging.CRITICAL, local_directory=str(tmp_path),
    ) as cluster:  # fmt: skip
        file = tmp_path / "scheduler.json"
        file.write_text(f'{{"address": "{cluster.scheduler_address}"}}')
        for at in (cluster.scheduler_address, str(file)):
            with Workers(scheduler=at).started() as crew:
                values = [outcome.value for outcome in crew.outcomes(scaled_work.square, [2, 3])]
            assert sorted(values) == [4, 9]


def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_out, "_PATIENCE", 0.2)
    with (
        pytest.raises(InputError, match="expected a scheduler that answers"),
        Workers(scheduler="tcp://127.0.0.1:9").started(),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 0}, "expected at least 1 process"),
        ({"threads": -1}, "no negative number of threads"),
        ({"scheduler": "node7"}, "expected a scheduler's address such as tcp"),
        ({"scheduler": "absent.json"}, "expected a scheduler's address such as tcp"),
    ],
)
def test_wrong_workers_are_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Workers(**given)


def test_workers_take_the_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    taken = []
    for number in range(5):
        monkeypatch.setattr(scale_out, "worker_number", lambda number=number: number)
        taken.append(device_of_worker("cuda"))
    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert device_of_worker("cuda:1") == "cuda:1" and device_of_worker("cpu") == "cpu"


def _writing(folder: Path) -> "subprocess.Popen[str]":
    """A command whose two processes write a file each, every tenth of a second, when both have begun."""
    process = subprocess.Popen(
        [sys.executable, scaled_work.__file__, "write", "--folder", str(folder)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    end = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < end and process.poll() is None, "no two processes have begun"
        time.sleep(0.05)
    return process


def _still(folder: Path) -> bool:
    """Whether nobody writes any more."""
    before = {path.name: path.read_text() for path in folder.iterdir()}
    time.sleep(0.5)
    return {path.name: path.read_text() for path in folder.iterdir()} == before and len(before) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_ends_its_processes(number: int, tmp_path: Path) -> None:
    """Ctrl-C, which a terminal sends to all processes, and SIGTERM to the first: 130, one line, and nobody writes on."""
    process = _writing(tmp_path)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted" in said and "Traceback" not in said and len(said.splitlines()) == 1
    assert _still(tmp_path)


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """SIGKILL to the first, which can tell nobody."""
    process = _writing(tmp_path)
    process.kill()
    process.communicate(timeout=20)  # they hold its standard error
    assert _still(tmp_path)
