"""Standard error as one JSON object a line, for whoever collects the logs of a cluster: the option `--log-json`.

    {"time": "2026-05-04T03:02:01.123+00:00", "level": "progress", "app": "radiata-t1", "command": "train",
     "message": "train: 40/100 step, loss 0.12, 0:31 gone", "done": 40, "total": 100, "unit": "step", "loss": 0.12}

    level     progress, info, warning, error
    progress  has done, total (null where unknown), unit, seconds, and the figures that stand behind the count
    the last  has exit_code and seconds: how the command ended, whatever became of it

Everything that Python writes to standard error becomes such an object: the house's own lines, `warnings.warn`, `logging`,
bars of libraries, tracebacks (one object, with the field `traceback`). What a C library writes past Python, and what worker
processes say, stays as it is. Results go to standard output as ever.
"""

import io
import json
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from radiata_core.files import plain

__all__ = ["JsonLines", "json_stderr"]

_LEVELS = ("progress", "info", "warning", "error")
_SAID = re.compile(r"(?P<level>warning|error): ", re.IGNORECASE)
_HOUSE_ERROR = re.compile(r"(^|: )expected .+; got .+|\bfailed: ")
"""How every error of the house reads, also where a list of them is printed."""


def _now() -> datetime:
    return datetime.now(UTC)


class JsonLines(io.TextIOBase):
    """A text stream that writes each line as a JSON object to another.

    Args:
        stream: Text stream where the objects go.
        app: Name of the command, such as radiata-t1.
        command: Its verb.
        clock: The time of an object.
    """

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, stream: Any, app: str, command: str, *, clock: Callable[[], datetime] = _now) -> None:
        super().__init__()
        self.stream, self.app, self.command, self.clock = stream, app, command, clock
        self._lock = threading.Lock()
        self._parts = threading.local()  # a line is written in pieces, and threads write at the same time

    def record(self, level: str, message: str, **fields: Any) -> None:
        """Write one object.

        Args:
            level: progress, info, warning or error.
            message: One line for people.
            fields: What else programs may want; numbers that are not finite become null.
        """
        if level not in _LEVELS:
            raise ValueError(f"expected a level of {', '.join(_LEVELS)}; got {level}")
        head = {
            "time": self.clock().isoformat(timespec="milliseconds"),
            "level": level,
            "app": self.app,
            "command": self.command,
            "message": message,
        }
        text = json.dumps(plain(fields) | head, allow_nan=False)
        with self._lock:  # ASCII: whatever a file is called, and whatever the terminal's locale is
            self.stream.write(text + "\n")
            self.stream.flush()

    def write(self, text: str) -> int:
        """Take a piece of a line; a line that is complete is written."""
        *lines, rest = re.split(r"[\r\n]", getattr(self._parts, "line", "") + text)
        self._parts.line = rest
        for line in lines:
            self._line(line)
        return len(text)

    def _line(self, line: str) -> None:
        message = line.strip()
        if not message:
            return
        message = message.removeprefix(f"{self.app} {self.command}".rstrip() + ": ")
        said = _SAID.match(message)
        if said:
            self.record(said["level"].lower(), message[said.end() :])
        elif message.startswith("interrupted"):
            self.record("warning", message)
        else:
            self.record("error" if _HOUSE_ERROR.search(message) else "info", message)

    def flush(self) -> None:
        """Pass on what was written."""
        self.stream.flush()

    def finish(self) -> None:
        """Write what was said without the end of its line."""
        self.write("\n")

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """No: nobody looks at bars here."""
        return False

    def fileno(self) -> int:
        """That of the stream behind."""
        return self.stream.fileno()


@contextmanager
def json_stderr(app: str, command: str) -> Iterator[JsonLines]:
    """Within the block standard error is JSON lines; warnings carry their category.

    Args:
        app: Name of the command.
        command: Its verb.
    """
    before, show = sys.stderr, warnings.showwarning
    lines = JsonLines(before, app, command)

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        lines.record("warning", text, category=category.__name__, module=_module(filename))

    sys.stderr, warnings.showwarning = lines, shown
    try:
        yield lines
    finally:
        lines.finish()
        sys.stderr, warnings.showwarning = before, show


def _module(filename: str) -> str:
    """`radiata_core/nets/medforj.py` of a path: a log need not say whose home folder it was."""
    parts = filename.replace("\\", "/").split("/")
    return "/".join(parts[parts.index("site-packages") + 1 :] if "site-packages" in parts else parts[-2:])
