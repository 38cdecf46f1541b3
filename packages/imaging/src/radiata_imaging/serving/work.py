"""Commands in child processes, one at a time: what they say, how far they are, what they wrote.

A job is a preset with its numbers. Its commands run one after another, each the application's own command line with a list
of arguments that no shell reads, at the end of a pseudo-terminal: there `Progress` draws its bar, whose percentage is the
page's. Stopping is SIGTERM, as a scheduler would: the command's own rules for being interrupted hold (Ctrl-C's signal is
ignored by what was started in the background). What does not end within ten seconds is killed.
"""

import contextlib
import fnmatch
import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_imaging.serving.intake import Upload
from radiata_imaging.serving.presets import Offer, Preset
from radiata_imaging.serving.reading import packed

__all__ = ["Job", "Jobs"]

_KEPT, _WAITING, _LINES, _GRACE = 10, 8, 200, 10.0
_PERCENT = re.compile(r"^(.*?):?\s*(\d+)%\|")
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-_])")
_VOLUMES = (".nii.gz", ".nii")
_OFFERED = (*_VOLUMES, ".json", ".tsv", ".csv", ".h5", ".html", ".png")


@dataclass(eq=False)
class Job:
    """A preset at work.

    Attributes:
        key: Random, in requests.
        preset: What is done.
        commands: Arguments of the application's command line, one list a command.
        upload: What it is done to.
        folder: Of its own; the commands write to `out` in it.
        state: "waiting", "running", "done", "failed" or "stopped".
        share: How far the bar of the command is, 0 to 1; None: it draws none.
        lines: What the commands said, the newest last.
        items: What the viewer knows of the volumes that came out.
        views: Their packed voxels.
        files: What can be downloaded.
    """

    key: str
    preset: Preset
    commands: list[list[str]]
    upload: Upload | None
    folder: Path
    state: str = "waiting"
    share: float | None = None
    lines: list[str] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    views: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    stopping: bool = False

    @property
    def out(self) -> Path:
        """Where the commands write."""
        return self.folder / "out"

    def card(self) -> dict[str, Any]:
        """For the page."""
        until = self.ended or time.monotonic()
        files = [
            {"name": path.name, "bytes": path.stat().st_size, "url": f"/api/jobs/{self.key}/files/{number}"}
            for number, path in enumerate(self.files)
        ]
        return {
            "key": self.key, "title": self.preset.title, "state": self.state, "share": self.share,
            "on": self.upload.label if self.upload else "", "lines": self.lines[-12:], "files": files,
            "seconds": round(until - self.began, 1) if self.began else 0.0, "volumes": len(self.items),
        }  # fmt: skip

    def page(self) -> dict[str, Any]:
        """What `viewer.js` draws: the upload left of the slider, what came out right of it, doubts and labels on top."""
        items = [{**item, "url": f"/api/jobs/{self.key}/volumes/{n}"} for n, item in enumerate(self.items)]
        images = [item for item in items if item["kind"] == "image"]
        overlays = [item for item in items if item["kind"] != "image"]
        compare = None
        if self.upload is not None and self.upload.item:
            images = [self.upload.card()["volume"], *images]
            compare = 1 if self.preset.compare and len(images) > 1 else None
        return {
            "stamp": "Made by a research program – not for clinical use", "volumes": images, "overlays": overlays,
            "compare": compare, "overlay": 0 if overlays else None,
        }  # fmt: skip


