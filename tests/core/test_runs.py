"""Folders of runs: whole files, one writer, a record of how it ended."""

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from radiata_core import files
from radiata_core.errors import InputError
from radiata_core.files import plain
from radiata_core.runs import (
    Log,
    Progress,
    Run,
    atomic_folder,
    atomic_path,
    read_json,
    read_log,
    sha256,
    sole_writer,
    tidy,
    write_json,
)


@dataclass(frozen=True)
class Options:
    out: Path = Path("here")
    seeds: tuple[int, ...] = (1, 2)


def test_an_interrupt_between_the_record_and_the_work_is_recorded(tmp_path, monkeypatch):
    """Ctrl-C when run.json has just been written: it must not say "running" for ever, nor hold the folder."""
    from radiata_core import runs

    calls = []

    def written_then_interrupted(path, value):
        write_json(path, value)
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "write_json", written_then_interrupted)
    with pytest.raises(KeyboardInterrupt), Run(tmp_path / "run", "radiata-x train", Options()):
        raise AssertionError("the work began")
    assert read_json(tmp_path / "run" / "run.json")["state"] == "interrupted"
    with Run(tmp_path / "run", "radiata-x train", Options(), overwrite=True):
        pass


def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path):
    target = tmp_path / "sub-01.v2.nii.gz"
    target.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_path(target) as part:
        assert part.name.endswith(".nii.gz")
        part.write_text("half")
        raise OSError("full")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with atomic_path(target) as part:
        part.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_whole_or_absent(tmp_path):
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path / "a") as part:
        (part / "x").write_text("half")
        raise OSError("full")
    assert not list(tmp_path.iterdir())


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": Options(), "b": float("nan"), "c": 0.1})
    assert read_json(tmp_path / "a.json") == {"a": {"out": "here", "seeds": [1, 2]}, "b": None, "c": 0.1}
    (tmp_path / "b.json").write_text('{"a": ')
    for name in ("b.json", "none.json"):
        with pytest.raises(InputError, match=name):
            read_json(tmp_path / name)
    assert plain({3, 1}) == [1, 3]


def test_sha256_of_abc(tmp_path):
    """FIPS 180-2, appendix B.1."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_run_records_its_end(tmp_path):
    with Run(tmp_path / "a", "radiata-t1 sample", Options(), seed=3) as run:
        assert read_json(run.path)["state"] == "running"
        run.log.write(step=1)
    record = read_json(tmp_path / "a" / "run.json")
    assert record["state"] == "done"
    assert record["options"]["seeds"] == [1, 2]
    assert record["duration_s"] >= 0
    assert record["peak_memory_mib"]["process"] > 1
    assert "torch" in record["versions"]
    for error, state in ((KeyboardInterrupt(), "interrupted"), (ValueError("no\nway"), "failed")):
        with pytest.raises(type(error)), Run(tmp_path / "a", "x", {}, overwrite=True):
            raise error
        assert read_json(tmp_path / "a" / "run.json")["state"] == state
    assert not (tmp_path / "a" / "log.jsonl").exists()
    with Run(tmp_path / "a", "x", {}, resume=True):
        pass
    assert read_json(tmp_path / "a" / "run.json")["sessions"][0]["state"] == "failed"
    assert not (tmp_path / "a" / ".lock").exists()


def test_a_folder_with_content_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="--overwrite"), Run(tmp_path, "x", {}):
        pass
    with Run(tmp_path, "x", {}, overwrite=True):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years"
    with pytest.raises(InputError, match="got the file"), Run(tmp_path / "thesis.txt", "x", {}):
        pass


def test_two_processes_cannot_share_a_folder(tmp_path):
    code = (
        "import sys; from radiata_core.runs import Run\n"
        "with Run(sys.argv[1], 'x', {}): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    other.stdout.readline()
    with pytest.raises(InputError, match=f"process {other.pid}"), Run(tmp_path, "x", {}, resume=True):
        pass
    other.kill()
    other.communicate()
    with Run(tmp_path, "x", {}, resume=True):
        pass


def test_a_cut_line_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [r["step"] for r in read_log(path)] == [1, 2]
    with Log(path) as log:
        log.write(step=3, loss=float("inf"))
        log.keep(lambda record: record["step"] != 2)
        log.write(step=4)
    assert read_log(path) == [{"step": 1}, {"step": 3, "loss": None}, {"step": 4}]


def test_progress_without_a_terminal_is_a_line_now_and_then():
    now = [0.0]
    stream = io.StringIO()
    with Progress(10, "draw", stream=stream, clock=lambda: now[0]) as bar:
        for _ in range(10):
            now[0] += 12
            bar.update(loss=0.5)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "draw: 3/10 step, loss 0.5, 0:36 gone, 1:24 to go"
    assert len(lines) == 3


def dead_process() -> int:
    """The number of a process that is no more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    """Told apart by the process in the name; a file or folder of somebody else's that looks alike stays."""
    mine = files._temporary(tmp_path / "head.nii.gz", ".nii.gz")
    left = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    folder = tmp_path / left.name.removesuffix(".nii.gz").replace(".head.", ".step-1.")
    elsewhere = tmp_path / left.name.replace(files._HOST, "0000" if files._HOST != "0000" else "0001")
    other = tmp_path / ".head.tmp.nii.gz"
    for path in (mine, left, elsewhere, other):
        path.write_bytes(b"half")
    folder.mkdir()
    (folder / "state.json").write_text("{")
    write_json(tmp_path / "a.json", {})
    assert sorted(tmp_path.iterdir()) == sorted([mine, elsewhere, other, tmp_path / "a.json"])


