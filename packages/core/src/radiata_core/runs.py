"""A run is one folder: what was asked, by which code, on which data, how it ended.

    run.json       command, resolved options, seed, versions, device, data checksums, start, duration, peak memory, state
    log.jsonl      one JSON object a line, while it runs
    checkpoints/   of training
    results        whatever the command makes

`run.json` is written when the run starts (state "running") and again when it ends: "done", "interrupted" or "failed".
A run that was killed is the one that still says "running" though nobody holds its lock. The same command with the same
options and data begins it again in its folder; one that has an option `resume` goes on with it where that is given.
"""

import contextlib
import datetime
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from radiata_core.errors import InputError
from radiata_core.files import (
    atomic_folder,
    atomic_path,
    is_unfinished,
    plain,
    read_json,
    remove_left,
    sha256,
    write_json,
)
from radiata_core.logs import Log, Progress, progress, read_log
from radiata_core.provenance import peak_memory_mib, provenance

__all__ = [
    "Interrupted",
    "Log",
    "Progress",
    "Run",
    "atomic_folder",
    "atomic_path",
    "progress",
    "provenance",
    "read_json",
    "read_log",
    "sha256",
    "sole_writer",
    "tidy",
    "write_json",
]

_LOCK = ".lock"
_HALF = re.compile(r"\.tmp[0-9A-Za-z]{6}")
"""What safetensors calls a file until it is whole; of a process that was killed it stays."""
_OWNED = ("run.json", "log.jsonl", "checkpoints", "tensorboard")
_NO_MATTER = ("out", "overwrite", "resume", "dry_run")  # options that do not make another run


class Interrupted(KeyboardInterrupt):
    """Stopped by Ctrl-C or SIGTERM after the state was saved. The message says where; commands exit with 130."""


