"""What a run says while it runs: one JSON object a line for programs, one moving line for people.

`Log` appends to `log.jsonl` and flushes each line; a line cut short by a kill is dropped on the next opening.
`Progress` is a tqdm bar on standard error; where that is no terminal, a plain line every half minute, which is an object
with its counts where standard error is JSON lines (`radiata_core.json_lines`).
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TextIO, TypeVar

from radiata_core.files import atomic_path, plain
from radiata_core.json_lines import JsonLines

__all__ = ["Log", "Progress", "progress", "read_log"]

Item = TypeVar("Item")


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; a last line without its end is left out, a missing file is empty."""
    path = Path(path)
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    records = []
    for line in whole.split(b"\n"):
        try:
            record = json.loads(line)
        except (
            ValueError,
            RecursionError,
        ):  # two appends that met a full disk; the rest of the log is still worth reading
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


class Log:
    """Appends records to a JSON-lines file, one flushed line each."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_cut_line()
        self._stream: TextIO | None = self.path.open("a", encoding="utf-8")

    def _drop_cut_line(self) -> None:
        if self.path.exists():
            content = self.path.read_bytes()
            if content and not content.endswith(b"\n"):
                with self.path.open("r+b") as stream:
                    stream.truncate(content.rfind(b"\n") + 1)

    def write(self, **record: Any) -> None:
        """Append one record; numbers that are not finite are written as null."""
        if self._stream is None:
            raise ValueError(f"the log {self.path} is closed")
        self._stream.write(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the records that are not wanted: a resumed run takes back what came after its checkpoint."""
        self.close()
        lines = [
            json.dumps(record, ensure_ascii=False) + "\n" for record in read_log(self.path) if wanted(record)
        ]
        with atomic_path(self.path) as part:
            part.write_text("".join(lines), encoding="utf-8")
        self._stream = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Progress:
    """Counts towards `total` on standard error.

    Args:
        total: Steps to come; None when unknown.
        description: What is being done.
        unit: Name of one step.
        start: Steps already done (a resumed run).
        every: Seconds between two plain lines where the stream is no terminal.
        stream: Where to write; standard error unless given.
    """

    def __init__(
        self,
        total: int | None,
        description: str,
        *,
        unit: str = "step",
        start: int = 0,
        every: float = 30.0,
        stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.total, self.description, self.unit, self.every, self.clock = (
            total,
            description,
            unit,
            every,
            clock,
        )
        self.start, self.done = start, start
        self.began = self.said = clock()
        self.told = start  # the count that was said last
        self.figures: dict[str, float | str] = {}
        self._bar = None
        if self.stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=description, unit=unit, initial=start, file=self.stream, dynamic_ncols=True
            )

    def update(self, count: int = 1, **figures: float | str) -> None:
        """`count` more steps are done; `figures` (a loss, an error) stand behind the count."""
        self.done += count
        self.figures |= figures
        if self._bar is not None:
            if figures:
                self._bar.set_postfix(self.figures, refresh=False)
            self._bar.update(count)
        elif self.clock() - self.said >= self.every:
            self._say()

    def _say(self) -> None:
        self.said, self.told = self.clock(), self.done
        if isinstance(self.stream, JsonLines):
            counted = {"done": self.done, "total": self.total, "unit": self.unit}
            seconds = round(self.said - self.began, 3)
            self.stream.record("progress", self.line(), **self.figures | counted, seconds=seconds)
        else:
            print(self.line(), file=self.stream, flush=True)

    def line(self) -> str:
        """The state in words: count, figures, time gone and time to go."""
        gone = self.clock() - self.began
        text = f"{self.description}: {self.done}" + (f"/{self.total}" if self.total else "") + f" {self.unit}"
        for name, value in self.figures.items():
            text += f", {name} {value:.4g}" if isinstance(value, float) else f", {name} {value}"
        text += f", {_clock_time(gone)} gone"
        if self.total and self.done > self.start:
            text += f", {_clock_time(gone * (self.total - self.done) / (self.done - self.start))} to go"
        return text

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif isinstance(self.stream, JsonLines) and self.told != self.done:  # a program wants the last count
            self._say()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def progress(
    items: Iterable[Item], description: str, *, unit: str = "item", total: int | None = None
) -> Iterator[Item]:
    """The items, counted on standard error as they are used up."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, description, unit=unit) as bar:
        for item in items:
            yield item
            bar.update()


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