def test_a_card_is_there_before_its_file_and_no_file_beside_anothers_card(tmp_path, monkeypatch):
    """Whatever rename is the last one before a kill."""
    path, card = tmp_path / "store.h5", tmp_path / "store.json"

    def write(content: str, renames: int) -> None:
        left = [renames]
        replace = Path.replace

        def counted(self, target):
            if not left[0]:
                raise SystemError("killed")
            left[0] -= 1
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", counted)
            with atomic_path(path, (card, lambda part: {"is": part.read_text()})) as part:
                part.write_text(content)

    for renames in (0, 1):
        with pytest.raises(SystemError):
            write("one", renames)
        assert not path.exists()
    write("one", 2)
    with pytest.raises(SystemError):
        write("two", 1)
    assert not path.exists() and read_json(card) == {"is": "two"}
    write("three", 2)
    assert path.read_text() == "three" and read_json(card) == {"is": "three"}
    assert sorted(tmp_path.iterdir()) == [path, card]
    with (
        pytest.raises(OSError),
        atomic_path(path, (card, lambda part: part.with_name("absent").read_text())) as part,
    ):
        part.write_text("four")
    assert path.read_text() == "three" and read_json(card) == {"is": "three"}


def stopped_run(folder: Path, state: str, **changes: object) -> None:
    """A folder as a process that was killed leaves it."""
    with Run(folder, "radiata-x evaluate", Options(), data={"store.h5": "aa"}) as run:
        run.log.write(step=1)
    write_json(folder / "run.json", read_json(folder / "run.json") | {"state": state} | changes)


def test_a_stopped_run_is_begun_again_in_its_folder(tmp_path):
    for state in ("running", "interrupted", "failed"):
        stopped_run(tmp_path / state, state)
        with Run(tmp_path / state, "radiata-x evaluate", Options(), data={"store.h5": "aa"}):
            pass
        record = read_json(tmp_path / state / "run.json")
        assert record["state"] == "done" and [one["state"] for one in record["sessions"]] == [state]
        assert read_log(tmp_path / state / "log.jsonl") == []


def test_half_a_file_of_safetensors_goes_with_the_next_run(tmp_path):
    stopped_run(tmp_path / "run", "running")
    for folder in ("run", "mine"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".tmpJ8xx6o").write_bytes(b"")
    (tmp_path / "run" / ".tmp-notes").write_text("not a name of theirs")
    for folder in ("stage", "member", "other"):
        (tmp_path / "run" / folder).mkdir()
        (tmp_path / "run" / folder / ".tmpJ8xx6o").write_bytes(b"")
    for folder in ("stage", "member"):
        (tmp_path / "run" / folder / "checkpoints").mkdir()
    (tmp_path / "run" / "member" / "run.json").write_text("{}")
    with Run(tmp_path / "run", "radiata-x evaluate", Options(), data={"store.h5": "aa"}):
        pass
    kept = sorted(path.parent.name for path in (tmp_path / "run").glob("*/.tmpJ8xx6o"))
    assert kept == ["member", "other"], (
        "a run of its own clears itself, a folder that is no training's is not ours"
    )
    assert sorted(path.name for path in (tmp_path / "run").glob(".tmp*")) == [".tmp-notes"]
    with pytest.raises(InputError, match="empty or new folder"):
        Run(tmp_path / "mine", "radiata-x evaluate", Options()).__enter__()
    assert (tmp_path / "mine" / ".tmpJ8xx6o").exists()