class Run:
    """Context manager around the work of one command in one folder.

    Args:
        folder: Made if absent.
        command: What was called, e.g. "radiata-t1 train".
        options: Resolved options: a dataclass or a mapping.
        seed: The seed or seeds of the run, if any.
        data: Name → checksum (or any description) of the data it reads.
        overwrite: Accept a folder that has content; the former run's own files are removed, others replaced when written.
        resume: Accept a folder that has content and go on in it; earlier sessions are kept in run.json.

    Raises:
        InputError: the folder has content that is not an unfinished run of the same command, options and data (and neither
            flag is given), is a file, or another process works in it.
    """

    def __init__(
        self,
        folder: str | Path,
        command: str,
        options: Any,
        *,
        seed: Any = None,
        data: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.overwrite, self.resume = overwrite, resume
        self.record: dict[str, Any] = {
            "format": "radiata-run/1",
            "command": command,
            "options": plain(options),
            "seed": plain(seed),
            "data": plain(dict(data or {})),
        }
        self._log: Log | None = None
        self._lock: IO[str] | None = None

    @property
    def path(self) -> Path:
        """Where run.json stands."""
        return self.folder / "run.json"

    @property
    def log(self) -> Log:
        """The run's log.jsonl, opened when first used."""
        if self._log is None:
            self._log = Log(self.folder / "log.jsonl")
        return self._log

    def note(self, **figures: Any) -> None:
        """Add figures to run.json now: data checksums found on the way, results in one number."""
        self.record |= plain(figures)
        write_json(self.path, self.record)

    def __enter__(self) -> "Run":
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(
                f"expected a folder to write to; got the file {self.folder}. Choose another --out."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder / _LOCK, self.folder)
        try:
            self._prepare()
            self._began = time.monotonic()
            self.record |= {
                "start": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "state": "running",
                **provenance(),
            }
            write_json(self.path, self.record)
        except BaseException as error:
            if "state" in self.record and self.path.exists():  # Ctrl-C between the record and the work
                self.__exit__(type(error), error, None)
            else:
                self._unlock()
            raise
        return self

    def _prepare(self) -> None:
        remove_left(self.folder)
        if self.path.is_file():  # a run's folder, locked: nobody writes here, nor in those of its trainings
            own = [
                e.parent for e in self.folder.glob("*/checkpoints") if not (e.parent / "run.json").exists()
            ]
            for entry in (entry for place in (self.folder, *own) for entry in place.glob(".tmp*")):
                if _HALF.fullmatch(entry.name) and entry.is_file():
                    entry.unlink()
        content = [e for e in self.folder.iterdir() if e.name != _LOCK and not is_unfinished(e)]
        if not content:
            return
        if self.resume:
            if self.path.exists():
                self._continue(read_json(self.path))
        elif self.overwrite:
            if self.path.exists():  # only what a run wrote is removed: --out may name any folder
                self._clear()
        else:
            self._check_unfinished(len(content))

    def _continue(self, earlier: dict[str, Any]) -> None:
        """Keep the earlier sessions; refuse to go on from what was made of other data."""
        asked = isinstance(self.record["options"], dict) and self.record["options"].get("resume")
        if asked or (self.folder / "checkpoints").exists():
            self._check_data(earlier.get("data") or {})
        sessions = earlier.pop("sessions", [])
        kept = ("command", "start", "state", "error", "duration_s", "peak_memory_mib")
        self.record["sessions"] = [*sessions, {key: earlier[key] for key in kept if key in earlier}]

    def _check_data(self, earlier: Mapping[str, Any]) -> None:
        for name, checksum in self.record["data"].items():
            if earlier.get(name, checksum) != checksum:
                raise InputError(
                    f"expected the data the run began with, {name} of {str(earlier[name])[:9]}…; got {str(checksum)[:9]}…, "
                    "a changed file. Restore it, or begin again with --overwrite."
                )

    def _check_unfinished(self, entries: int) -> None:
        """Nothing, if the folder holds this very run, which was stopped and cannot be resumed: it is begun again."""
        earlier = read_json(self.path) if self.path.is_file() else {}
        same = isinstance(earlier, dict) and earlier.get("state") in ("running", "interrupted", "failed")
        same = same and all(
            _lasting(earlier.get(name)) == _lasting(self.record[name]) for name in ("command", "options")
        )
        # Data that this command names at its start only: others are noted on the way.
        changed = self._changed(earlier.get("data")) if same and self.record["data"] else ""
        same = same and not changed
        resumable = "resume" in (self.record["options"] or ()) or (self.folder / "checkpoints").exists()
        if same and not resumable:
            self._continue(earlier)
            (self.folder / "log.jsonl").unlink(missing_ok=True)
            return
        advice = "Choose another --out, or pass --overwrite to replace it."
        if same:
            advice = "Pass --resume to go on with it, or --overwrite to begin again."
        raise InputError(
            f"expected an empty or new folder; got {self.folder} with {entries} entries{changed}. {advice}"
        )

    def _changed(self, earlier: Any) -> str:
        """In words, which data are others than those that the run was begun on; empty: none."""
        now, before = self.record["data"], earlier if isinstance(earlier, dict) else {}
        names = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
        return f", made from another {names[0]}" if names else ""

    def _clear(self) -> None:
        for name in _OWNED:
            entry = self.folder / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._log is not None:
            self._log.close()
        state = "done"
        if error is not None:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self.record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if isinstance(error, SystemExit) and error.code in (0, None):
            state = "done"
        self.record |= provenance()  # once more: the device is known only after torch was used
        self.record |= {
            "state": state,
            "duration_s": round(time.monotonic() - self._began, 3),
            "peak_memory_mib": peak_memory_mib(),
        }
        try:
            # A disk too full for the record must not hide the error that brought us here.
            with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext():
                write_json(self.path, self.record)
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            (self.folder / _LOCK).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def _lasting(options: Any) -> Any:
    """Options without those that do not make another run."""
    if not isinstance(options, dict):
        return options
    return {name: value for name, value in options.items() if name not in _NO_MATTER}


def tidy(folder: str | Path) -> None:
    """Remove what a process that was killed at the end of a run left in its folder: the lock, and what was half written.

    Raises:
        InputError: another process works in it.
    """
    folder = Path(folder)
    remove_left(folder)
    lock = folder / _LOCK
    if lock.exists():
        stream = _locked(lock, folder)
        lock.unlink(missing_ok=True)
        stream.close()


@contextlib.contextmanager
def sole_writer(path: str | Path) -> Iterator[None]:
    """While it lasts, no other process that asks makes the file or folder `path`: for results that are no run's folder.

    Raises:
        InputError: another process makes it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}{_LOCK}")
    stream = _locked(lock, path)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        stream.close()


def _locked(path: Path, what: Path) -> IO[str]:
    """An open file that holds a lock until closed. The system drops it with the process, even by SIGKILL."""
    kind = "folder" if path.name == _LOCK else "result"
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            import fcntl
        except ImportError:  # Windows: no lock rather than no run
            return stream
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            stream.close()
            raise InputError(
                f"expected a {kind} that no other process writes to; got {what}, in use by process {owner}. "
                "Wait for it or choose another --out."
            ) from None
        except OSError:  # a file system without locks
            return stream
        if path.exists() and path.stat().st_ino == os.fstat(stream.fileno()).st_ino:
            break
        stream.close()  # its last owner removed the file between our opening and locking it
    stream.truncate(0)
    stream.write(f"{os.getpid()}\n")
    stream.flush()
    return stream