class Jobs:
    """Runs jobs one at a time in a thread; the ten newest are kept.

    Args:
        folder: Of the server's own.
        offer: Whose commands.
    """

    def __init__(self, folder: Path, offer: Offer) -> None:
        self.folder, self.offer = folder, offer
        self.jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._running: Job | None = None
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def start(self, preset: Preset, given: dict[str, Any], upload: Upload | None) -> Job:
        """A job in the queue.

        Raises:
            InputError: values that the fields refuse, no file where one is read, or too many jobs that wait.
        """
        if (preset.reads is None) != (upload is None) or (upload and upload.reader != preset.reads):
            raise InputError(f"expected {preset.reads or 'no file'} for {preset.title}; choose one.")
        if sum(job.state == "waiting" for job in self.jobs.values()) >= _WAITING:
            raise InputError(f"expected at most {_WAITING} jobs that wait; got one more. Stop some.")
        folder = self.folder / secrets.token_hex(8)
        paths = {"out": str(folder / "out")} | ({"scan": str(upload.path)} if upload else {})
        job = Job(folder.name, preset, preset.words(given, paths), upload, folder)
        folder.mkdir(parents=True)
        with self._lock:
            self.jobs[job.key] = job
            self._forget()
        self._queue.put(job)
        return job

    def stop(self, job: Job) -> None:
        """The end of a job: at once if it waits, by a signal if it runs."""
        with self._lock:
            if job.state == "waiting":
                job.state = "stopped"
            elif job.state == "running" and not job.stopping:
                job.stopping = True
                self._signal(signal.SIGTERM)
                late = threading.Timer(_GRACE, self._kill, (job,))
                late.daemon = True
                late.start()

    def close(self) -> None:
        """Stop what runs, forget what waits, and wait for the thread."""
        for job in list(self.jobs.values()):
            self.stop(job)
        self._queue.put(None)
        self._thread.join(_GRACE + 5)

    def busy(self) -> set[str]:
        """Uploads that somebody still looks at."""
        return {job.upload.key for job in self.jobs.values() if job.upload}

    def _forget(self) -> None:
        over = [job for job in self.jobs.values() if job.state not in ("waiting", "running")]
        for job in over[: max(0, len(self.jobs) - _KEPT)]:
            del self.jobs[job.key]
            shutil.rmtree(job.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)  # it leads a group of its own

    def _kill(self, job: Job) -> None:
        with self._lock:
            if self._running is job:
                self._signal(signal.SIGKILL)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                if job.state != "waiting":
                    continue
                job.state, job.began, self._running = "running", time.monotonic(), job
            try:
                code = 0
                for words in job.commands:
                    code = code or self._run(job, words)
                if code == 0 and not job.stopping:
                    self._collect(job)
                end = "stopped" if job.stopping else "failed" if code else "done"
            except Exception as error:  # the page must not wait for ever for a thread that died
                end = "failed"
                job.lines.append(" ".join(str(error).split()) or type(error).__name__)
            with self._lock:
                job.state, job.ended, job.share, self._running = end, time.monotonic(), None, None

    def _run(self, job: Job, words: list[str]) -> int:
        """Exit code of one command; what it says goes to the job."""
        import pty

        if job.stopping:
            return 130
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1", "COLUMNS": "100", "LINES": "40"}
        try:
            with self._lock:
                self._process = subprocess.Popen(
                    self.offer.argv(words), cwd=job.folder, env=environment, stdin=subprocess.DEVNULL,
                    stdout=theirs, stderr=theirs, process_group=0, close_fds=True,
                )  # fmt: skip
        finally:
            os.close(theirs)
        if job.stopping:  # it was asked for between the two
            self._signal(signal.SIGTERM)
        rest = ""
        with (
            os.fdopen(ours, "rb", buffering=0) as terminal,
            contextlib.suppress(OSError),
        ):  # EIO: the other end was closed
            while block := terminal.read(4096):
                *whole, rest = re.split(r"[\r\n]+", rest + block.decode("utf-8", "replace"))
                for line in [*whole, rest]:
                    self._heard(job, line, whole=line is not rest)
        self._heard(job, rest, whole=True)
        return self._process.wait()

    def _heard(self, job: Job, line: str, *, whole: bool) -> None:
        text = _ESCAPES.sub("", line).strip()
        bar = _PERCENT.match(text)
        if bar:
            job.share = int(bar[2]) / 100
        elif text and whole:
            hidden = text.replace(str(job.folder), "").replace(
                str(job.upload.path.parent if job.upload else "\0"), ""
            )
            job.lines = [*job.lines, hidden.strip()][-_LINES:]

    def _collect(self, job: Job) -> None:
        """Files for download, and the volumes that the preset shows, packed."""
        found = (path for path in sorted(job.out.rglob("*")) if path.is_file() and not path.is_symlink())
        job.files = [path for path in found if path.name.endswith(_OFFERED) and not path.name.startswith(".")]
        job.files.sort(key=lambda path: (not path.name.endswith(_VOLUMES), path.suffix != ".html", path.name))
        for shown in job.preset.shows:
            several = [p for p in job.files if fnmatch.fnmatch(p.name, shown.pattern)]
            for number, path in enumerate(several, start=1):
                name = shown.name if len(several) == 1 else f"{shown.name} {number}"
                target = job.folder / f"view-{len(job.views)}"
                stem = next(path.name.removesuffix(end) for end in _VOLUMES if path.name.endswith(end))
                item = packed(path, target, name, shown.kind, shown.unit, path.with_name(f"{stem}.tsv"))
                item.pop("facts", None)
                job.items.append(item)
                job.views.append(target)