def test_a_run_that_was_stopped_after_it_noted_its_data_is_begun_again(tmp_path):
    for number, noted in enumerate(({"found-on-the-way.nii.gz": "bb"}, {}, ["of", "another", "kind"])):
        stopped_run(tmp_path / f"{number}", "running", data=noted)
        with Run(tmp_path / f"{number}", "radiata-x evaluate", Options()):
            pass
    for number, noted in enumerate(
        ({"store.h5": "aa", "removed.h5": "bb"}, {"store.h5": "cc"}, ["store.h5"])
    ):
        stopped_run(tmp_path / f"other-{number}", "running", data=noted)
        with pytest.raises(InputError, match="pass --overwrite"):
            Run(
                tmp_path / f"other-{number}", "radiata-x evaluate", Options(), data={"store.h5": "aa"}
            ).__enter__()


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        ("done", {}),
        ("running", {"command": "radiata-x train"}),
        ("running", {"options": {"out": "here", "seeds": [3]}}),
        ("running", {"data": {"store.h5": "bb"}}),
    ],
)
def test_another_run_or_one_that_is_done_is_not_begun_again(tmp_path, state, changes):
    stopped_run(tmp_path / "run", state, **changes)
    with pytest.raises(InputError, match="pass --overwrite"):
        Run(tmp_path / "run", "radiata-x evaluate", Options(), data={"store.h5": "aa"}).__enter__()
    assert read_log(tmp_path / "run" / "log.jsonl") == [{"step": 1}]


def test_data_that_changed_since_a_run_was_stopped_are_named(tmp_path):
    stopped_run(tmp_path / "run", "running", data={"store.h5": "bb"})
    with pytest.raises(InputError, match=r"entries, made from another store\.h5\. Choose another --out"):
        Run(tmp_path / "run", "radiata-x evaluate", Options(), data={"store.h5": "aa"}).__enter__()


def test_checkpoints_are_gone_on_from_only_where_asked_and_on_the_same_data(tmp_path):
    stopped_run(tmp_path / "run", "running")
    (tmp_path / "run" / "checkpoints").mkdir()
    given = (tmp_path / "run", "radiata-x evaluate", Options())
    with pytest.raises(InputError, match="Pass --resume to go on with it"):
        Run(*given, data={"store.h5": "aa"}).__enter__()
    with pytest.raises(
        InputError, match="Pass --resume"
    ):  # one that can be resumed is, before its first checkpoint too
        stopped_run(tmp_path / "sweep", "running", options={"seeds": [1], "resume": True})
        Run(
            tmp_path / "sweep",
            "radiata-x evaluate",
            {"seeds": (1,), "resume": False},
            data={"store.h5": "aa"},
        ).__enter__()
    with pytest.raises(InputError, match=r"store.h5 of aa…; got bb…, a changed file"):
        Run(*given, data={"store.h5": "bb"}, resume=True).__enter__()
    with Run(*given, data={"store.h5": "aa"}, resume=True):
        pass


def test_one_process_at_a_time_makes_a_result(tmp_path):
    """And the lock goes with its holder, whether it lets go or not."""
    code = f"""from radiata_core.runs import sole_writer
with sole_writer({str(tmp_path / "store.h5")!r}):
    print(1, flush=True)
    input()"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdin is not None
    other.stdout.readline()
    with (
        pytest.raises(InputError, match=f"store.h5, in use by process {other.pid}"),
        sole_writer(tmp_path / "store.h5"),
    ):
        raise AssertionError("two at once")
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    with sole_writer(tmp_path / "store.h5"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_at_the_end_of_a_run_left_is_tidied(tmp_path):
    """A lock that nobody holds goes, with what is half written; the run stays, and one that is worked in is refused."""
    with Run(tmp_path, "test", Options()):
        pass
    (tmp_path / ".lock").write_text("1\n")
    left = tmp_path / f".model.json.{files._HOST}-{2**22 + 1}-0123abcd.tmp"
    left.write_text("half")
    files._LOOKED.clear()  # as a process that comes later
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    tidy(tmp_path)
    with (
        Run(tmp_path, "test", Options(), overwrite=True),
        pytest.raises(InputError, match="in use by process"),
    ):
        tidy(tmp_path)
